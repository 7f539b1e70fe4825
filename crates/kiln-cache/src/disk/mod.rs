//! Entries in a folder.
//!
//! One file per key, named by the key, in a subfolder of its first byte. A file is written under a temporary name in the same folder
//! and renamed, so a reader sees it whole or not at all, whatever happens to the writer. There is no index, no database and no lock:
//! any number of processes may share the folder, on a network file system too. Last use is the time of modification.
//!
//! Invariants: what a name promises is checked when it is read; a file that vanished is a miss; nothing foreign is touched.

mod name;
mod survey;
mod sweep;

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use crate::event::Sink;
use crate::files::{Files, Meta, RealFiles};
use crate::{Entry, EntryError, Event, Events, Key, Lineage, Lookup, Store, entry};

pub use survey::{DiskStat, EntryInfo, GcReport, VerifyReport};

/// A time of last use is written again when it is older than this, and a time so far ahead is taken for a clock that was set back.
const HOUR: Duration = Duration::from_secs(60 * 60);
/// Entries that are kept in quarantine.
const MAX_QUARANTINED: usize = 16;

const LATEST_MAGIC: [u8; 8] = *b"KilnSub\0";

/// Keeps entries in a folder, which is made when something is stored. Clones are the same store.
///
/// It writes at once, and whoever stores something waits for it. A build should not: put it into a [`WriteBehind`](crate::WriteBehind).
///
/// The folder stays near its limit, 8 GiB unless [`DiskStore::limit`] says otherwise: every few writes look at a hundred files or two and
/// remove those among them that were not used for longest, so no build is held up by a cleaning. [`DiskStore::gc`] is exact.
///
/// Whoever may write to the folder can make this store return any artifact, since checksums do not prove who wrote an entry. So a
/// folder should be shared only among those who trust each other with running code.
#[derive(Clone, Debug)]
pub struct DiskStore {
    folder: Arc<Path>,
    limit: u64,
    sync: bool,
    sink: Sink,
    files: Arc<dyn Files>,
    inside: Arc<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    /// Bytes written since somebody looked whether there are too many.
    unswept: AtomicU64,
    /// Bytes that may be written before somebody must look.
    room: AtomicU64,
    sweeping: AtomicBool,
    /// Quarantined here, but the file could not be moved. Asked only if `any_banned`.
    banned: RwLock<HashSet<Key>>,
    any_banned: AtomicBool,
}

impl DiskStore {
    /// A store in `folder`, which need not exist.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self::with_files(folder.into(), Arc::new(RealFiles))
    }

    pub(crate) fn with_files(folder: PathBuf, files: Arc<dyn Files>) -> Self {
        Self {
            folder: folder.into(),
            limit: 8 << 30,
            sync: false,
            sink: Sink::default(),
            files,
            inside: Arc::default(),
        }
    }

    /// How many bytes the folder may take, counted in blocks of 4 KiB, as file systems do. It is kept roughly.
    #[must_use]
    pub fn limit(mut self, bytes: u64) -> Self {
        self.limit = bytes;
        self
    }

    /// Whether to wait until an entry is on the medium before it gets its name. Off unless set: after a power failure, an entry that was
    /// named and not yet written is found damaged by its checksum, and compiled again.
    #[must_use]
    pub fn sync(mut self, sync: bool) -> Self {
        self.sync = sync;
        self
    }

    /// Reports evictions and quarantined entries to `events`.
    #[must_use]
    pub fn events(mut self, events: Arc<dyn Events>) -> Self {
        self.sink = Sink::new(events);
        self
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the entry of `key` lies, whether or not it exists.
    pub fn path(&self, key: &Key) -> PathBuf {
        name::entry(&self.folder, key)
    }

    /// Reads a file. `None` if there is none.
    fn read(&self, path: &Path) -> io::Result<Option<(Vec<u8>, Meta)>> {
        let read = match self.files.read(path) {
            // The file was replaced on another machine: the new one is wanted.
            Err(error) if error.kind() == ErrorKind::StaleNetworkFileHandle => self.files.read(path),
            read => read,
        };
        match read {
            Ok(read) => Ok(Some(read)),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes `parts` to `path`, which appears whole or not at all.
    fn write(&self, path: &Path, parts: &[&[u8]], sync: bool) -> io::Result<()> {
        let folder = path.parent().expect("a file of the store lies in a folder");
        let attempt = || {
            let temporary = name::temporary(folder);
            let written = self
                .files
                .write_new(&temporary, parts, sync)
                .and_then(|()| self.files.rename(&temporary, path));
            if written.is_err() {
                // If this fails as well, a sweep removes it some day.
                let _ = self.files.remove(&temporary);
            }
            written
        };
        match attempt() {
            // The folder is not there yet, or was removed meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.files.create_folder(folder)?;
                attempt()
            }
            written => written,
        }
    }

    /// Notes that a file was used, if that was last noted long ago.
    fn used(&self, path: &Path, meta: &Meta) {
        let now = self.files.now();
        if distance(now, meta.modified) > HOUR {
            // In a folder that is only read, somebody else's uses count.
            let _ = self.files.touch(path, now);
        }
    }

    fn is_banned(&self, key: &Key) -> bool {
        self.inside.any_banned.load(Relaxed)
            && self.inside.banned.read().unwrap_or_else(PoisonError::into_inner).contains(key)
    }

    fn set_banned(&self, key: &Key, banned: bool) {
        if banned || self.inside.any_banned.load(Relaxed) {
            let mut keys = self.inside.banned.write().unwrap_or_else(PoisonError::into_inner);
            let _ = if banned { keys.insert(*key) } else { keys.remove(key) };
            self.inside.any_banned.store(!keys.is_empty(), Relaxed);
        }
    }

    /// Moves the entry of `key` aside. Whether there was one.
    fn move_aside(&self, key: &Key, reason: &str) -> io::Result<bool> {
        let path = self.path(key);
        let folder = self.folder.join(name::QUARANTINE);
        let aside = folder.join(key.to_string());
        let moved = self.files.create_folder(&folder).and_then(|()| self.files.rename(&path, &aside));
        match moved {
            Ok(()) => {}
            Err(_) => {
                return match self.files.remove(&path) {
                    Ok(()) => Ok(true),
                    Err(error) if is_gone(&error) => Ok(false),
                    Err(error) => Err(error),
                };
            }
        }
        // It is out of use; the rest is for those who look at it.
        let note = folder.join(format!("{key}{}", name::WHY));
        let _ = self.files.touch(&aside, self.files.now());
        let _ = self.files.remove(&note);
        let _ = self.files.write_new(&note, &[reason.as_bytes(), b"\n"], false);
        self.bound_quarantine(&folder);
        Ok(true)
    }

    fn bound_quarantine(&self, folder: &Path) {
        let names = self.files.list(folder).unwrap_or_default();
        let mut entries: Vec<(SystemTime, String)> = names
            .iter()
            .filter_map(|name| name.to_str())
            .filter(|name| name::is_quarantined(name) && !name.ends_with(name::WHY))
            .filter_map(|name| Some((self.files.meta(&folder.join(name)).ok()?.modified, name.to_owned())))
            .collect();
        entries.sort_unstable();
        let excess = entries.len().saturating_sub(MAX_QUARANTINED);
        for (_, name) in &entries[..excess] {
            let _ = self.files.remove(&folder.join(name));
            let _ = self.files.remove(&folder.join(format!("{name}{}", name::WHY)));
        }
    }
}

/// Whether a file is not there, or no longer.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::StaleNetworkFileHandle)
}

