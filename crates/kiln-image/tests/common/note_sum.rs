//! The checksum of a note, as its format says it, and not as the crate computes it.

/// Returns the checksum of a note's body: four lanes take eight bytes in turns.
pub(crate) fn note_sum(bytes: &[u8]) -> u64 {
    let step = |lane: u64, word: u64| {
        let product = (lane ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        product ^ product >> 32
    };
    let mut lanes = [1, 2, 3, 4];
    for (number, chunk) in bytes.chunks(8).enumerate() {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        lanes[number % 4] = step(lanes[number % 4], u64::from_le_bytes(word));
    }
    lanes.into_iter().fold(bytes.len() as u64, step)
}
