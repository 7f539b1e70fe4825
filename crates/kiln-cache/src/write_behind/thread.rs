//! The thread that writes, and the state that it shares with `WriteBehind`.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::queue::{Added, Queue, Write};
use crate::event::Sink;
use crate::{Event, Key, Lineage, Store};

#[derive(Debug)]
pub(super) struct Shared<S> {
    pub(super) store: S,
    queue: Mutex<Queue>,
    /// Signalled when the thread has something to do.
    work: Condvar,
    /// Signalled when nothing is left to do.
    idle: Condvar,
}

impl<S> Shared<S> {
    pub(super) fn new(store: S) -> Self {
        Self { store, queue: Mutex::new(Queue::new()), work: Condvar::new(), idle: Condvar::new() }
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the thread for a new write of `key`, or reports that it was dropped.
    pub(super) fn follow_up(&self, key: &Key, added: Added) {
        match added {
            Added::New => self.work.notify_one(),
            Added::Known => {}
            Added::Dropped => {
                let sink = self.queue().sink.clone();
                sink.report(&Event::WriteDropped { key });
            }
        }
    }

    /// Lets the thread end when nothing is left to do.
    pub(super) fn close(&self) {
        self.queue().closing = true;
        self.work.notify_all();
    }

    /// Waits until nothing is left to do. Returns `false` if that takes longer than `timeout`.
    pub(super) fn wait_idle(&self, timeout: Duration) -> bool {
        let queue = self.queue();
        let (queue, _) = self
            .idle
            .wait_timeout_while(queue, timeout, |queue| !queue.is_idle())
            .unwrap_or_else(PoisonError::into_inner);
        queue.is_idle()
    }
}

impl<S: Store> Shared<S> {
    /// The loop of the thread.
    pub(super) fn run(&self) {
        let mut queue = self.queue();
        loop {
            let Some(write) = queue.writes.pop_front() else {
                if queue.closing {
                    return;
                }
                queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            queue.busy = true;
            queue = match write {
                Write::Entry(key) => self.write_entry(queue, key),
                Write::Latest(lineage) => self.write_latest(queue, lineage),
            };
            queue.busy = false;
            if queue.writes.is_empty() {
                self.idle.notify_all();
            }
        }
    }

    fn write_entry<'a>(&'a self, mut queue: MutexGuard<'a, Queue>, key: Key) -> MutexGuard<'a, Queue> {
        let Some(waiting) = queue.entries.get_mut(&key) else {
            // It was quarantined while it was queued.
            return queue;
        };
        waiting.queued = false;
        let entry = waiting.entry.clone();
        queue.writing = Some(key);
        let sink = queue.sink.clone();
        drop(queue);

        // Without the lock: a build may put, get and quarantine the same key in the meantime.
        let written = guarded(|| self.store.put(&key, &entry));
        drop(entry);
        if let Err(error) = &written {
            report(&sink, &Event::WriteFailed { key: &key, error });
        }

        let mut queue = self.queue();
        let mut lost = written.is_err();
        if let Some(reason) = queue.doomed.clone() {
            lost = true;
            drop(queue);
            // The store reports a failure. Until this is done, `get` sees that the entry is doomed.
            let _ = guarded(|| self.store.quarantine(&key, &reason));
            queue = self.queue();
            queue.doomed = None;
        }
        queue.writing = None;
        // If the key was put again in the meantime, its new entry is queued, and whether the key is
        // lost depends on that entry.
        if !queue.entries.get(&key).is_some_and(|waiting| waiting.queued) {
            queue.forget(&key);
            if lost {
                queue.lose(&key);
            }
        }
        queue
    }

    fn write_latest<'a>(
        &'a self,
        mut queue: MutexGuard<'a, Queue>,
        lineage: Lineage,
    ) -> MutexGuard<'a, Queue> {
        let Some(key) = queue.latest.get(&lineage).copied() else {
            return queue;
        };
        if queue.entries.contains_key(&key) {
            // The pointer was moved to a key whose entry is queued after it: the entry comes first.
            queue.writes.push_back(Write::Latest(lineage));
            return queue;
        }
        if queue.lost.contains(&key) {
            queue.latest.remove(&lineage);
            return queue;
        }
        let sink = queue.sink.clone();
        drop(queue);

        if let Err(error) = guarded(|| self.store.set_latest(&lineage, &key)) {
            report(&sink, &Event::WriteFailed { key: &key, error: &error });
        }

        let mut queue = self.queue();
        if queue.latest.get(&lineage) == Some(&key) {
            queue.latest.remove(&lineage);
        } else {
            // It was moved in the meantime.
            queue.writes.push_back(Write::Latest(lineage));
        }
        queue
    }
}

/// Calls the client's store. If it panics, the thread goes on.
fn guarded(call: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| Err(io::Error::other("the store panicked")))
}

/// Calls the client's sink. If it panics, the thread goes on.
fn report(sink: &Sink, event: &Event<'_>) {
    let _ = catch_unwind(AssertUnwindSafe(|| sink.report(event)));
}
