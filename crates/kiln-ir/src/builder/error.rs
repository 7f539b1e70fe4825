//! Why a module cannot be built.
//!
//! Clients meet these inside `ModuleError::Backend`, the only variant of Cranelift's error that is open to others; faults that
//! Cranelift has a variant for are reported as that.

use cranelift_codegen::ir;
use cranelift_module::ModuleError;

use crate::body::UndefinedEntity;
use crate::target::TargetError;

/// Why a module cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is no code generator for the target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A function or datum was declared as defined here, and is not.
    #[error("`{0}` is declared as defined in this module, but has no definition")]
    Undefined(Box<str>),
    /// A name that is empty or holds a zero byte: nothing could be linked by it.
    #[error("`{}` cannot be a name: it is empty or holds a zero byte", .0.escape_debug())]
    Name(Box<str>),
    /// Something refers to a number that was never declared.
    #[error("{referrer}: there is no function or datum with this number")]
    Undeclared {
        /// What refers to it.
        referrer: Box<str>,
    },
    /// A function's IR has another type than its declaration.
    #[error("`{name}` is declared as {declared}, but its code has the type {defined}")]
    Signature {
        /// The function.
        name: Box<str>,
        /// The type declared.
        declared: Box<ir::Signature>,
        /// The type of the code.
        defined: Box<ir::Signature>,
    },
    /// A function's IR refers to something that Kiln does not support or that does not exist.
    #[error("`{name}`: {reason}")]
    Unusable {
        /// The function.
        name: Box<str>,
        /// What is wrong.
        reason: Box<str>,
    },
    /// A datum is not as it has to be.
    #[error("`{name}`: {reason}")]
    Data {
        /// The datum.
        name: Box<str>,
        /// What is wrong.
        reason: DataError,
    },
    /// A global cannot be defined, and nothing else can have its name.
    #[error("`{0}` is a global: it has no definition in a module")]
    Global(Box<str>),
    /// Machine code from elsewhere is not as it has to be.
    #[error("`{name}`: {reason}")]
    Code {
        /// The function.
        name: Box<str>,
        /// What is wrong.
        reason: CodeError,
    },
}

impl From<UndefinedEntity> for BuildError {
    fn from(UndefinedEntity(entity): UndefinedEntity) -> Self {
        let name = "a function".into();
        Self::Unusable { name, reason: format!("{entity} is used and not defined").into() }
    }
}

/// What is wrong with machine code that a client brings along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodeError {
    /// Its alignment is not a power of two up to [`MAX_ALIGN`](crate::MAX_ALIGN).
    #[error("the alignment is not a power of two up to {max}", max = crate::MAX_ALIGN)]
    Align,
    /// It is empty, or has 4 GiB or more.
    #[error("the code is empty or has 4 GiB")]
    Size,
    /// A relocation lies outside of it.
    #[error("the relocation at offset {0} lies outside of the code")]
    RelocOutside(u32),
    /// A relocation is of a kind that Kiln does not link.
    #[error("the relocation at offset {0} is of a kind that is not linked")]
    RelocKind(u32),
    /// A relocation refers into another function, or to a symbol that only some object formats have.
    #[error("the relocation at offset {0} refers to something that cannot be linked")]
    RelocTarget(u32),
}

/// What is wrong with a datum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// Its content was never set.
    #[error("the content is not initialized")]
    Uninitialized,
    /// Its alignment is not a power of two up to [`MAX_ALIGN`](crate::MAX_ALIGN).
    #[error("the alignment is not a power of two up to {max}", max = crate::MAX_ALIGN)]
    Align,
    /// An address does not lie inside the content.
    #[error("the address at offset {0} does not lie inside the content")]
    AddressOutside(u32),
    /// Two addresses overlap.
    #[error("the address at offset {0} overlaps another")]
    AddressOverlap(u32),
    /// The name of its section is empty or holds a zero byte.
    #[error("the section's name is empty or holds a zero byte")]
    Section,
    /// It is thread-local.
    #[error("thread-local data is not supported")]
    ThreadLocal,
}

impl From<BuildError> for ModuleError {
    fn from(error: BuildError) -> Self {
        Self::Backend(error.into())
    }
}
