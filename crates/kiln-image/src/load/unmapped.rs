//! The part of an image's file that is not mapped: tables for debuggers, and section headers.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::error::LoadError;

/// The bytes of the file after those that are mapped.
#[derive(Debug)]
pub(super) enum Unmapped {
    /// The whole file, from which the bytes are read when they are needed.
    File(File),
    /// The bytes themselves.
    Memory(Box<[u8]>),
}

impl Unmapped {
    /// Reads `range`, counted from the start of the file, of which `mapped_len` bytes are mapped.
    /// `None` if it cannot be read.
    pub(super) fn read(&self, range: Range<u64>, mapped_len: usize) -> Option<Vec<u8>> {
        match self {
            Self::Memory(bytes) => {
                let start = (range.start as usize).checked_sub(mapped_len)?;
                let end = (range.end as usize).checked_sub(mapped_len)?;
                bytes.get(start..end).map(<[u8]>::to_vec)
            }
            Self::File(file) => {
                let len = usize::try_from(range.end.checked_sub(range.start)?).ok()?;
                let mut bytes = Vec::new();
                bytes.try_reserve_exact(len).ok()?;
                bytes.resize(len, 0);
                file.read_exact_at(&mut bytes, range.start).ok()?;
                Some(bytes)
            }
        }
    }

    /// Adds the bytes of `range`, counted from the start of the file, to a hash. `mapped_len` bytes
    /// of the file are mapped.
    pub(super) fn hash(
        &self,
        hasher: &mut blake3::Hasher,
        range: Range<u64>,
        mapped_len: usize,
    ) -> Result<(), LoadError> {
        let truncated = || LoadError::malformed("truncated", range.start);
        match self {
            Self::Memory(bytes) => {
                let start = (range.start as usize).checked_sub(mapped_len).ok_or_else(truncated)?;
                let end = (range.end as usize).checked_sub(mapped_len).ok_or_else(truncated)?;
                hasher.update(bytes.get(start..end).ok_or_else(truncated)?);
            }
            Self::File(file) => {
                // Not longer than the range, because a file may have a range for every byte.
                let most = (range.end - range.start).min(1 << 16) as usize;
                let mut buffer = vec![0; most];
                let mut offset = range.start;
                while offset < range.end {
                    let len = (range.end - offset).min(most as u64) as usize;
                    file.read_exact_at(&mut buffer[..len], offset).map_err(LoadError::io("read"))?;
                    hasher.update(&buffer[..len]);
                    offset += len as u64;
                }
            }
        }
        Ok(())
    }
}
