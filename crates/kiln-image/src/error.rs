//! The errors of reading, loading and binding an image.

use std::error::Error;
use std::fmt;
use std::path::Path;

use kiln_globals::{UnboundError, list_errors};

use crate::base::ImageId;

/// The reason why an image cannot be read, loaded or bound.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoadError {
    /// The operating system returned an error.
    Io {
        /// The action that failed, as a verb.
        action: &'static str,
        /// The reason.
        source: std::io::Error,
    },
    /// The operating system does not let the code be executed from where the file is.
    NotExecutable {
        /// The folder that is mounted without permission to execute files, if that is the reason.
        mount: Option<Box<Path>>,
        /// The reason that the operating system gave.
        source: std::io::Error,
    },
    /// The operating system does not let addresses be written into code, as an image needs whose
    /// code reaches globals directly.
    Patch {
        /// The system call that was refused.
        call: &'static str,
        /// The reason that the operating system gave.
        source: std::io::Error,
    },
    /// The operating system does not let code be executed that addresses were written into. One
    /// that reaches globals through slots needs no such permission.
    PatchedCode {
        /// The reason why `mprotect(PROT_READ | PROT_EXEC)` was refused, which is tried first.
        refused: std::io::Error,
        /// The system call that was refused then.
        call: &'static str,
        /// The reason that the operating system gave.
        source: std::io::Error,
    },
    /// The image with this path cannot be used.
    At {
        /// The image's path.
        path: Box<Path>,
        /// The reason.
        source: Box<LoadError>,
    },
    /// The path leads to a folder, a device, a pipe or a socket.
    NotAFile,
    /// The bytes are not a Kiln image.
    Malformed {
        /// The reason.
        what: &'static str,
        /// The position of the wrong bytes, in bytes from the start of the file.
        offset: u64,
    },
    /// The image was made by another version of the format.
    Version {
        /// The image's version.
        found: u32,
        /// The version that this program reads.
        expected: u32,
    },
    /// The file became shorter while it was read.
    Length {
        /// Number of bytes that were found.
        found: u64,
        /// Number of bytes that were expected.
        expected: u64,
    },
    /// A part of the file was altered since the image was written.
    Altered {
        /// The part: a section's name, `note`, `dynamic symbols` or `relocations`.
        section: Box<str>,
    },
    /// The image is for another architecture or operating system.
    Target {
        /// The image's target.
        triple: Box<str>,
        /// The architecture of this machine.
        host: &'static str,
    },
    /// The image needs CPU features that this machine does not have.
    Features {
        /// The features, by Cranelift's setting names.
        features: Vec<Box<str>>,
    },
    /// The image has no code for this level of the processor.
    Level {
        /// The level that was asked for.
        name: Box<str>,
        /// The levels that the image has code for; none if all code is the same.
        levels: Vec<Box<str>>,
    },
    /// The resolver has no address for some slots.
    Unbound {
        /// The slots.
        error: UnboundError,
        /// For each of the first few the first function that uses it; empty if only data does, or
        /// the function has no name.
        users: Vec<Box<str>>,
    },
    /// The image has thread-local data, and this crate has no function for code of this
    /// architecture that finds it. `dlopen` loads the image.
    ThreadLocal {
        /// The architecture of this machine.
        host: &'static str,
    },
    /// The image does not have the signatures that are wanted.
    #[cfg(feature = "sign")]
    Untrusted(crate::sign::UntrustedError),
    /// The image is a layer on another one that was not given.
    MissingBase {
        /// The name of the base.
        base: Box<str>,
        /// The id of the image that the layer was linked on.
        id: ImageId,
    },
    /// The image is a layer on another one than that which was given under its name.
    OtherBase {
        /// The name of the base.
        base: Box<str>,
        /// The id of the image that the layer was linked on.
        expected: ImageId,
        /// That of the image that was given.
        found: ImageId,
    },
    /// The image is a layer on one that does not have what the layer uses, as it uses it.
    BaseSymbols {
        /// The name of the base.
        base: Box<str>,
        /// The differences.
        faults: Vec<BaseFault>,
    },
    /// The image is a layer on itself, through the images that it is a layer on.
    BaseCycle,
    /// The image is a layer on a layer, and so on, for too many of them.
    BaseDepth {
        /// The most images that may be on each other.
        limit: usize,
    },
    /// The array of addresses is not as long as the slot array.
    SlotCount {
        /// Number of addresses given.
        found: usize,
        /// Number of external slots.
        expected: usize,
    },
}

