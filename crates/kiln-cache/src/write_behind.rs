//! Writing in the background, so that a build never waits for a disk.
//!
//! One thread takes what was put from a queue that is bounded in bytes. When the queue is full, a write is dropped, counted and
//! reported: the entry is compiled again some day, which is cheaper than a build that waits for a slow disk now.
//!
//! Subjects point to a key only when its entry is stored: the pointer waits behind the entry, and is given up with it.
//!
//! Invariants: the inner store and event sinks are called without a lock; whatever is queued or just being written is seen by `get`;
//! nothing here waits longer than it was told, not even when the inner store hangs.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::event::Sink;
use crate::{Entry, Event, Events, Key, Lineage, Lookup, Store};

/// Pointers to last builds that may wait; more are dropped. As many keys are known to be lost; beyond, a pointer may lead nowhere.
const MAX_HINTS: usize = 1 << 16;

/// Hands what is put to a background thread, which stores it in `S`.
///
/// [`Store::put`] does not wait (unless no thread could be started: then it writes itself) and fails only for entries that [`Entry::check`] refuses. What goes wrong later is reported as
/// [`Event::WriteFailed`] and [`Event::WriteDropped`]. Dropping this waits for the queue, but at most [`WriteBehind::drop_wait`];
/// what is not written by then is dropped. A process that exits without dropping it loses what is queued, and never damages an entry.
#[derive(Debug)]
pub struct WriteBehind<S> {
    shared: Arc<Shared<S>>,
    /// `None` if no thread could be started: then what is put is written at once.
    thread: Option<JoinHandle<()>>,
    drop_wait: Duration,
}

#[derive(Debug)]
struct Shared<S> {
    store: S,
    state: Mutex<State>,
    /// There is something to do for the thread.
    work: Condvar,
    /// There is nothing left to do.
    idle: Condvar,
}

#[derive(Debug)]
struct State {
    jobs: VecDeque<Job>,
    entries: HashMap<Key, Waiting>,
    latest: HashMap<Lineage, Key>,
    /// Keys whose entries were not stored: nothing points to them until they are put again.
    lost: HashSet<Key>,
    bytes: u64,
    limit: u64,
    busy: bool,
    writing: Option<Key>,
    /// Why the entry that is just being written must be put out of use afterwards.
    doomed: Option<Box<str>>,
    closing: bool,
    sink: Sink,
}

#[derive(Debug)]
enum Job {
    Entry(Key),
    Latest(Lineage),
}

#[derive(Debug)]
struct Waiting {
    entry: Entry,
    cost: u64,
    /// Whether a job for it is in the queue; otherwise it is just being written.
    queued: bool,
}

impl State {
    fn is_idle(&self) -> bool {
        self.jobs.is_empty() && !self.busy
    }

    fn forget(&mut self, key: &Key) {
        if let Some(waiting) = self.entries.remove(key) {
            self.bytes -= waiting.cost;
        }
    }

    fn lose(&mut self, key: &Key) {
        if self.lost.len() < MAX_HINTS {
            self.lost.insert(*key);
        }
    }
}

impl<S> Shared<S> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing is left to do. Whether that came to pass.
    fn wait_idle(&self, timeout: Duration) -> bool {
        let state = self.state();
        let (state, _) = self
            .idle
            .wait_timeout_while(state, timeout, |state| !state.is_idle())
            .unwrap_or_else(PoisonError::into_inner);
        state.is_idle()
    }
}

impl<S: Store + Send + 'static> WriteBehind<S> {
    /// Writes to `store`. At most 256 MiB wait, and dropping it waits at most one second.
    pub fn new(store: S) -> Self {
        let shared = Arc::new(Shared {
            store,
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                entries: HashMap::new(),
                latest: HashMap::new(),
                lost: HashSet::new(),
                bytes: 0,
                limit: 256 << 20,
                busy: false,
                writing: None,
                doomed: None,
                closing: false,
                sink: Sink::default(),
            }),
            work: Condvar::new(),
            idle: Condvar::new(),
        });
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("kiln-cache".into()).spawn(move || own.run()).ok();
        Self { shared, thread, drop_wait: Duration::from_secs(1) }
    }

    /// How many bytes of entries may wait. An entry that is larger is taken when nothing else waits.
    #[must_use]
    pub fn queue_bytes(self, bytes: u64) -> Self {
        self.shared.state().limit = bytes;
        self
    }

    /// How long dropping this waits for the queue at most.
    #[must_use]
    pub fn drop_wait(mut self, wait: Duration) -> Self {
        self.drop_wait = wait;
        self
    }

    /// Reports writes that failed or were dropped to `events`. Give the inner store a sink as well.
    #[must_use]
    pub fn events(self, events: Arc<dyn Events>) -> Self {
        self.shared.state().sink = Sink::new(events);
        self
    }

    /// The store that is written to.
    pub fn inner(&self) -> &S {
        &self.shared.store
    }
}

