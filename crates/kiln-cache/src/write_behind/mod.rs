//! A store that writes in the background, so that a build does not wait for a disk.
//!
//! `put` and `set_latest` add to a queue in memory. One thread takes writes from the queue, the
//! oldest first, and passes them to the inner store. `get` and `latest` look into the queue first,
//! so a build sees at once what it put.
//!
//! An example: a build compiles a module that was edited, puts its entry under K2, and points the
//! module's lineage from K1 to K2.
//!
//! 1. Two writes are queued: the entry of K2, and the pointer. `get(K2)` is a hit from the queue.
//! 2. The thread writes the entry, without holding the lock. `get(K2)` is still a hit. If the build
//!    quarantines K2 now, the write can no longer be stopped: the entry is *doomed*. `get(K2)` is a
//!    miss from now on, and the thread quarantines the entry as soon as it is written.
//! 3. The thread writes the pointer, after the entry: a pointer never leads to an entry that is not
//!    there. If the entry could not be written, K2 is *lost*: the pointer is dropped with it, the
//!    lineage still points to K1, and the failure is reported.
//!
//! The queue is bounded in bytes. If it is full, an entry is dropped and reported, and its key is
//! lost as well. The module will be compiled again, which costs less than a build that waits for a
//! slow disk.
//!
//! Invariants: the inner store and event sinks are called without a lock; `get` sees everything
//! that is queued or being written; no call waits longer than its timeout for the thread, even if
//! the inner store hangs.

mod queue;
mod thread;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use self::thread::Shared;
use crate::event::Sink;
use crate::{Entry, Event, Events, Key, Lineage, Lookup, Place, Store};

/// A store that passes writes to `S` on a background thread.
///
/// [`Store::put`] does not wait, and fails only for entries that [`Entry::check`] refuses. Later
/// failures are reported as [`Event::WriteFailed`] and [`Event::WriteDropped`]. If the thread could
/// not be started, `put` writes to `S` itself, and the caller waits.
///
/// Dropping this waits for the queue, but at most [`WriteBehind::drop_wait`]; what is not written
/// by then is dropped. A process that exits without dropping it loses what is queued, and never
/// damages an entry.
#[derive(Debug)]
pub struct WriteBehind<S> {
    shared: Arc<Shared<S>>,
    /// `None` if the thread could not be started.
    thread: Option<JoinHandle<()>>,
    drop_wait: Duration,
}

impl<S: Store + Send + 'static> WriteBehind<S> {
    /// Writes to `store`. At most 256 MiB of entries wait in the queue, and dropping this waits at
    /// most one second.
    pub fn new(store: S) -> Self {
        let shared = Arc::new(Shared::new(store));
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("kiln-cache".into()).spawn(move || own.run()).ok();
        Self { shared, thread, drop_wait: Duration::from_secs(1) }
    }

    /// Sets how many bytes of entries may wait. A larger entry is accepted when nothing else waits.
    #[must_use]
    pub fn queue_bytes(self, bytes: u64) -> Self {
        self.shared.queue().limit = bytes;
        self
    }

    /// Sets how long dropping this waits for the queue at most.
    #[must_use]
    pub fn drop_wait(mut self, wait: Duration) -> Self {
        self.drop_wait = wait;
        self
    }

    /// Reports writes that failed or were dropped to `events`. Give the inner store a sink as well.
    #[must_use]
    pub fn events(self, events: Arc<dyn Events>) -> Self {
        self.shared.queue().sink = Sink::new(events);
        self
    }

    /// Returns the store that is written to.
    pub fn inner(&self) -> &S {
        &self.shared.store
    }
}

impl<S: Store + Send> Store for WriteBehind<S> {
    fn get(&self, key: &Key) -> Lookup {
        let lost = {
            let queue = self.shared.queue();
            match queue.entries.get(key) {
                Some(waiting) if waiting.queued || queue.doomed.is_none() => {
                    return Lookup::Hit(waiting.entry.clone(), Place::Memory);
                }
                Some(_) => return Lookup::Miss,
                None => queue.lost.contains(key),
            }
        };
        let found = self.shared.store.get(key);
        if lost && matches!(found, Lookup::Hit(..)) {
            // Another process stored the entry.
            self.shared.queue().lost.remove(key);
        }
        found
    }

    fn put(&self, key: &Key, entry: &Entry) -> io::Result<()> {
        if self.thread.is_none() {
            return self.shared.store.put(key, entry);
        }
        entry.check(key)?;
        let cost = entry.file_len();
        let added = self.shared.queue().put(key, entry, cost);
        self.shared.follow_up(key, added);
        Ok(())
    }

    fn quarantine(&self, key: &Key, reason: &str) -> io::Result<()> {
        self.shared.queue().quarantine(key, reason);
        self.shared.store.quarantine(key, reason)
    }

    fn latest(&self, lineage: &Lineage) -> Option<Key> {
        let waiting = self.shared.queue().latest.get(lineage).copied();
        waiting.or_else(|| self.shared.store.latest(lineage))
    }

    fn set_latest(&self, lineage: &Lineage, key: &Key) -> io::Result<()> {
        if self.thread.is_none() {
            return self.shared.store.set_latest(lineage, key);
        }
        let mut queue = self.shared.queue();
        if !queue.latest.contains_key(lineage) && !queue.entries.contains_key(key) {
            drop(queue);
            // If nothing changed since the last build, the pointer is right already. Reading it is
            // faster than waking the thread to write it.
            if self.shared.store.latest(lineage) == Some(*key) {
                return Ok(());
            }
            queue = self.shared.queue();
        }
        let added = queue.set_latest(lineage, key);
        drop(queue);
        self.shared.follow_up(key, added);
        Ok(())
    }

    fn announce(&self, lineages: &[Lineage], keys: &[Key]) {
        self.shared.store.announce(lineages, keys);
    }

    fn has(&self, key: &Key) -> bool {
        self.shared.queue().entries.contains_key(key) || self.shared.store.has(key)
    }

    fn claim(&self, key: &Key) -> Lookup {
        // Another thread may have put it into the queue by now.
        match self.get(key) {
            Lookup::Hit(entry, place) => Lookup::Hit(entry, place),
            _ => self.shared.store.claim(key),
        }
    }

    fn flush(&self, timeout: Duration) -> bool {
        let start = Instant::now();
        self.shared.wait_idle(timeout) && self.shared.store.flush(timeout.saturating_sub(start.elapsed()))
    }
}

impl<S> Drop for WriteBehind<S> {
    fn drop(&mut self) {
        self.shared.close();
        if self.shared.wait_idle(self.drop_wait) {
            // The thread has nothing left to do but return.
            if let Some(thread) = self.thread.take() {
                let _ = thread.join();
            }
            return;
        }
        // The thread ends after the write that it is doing, if that ever returns.
        let mut queue = self.shared.queue();
        let (abandoned, sink) = (queue.abandon(), queue.sink.clone());
        drop(queue);
        abandoned.keys().iter().for_each(|key| sink.report(&Event::WriteDropped { key }));
    }
}
