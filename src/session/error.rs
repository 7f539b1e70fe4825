//! Errors of a session.

use std::fmt;

use kiln_globals::list_errors;
use kiln_image::link::LinkError;
use kiln_ir::Diagnostic;
use kiln_jit::JitError;

use crate::compiler::{CompilerError, LazyError};

/// An operation of a session failed. The session is as it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The modules do not fit together.
    #[error("{}", list_errors(.0))]
    Check(Vec<Diagnostic>),
    /// Another thread is compiling a definition of the same name.
    #[error("`{name}` of module `{module}` is being added by another thread")]
    Claimed {
        /// The module of this addition.
        module: Box<str>,
        /// The name.
        name: Box<str>,
    },
    /// A module that is compiled when it is called could not be built.
    #[error("cannot build the module of `{name}`: {source}")]
    Build {
        /// The first function that the module was registered with.
        name: Box<str>,
        /// The error of the client's function.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A module that is compiled when it is called does not define a function that it was
    /// registered with.
    #[error("module `{module}` does not define the function `{name}`, which it was registered with")]
    NotDefined {
        /// The module.
        module: Box<str>,
        /// The function.
        name: Box<str>,
    },
    /// A function was called by the code that builds it; or a module was to be compiled by code
    /// that runs while it is compiled.
    #[error("`{name}` was called while it was built, on the same thread")]
    Recursion {
        /// The first function of the module, or the name of the module.
        name: Box<str>,
    },
    /// A function that is compiled when it is called was removed while it was called.
    #[error("the module of `{name}` was removed")]
    Removed {
        /// The first function that the module was registered with.
        name: Box<str>,
    },
    /// A module with tiers has data that would be there twice, once in each tier: it is writable,
    /// in a named section, or visible to other modules. Such data belongs into another module.
    #[error("`{module}` has tiers, but `{name}` is writable, named or shared data")]
    TieredData {
        /// The module.
        module: Box<str>,
        /// The data object.
        name: Box<str>,
    },
    /// Another module failed with this error, which is about this one too.
    #[error("{text}")]
    Same {
        /// The error's text.
        text: Box<str>,
    },
    /// A module could not be compiled in its last tier.
    #[error(transparent)]
    Tier(std::sync::Arc<SessionError>),
    /// A module could not be compiled.
    #[error(transparent)]
    Compile(#[from] CompilerError),
    /// The code could not be linked into memory.
    #[error(transparent)]
    Jit(#[from] JitError),
    /// The artifacts could not be linked into an image.
    #[error("{}", list_errors(.errors.iter().map(|error| error.with_names(|module| .names.get(module).map_or("", |name| &**name)))))]
    Image {
        /// The errors.
        errors: Vec<LinkError>,
        /// The names of the program's modules, by the numbers that the errors have; a name is empty
        /// if it is not known.
        names: Box<[Box<str>]>,
    },
    /// A root of a heap that is saved has no address.
    #[error("the root `{key}` of the heap is not bound")]
    UnboundRoot {
        /// The key of the global.
        key: Box<str>,
    },
    /// Writable data of a module that is saved as it is now points at something that has no name in
    /// an image.
    #[error("data `{object}` of module `{module}` has a pointer at {what}")]
    DataPointer {
        /// The module; empty if it has no name.
        module: Box<str>,
        /// The data object; empty if it is anonymous.
        object: Box<str>,
        /// The thing that the pointer leads to.
        what: Box<str>,
    },
    /// Another thread wrote the data of a module while it was saved as it is now, or removed it.
    #[error("another thread changed data of module `{module}` while it was saved")]
    DataChanged {
        /// The module.
        module: Box<str>,
    },
    /// A heap cannot be saved.
    #[error("cannot save the heap")]
    Snapshot(#[from] kiln_heap::SnapshotError),
    /// The image could not be written.
    #[error("cannot write {path}")]
    Write {
        /// Path of the image.
        path: Box<str>,
        /// The operating system's error.
        source: std::io::Error,
    },
}

/// Modules that are built on demand were not added. The session is as it was before.
#[derive(Debug)]
#[non_exhaustive]
pub enum AddLazyError<E> {
    /// Modules could not be built or compiled: their errors, in the order of the modules.
    Modules(Vec<LazyError<E>>),
    /// The modules could not be linked.
    Session(SessionError),
}

impl<E: fmt::Display> fmt::Display for AddLazyError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Modules(errors) => f.write_str(&list_errors(errors.iter().map(LazyError::line))),
            Self::Session(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for AddLazyError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Modules(_) => None,
            Self::Session(error) => error.source(),
        }
    }
}
