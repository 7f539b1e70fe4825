//! A fast store in front of a large one.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::event::Sink;
use crate::{Entry, Event, Events, Key, Lineage, Lookup, Store};

/// A store that asks the upper store first, then the lower one. An entry found in the lower store
/// is copied to the upper one, and writes go to both.
///
/// The copy also replaces an entry that is damaged in the upper store and intact in the lower one.
#[derive(Debug)]
pub struct LayeredStore<U, L> {
    upper: U,
    lower: L,
    sink: Sink,
}

impl<U: Store, L: Store> LayeredStore<U, L> {
    /// Puts `upper` in front of `lower`.
    pub fn new(upper: U, lower: L) -> Self {
        Self { upper, lower, sink: Sink::default() }
    }

    /// Reports damaged entries of the upper store, and failures to copy an entry to it. Give the
    /// stores themselves a sink as well.
    #[must_use]
    pub fn events(mut self, events: Arc<dyn Events>) -> Self {
        self.sink = Sink::new(events);
        self
    }

    /// Returns the store that is asked first.
    pub fn upper(&self) -> &U {
        &self.upper
    }

    /// Returns the store that is asked second.
    pub fn lower(&self) -> &L {
        &self.lower
    }
}

impl<U: Store, L: Store> Store for LayeredStore<U, L> {
    fn get(&self, key: &Key) -> Lookup {
        let above = match self.upper.get(key) {
            hit @ Lookup::Hit(..) => return hit,
            Lookup::Miss => None,
            Lookup::Corrupt(reason) => Some(reason),
        };
        match (self.lower.get(key), above) {
            (Lookup::Hit(entry, place), above) => {
                if let Some(reason) = &above {
                    self.sink.report(&Event::Corrupt { key, module: None, reason });
                }
                match self.upper.put(key, &entry) {
                    Ok(()) if above.is_some() => self.sink.report(&Event::Healed { key }),
                    Ok(()) => {}
                    Err(error) => self.sink.report(&Event::WriteFailed { key, error: &error }),
                }
                Lookup::Hit(entry, place)
            }
            (Lookup::Miss, Some(reason)) => Lookup::Corrupt(reason),
            (below, _) => below,
        }
    }

    /// Tries both stores. If both fail, returns the error of the lower store, which usually
    /// outlives this build.
    fn put(&self, key: &Key, entry: &Entry) -> io::Result<()> {
        let above = self.upper.put(key, entry);
        self.lower.put(key, entry).and(above)
    }

    fn quarantine(&self, key: &Key, reason: &str) -> io::Result<()> {
        let above = self.upper.quarantine(key, reason);
        self.lower.quarantine(key, reason).and(above)
    }

    fn latest(&self, lineage: &Lineage) -> Option<Key> {
        self.upper.latest(lineage).or_else(|| {
            let key = self.lower.latest(lineage)?;
            // If the pointer cannot be copied, later calls read it from the lower store again.
            let _ = self.upper.set_latest(lineage, &key);
            Some(key)
        })
    }

    fn set_latest(&self, lineage: &Lineage, key: &Key) -> io::Result<()> {
        let above = self.upper.set_latest(lineage, key);
        self.lower.set_latest(lineage, key).and(above)
    }

    /// Announces to the lower store what the upper one does not seem to have.
    fn announce(&self, lineages: &[Lineage], keys: &[Key]) {
        self.upper.announce(lineages, keys);
        let has = |lineage: &Lineage| self.upper.latest(lineage).is_some_and(|key| self.upper.has(&key));
        let lineages: Vec<Lineage> = lineages.iter().filter(|lineage| !has(lineage)).copied().collect();
        let keys: Vec<Key> = keys.iter().filter(|key| !self.upper.has(key)).copied().collect();
        self.lower.announce(&lineages, &keys);
    }

    fn has(&self, key: &Key) -> bool {
        self.upper.has(key) || self.lower.has(key)
    }

    /// Claims in the upper store first, so that only one process of a machine asks the lower one.
    fn claim(&self, key: &Key) -> Lookup {
        match self.upper.claim(key) {
            hit @ Lookup::Hit(..) => return hit,
            Lookup::Miss | Lookup::Corrupt(_) => {}
        }
        let found = self.lower.claim(key);
        if let Lookup::Hit(entry, _) = &found
            && let Err(error) = self.upper.put(key, entry)
        {
            self.sink.report(&Event::WriteFailed { key, error: &error });
        }
        found
    }

    fn flush(&self, timeout: Duration) -> bool {
        let start = Instant::now();
        let above = self.upper.flush(timeout);
        self.lower.flush(timeout.saturating_sub(start.elapsed())) && above
    }
}
