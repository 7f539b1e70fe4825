//! A store in the memory of this process.
//!
//! One lock protects the store. It is held only to access a map and to clone a reference-counted
//! entry. Removed entries are dropped after the lock is released.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::event::Sink;
use crate::lru::Lru;
use crate::{Entry, Event, Events, Key, Lineage, Lookup, Place, Store};

/// The largest number of lineages that are remembered. They take roughly 24 MB.
const MAX_LINEAGES: usize = 1 << 18;
/// Bytes that the bookkeeping of an entry takes, roughly.
const OVERHEAD: u64 = 512;

/// A store that keeps entries in memory until it is dropped. If it has a limit, it keeps the most
/// recently used entries.
#[derive(Debug)]
pub struct MemoryStore {
    limit: u64,
    inside: Mutex<Inside>,
    hits: AtomicU64,
    misses: AtomicU64,
    evicted: AtomicU64,
    sink: Sink,
}

#[derive(Debug)]
struct Inside {
    entries: Lru<Key, Entry>,
    latest: Lru<Lineage, Key>,
}

/// Statistics on the content of a [`MemoryStore`] and its operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStat {
    /// The number of entries.
    pub entries: usize,
    /// Bytes that they take, roughly.
    pub bytes: u64,
    /// Bytes that they may take.
    pub limit: u64,
    /// Lookups that found an entry.
    pub hits: u64,
    /// Lookups that found no entry.
    pub misses: u64,
    /// Entries that were removed to stay within the limit.
    pub evicted: u64,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::with_limit(u64::MAX)
    }
}

impl MemoryStore {
    /// Creates an empty store without a limit.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates an empty store that keeps at most roughly `bytes` bytes of entries and their
    /// bookkeeping.
    ///
    /// An entry that is larger than the limit is not kept. That is not an error.
    pub fn with_limit(bytes: u64) -> Self {
        Self {
            limit: bytes,
            inside: Mutex::new(Inside { entries: Lru::new(), latest: Lru::new() }),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            sink: Sink::default(),
        }
    }

    /// Reports evictions and quarantined entries to `events`.
    #[must_use]
    pub fn events(mut self, events: Arc<dyn Events>) -> Self {
        self.sink = Sink::new(events);
        self
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.inside().entries.len()
    }

    /// Returns whether the store has no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns statistics on the content of the store and its operations.
    pub fn stat(&self) -> MemoryStat {
        let (entries, bytes) = {
            let inside = self.inside();
            (inside.entries.len(), inside.entries.cost())
        };
        MemoryStat {
            entries,
            bytes,
            limit: self.limit,
            hits: self.hits.load(Relaxed),
            misses: self.misses.load(Relaxed),
            evicted: self.evicted.load(Relaxed),
        }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &Key) -> Lookup {
        let found = self.inside().entries.get(key).cloned();
        match found {
            Some(entry) => {
                self.hits.fetch_add(1, Relaxed);
                Lookup::Hit(entry, Place::Memory)
            }
            None => {
                self.misses.fetch_add(1, Relaxed);
                Lookup::Miss
            }
        }
    }

    fn put(&self, key: &Key, entry: &Entry) -> io::Result<()> {
        entry.check(key)?;
        let cost = entry.file_len() + OVERHEAD;
        let mut evicted = Vec::new();
        let replaced;
        {
            let entries = &mut self.inside().entries;
            if cost > self.limit {
                replaced = entries.remove(key);
            } else {
                replaced = entries.insert(*key, entry.clone(), cost);
                while entries.cost() > self.limit {
                    evicted.extend(entries.pop_oldest());
                }
            }
        }
        drop(replaced);
        for (key, entry) in evicted {
            self.evicted.fetch_add(1, Relaxed);
            self.sink.report(&Event::Evicted { key: &key, bytes: entry.file_len() });
        }
        Ok(())
    }

    fn quarantine(&self, key: &Key, reason: &str) -> io::Result<()> {
        let removed = self.inside().entries.remove(key);
        if removed.is_some() {
            self.sink.report(&Event::Quarantined { key, reason });
        }
        Ok(())
    }

    fn has(&self, key: &Key) -> bool {
        self.inside().entries.get(key).is_some()
    }

    fn latest(&self, lineage: &Lineage) -> Option<Key> {
        self.inside().latest.get(lineage).copied()
    }

    fn set_latest(&self, lineage: &Lineage, key: &Key) -> io::Result<()> {
        let latest = &mut self.inside().latest;
        latest.insert(*lineage, *key, 1);
        if latest.len() > MAX_LINEAGES {
            latest.pop_oldest();
        }
        Ok(())
    }
}
