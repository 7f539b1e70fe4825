//! A folder of entries: its options, and reading, writing and listing its files.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use super::latest;
use super::name::{self, Kind};
use crate::event::Sink;
use crate::files::{Admit, Files, Meta, RealFiles, is_no_file};
use crate::{Events, Key, entry};

/// A time of last use is written again when it is older than this. A time that is further ahead
/// than this means that the clock was set back.
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);

/// The largest number of leftovers of killed writers that one write removes.
const MAX_CLEARED: usize = 64;

/// A store that keeps entries in a folder. The folder is created when something is stored. Clones
/// are the same store.
///
/// The caller waits until a write is done. To keep a build from waiting, put the store into a
/// [`WriteBehind`](crate::WriteBehind).
///
/// The size of the folder stays near its limit, which is 8 GiB unless [`DiskStore::limit`] sets
/// another. After some writes, a store looks at one or two hundred files and removes the least
/// recently used of them if space is short, so no build waits for a long cleanup. [`DiskStore::gc`]
/// keeps a limit exactly.
///
/// Anyone who may write to the folder can make this store return any artifact, since checksums do
/// not prove who wrote an entry. So share a folder only among users who would run each other's
/// code.
#[derive(Clone, Debug)]
pub struct DiskStore {
    pub(super) folder: Arc<Path>,
    pub(super) limit: u64,
    pub(super) sync: bool,
    pub(super) sink: Sink,
    pub(super) files: Arc<dyn Files>,
    pub(super) shared: Arc<Shared>,
}

/// The state that clones share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Bytes written since the last sweep.
    pub(super) unswept: AtomicU64,
    /// Bytes that may be written before the next sweep.
    pub(super) room: AtomicU64,
    pub(super) sweeping: AtomicBool,
    /// Whether leftovers of killed writers were looked for since the store was opened.
    cleared: AtomicBool,
    /// Keys that were quarantined, but whose files could not be moved. Read only if `any_banned`.
    pub(super) banned: RwLock<HashSet<Key>>,
    pub(super) any_banned: AtomicBool,
}

impl DiskStore {
    /// Creates a store in `folder`, which need not exist.
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
            shared: Arc::default(),
        }
    }

    /// Sets how many bytes the folder may take, counted in blocks of 4 KiB, as file systems do. The
    /// limit is approximate.
    #[must_use]
    pub fn limit(mut self, bytes: u64) -> Self {
        self.limit = bytes;
        self
    }

    /// Sets whether a write waits until an entry is on the storage device before the entry gets its
    /// name. The default is `false`: if a power failure loses the content of an entry, its checksum
    /// shows the damage, and the module is compiled again.
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

    /// Returns the folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the path of the entry of `key`, whether or not it exists.
    pub fn path(&self, key: &Key) -> PathBuf {
        name::entry(&self.folder, key)
    }

    /// Reads a file. Returns `None` if it does not exist.
    pub(super) fn read(&self, path: &Path, admit: Admit) -> io::Result<Option<(Vec<u8>, Meta)>> {
        let read = match self.files.read(path, admit) {
            // The file was replaced on another machine: the new one is wanted.
            Err(error) if error.kind() == ErrorKind::StaleNetworkFileHandle => self.files.read(path, admit),
            read => read,
        };
        match read {
            Ok(read) => Ok(Some(read)),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes `parts` to `path`. The file appears whole or not at all.
    pub(super) fn write(&self, path: &Path, parts: &[&[u8]], sync: bool) -> io::Result<()> {
        // Leftovers of killed writers are removed before the first write, and later by sweeps.
        if !self.shared.cleared.swap(true, Relaxed) {
            self.clear_incoming(MAX_CLEARED);
        }
        let temporary = name::temporary(&self.folder);
        let in_folder_of = |path: &Path, work: &dyn Fn() -> io::Result<()>| match work() {
            // The folder does not exist yet, or was removed in the meantime.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.files.create_folder(path.parent().expect("a file of the store is in a folder"))?;
                work()
            }
            done => done,
        };
        let written = in_folder_of(&temporary, &|| self.files.write_new(&temporary, parts, sync))
            .and_then(|()| in_folder_of(path, &|| self.files.rename(&temporary, path)));
        if written.is_err() {
            // If this fails as well, a later process removes the file.
            let _ = self.files.remove(&temporary);
        }
        written
    }

    /// Returns whether the file begins with the magic bytes of its kind, or, if it is shorter, with
    /// some of them. All other files are foreign, whatever their names: Git's folder of objects has
    /// files with names like those of entries.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is gone.
    pub(super) fn is_ours(&self, path: &Path, kind: Kind) -> io::Result<bool> {
        let magic = match kind {
            Kind::Entry(_) => entry::MAGIC,
            Kind::Latest => latest::MAGIC,
            Kind::Temporary | Kind::Foreign => return Ok(false),
        };
        let mut head = [0; 8];
        match self.files.read_head(path, &mut head) {
            Ok(len) => Ok(begins(&head[..len], &magic)),
            Err(error) if is_no_file(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Records that a file was used, unless its recorded time of last use is recent.
    pub(super) fn used(&self, path: &Path, meta: &Meta) {
        let now = self.files.now();
        if distance(now, meta.modified) > HOUR {
            // This fails in a folder that this process may only read. Then only processes that may
            // write record their uses.
            let _ = self.files.touch(path, now);
        }
    }

    /// Returns the names of the subfolders of entries, sorted.
    pub(super) fn shards(&self) -> Vec<String> {
        let names = self.files.list(&self.folder).unwrap_or_default();
        names
            .into_iter()
            .filter_map(|name| name.into_string().ok())
            .filter(|name| name::is_shard(name))
            .collect()
    }

    /// Returns the names of the files in a subfolder, sorted, with the kind that each name says.
    pub(super) fn names(&self, folder: &Path, shard: &str) -> Vec<(String, Kind)> {
        let names = self.files.list(folder).unwrap_or_default();
        let texts = names.into_iter().filter_map(|name| name.into_string().ok());
        texts.map(|name| (name::classify(shard, &name), name)).map(|(kind, name)| (name, kind)).collect()
    }
}

/// Returns whether `bytes` begin with `magic`, or are a non-empty prefix of it.
fn begins(bytes: &[u8], magic: &[u8; 8]) -> bool {
    !bytes.is_empty() && bytes.iter().zip(magic).all(|(byte, expected)| byte == expected)
}

/// Returns whether the error says that the file does not exist, or no longer exists.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::StaleNetworkFileHandle)
}

/// Returns the time between `a` and `b`, whichever is later.
pub(super) fn distance(a: SystemTime, b: SystemTime) -> Duration {
    a.duration_since(b).unwrap_or_else(|error| error.duration())
}

/// Returns the number of bytes that a file of `len` bytes takes on a disk.
pub(super) fn cost(len: u64) -> u64 {
    len.checked_next_multiple_of(4096).unwrap_or(u64::MAX)
}
