//! The interface of stores, and the reasons of misses.
//!
//! Invariant: no method of a store decides whether a build succeeds. Failures are returned as
//! values that the build may report.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::{Difference, Entry, EntryError, Key, Lineage, Recipe};

/// The answer of a store to a key.
#[derive(Debug)]
pub enum Lookup {
    /// The entry, checked, and the place where it was.
    Hit(Entry, Place),
    /// There is no entry.
    Miss,
    /// There is an entry that cannot be used, and why.
    Corrupt(EntryError),
}

/// A kind of place that entries come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Place {
    /// Memory of this process.
    Memory,
    /// A folder.
    Disk,
    /// A server.
    Remote,
}

impl Place {
    /// Every place, the nearest first.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Disk, Self::Remote];

    /// Returns the name: `memory`, `disk` or `remote`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Remote => "remote",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A store of entries by key. Its methods are called from many threads at once.
///
/// Implement it for a store of your own. Three methods are required; without the others, misses are
/// not explained and single functions are not reused. Read entries with [`Entry::from_bytes`],
/// which checks bytes that come from outside the process.
pub trait Store: Sync {
    /// Returns what is stored under `key`.
    fn get(&self, key: &Key) -> Lookup;

    /// Stores `entry` under `key`, replacing what is there.
    ///
    /// # Errors
    ///
    /// If the entry could not be stored. The caller may report the error; nothing else depends on
    /// it. Its kind is `InvalidInput` if [`Entry::check`] refuses the entry.
    fn put(&self, key: &Key, entry: &Entry) -> io::Result<()>;

    /// Quarantines the entry of `key`, which was found to be wrong although its checksums match.
    /// Until something is stored under `key` again, looking it up is a miss.
    ///
    /// # Errors
    ///
    /// If other processes may still find the entry.
    fn quarantine(&self, key: &Key, reason: &str) -> io::Result<()>;

    /// Returns the key that was last given to [`Store::set_latest`] for `lineage`. Its entry may be
    /// gone.
    fn latest(&self, lineage: &Lineage) -> Option<Key> {
        let _ = lineage;
        None
    }

    /// Records `key` as the key of `lineage`'s last build. If it is recorded already, this costs
    /// little, so a build may call it for hits too.
    ///
    /// # Errors
    ///
    /// If the key could not be recorded. Then later misses are explained less well, and fewer
    /// functions are reused.
    fn set_latest(&self, lineage: &Lineage, key: &Key) -> io::Result<()> {
        let _ = (lineage, key);
        Ok(())
    }

    /// Announces what a build is about to look up: lineages for [`Store::latest`], whose entries it
    /// looks up next, and keys for [`Store::get`]. Returns at once.
    ///
    /// A store on a server asks for all of them together. Nothing depends on an announcement.
    fn announce(&self, lineages: &[Lineage], keys: &[Key]) {
        let _ = (lineages, keys);
    }

    /// Returns whether an entry seems to be stored under `key`, without reading it. A store that
    /// would need long to find out returns `false`.
    fn has(&self, key: &Key) -> bool {
        let _ = key;
        false
    }

    /// Says that the caller compiles what `key` stands for at once, and then calls [`Store::put`].
    /// If somebody else is compiling it, waits for a limited time for the entry, and returns it.
    /// Otherwise it is a miss. Call it after a miss of [`Store::get`].
    fn claim(&self, key: &Key) -> Lookup {
        let _ = key;
        Lookup::Miss
    }

    /// Waits at most `timeout` until all pending writes are done. Returns whether they are done.
    fn flush(&self, timeout: Duration) -> bool {
        let _ = timeout;
        true
    }
}

/// Implements [`Store`] for a pointer to a store.
macro_rules! forward {
    ($pointer:ty, $($bound:tt)*) => {
        impl<S: $($bound)*> Store for $pointer {
            fn get(&self, key: &Key) -> Lookup {
                (**self).get(key)
            }
            fn put(&self, key: &Key, entry: &Entry) -> io::Result<()> {
                (**self).put(key, entry)
            }
            fn quarantine(&self, key: &Key, reason: &str) -> io::Result<()> {
                (**self).quarantine(key, reason)
            }
            fn latest(&self, lineage: &Lineage) -> Option<Key> {
                (**self).latest(lineage)
            }
            fn set_latest(&self, lineage: &Lineage, key: &Key) -> io::Result<()> {
                (**self).set_latest(lineage, key)
            }
            fn announce(&self, lineages: &[Lineage], keys: &[Key]) {
                (**self).announce(lineages, keys);
            }
            fn has(&self, key: &Key) -> bool {
                (**self).has(key)
            }
            fn claim(&self, key: &Key) -> Lookup {
                (**self).claim(key)
            }
            fn flush(&self, timeout: Duration) -> bool {
                (**self).flush(timeout)
            }
        }
    };
}
forward!(&S, Store + ?Sized);
forward!(Box<S>, Store + ?Sized);
forward!(Arc<S>, Store + Send + ?Sized);

/// The reason of a miss.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MissReason {
    /// Nothing was ever stored for the lineage, or it was forgotten.
    New,
    /// The lineage's last build had another key. The differences are not empty.
    Changed(Vec<Difference>),
    /// The lineage's last build had this very key, and its entry is gone: evicted, quarantined or
    /// never written.
    Gone,
    /// The lineage's last build had another key, and its entry is gone, so the difference is not
    /// known.
    Unknown,
    /// The lineage's last build had another key, and its entry cannot be used: the reason.
    Unusable(Box<str>),
}

impl fmt::Display for MissReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("never stored before"),
            Self::Changed(differences) => {
                for (index, difference) in differences.iter().enumerate() {
                    if index > 0 {
                        f.write_str("; ")?;
                    }
                    difference.fmt(f)?;
                }
                Ok(())
            }
            Self::Gone => f.write_str("stored before, and no longer there"),
            Self::Unusable(reason) => write!(f, "changed; the last build's entry cannot be used: {reason}"),
            Self::Unknown => f.write_str("changed; the last build's entry is no longer there"),
        }
    }
}

/// Returns why `recipe`'s key is a miss, and the entry of the lineage's last build if it is still
/// there, so that its functions can be reused.
///
/// Call it after a miss and before the new entry is stored.
pub fn explain<S: Store + ?Sized>(
    store: &S,
    lineage: &Lineage,
    recipe: &Recipe,
) -> (MissReason, Option<Entry>) {
    let Some(latest) = store.latest(lineage) else {
        return (MissReason::New, None);
    };
    if latest == recipe.key() {
        return (MissReason::Gone, None);
    }
    match store.get(&latest) {
        Lookup::Hit(entry, _) => (MissReason::Changed(entry.recipe.differences(recipe)), Some(entry)),
        Lookup::Miss => (MissReason::Unknown, None),
        Lookup::Corrupt(reason) => (MissReason::Unusable(reason.to_string().into()), None),
    }
}
