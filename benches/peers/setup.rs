//! Everything that all comparisons share: threads, rounds, and the error type.

use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuilder};

/// The reason why the run ends early.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The options of the run that every comparison needs.
pub(crate) struct Setup {
    pub(crate) rounds: u32,
    pub(crate) threads: usize,
    pub(crate) pool: Arc<ThreadPool>,
}

/// Returns a pool of `threads` threads.
pub(crate) fn pool(threads: usize) -> Result<ThreadPool, Failure> {
    Ok(ThreadPoolBuilder::new().num_threads(threads).build()?)
}
