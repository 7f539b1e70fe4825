//! The queue between a build and the thread that writes. No code of the client runs while it is
//! locked.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::event::Sink;
use crate::{Entry, Key, Lineage};

/// The largest number of waiting pointers to last builds; further pointers are dropped. It is also
/// the largest number of lost keys that are remembered. A pointer to a lost key that is not
/// remembered leads to a missing entry, which is a miss.
const MAX_POINTERS: usize = 1 << 16;

/// The default of [`Queue::limit`], the bytes of entries that may wait.
const LIMIT: u64 = 256 << 20;

/// A write that the thread has to do. The value to write is in [`Queue::entries`] or
/// [`Queue::latest`].
#[derive(Debug)]
pub(super) enum Write {
    Entry(Key),
    Latest(Lineage),
}

/// An entry that is queued or being written.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) entry: Entry,
    /// Bytes that it takes of the limit.
    cost: u64,
    /// Whether a write of it is queued. Otherwise it is being written.
    pub(super) queued: bool,
}

/// The outcome of adding a write.
#[derive(Debug)]
pub(super) enum Added {
    /// There is a new write for the thread.
    New,
    /// No new write is needed.
    Known,
    /// The write was dropped, because too much is waiting already.
    Dropped,
}

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) writes: VecDeque<Write>,
    pub(super) entries: HashMap<Key, Waiting>,
    /// Pointers to last builds that are queued or being written.
    pub(super) latest: HashMap<Lineage, Key>,
    /// Keys whose entries were not stored: nothing points to them until they are put again.
    pub(super) lost: HashSet<Key>,
    bytes: u64,
    pub(super) limit: u64,
    /// Whether the thread is writing.
    pub(super) busy: bool,
    /// The key of the entry that is being written.
    pub(super) writing: Option<Key>,
    /// The reason why the entry that is being written must be quarantined afterwards, if it must.
    pub(super) doomed: Option<Box<str>>,
    /// Whether the thread ends when nothing is left to do.
    pub(super) closing: bool,
    pub(super) sink: Sink,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            writes: VecDeque::new(),
            entries: HashMap::new(),
            latest: HashMap::new(),
            lost: HashSet::new(),
            bytes: 0,
            limit: LIMIT,
            busy: false,
            writing: None,
            doomed: None,
            closing: false,
            sink: Sink::default(),
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.writes.is_empty() && !self.busy
    }

    /// Adds an entry of `cost` bytes. It replaces a queued entry of the same key.
    pub(super) fn put(&mut self, key: &Key, entry: &Entry, cost: u64) -> Added {
        let replaced = self.entries.get(key).map_or(0, |waiting| waiting.cost);
        // An entry that is larger than the limit is accepted when nothing else waits.
        if !self.entries.is_empty() && (self.bytes - replaced).saturating_add(cost) > self.limit {
            if replaced == 0 {
                self.lose(key);
            }
            return Added::Dropped;
        }
        self.lost.remove(key);
        self.bytes = self.bytes - replaced + cost;
        let old = self.entries.insert(*key, Waiting { entry: entry.clone(), cost, queued: true });
        if old.is_some_and(|old| old.queued) {
            return Added::Known;
        }
        self.writes.push_back(Write::Entry(*key));
        Added::New
    }

    /// Adds a pointer. It replaces a queued pointer of the same lineage.
    pub(super) fn set_latest(&mut self, lineage: &Lineage, key: &Key) -> Added {
        if self.lost.contains(key) {
            // Its loss was reported.
            return Added::Known;
        }
        if let Some(latest) = self.latest.get_mut(lineage) {
            *latest = *key;
            return Added::Known;
        }
        if self.latest.len() >= MAX_POINTERS {
            return Added::Dropped;
        }
        self.latest.insert(*lineage, *key);
        self.writes.push_back(Write::Latest(*lineage));
        Added::New
    }

    /// Takes the entry of `key` out of the queue, or marks it if it is being written already.
    pub(super) fn quarantine(&mut self, key: &Key, reason: &str) {
        if self.writing == Some(*key) {
            self.doomed = Some(reason.into());
        }
        if self.entries.get(key).is_some_and(|waiting| waiting.queued) {
            self.forget(key);
            self.lose(key);
        }
    }

    /// Drops the entry of `key`, because it was written or never will be.
    pub(super) fn forget(&mut self, key: &Key) {
        if let Some(waiting) = self.entries.remove(key) {
            self.bytes -= waiting.cost;
        }
    }

    /// Remembers that the entry of `key` was not stored.
    pub(super) fn lose(&mut self, key: &Key) {
        if self.lost.len() < MAX_POINTERS {
            self.lost.insert(*key);
        }
    }

    /// Takes out everything that is queued. The entry that is being written is left to the thread.
    pub(super) fn abandon(&mut self) -> Abandoned {
        Abandoned {
            writes: std::mem::take(&mut self.writes),
            entries: std::mem::take(&mut self.entries),
            latest: std::mem::take(&mut self.latest),
            lost: std::mem::take(&mut self.lost),
        }
    }
}

/// The part of the queue that will not be written.
pub(super) struct Abandoned {
    writes: VecDeque<Write>,
    entries: HashMap<Key, Waiting>,
    latest: HashMap<Lineage, Key>,
    lost: HashSet<Key>,
}

impl Abandoned {
    /// Returns the keys whose entries or pointers are not written, in order. A key whose entry is
    /// not written is not listed again for its pointers.
    pub(super) fn keys(&self) -> Vec<Key> {
        let Self { writes, entries, latest, lost } = self;
        let queued = |key: &Key| entries.get(key).is_some_and(|entry| entry.queued);
        let pointers = writes.iter().filter_map(|write| match write {
            Write::Entry(_) => None,
            Write::Latest(lineage) => latest.get(lineage).filter(|key| !queued(key) && !lost.contains(key)),
        });
        let mut keys: Vec<Key> = entries.keys().filter(|key| queued(key)).chain(pointers).copied().collect();
        keys.sort_unstable();
        keys
    }
}
