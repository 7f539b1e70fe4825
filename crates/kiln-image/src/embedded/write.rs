//! Writing the section.

use kiln_artifact::Artifact;
use kiln_globals::GlobalTable;

use super::format::{HEADER, MAGIC, MAX_RATIO, STORED, ZSTD};

/// The level of compression: higher ones take several times as long, for a few percent.
const LEVEL: i32 = 3;

/// Returns the section of an image of these modules. The first ones have names and numbers, as many
/// as are given.
pub(crate) fn section(
    artifacts: &[Artifact],
    globals: &GlobalTable,
    names: &[Box<str>],
    numbers: &[u32],
) -> Vec<u8> {
    let mut content = Vec::new();
    number(&mut content, globals.len());
    globals.keys().for_each(|key| bytes(&mut content, key.as_bytes()));
    number(&mut content, artifacts.len());
    for (position, artifact) in artifacts.iter().enumerate() {
        number(&mut content, numbers.get(position).map_or(position, |&number| number as usize));
        bytes(&mut content, names.get(position).map_or("", |name| name).as_bytes());
        bytes(&mut content, artifact.as_bytes());
    }
    let compressed = zstd::bulk::compress(&content, LEVEL).ok();
    let is_small = |bytes: &Vec<u8>| content.len() as u64 / MAX_RATIO <= bytes.len() as u64;
    let (method, stored) = match compressed.as_ref().filter(|bytes| is_small(bytes)) {
        Some(bytes) => (ZSTD, bytes),
        None => (STORED, &content),
    };
    let mut section = Vec::with_capacity(HEADER + stored.len());
    section.extend(MAGIC);
    section.push(method);
    section.extend((content.len() as u64).to_le_bytes());
    section.extend(stored);
    section
}

fn number(content: &mut Vec<u8>, number: usize) {
    // An artifact has less than 4 GiB, and there are fewer modules than bytes.
    content.extend((number as u32).to_le_bytes());
}

fn bytes(content: &mut Vec<u8>, bytes: &[u8]) {
    number(content, bytes.len());
    content.extend(bytes);
}
