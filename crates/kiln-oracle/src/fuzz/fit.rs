//! Corrects lengths and checksums in altered bytes, so that a reader gets beyond its first checks.
//!
//! The offsets come from the documentation of each format.

use kiln_artifact::Table;
use kiln_cache::{Key, Recipe};

/// Corrects the lengths and the checksum of the first module, if `bytes` begin with a module.
pub(super) fn fit_binary(bytes: &mut [u8]) {
    const HEADER: usize = 64;
    if bytes.len() < HEADER || !bytes.starts_with(b"KilnIR\0\0") {
        return;
    }
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let producer = number(8) >> 32;
    let Some(rest) = (bytes.len() as u64 - HEADER as u64).checked_sub(producer) else { return };
    let (content, notes) = (number(16), number(24));
    if content.checked_add(notes) != Some(rest) {
        let content = if content <= rest { content } else { rest.saturating_sub(notes) };
        bytes[16..24].copy_from_slice(&content.to_le_bytes());
        bytes[24..32].copy_from_slice(&(rest - content).to_le_bytes());
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..32]);
    hasher.update(&bytes[HEADER..]);
    let sum = *hasher.finalize().as_bytes();
    bytes[32..HEADER].copy_from_slice(&sum);
}

/// Corrects the lengths in an artifact's header. Inserted or removed bytes count as code, so the
/// length of the code changes, and every other table keeps its length.
pub(super) fn fit_artifact(bytes: &mut [u8]) {
    const LENGTHS: usize = 24;
    let header = LENGTHS + 4 * Table::ALL.len();
    let Some(content) = bytes.len().checked_sub(header) else { return };
    let len = bytes.len() as u64;
    bytes[16..24].copy_from_slice(&len.to_le_bytes());
    let mut others = 0u64;
    for (table, length) in Table::ALL.iter().zip(bytes[LENGTHS..header].as_chunks::<4>().0) {
        if *table != Table::Text {
            others += u64::from(u32::from_le_bytes(*length));
        }
    }
    if let Some(text) = (content as u64).checked_sub(others).and_then(|text| u32::try_from(text).ok()) {
        let at = LENGTHS + 4 * Table::Text as usize;
        bytes[at..at + 4].copy_from_slice(&text.to_le_bytes());
    }
}

/// Corrects the length, the magic number and the version of code tables.
pub(super) fn fit_code_tables(bytes: &mut [u8]) {
    if let (Ok(len), Some(head)) = (u32::try_from(bytes.len()), bytes.first_chunk_mut::<12>()) {
        head[..4].copy_from_slice(b"KCod");
        head[4..8].copy_from_slice(&kiln_image::code::CODE_TABLES_VERSION.to_le_bytes());
        head[8..].copy_from_slice(&len.to_le_bytes());
    }
}

/// Corrects the place of an image's section headers, and the id and the checksum in its note.
pub fn fit_image(bytes: &mut [u8]) {
    const PREFIX: usize = 20;
    let number = |bytes: &[u8], at: usize| {
        let number = bytes.get(at..at.checked_add(8)?)?;
        usize::try_from(u64::from_le_bytes(number.try_into().ok()?)).ok()
    };
    // The note is where a program header says, whose address need not be its offset. The first
    // bytes of its body follow from the words in front of it.
    let note = (|| {
        let headers = number(bytes, 0x20)?;
        let count = usize::from(u16::from_le_bytes([*bytes.get(0x38)?, *bytes.get(0x39)?]));
        let header = (0..count.min(64)).map(|n| headers.saturating_add(n * 56));
        let note = header
            .filter(|at| bytes.get(*at..at.saturating_add(4)) == Some(&[4, 0, 0, 0]))
            .find_map(|at| number(bytes, at + 8))?;
        let len = u32::from_le_bytes(bytes.get(note..note.checked_add(4)?)?.try_into().ok()?);
        let body =
            note.checked_add(PREFIX)?..note.checked_add(12)?.checked_add(usize::try_from(len).ok()?)?;
        (body.len() > 8 && body.end <= bytes.len()).then_some(body)
    })();
    let Some(body) = note else { return };
    // The section headers are last.
    let sections = 64 * u64::from(u16::from_le_bytes([bytes[0x3c], bytes[0x3d]]));
    if let Some(offset) = (bytes.len() as u64).checked_sub(sections) {
        bytes[0x28..0x30].copy_from_slice(&offset.to_le_bytes());
    }
    let body = &mut bytes[body];
    // The exports are after what has the checksum.
    const EXPORTS: usize = 136 + 8 * 16;
    let Some(end) = number(body, EXPORTS).filter(|end| (8..=body.len()).contains(end)) else { return };
    // The id is last in the head, whose length follows the version. It is the hash of all else.
    const ID: usize = 32;
    let head =
        body.get(20..24).map_or(0, |len| u32::from_le_bytes(len.try_into().expect("four bytes")) as usize);
    if (24 + ID..=end).contains(&head) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&body[8..head - ID]).update(&body[head..end]);
        body[head - ID..head].copy_from_slice(hasher.finalize().as_bytes());
    }
    let sum = note_sum(&body[8..end]);
    body[..8].copy_from_slice(&sum.to_le_bytes());
}

/// Returns the checksum of a note's body: four lanes take eight bytes in turns.
fn note_sum(bytes: &[u8]) -> u64 {
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

/// Corrects the key, the length and the checksums of a cache entry, and returns the key.
pub(super) fn fit_entry(bytes: &mut [u8]) -> Option<Key> {
    const HEADER: usize = 104;
    let number = |bytes: &[u8], at: usize| {
        usize::try_from(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?)).ok()
    };
    if bytes.len() < HEADER {
        return None;
    }
    let (recipe, keys) = (number(bytes, 12)?, number(bytes, 48)?);
    if let Some(recipe) = bytes.get(HEADER..HEADER.checked_add(recipe)?)
        && let Ok(recipe) = Recipe::from_bytes(recipe)
    {
        bytes[16..48].copy_from_slice(recipe.key().as_bytes());
    }
    let end = HEADER.checked_add(recipe)?.checked_add(keys.checked_mul(16)?)?;
    let start = end.next_multiple_of(16);
    // The unused field and the padding between the parts must be zero.
    bytes[52..56].fill(0);
    if let Some(padding) = bytes.get_mut(end..start) {
        padding.fill(0);
    }
    if let Some(artifact) = bytes.get_mut(start..) {
        fit_artifact(artifact);
        let artifact = artifact.len();
        bytes[56..64].copy_from_slice(&(artifact as u64).to_le_bytes());
    }
    let sum = *blake3::hash(&bytes[HEADER..]).as_bytes();
    bytes[64..96].copy_from_slice(&sum);
    let sum = blake3::hash(&bytes[..96]);
    bytes[96..HEADER].copy_from_slice(&sum.as_bytes()[..8]);
    bytes[16..48].iter().map(|byte| format!("{byte:02x}")).collect::<String>().parse().ok()
}
