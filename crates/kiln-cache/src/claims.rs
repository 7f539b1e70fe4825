//! Claims: of many who miss an entry at the same time, one compiles it, and the others wait.
//!
//! A claim is a lock of a file (`flock`). The system ends it with its process, however that ends,
//! so no claim is left over, and no clock is compared. There are 4096 files, which stay; two keys
//! that share one only wait for each other.
//!
//! Invariant: nobody waits longer than the limit, and a thread that has a claim waits for none. So
//! builds that wait for each other's entries do not stop each other.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use crate::disk::CLAIMS;
use crate::{DiskStore, Entry, Key, Lineage, Lookup, Store};

/// The time after which a waiting thread looks again, at first and at most. Each time it doubles.
const PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(32)];

/// A store in which one process compiles an entry that several miss: see [`Store::claim`].
///
/// Put it around the store that processes share, and a [`WriteBehind`](crate::WriteBehind) around
/// it, so that a claim ends when the entry is written:
///
/// ```
/// use std::time::Duration;
/// use kiln_cache::{Claims, DiskStore, WriteBehind};
///
/// # let temporary = tempfile::tempdir()?;
/// # let folder = temporary.path().join("cache");
/// let disk = Claims::of(DiskStore::new(folder), Duration::from_secs(3));
/// let store = WriteBehind::new(disk);
/// # drop(store);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Claims<S> {
    inner: S,
    folder: PathBuf,
    limit: Duration,
    held: Mutex<HashMap<Key, Claim>>,
    released: Condvar,
}

/// A claim of this process. The lock ends when this is dropped.
#[derive(Debug)]
struct Claim {
    owner: ThreadId,
    since: Instant,
    _lock: File,
}

impl Claims<DiskStore> {
    /// Keeps claims on entries of a folder in that folder. Nobody waits longer than `limit` for one
    /// entry.
    pub fn of(disk: DiskStore, limit: Duration) -> Self {
        let folder = disk.folder().join(CLAIMS);
        Self::new(disk, folder, limit)
    }
}

impl<S: Store> Claims<S> {
    /// Keeps claims on entries of `inner` in `folder`, which all processes must name alike. Nobody
    /// waits longer than `limit` for one entry.
    pub fn new(inner: S, folder: impl Into<PathBuf>, limit: Duration) -> Self {
        let (held, released) = Default::default();
        Self { inner, folder: folder.into(), limit, held, released }
    }

    /// Returns the store.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Key, Claim>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the file of a key. Returns `None` if another process has locked it.
    fn lock(&self, key: &Key) -> io::Result<Option<File>> {
        let [first, second, ..] = *key.as_bytes();
        let path = self.folder.join(format!("{:03x}", u16::from_be_bytes([first, second]) >> 4));
        let open = || File::options().create(true).truncate(false).write(true).open(&path);
        let file = open().or_else(|_| {
            std::fs::create_dir_all(&self.folder)?;
            open()
        })?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn release(&self, key: &Key) {
        let released = self.held().remove(key).is_some();
        if released {
            self.released.notify_all();
        }
    }
}

impl<S: Store> Store for Claims<S> {
    fn get(&self, key: &Key) -> Lookup {
        self.inner.get(key)
    }

    fn put(&self, key: &Key, entry: &Entry) -> io::Result<()> {
        let put = self.inner.put(key, entry);
        self.release(key);
        put
    }

    fn quarantine(&self, key: &Key, reason: &str) -> io::Result<()> {
        self.inner.quarantine(key, reason)
    }

    fn latest(&self, lineage: &Lineage) -> Option<Key> {
        self.inner.latest(lineage)
    }

    fn set_latest(&self, lineage: &Lineage, key: &Key) -> io::Result<()> {
        self.inner.set_latest(lineage, key)
    }

    fn announce(&self, lineages: &[Lineage], keys: &[Key]) {
        self.inner.announce(lineages, keys);
    }

    fn has(&self, key: &Key) -> bool {
        self.inner.has(key)
    }

    fn flush(&self, timeout: Duration) -> bool {
        self.inner.flush(timeout)
    }

    fn claim(&self, key: &Key) -> Lookup {
        let (start, own) = (Instant::now(), std::thread::current().id());
        let mut pause = PAUSES[0];
        loop {
            let mut held = self.held();
            // Something was not stored for so long: it failed to compile, or to be written.
            held.retain(|_, claim| claim.since.elapsed() < self.limit);
            if held.values().any(|claim| claim.owner == own) {
                return Lookup::Miss;
            }
            if !held.contains_key(key) {
                match self.lock(key) {
                    Ok(Some(lock)) => {
                        held.insert(*key, Claim { owner: own, since: Instant::now(), _lock: lock });
                        drop(held);
                        // It may have been stored after the caller looked, and before the lock.
                        let found = self.inner.get(key);
                        if matches!(found, Lookup::Hit(..)) {
                            self.release(key);
                        }
                        return found;
                    }
                    Ok(None) => {}
                    // Without a lock, the caller compiles it as if nobody else did.
                    Err(_) => return Lookup::Miss,
                }
            }
            let left = self.limit.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Lookup::Miss;
            }
            let waited = self.released.wait_timeout(held, pause.min(left));
            drop(waited.unwrap_or_else(PoisonError::into_inner));
            pause = (pause * 2).min(PAUSES[1]);
            let found = self.inner.get(key);
            if matches!(found, Lookup::Hit(..)) {
                return found;
            }
        }
    }
}
