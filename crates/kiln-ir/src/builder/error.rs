//! Why a module cannot be built.
//!
//! Clients meet these inside `ModuleError::Backend`, the only variant of Cranelift's error that is open to others; faults that
//! Cranelift has a variant for are reported as that.

use cranelift_codegen::ir;
use cranelift_module::ModuleError;

use crate::settings::TargetError;

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
    /// Something refers to a number that was never declared.
    #[error("{place}: there is no function or datum with this number")]
    Undeclared {
        /// What refers to it.
        place: Box<str>,
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
        reason: DataFault,
    },
    /// A global cannot be defined, and nothing else can have its name.
    #[error("`{0}` is a global: it has no definition in a module")]
    Global(Box<str>),
    /// Machine code from elsewhere cannot be part of a module of IR.
    #[error("functions given as machine code are not supported")]
    Bytes,
}

/// What is wrong with a datum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DataFault {
    /// Its content was never set.
    #[error("the content is not initialized")]
    Uninitialized,
    /// Its alignment is not a power of two below 2^32.
    #[error("the alignment is not a power of two below 2^32")]
    Align,
    /// An address does not lie inside the content.
    #[error("the address at offset {0} does not lie inside the content")]
    AddressOutside(u32),
    /// Two addresses overlap.
    #[error("the address at offset {0} overlaps another")]
    AddressOverlap(u32),
    /// It asks for a section of its own.
    #[error("custom sections are not supported")]
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
