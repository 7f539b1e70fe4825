//! Errors of the compiler, and how a list of errors is printed.

use std::error::Error;

use kiln_backend::CompileError;
use kiln_globals::list_errors;
use kiln_ir::TargetError;

/// Modules could not be compiled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompilerError {
    /// There is no code generator for a module.
    #[error("module {name}")]
    Target {
        /// Position of the module.
        module: usize,
        /// The module's name.
        name: Box<str>,
        /// The reason why there is no code generator.
        source: TargetError,
    },
    /// Functions that cannot be compiled, in order of modules and functions.
    #[error("{}", lines(.0))]
    Functions(Vec<CompileError>),
}

/// One of many modules could not be built or compiled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LazyError<E> {
    /// The client's closure did not build the module. The closure's error need not implement
    /// [`Error`], so the message contains it and `source()` does not return it.
    #[error("module {name}: {error}")]
    Build {
        /// Position of the module.
        module: usize,
        /// Its name.
        name: Box<str>,
        /// The closure's error.
        error: E,
    },
    /// The module could not be compiled.
    #[error(transparent)]
    Compile(CompilerError),
}

impl<E: std::fmt::Display> LazyError<E> {
    /// Returns the message and the messages of its sources in one line.
    pub(crate) fn line(&self) -> String {
        match self {
            Self::Build { .. } => self.to_string(),
            Self::Compile(error) => with_sources(error),
        }
    }
}

/// Returns the messages of `errors`, one per line, each followed by the messages of its sources.
pub(crate) fn lines<E: Error>(errors: &[E]) -> String {
    list_errors(errors.iter().map(|error| with_sources(error)))
}

/// Returns the message of `error`, followed by the messages of its sources.
fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
