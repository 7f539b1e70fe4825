//! The file that a store keeps for a lineage: the key of its last build.
//!
//! Byte form: magic (8 bytes), lineage (16 bytes), key (32 bytes), first 8 bytes of the BLAKE3 of
//! these.

use crate::{EntryError, Key, Lineage};

/// The first bytes of every such file.
pub(super) const MAGIC: [u8; 8] = *b"KilnSub\0";

/// Refuses a file that is so long that its first bytes are asked for.
pub(super) fn admit(_: &[u8], len: u64) -> Result<(), EntryError> {
    Err(EntryError::Length { actual: len, expected: 64 })
}

/// The file that says that the last build of `lineage` had `key`.
pub(super) fn to_bytes(lineage: &Lineage, key: &Key) -> [u8; 64] {
    let mut file = [0; 64];
    file[..8].copy_from_slice(&MAGIC);
    file[8..24].copy_from_slice(lineage.as_bytes());
    file[24..56].copy_from_slice(key.as_bytes());
    let sum = *blake3::hash(&file[..56]).as_bytes();
    file[56..].copy_from_slice(&sum[..8]);
    file
}

/// The key in a file of `lineage`; `None` if the file is damaged or of another lineage.
pub(super) fn from_bytes(lineage: &Lineage, bytes: &[u8]) -> Option<Key> {
    let key = Key::new(bytes.get(24..56)?.try_into().ok()?);
    (*bytes == to_bytes(lineage, &key)).then_some(key)
}