/// How far apart two times are, whichever is the later.
fn distance(a: SystemTime, b: SystemTime) -> Duration {
    a.duration_since(b).unwrap_or_else(|error| error.duration())
}

/// The file that says which key a lineage's last build had.
fn latest_file(lineage: &Lineage, key: &Key) -> [u8; 64] {
    let mut file = [0; 64];
    file[..8].copy_from_slice(&LATEST_MAGIC);
    file[8..24].copy_from_slice(lineage.as_bytes());
    file[24..56].copy_from_slice(key.as_bytes());
    let sum = *blake3::hash(&file[..56]).as_bytes();
    file[56..].copy_from_slice(&sum[..8]);
    file
}

fn read_latest_file(lineage: &Lineage, bytes: &[u8]) -> Option<Key> {
    let key = Key::new(bytes.get(24..56)?.try_into().ok()?);
    (*bytes == latest_file(lineage, &key)).then_some(key)
}

impl Store for DiskStore {
    fn get(&self, key: &Key) -> Lookup {
        if self.is_banned(key) {
            return Lookup::Miss;
        }
        let path = self.path(key);
        match self.read(&path) {
            Ok(None) => Lookup::Miss,
            Ok(Some((bytes, meta))) => match entry::parse(key, bytes) {
                Ok(entry) => {
                    self.used(&path, &meta);
                    Lookup::Hit(entry)
                }
                Err(reason) => Lookup::Corrupt(reason),
            },
            Err(error) => Lookup::Corrupt(EntryError::Unreadable(error)),
        }
    }

    fn put(&self, key: &Key, entry: &Entry) -> io::Result<()> {
        entry.check(key)?;
        let head = entry::head(key, entry);
        let artifact = entry.artifact.as_bytes();
        let len = (head.len() + artifact.len()) as u64;
        if sweep::cost(len) > self.limit {
            return Err(io::Error::new(ErrorKind::FileTooLarge, "larger than the cache may be"));
        }
        self.write(&self.path(key), &[&head, artifact], self.sync)?;
        self.set_banned(key, false);
        self.sweep_sometimes(key, len);
        Ok(())
    }

    fn quarantine(&self, key: &Key, reason: &str) -> io::Result<()> {
        match self.move_aside(key, reason) {
            Ok(false) => Ok(()),
            Ok(true) => {
                self.sink.report(&Event::Quarantined { key, reason });
                Ok(())
            }
            Err(error) => {
                // At least this process does not use it again.
                self.set_banned(key, true);
                self.sink.report(&Event::Quarantined { key, reason });
                Err(error)
            }
        }
    }

    fn latest(&self, lineage: &Lineage) -> Option<Key> {
        let path = name::latest(&self.folder, lineage);
        let (bytes, meta) = self.read(&path).ok()??;
        let key = read_latest_file(lineage, &bytes)?;
        self.used(&path, &meta);
        Some(key)
    }

    fn set_latest(&self, lineage: &Lineage, key: &Key) -> io::Result<()> {
        if self.latest(lineage) == Some(*key) {
            return Ok(());
        }
        match self.write(&name::latest(&self.folder, lineage), &[&latest_file(lineage, key)], false) {
            // Nothing can be stored here either, so whoever only reads has nothing to point to, and need not hear of it for every hit.
            Err(error)
                if matches!(error.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied) =>
            {
                Ok(())
            }
            written => written,
        }
    }
}
