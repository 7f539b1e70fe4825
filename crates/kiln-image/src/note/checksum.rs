//! Checksums of an image.
//!
//! Whatever is loaded has checksums that are compared on demand: BLAKE3, cut to 128 bits. The note
//! has one of its own, which is compared whenever an image is opened, so it must be quick, and it
//! must not need another crate. It finds damage, not malice: nobody who alters a file is kept from
//! altering its checksums.

#[cfg(feature = "verify")]
use std::ops::Range;

/// Length of a checksum in bytes.
pub(super) const SUM_LEN: usize = 16;

/// A checksum.
pub(crate) type Sum = [u8; SUM_LEN];

/// Length of the note's own checksum in bytes.
pub(super) const QUICK_LEN: usize = 8;

/// Returns the checksum of a note's body.
///
/// Four lanes take 8 bytes in turns. Each step can be undone: it is a multiplication by an odd
/// number and a shift onto itself. So two bodies that differ in one word never have the same sum,
/// and others have it by a chance of 2^-64.
pub(super) fn quick_sum(bytes: &[u8]) -> u64 {
    /// An odd number without structure: 2^64 divided by the golden ratio.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let step = |lane: u64, word: u64| {
        let product = (lane ^ word).wrapping_mul(FACTOR);
        product ^ product >> 32
    };
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    };
    let mut lanes = [1, 2, 3, 4];
    let (chunks, rest) = bytes.as_chunks::<32>();
    for chunk in chunks {
        for (lane, bytes) in lanes.iter_mut().zip(chunk.as_chunks::<8>().0) {
            *lane = step(*lane, u64::from_le_bytes(*bytes));
        }
    }
    for (lane, bytes) in lanes.iter_mut().zip(rest.chunks(8)) {
        *lane = step(*lane, word(bytes));
    }
    lanes.into_iter().fold(bytes.len() as u64, step)
}

/// Returns the checksum of `bytes`.
#[cfg(feature = "verify")]
pub(crate) fn checksum(bytes: &[u8]) -> Sum {
    truncate(blake3::hash(bytes))
}

/// Returns the checksum of `bytes`, computed by all threads of rayon's pool if `bytes` is long.
#[cfg(feature = "write")]
pub(crate) fn checksum_parallel(bytes: &[u8]) -> Sum {
    // Hashing fewer bytes than this takes less time than waking a thread.
    const SMALL: usize = 128 << 10;
    if bytes.len() < SMALL {
        return checksum(bytes);
    }
    truncate(blake3::Hasher::new().update_rayon(bytes).finalize())
}

/// Cuts a whole hash to a checksum.
#[cfg(feature = "verify")]
pub(crate) fn truncate(hash: blake3::Hash) -> Sum {
    let mut sum = [0; SUM_LEN];
    sum.copy_from_slice(&hash.as_bytes()[..SUM_LEN]);
    sum
}

/// Returns the id of an image with this note's body up to the exports, in which the id has the
/// range `own`: the hash of everything but the note's own checksum and the id itself.
#[cfg(feature = "verify")]
pub(super) fn image_id(front: &[u8], own: Range<usize>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&front[QUICK_LEN..own.start]).update(&front[own.end..]);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_word_and_length_changes_the_sum() {
        let bytes: Vec<u8> = (0..200u8).map(|number| number.wrapping_mul(77)).collect();
        for len in 0..bytes.len() {
            let sum = quick_sum(&bytes[..len]);
            assert_ne!(sum, quick_sum(&bytes[..len + 1]));
            for at in 0..len {
                for bit in 0..8 {
                    let mut altered = bytes[..len].to_vec();
                    altered[at] ^= 1 << bit;
                    assert_ne!(sum, quick_sum(&altered), "byte {at} of {len}, bit {bit}");
                }
            }
        }
    }
}
