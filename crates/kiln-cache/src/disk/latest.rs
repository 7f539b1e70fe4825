//! The file that a store keeps for a lineage. It contains the key of the lineage's last build.
//!
//! Byte form: magic (8 bytes), lineage (16 bytes), key (32 bytes), first 8 bytes of the BLAKE3 hash
//! of these fields.

use crate::{EntryError, Key, Lineage};

/// The first bytes of every such file.
pub(super) const MAGIC: [u8; 8] = *b"KilnSub\0";

/// Refuses every file: it is called only for files over 1 MiB, and a valid file has 64 bytes.
pub(super) fn admit(_: &[u8], len: u64) -> Result<(), EntryError> {
    Err(EntryError::Length { actual: len, expected: 64 })
}

/// Returns the content of the file that says that the last build of `lineage` had `key`.
pub(super) fn to_bytes(lineage: &Lineage, key: &Key) -> [u8; 64] {
    let mut file = [0; 64];
    file[..8].copy_from_slice(&MAGIC);
    file[8..24].copy_from_slice(lineage.as_bytes());
    file[24..56].copy_from_slice(key.as_bytes());
    let sum = *blake3::hash(&file[..56]).as_bytes();
    file[56..].copy_from_slice(&sum[..8]);
    file
}

/// Returns the key in a file of `lineage`; `None` if the file is damaged or belongs to another
/// lineage.
pub(super) fn from_bytes(lineage: &Lineage, bytes: &[u8]) -> Option<Key> {
    let key = Key::from_bytes(bytes.get(24..56)?.try_into().ok()?);
    (*bytes == to_bytes(lineage, &key)).then_some(key)
}
