//! Lists of entries: what a build used, as a text.
//!
//! The first line names the format. Each other line is `entry` and a key, or `last-build` and a
//! lineage, in the order of their digits. The text of equal lists is equal.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_cache::{Entry, Key, Lineage, Lookup, Store};

const HEADER: &str = "kiln-cache-list 1";

/// Entries and last builds by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// Keys of entries.
    pub keys: BTreeSet<Key>,
    /// Lineages, whose last builds belong to the list.
    pub lineages: BTreeSet<Lineage>,
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        self.keys.iter().try_for_each(|key| writeln!(f, "entry {key}"))?;
        self.lineages.iter().try_for_each(|lineage| writeln!(f, "last-build {lineage}"))
    }
}

/// A text is not a [`List`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: expected {expected}")]
pub struct ParseListError {
    /// The number of the line, from 1.
    pub line: usize,
    /// Says what the line should be.
    pub expected: &'static str,
}

impl FromStr for List {
    type Err = ParseListError;

    fn from_str(text: &str) -> Result<Self, ParseListError> {
        let mut lines = text.lines().zip(1..);
        let wrong = |line, expected| Err(ParseListError { line, expected });
        if lines.next().is_none_or(|(line, _)| line != HEADER) {
            return wrong(1, "`kiln-cache-list 1`");
        }
        let mut list = Self::default();
        for (text, line) in lines {
            match text.split_once(' ') {
                Some(("entry", key)) => match key.parse() {
                    Ok(key) => drop(list.keys.insert(key)),
                    Err(_) => return wrong(line, "a key of 64 digits after `entry`"),
                },
                Some(("last-build", lineage)) => match lineage.parse() {
                    Ok(lineage) => drop(list.lineages.insert(lineage)),
                    Err(_) => return wrong(line, "a lineage of 32 digits after `last-build`"),
                },
                _ => return wrong(line, "`entry` or `last-build`, and a name"),
            }
        }
        Ok(list)
    }
}

/// A store that passes everything on, and keeps a list of what was found or stored.
#[derive(Debug)]
pub struct Listed<S> {
    inner: S,
    list: Mutex<List>,
}

impl<S: Store> Listed<S> {
    /// Lists what is found in `inner` or stored there.
    pub fn new(inner: S) -> Self {
        Self { inner, list: Mutex::default() }
    }

    /// Returns the list so far.
    pub fn list(&self) -> List {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Store> Store for Listed<S> {
    fn get(&self, key: &Key) -> Lookup {
        let found = self.inner.get(key);
        if matches!(found, Lookup::Hit(..)) {
            self.lock().keys.insert(*key);
        }
        found
    }

    fn put(&self, key: &Key, entry: &Entry) -> io::Result<()> {
        let put = self.inner.put(key, entry);
        if put.is_ok() {
            self.lock().keys.insert(*key);
        }
        put
    }

    fn quarantine(&self, key: &Key, reason: &str) -> io::Result<()> {
        self.lock().keys.remove(key);
        self.inner.quarantine(key, reason)
    }

    fn latest(&self, lineage: &Lineage) -> Option<Key> {
        self.inner.latest(lineage)
    }

    fn set_latest(&self, lineage: &Lineage, key: &Key) -> io::Result<()> {
        // A build calls this for every module, also for those that were found.
        self.lock().lineages.insert(*lineage);
        self.inner.set_latest(lineage, key)
    }

    fn announce(&self, lineages: &[Lineage], keys: &[Key]) {
        self.inner.announce(lineages, keys);
    }

    fn has(&self, key: &Key) -> bool {
        self.inner.has(key)
    }

    fn claim(&self, key: &Key) -> Lookup {
        let found = self.inner.claim(key);
        if matches!(found, Lookup::Hit(..)) {
            self.lock().keys.insert(*key);
        }
        found
    }

    fn flush(&self, timeout: Duration) -> bool {
        self.inner.flush(timeout)
    }
}