/// Something that a base does not have as a layer uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BaseFault {
    /// The name of the function or data.
    pub name: Box<str>,
    /// The use, e.g. "a function (i64) -> i64 system_v".
    pub expected: Box<str>,
    /// The export of the base; `None` if it exports nothing of this name.
    pub found: Option<Box<str>>,
}

impl fmt::Display for BaseFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, expected, found } = self;
        match found {
            Some(found) => write!(f, "`{name}` was {expected}, and is {found}"),
            None => write!(f, "`{name}` was {expected}, and is not there"),
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { action, .. } => write!(f, "cannot {action} the image"),
            Self::NotExecutable { mount: Some(mount), .. } => {
                write!(f, "cannot execute code from {}, which is mounted noexec", mount.display())
            }
            Self::NotExecutable { mount: None, .. } => f.write_str("cannot execute code from the image"),
            Self::Patch { call, .. } => {
                write!(f, "cannot write addresses into the code of the image: {call}")
            }
            Self::PatchedCode { refused, call, .. } => write!(
                f,
                "cannot execute code of the image that addresses were written into: \
                 mprotect(PROT_READ | PROT_EXEC): {refused}; {call}"
            ),
            Self::At { path, .. } => write!(f, "image {}", path.display()),
            Self::NotAFile => f.write_str("not a regular file"),
            Self::Malformed { what, offset } => {
                write!(f, "not a kiln image: {what} at file offset {offset:#x}")
            }
            Self::Version { found, expected } => {
                write!(f, "image format version {found}, this program reads version {expected}")
            }
            Self::Length { found, expected } => {
                write!(f, "the file had {expected} bytes, and only {found} could be read")
            }
            Self::Altered { section } => write!(f, "{section} was altered: its checksum differs"),
            Self::Target { triple, host } => write!(f, "the image is for {triple}, this is {host}"),
            Self::Features { features } => {
                let features = features.join(", ");
                write!(f, "the image needs CPU features that this machine does not have: {features}")
            }
            Self::Level { name, levels } if levels.is_empty() => {
                write!(f, "the image has no code of its own for {name}: it is for one level only")
            }
            Self::Level { name, levels } => {
                write!(f, "the image has no code for {name}, but for {}", levels.join(", "))
            }
            Self::Unbound { error, users } => {
                let user = |slot: usize| users.get(slot).filter(|user| !user.is_empty());
                f.write_str(&error.with_users(|slot| user(slot).map(|user| format!("`{user}`"))))
            }
            Self::ThreadLocal { host } => {
                write!(f, "the image has thread-local data, which on {host} only dlopen can load")
            }
            #[cfg(feature = "sign")]
            Self::Untrusted(error) => error.fmt(f),
            Self::MissingBase { base, id } => {
                write!(f, "the image is a layer on `{base}` with id {id}, which is missing")
            }
            Self::OtherBase { base, expected, found } => {
                write!(f, "the image is a layer on `{base}` with id {expected}, but `{base}` has {found}")
            }
            Self::BaseSymbols { base, faults } => {
                write!(f, "the base image `{base}` is not as it was: {}", list_errors(faults))
            }
            Self::BaseCycle => f.write_str("the image is a layer on itself"),
            Self::BaseDepth { limit } => write!(f, "more than {limit} images are layers on each other"),
            Self::SlotCount { found, expected } => write!(f, "{found} addresses for {expected} slots"),
        }
    }
}

impl Error for LoadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io { source, .. }
            | Self::NotExecutable { source, .. }
            | Self::Patch { source, .. }
            | Self::PatchedCode { source, .. } => Some(source),
            Self::At { source, .. } => Some(source),
            _ => None,
        }
    }
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
