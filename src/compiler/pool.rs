//! The threads that a compiler uses, also in a child of `fork`.
//!
//! A child has none of its parent's threads. Work that is handed to a pool of the parent would
//! never be done there, so a child gets a pool of its own at the first work that needs one.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// A pool that the client gave, or rayon's global pool.
#[derive(Clone)]
pub(super) struct Pool {
    given: Option<Arc<ThreadPool>>,
    /// The process that has the pool's threads.
    process: u32,
}

impl Pool {
    /// Returns the global pool. Its threads are in the first process that asked for it, or in none
    /// yet.
    pub(super) fn global() -> Self {
        static FIRST: OnceLock<u32> = OnceLock::new();
        Self { given: None, process: *FIRST.get_or_init(std::process::id) }
    }

    /// Returns a pool that was made in this process.
    pub(super) fn given(pool: Arc<ThreadPool>) -> Self {
        Self { given: Some(pool), process: std::process::id() }
    }

    /// Returns the pool to use, or `None` for the global pool.
    fn current(&self) -> Option<Arc<ThreadPool>> {
        let process = std::process::id();
        if process == self.process {
            return self.given.clone();
        }
        static OF_CHILD: Mutex<Option<(u32, Arc<ThreadPool>)>> = Mutex::new(None);
        let mut of_child = OF_CHILD.lock().unwrap_or_else(PoisonError::into_inner);
        match &*of_child {
            Some((owner, pool)) if *owner == process => Some(pool.clone()),
            _ => {
                let threads = self.given.as_ref().map_or(0, |pool| pool.current_num_threads());
                let pool = ThreadPoolBuilder::new().num_threads(threads).build();
                let pool = Arc::new(pool.expect("threads can be started, as for the global pool"));
                if let Some((_, without_threads)) = of_child.replace((process, pool.clone())) {
                    // The pool of a parent that is a child itself: nobody would hear of its end.
                    std::mem::forget(without_threads);
                }
                Some(pool)
            }
        }
    }

    /// Runs `work` in the pool.
    pub(super) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match self.current() {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// Lets the pool do `work` when it has nothing else to do.
    pub(super) fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        match self.current() {
            Some(pool) => pool.spawn_fifo(work),
            None => rayon::spawn_fifo(work),
        }
    }

    /// Returns the number of threads.
    pub(super) fn threads(&self) -> usize {
        self.current().map_or_else(rayon::current_num_threads, |pool| pool.current_num_threads())
    }
}
