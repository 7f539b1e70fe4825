//! Errors of the binary form.

/// Why bytes are no module.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BinaryError {
    /// The bytes could not be read.
    #[error("cannot be read")]
    Io(#[from] std::io::Error),
    /// They do not start as a module in binary form does.
    #[error("byte {offset}: not a module in binary form")]
    Foreign {
        /// Where, from the start of the file.
        offset: u64,
    },
    /// They were written by another version.
    #[error("byte {offset}: written by {found}, and this is {own}")]
    Version {
        /// Where the module starts.
        offset: u64,
        /// Who wrote it.
        found: Box<str>,
        /// Who reads it.
        own: Box<str>,
    },
    /// They end early.
    #[error("byte {offset}: the file ends inside of a module")]
    Truncated {
        /// Where the module starts.
        offset: u64,
    },
    /// They were altered.
    #[error("byte {offset}: the checksum of the module differs")]
    Checksum {
        /// Where the module starts.
        offset: u64,
    },
    /// The checksum holds, but they are not what a module consists of.
    #[error("byte {offset}: {what}")]
    Malformed {
        /// Where, from the start of the file.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
}
