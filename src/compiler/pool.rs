//! The threads that a compiler uses, also in a child of `fork`.
//!
//! A child has none of its parent's threads. Work that is handed to a pool of the parent would
//! never be done there, so a child gets a pool of its own at the first work that needs one.
//!
//! Rayon does not say which process started the threads of its global pool, and the client may have
//! started them, without a compiler. So [`global_owner`] starts them, and if that was done before,
//! it looks whether this process has as many threads.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// A pool that the client gave, or rayon's global pool.
#[derive(Clone)]
pub(super) struct Pool {
    given: Option<Given>,
}

/// A pool that the client gave.
#[derive(Clone)]
struct Given {
    pool: Arc<ThreadPool>,
    /// The process that has the pool's threads.
    process: u32,
}

/// Returns the process that has the threads of rayon's global pool, which are started if they were
/// not; 0 if that is a parent of this one.
fn global_owner() -> u32 {
    static OWNER: OnceLock<u32> = OnceLock::new();
    *OWNER.get_or_init(|| {
        let is_new = ThreadPoolBuilder::new().build_global().is_ok();
        if is_new || global_threads_are_here() { std::process::id() } else { 0 }
    })
}

/// Whether this process has as many threads as the global pool and the caller need.
fn global_threads_are_here() -> bool {
    // Without `/proc`, it cannot be known; then nobody forked, most likely.
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return true };
    let callers = usize::from(rayon::current_thread_index().is_none());
    threads.count() >= rayon::current_num_threads() + callers
}

impl Pool {
    /// Returns the global pool. Its threads are not started yet.
    pub(super) fn global() -> Self {
        Self { given: None }
    }

    /// Returns a pool that was made in this process.
    pub(super) fn given(pool: Arc<ThreadPool>) -> Self {
        Self { given: Some(Given { pool, process: std::process::id() }) }
    }

    /// Returns the pool to use, or `None` for the global pool.
    fn current(&self) -> Option<Arc<ThreadPool>> {
        let process = std::process::id();
        let owner = self.given.as_ref().map_or_else(global_owner, |given| given.process);
        if process == owner {
            return self.given.as_ref().map(|given| given.pool.clone());
        }
        static OF_CHILD: Mutex<Option<(u32, Arc<ThreadPool>)>> = Mutex::new(None);
        let mut of_child = OF_CHILD.lock().unwrap_or_else(PoisonError::into_inner);
        match &*of_child {
            Some((owner, pool)) if *owner == process => Some(pool.clone()),
            _ => {
                let threads = self.given.as_ref().map_or(0, |given| given.pool.current_num_threads());
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
