//! Errors of building a module.
//!
//! Clients find these inside `ModuleError::Backend`, the only variant of Cranelift's error that can
//! hold an error of another crate. An error for which Cranelift has its own variant is reported as
//! that variant.
//!
//! `ModuleError` prints only the error that it contains, not that error's source. So a reason is
//! part of the message here, and is not returned by `source()`.

use cranelift_codegen::ir;
use cranelift_module::ModuleError;

use crate::body::EncodeError;
use crate::target::TargetError;

/// An error while building a module.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is no code generator for the target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A function or data object is declared as defined in this module, but has no definition.
    #[error("`{0}` is declared as defined in this module, but has no definition")]
    Undefined(Box<str>),
    /// A name is empty or holds a zero byte, so it could not be linked.
    #[error("`{}` cannot be a name: it is empty or holds a zero byte", .0.escape_debug())]
    Name(Box<str>),
    /// A name begins with `kiln.private.`, as the names of private definitions do.
    #[error("`{0}` cannot be a name: only private definitions have names that begin like this")]
    PrivateName(Box<str>),
    /// A local function or data object is declared with a wider linkage, but a module that was
    /// finished before knows it as local.
    #[error("`{0}` is local in a module that was finished, so its linkage cannot be widened")]
    Widened(Box<str>),
    /// Data is placed in a section whose name has a meaning to loaders or linkers.
    #[error("`{name}`: no data can be placed in section `{section}`, which means something to loaders")]
    Section {
        /// The data object.
        name: Box<str>,
        /// The section.
        section: Box<str>,
    },
    /// A variable of the function has an empty name, one with a zero byte, or a size that is not
    /// from 1 to 16 bytes, or two variables have the same label.
    #[error("`{0}`: its variables need names, sizes of 1 to 16 bytes, and labels of their own")]
    Variables(Box<str>),
    /// A definition refers to a number that was never declared.
    #[error("{referrer}: there is no function or data object with this number")]
    Undeclared {
        /// The definition.
        referrer: Box<str>,
    },
    /// The type of a function's IR differs from that of its declaration, and a function that was
    /// defined before refers to it as declared. Until then, a definition may have another type.
    #[error("`{user}` uses `{name}` as {declared}, but its code has the type {defined}")]
    Signature {
        /// The function.
        name: Box<str>,
        /// The type with which it is used.
        declared: Box<ir::Signature>,
        /// The type of the code.
        defined: Box<ir::Signature>,
        /// The first function that uses it.
        user: Box<str>,
    },
    /// A function's IR refers to something that does not exist, or that Kiln does not support.
    #[error("`{name}`: {reason}")]
    Unusable {
        /// The function.
        name: Box<str>,
        /// The reason.
        reason: Box<str>,
    },
    /// A data object cannot be defined.
    #[error("`{name}`: {reason}")]
    Data {
        /// The data object.
        name: Box<str>,
        /// The reason.
        reason: DataError,
    },
    /// A function cannot be replaceable, because it is not declared as exported.
    #[error("`{0}` is not declared as exported, so it cannot be replaceable")]
    Replaceable(Box<str>),
    /// A global cannot be defined, because it stands for a run-time object.
    #[error("`{0}` is a global: it has no definition in a module")]
    Global(Box<str>),
    /// Machine code cannot be defined.
    #[error("`{name}`: {reason}")]
    Code {
        /// The function.
        name: Box<str>,
        /// The reason.
        reason: CodeError,
    },
}

impl From<EncodeError> for BuildError {
    fn from(error: EncodeError) -> Self {
        Self::Unusable { name: Box::default(), reason: error.to_string().into() }
    }
}

impl BuildError {
    /// Sets the name of the function in an error of the encoder, which does not know it.
    pub(super) fn named(self, function: &str) -> Self {
        match self {
            Self::Unusable { name, reason } if name.is_empty() => {
                Self::Unusable { name: function.into(), reason }
            }
            other => other,
        }
    }
}

/// An error in machine code that a client supplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodeError {
    /// Its alignment is not a power of two up to [`MAX_ALIGN`](crate::MAX_ALIGN).
    #[error("the alignment is not a power of two up to {max}", max = crate::data::MAX_ALIGN)]
    Align,
    /// It is empty, or has 4 GiB or more.
    #[error("the code is empty or has 4 GiB or more")]
    Size,
    /// The offset of a relocation is outside of the code.
    #[error("the relocation at offset {0} is outside of the code")]
    RelocOutside(u32),
    /// A relocation is of a kind that Kiln does not link.
    #[error("the relocation at offset {0} is of a kind that is not linked")]
    RelocKind(u32),
    /// A relocation refers into another function, or to a symbol that only some object formats
    /// have.
    #[error("the relocation at offset {0} refers to something that cannot be linked")]
    RelocTarget(u32),
}

/// An error in a data object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// Its content was never set.
    #[error("the content is not initialized")]
    Uninitialized,
    /// Its alignment is not a power of two up to [`MAX_ALIGN`](crate::MAX_ALIGN).
    #[error("the alignment is not a power of two up to {max}", max = crate::data::MAX_ALIGN)]
    Align,
    /// A pointer is not inside the content.
    #[error("the address at offset {0} is not inside the content")]
    AddressOutside(u32),
    /// Two pointers overlap.
    #[error("the address at offset {0} overlaps another")]
    AddressOverlap(u32),
    /// The name of its section is empty or holds a zero byte.
    #[error("the section's name is empty or holds a zero byte")]
    Section,
    /// It is thread-local and names a section.
    #[error("thread-local data is in a section of its own")]
    ThreadLocal,
}

impl From<BuildError> for ModuleError {
    fn from(error: BuildError) -> Self {
        Self::Backend(error.into())
    }
}
