//! Errors of the binary form.

/// An error while reading modules in binary form.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BinaryError {
    /// The input could not be read.
    #[error("cannot be read")]
    Io(#[from] std::io::Error),
    /// The bytes do not start like a module in binary form.
    #[error("byte {offset}: not a module in binary form")]
    Foreign {
        /// The offset in the file.
        offset: u64,
    },
    /// Another version of Kiln or Cranelift wrote the module.
    #[error("byte {offset}: written by {found}, and this is {own}")]
    Version {
        /// The offset of the module in the file.
        offset: u64,
        /// The version that wrote it.
        found: Box<str>,
        /// The version that reads it.
        own: Box<str>,
    },
    /// The file ends inside of the module.
    #[error("byte {offset}: the file ends inside of a module")]
    Truncated {
        /// The offset of the module in the file.
        offset: u64,
    },
    /// The bytes do not match their checksum.
    #[error("byte {offset}: the checksum of the module differs")]
    Checksum {
        /// The offset of the module in the file.
        offset: u64,
    },
    /// The checksum is correct, but the bytes do not encode a module.
    #[error("byte {offset}: {what}")]
    Malformed {
        /// The offset in the file.
        offset: u64,
        /// The reason.
        what: &'static str,
    },
    /// A data object is in a section whose name has a meaning to loaders or linkers.
    #[error(
        "byte {offset}: module `{module}`: no data can be placed in section `{section}`, as `{name}` is: it means something to loaders"
    )]
    Section {
        /// The offset of the module in the file.
        offset: u64,
        /// The module.
        module: Box<str>,
        /// The data object.
        name: Box<str>,
        /// The section.
        section: Box<str>,
    },
}
