//! The form of an entry on disk: a header, and the artifact's bytes behind it.
//!
//! Header, numbers little-endian: magic (8 bytes), entry version (`u32`), zero (`u32`), key (32 bytes), length of the body
//! (`u64`), BLAKE3 of the body (32 bytes), first 8 bytes of the BLAKE3 of all of these. Every byte of the file is covered.

use kiln_artifact::{Artifact, Malformed};

use crate::Key;

const MAGIC: [u8; 8] = *b"KilnEnt\0";
const VERSION: u32 = 1;
const HEADER_LEN: usize = 8 + 4 + 4 + 32 + 8 + 32 + 8;

/// Why an entry cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Corrupt {
    /// The entry could not be read.
    #[error("entry cannot be read: {0}")]
    Unreadable(#[source] std::io::Error),
    /// Not an entry of this version.
    #[error("not an entry of this version")]
    Foreign,
    /// The entry is shorter or longer than it says.
    #[error("entry of {actual} bytes, expected {expected}")]
    Length {
        /// Bytes that are there.
        actual: u64,
        /// Bytes that its header asks for.
        expected: u64,
    },
    /// The entry belongs to another key.
    #[error("entry of another key")]
    OtherKey,
    /// A checksum differs.
    #[error("checksum of the {0} differs")]
    Checksum(&'static str),
    /// The checksums hold, but the body is not an artifact.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// The header that stands before the bytes of `artifact`.
pub(crate) fn header(key: &Key, artifact: &Artifact) -> [u8; HEADER_LEN] {
    let body = artifact.as_bytes();
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[16..48].copy_from_slice(key.as_bytes());
    header[48..56].copy_from_slice(&(body.len() as u64).to_le_bytes());
    header[56..88].copy_from_slice(blake3::hash(body).as_bytes());
    let sum = blake3::hash(&header[..88]);
    header[88..].copy_from_slice(&sum.as_bytes()[..8]);
    header
}

/// The artifact in an entry that was stored under `key`.
pub(crate) fn parse(key: &Key, bytes: &[u8]) -> Result<Artifact, Corrupt> {
    let Some((header, body)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return Err(Corrupt::Length { actual: bytes.len() as u64, expected: HEADER_LEN as u64 });
    };
    if header[..8] != MAGIC || header[8..12] != VERSION.to_le_bytes() {
        return Err(Corrupt::Foreign);
    }
    if header[88..] != blake3::hash(&header[..88]).as_bytes()[..8] {
        return Err(Corrupt::Checksum("header"));
    }
    if header[16..48] != key.as_bytes()[..] {
        return Err(Corrupt::OtherKey);
    }
    let len = u64::from_le_bytes(header[48..56].try_into().expect("eight bytes"));
    if len != body.len() as u64 {
        let expected = len.saturating_add(HEADER_LEN as u64);
        return Err(Corrupt::Length { actual: bytes.len() as u64, expected });
    }
    if header[56..88] != blake3::hash(body).as_bytes()[..] {
        return Err(Corrupt::Checksum("body"));
    }
    Ok(Artifact::from_bytes(body)?)
}
