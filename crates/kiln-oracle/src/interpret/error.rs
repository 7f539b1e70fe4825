//! The reasons why an interpreted call has no result.

/// The reason why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InterpretError {
    /// The interpreter lacks an instruction, or the program calls a function that neither a module
    /// nor the interpreter defines.
    #[error("not supported: {0}")]
    Unsupported(Box<str>),
    /// The program trapped.
    #[error("{0}")]
    Trapped(Box<str>),
    /// The program executed more instructions than it may.
    #[error("out of fuel")]
    Fuel,
    /// There is no visible function of this name.
    #[error("there is no such function")]
    NoFunction,
}