impl<S: Store> Shared<S> {
    /// The background thread.
    fn run(&self) {
        let mut state = self.state();
        loop {
            let Some(job) = state.jobs.pop_front() else {
                if state.closing {
                    return;
                }
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.busy = true;
            state = match job {
                Job::Entry(key) => self.write_entry(state, key),
                Job::Latest(lineage) => self.write_latest(state, lineage),
            };
            state.busy = false;
            if state.jobs.is_empty() {
                self.idle.notify_all();
            }
        }
    }

    fn write_entry<'a>(&'a self, mut state: MutexGuard<'a, State>, key: Key) -> MutexGuard<'a, State> {
        let Some(waiting) = state.entries.get_mut(&key) else {
            return state; // Quarantined while it was waiting.
        };
        waiting.queued = false;
        let entry = waiting.entry.clone();
        state.writing = Some(key);
        let sink = state.sink.clone();
        drop(state);

        let written = guarded(|| self.store.put(&key, &entry));
        drop(entry);
        if let Err(error) = &written {
            report(&sink, &Event::WriteFailed { key: &key, error });
        }
        let mut state = self.state();
        let mut lost = written.is_err();
        if let Some(reason) = state.doomed.clone() {
            lost = true;
            drop(state);
            // Reported by the store. Until it is done, `get` sees that the entry is doomed.
            let _ = guarded(|| self.store.quarantine(&key, &reason));
            state = self.state();
            state.doomed = None;
        }
        state.writing = None;
        if !state.entries.get(&key).is_some_and(|waiting| waiting.queued) {
            state.forget(&key);
            if lost {
                state.lose(&key);
            }
        }
        state
    }

    fn write_latest<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        lineage: Lineage,
    ) -> MutexGuard<'a, State> {
        let Some(key) = state.latest.get(&lineage).copied() else {
            return state;
        };
        if state.entries.contains_key(&key) {
            // The entry was put after another one of the lineage, and comes first.
            state.jobs.push_back(Job::Latest(lineage));
            return state;
        }
        if state.lost.contains(&key) {
            state.latest.remove(&lineage);
            return state;
        }
        let sink = state.sink.clone();
        drop(state);
        if let Err(error) = guarded(|| self.store.set_latest(&lineage, &key)) {
            report(&sink, &Event::WriteFailed { key: &key, error: &error });
        }
        let mut state = self.state();
        if state.latest.get(&lineage) == Some(&key) {
            state.latest.remove(&lineage);
        } else {
            state.jobs.push_back(Job::Latest(lineage));
        }
        state
    }
}

/// A store of the client's that panics must not end the thread.
fn guarded(call: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| Err(io::Error::other("the store panicked")))
}

fn report(sink: &Sink, event: &Event<'_>) {
    let _ = catch_unwind(AssertUnwindSafe(|| sink.report(event)));
}

impl<S: Store + Send> Store for WriteBehind<S> {
    fn get(&self, key: &Key) -> Lookup {
        let lost = {
            let state = self.shared.state();
            match state.entries.get(key) {
                Some(waiting) if waiting.queued || state.doomed.is_none() => {
                    return Lookup::Hit(waiting.entry.clone());
                }
                Some(_) => return Lookup::Miss,
                None => state.lost.contains(key),
            }
        };
        let found = self.shared.store.get(key);
        if lost && matches!(found, Lookup::Hit(_)) {
            // Somebody else stored it.
            self.shared.state().lost.remove(key);
        }
        found
    }

