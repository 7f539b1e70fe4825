//! The errors of reading, loading and binding an image.

use std::path::Path;

use kiln_globals::UnboundError;

/// The reason why an image cannot be read, loaded or bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The operating system returned an error.
    #[error("cannot {action} the image")]
    Io {
        /// The action that failed, as a verb.
        action: &'static str,
        /// The reason.
        source: std::io::Error,
    },
    /// The image with this path cannot be used.
    #[error("image {}", path.display())]
    At {
        /// The image's path.
        path: Box<Path>,
        /// The reason.
        source: Box<LoadError>,
    },
    /// The path leads to a folder, a device, a pipe or a socket.
    #[error("not a regular file")]
    NotAFile,
    /// The bytes are not a Kiln image.
    #[error("not a kiln image: {what} at file offset {offset:#x}")]
    Malformed {
        /// The reason.
        what: &'static str,
        /// The position of the wrong bytes, in bytes from the start of the file.
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
    /// The file is not as long as it was when it was written.
    #[error("the file has {found} bytes, the image was written with {expected}")]
    Length {
        /// Length of the file in bytes.
        found: u64,
        /// Length of the image in bytes.
        expected: u64,
    },
    /// A part of the file was altered since the image was written.
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
    /// The resolver has no address for some slots.
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
