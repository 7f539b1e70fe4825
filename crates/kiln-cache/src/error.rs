//! Reasons why an entry cannot be used.

use std::io;

use kiln_artifact::ArtifactError;

/// An entry cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// The entry could not be read.
    #[error("entry cannot be read")]
    Unreadable(#[source] io::Error),
    /// The bytes are not an entry at all.
    #[error("not an entry")]
    Foreign,
    /// An entry, or an artifact in it, of another version of the format. Another version of this
    /// crate may be able to read it.
    #[error("entry of another version")]
    OtherVersion,
    /// The entry is shorter or longer than its header says.
    #[error("entry of {actual} bytes, expected {expected}")]
    Length {
        /// The actual number of bytes.
        actual: u64,
        /// Bytes that the header requires.
        expected: u64,
    },
    /// The entry is in a file of more than 1 GiB, which no store writes. It was not read.
    #[error("entry of {0} bytes, more than an entry may have")]
    TooLong(u64),
    /// The store accepts only signed entries, or a server sent other bytes than it promised: the
    /// reason.
    #[error("entry that is not trusted: {0}")]
    Untrusted(Box<str>),
    /// The entry belongs to another key.
    #[error("entry of another key")]
    OtherKey,
    /// A checksum differs.
    #[error("checksum of the {0} differs")]
    Checksum(&'static str),
    /// The recipe's bytes are not a recipe, or it is the recipe of another key.
    #[error("recipe that does not belong to the key")]
    Recipe,
    /// The checksums match, but unused bytes are not zero.
    #[error("bytes between the parts that are not zero")]
    Padding,
    /// There are function keys, but not as many as functions.
    #[error("{keys} function keys for {functions} functions")]
    FunctionKeys {
        /// Number of keys.
        keys: usize,
        /// Number of the artifact's functions.
        functions: usize,
    },
    /// The artifact is valid as a whole, but single functions cannot be extracted from it: tables
    /// contradict each other.
    #[error("functions that cannot be extracted from the artifact")]
    Functions,
    /// The checksums match, but the body is not an artifact.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
}