    fn put(&self, key: &Key, entry: &Entry) -> io::Result<()> {
        if self.thread.is_none() {
            return self.shared.store.put(key, entry);
        }
        entry.check(key)?;
        let cost = entry.file_len();
        let mut state = self.shared.state();
        let replaced = state.entries.get(key).map_or(0, |waiting| waiting.cost);
        if !state.entries.is_empty() && (state.bytes - replaced).saturating_add(cost) > state.limit {
            if replaced == 0 {
                state.lose(key);
            }
            let sink = state.sink.clone();
            drop(state);
            sink.report(&Event::WriteDropped { key });
            return Ok(());
        }
        state.lost.remove(key);
        state.bytes = state.bytes - replaced + cost;
        let old = state.entries.insert(*key, Waiting { entry: entry.clone(), cost, queued: true });
        if !old.is_some_and(|old| old.queued) {
            state.jobs.push_back(Job::Entry(*key));
            self.shared.work.notify_one();
        }
        Ok(())
    }

    fn quarantine(&self, key: &Key, reason: &str) -> io::Result<()> {
        {
            let mut state = self.shared.state();
            if state.writing == Some(*key) {
                state.doomed = Some(reason.into());
            }
            if state.entries.get(key).is_some_and(|waiting| waiting.queued) {
                state.forget(key);
                state.lose(key);
            }
        }
        self.shared.store.quarantine(key, reason)
    }

    fn latest(&self, lineage: &Lineage) -> Option<Key> {
        let waiting = self.shared.state().latest.get(lineage).copied();
        waiting.or_else(|| self.shared.store.latest(lineage))
    }

    fn set_latest(&self, lineage: &Lineage, key: &Key) -> io::Result<()> {
        if self.thread.is_none() {
            return self.shared.store.set_latest(lineage, key);
        }
        let mut state = self.shared.state();
        if !state.latest.contains_key(lineage) && !state.entries.contains_key(key) {
            drop(state);
            // A build that repeats the last one has nothing to write, and a short read takes less time than to hand on that it has not.
            if self.shared.store.latest(lineage) == Some(*key) {
                return Ok(());
            }
            state = self.shared.state();
        }
        if state.lost.contains(key) {
            // That was reported.
        } else if state.latest.contains_key(lineage) {
            state.latest.insert(*lineage, *key);
        } else if state.latest.len() < MAX_HINTS {
            state.latest.insert(*lineage, *key);
            state.jobs.push_back(Job::Latest(*lineage));
            self.shared.work.notify_one();
        } else {
            let sink = state.sink.clone();
            drop(state);
            sink.report(&Event::WriteDropped { key });
        }
        Ok(())
    }

    fn flush(&self, timeout: Duration) -> bool {
        let start = std::time::Instant::now();
        self.shared.wait_idle(timeout) && self.shared.store.flush(timeout.saturating_sub(start.elapsed()))
    }
}

impl<S> Drop for WriteBehind<S> {
    fn drop(&mut self) {
        self.shared.state().closing = true;
        self.shared.work.notify_all();
        let finished = self.shared.wait_idle(self.drop_wait);
        if finished {
            // It has nothing left to do but return.
            if let Some(thread) = self.thread.take() {
                let _ = thread.join();
            }
            return;
        }
        // The thread ends after the write it is at, if that ever returns.
        let (jobs, entries, latest, lost, sink) = {
            let state = &mut *self.shared.state();
            let (jobs, entries) = (std::mem::take(&mut state.jobs), std::mem::take(&mut state.entries));
            let (latest, lost) = (std::mem::take(&mut state.latest), std::mem::take(&mut state.lost));
            (jobs, entries, latest, lost, state.sink.clone())
        };
        // A pointer to an entry that is dropped is not counted beside it.
        let queued = |key: &Key| entries.get(key).is_some_and(|entry| entry.queued);
        let pointers = jobs.iter().filter_map(|job| match job {
            Job::Entry(_) => None,
            Job::Latest(lineage) => latest.get(lineage).filter(|key| !queued(key) && !lost.contains(key)),
        });
        let mut keys: Vec<Key> = entries.keys().filter(|key| queued(key)).chain(pointers).copied().collect();
        keys.sort_unstable();
        keys.iter().for_each(|key| sink.report(&Event::WriteDropped { key }));
    }
}
