//! Why a file is not an image that can be used here. Every error says where.

use std::path::Path;

use kiln_globals::UnboundError;

/// An image cannot be read, loaded or bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The operating system refused.
    #[error("cannot {action} the image: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// An error with the image that has this path.
    #[error("image {}: {source}", path.display())]
    At {
        /// The image's path.
        path: Box<Path>,
        /// The error.
        source: Box<LoadError>,
    },
    /// The bytes are not a Kiln image.
    #[error("not a kiln image: {what} at file offset {offset:#x}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// Where, in bytes from the start of the file.
        offset: u64,
    },
    /// The image was made by another version of the format.
    #[error("image format version {found}, this program reads version {expected}")]
    Version {
        /// The image's version.
        found: u32,
        /// The version that this program reads.
        expected: u32,
    },
    /// The file is shorter or longer than it was when it was written.
    #[error("the file has {found} bytes, the image was written with {expected}")]
    Length {
        /// Length of the file in bytes.
        found: u64,
        /// Length of the image in bytes.
        expected: u64,
    },
    /// A part was altered since the image was written.
    #[error("{section} was altered: its checksum differs")]
    Altered {
        /// The part: a section's name, `headers` or `note`.
        section: Box<str>,
    },
    /// The image is for another architecture or operating system.
    #[error("the image is for {triple}, this is {host}")]
    Target {
        /// The image's target.
        triple: Box<str>,
        /// The architecture of this machine.
        host: &'static str,
    },
    /// The image needs CPU features that this machine does not have.
    #[error("the image needs CPU features that this machine does not have: {}", features.join(", "))]
    Features {
        /// The features, by Cranelift's setting names.
        features: Vec<Box<str>>,
    },
    /// Slots that the resolver has no address for.
    #[error(transparent)]
    Unbound(#[from] UnboundError),
    /// The array of addresses is not as long as the slot array.
    #[error("{found} addresses for {expected} slots")]
    SlotCount {
        /// Number of addresses given.
        found: usize,
        /// Number of external slots.
        expected: usize,
    },
}

impl LoadError {
    pub(crate) fn malformed(what: &'static str, offset: u64) -> Self {
        Self::Malformed { what, offset }
    }

    #[cfg(feature = "load")]
    pub(crate) fn io(action: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::Io { action, source }
    }

    #[cfg(feature = "load")]
    pub(crate) fn at(self, path: &Path) -> Self {
        Self::At { path: path.into(), source: Box::new(self) }
    }
}
