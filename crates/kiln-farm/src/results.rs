//! Results: what became of the modules of a shard, in their order.
//!
//! The byte form, with numbers in little-endian order: magic (8 bytes), the number of modules
//! (`u32`), for each the kind of its result (`u32`: 0 for an entry, else the kind of the error),
//! the length (`u64`), and that many bytes: an entry of a cache, or the error's message in UTF-8.

use kiln_cache::{Entry, EntryError, Key};

use crate::wire::{FormatError, Reader};

const MAGIC: &[u8; 8] = b"KilnRes1";
/// The longest message that is written, in bytes.
const MAX_MESSAGE: usize = 4096;

/// The kind of an error of one module. A build compiles the module by itself, whatever the kind is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerErrorKind {
    /// The bytes are not a module, or one of another version.
    Unreadable,
    /// The environment is that of another version of Kiln, or there is no such target.
    OtherEnvironment,
    /// The module is not the one that the key names.
    OtherModule,
    /// A function is not valid IR.
    Invalid,
    /// A function cannot be compiled.
    NotCompiled,
}

const KINDS: [WorkerErrorKind; 5] = [
    WorkerErrorKind::Unreadable,
    WorkerErrorKind::OtherEnvironment,
    WorkerErrorKind::OtherModule,
    WorkerErrorKind::Invalid,
    WorkerErrorKind::NotCompiled,
];

/// A worker did not compile a module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct WorkerError {
    /// The kind of the reason.
    pub kind: WorkerErrorKind,
    /// The reason, for people.
    pub message: Box<str>,
}

/// The reason why a module has no entry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The worker did not compile it.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The worker's entry cannot be used.
    #[error("its entry cannot be used")]
    Entry(#[from] EntryError),
}

/// Returns the byte form of the results of a shard's modules.
///
/// # Panics
///
/// If there are 2^32 modules or more.
pub fn write_results(results: &[Result<Entry, WorkerError>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(MAGIC);
    let count = u32::try_from(results.len()).expect("fewer than 2^32 modules");
    bytes.extend_from_slice(&count.to_le_bytes());
    for result in results {
        let (kind, part) = match result {
            Ok(entry) => (0, entry.to_bytes()),
            Err(WorkerError { kind, message }) => {
                let end = message.floor_char_boundary(MAX_MESSAGE);
                let kind = KINDS.iter().position(|other| other == kind).expect("it is in the list");
                (kind as u32 + 1, message.as_bytes()[..end].to_vec())
            }
        };
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&part);
    }
    bytes
}

/// Reads the results of the modules with these keys from untrusted bytes. Each entry is checked as
/// that of a cache is.
///
/// # Errors
///
/// [`FormatError`] if the bytes are not what [`write_results`] makes for this many modules.
pub fn read_results(bytes: &[u8], keys: &[Key]) -> Result<Vec<Result<Entry, Refused>>, FormatError> {
    let mut reader = Reader::new(bytes);
    reader.magic(MAGIC, "not results of this version")?;
    if reader.count(4 + 8)? != keys.len() {
        return Err(reader.error("results of another number of modules"));
    }
    let mut results = Vec::with_capacity(keys.len());
    for key in keys {
        let kind = reader.u32()?;
        let len = reader.u64()?;
        let part = reader.bytes(len)?;
        results.push(match kind.checked_sub(1) {
            None => Entry::from_bytes(key, part.to_vec()).map_err(Refused::Entry),
            Some(kind) => {
                let kind = *KINDS.get(kind as usize).ok_or_else(|| reader.error("an unknown kind"))?;
                let shown = &part[..part.len().min(MAX_MESSAGE)];
                let message = String::from_utf8_lossy(shown).escape_debug().to_string().into();
                Err(Refused::Worker(WorkerError { kind, message }))
            }
        });
    }
    reader.end()?;
    Ok(results)
}
