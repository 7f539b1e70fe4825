//! A file for perf, and what can go wrong with it.

use std::io;

use crate::describe::Code;

/// The figures of a process: what it has written.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Status {
    /// The number of functions that were written.
    pub functions: u64,
    /// The number of batches that could not be written, or not completely. After a failure to open
    /// the file, each batch counts.
    pub failures: u64,
    /// The first failure.
    pub error: Option<Failure>,
}

/// A failure of the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// The step that failed, such as `open`.
    pub action: &'static str,
    /// The kind of the error.
    pub kind: io::ErrorKind,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot {} the profiler's file: {}", self.action, self.kind)
    }
}

impl std::error::Error for Failure {}

/// A file that is written in batches.
pub(super) trait Writer: Sized {
    /// Opens the file of a process.
    fn open(process: u32) -> Result<Self, Failure>;

    /// Writes a batch.
    fn add(&mut self, code: &Code<'_>) -> Result<(), Failure>;
}

pub(super) fn failure(action: &'static str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure { action, kind: error.kind() }
}
