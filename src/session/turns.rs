//! Work that one thread does while others wait for it.
//!
//! A lock would not do: the work compiles and calls the client's code, which may ask for the same
//! work; and a thread of a pool that waits for a lock may be the one that its owner waits for.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

/// The right to do a piece of work. One thread at a time has it.
#[derive(Default)]
pub(super) struct Turns {
    owner: Mutex<Option<ThreadId>>,
    /// Told when the owner has ended its turn.
    ended: Condvar,
}

/// A turn, which ends when it is dropped, also if the work panics.
pub(super) struct Turn<'t>(&'t Turns);

impl Turns {
    fn lock(&self) -> MutexGuard<'_, Option<ThreadId>> {
        self.owner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no other thread has the turn, and takes it. In a thread of a pool, it does other
    /// work of the pool meanwhile. `None` if this thread has the turn already.
    pub(super) fn take(&self) -> Option<Turn<'_>> {
        let me = std::thread::current().id();
        let mut owner = self.lock();
        loop {
            match *owner {
                None => {
                    *owner = Some(me);
                    return Some(Turn(self));
                }
                Some(thread) if thread == me => return None,
                Some(_) if rayon::current_thread_index().is_some() => {
                    drop(owner);
                    if rayon::yield_now() != Some(rayon::Yield::Executed) {
                        std::thread::yield_now();
                    }
                    owner = self.lock();
                }
                Some(_) => owner = self.ended.wait(owner).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
        self.0.ended.notify_all();
    }
}
