//! Work on a whole folder: counting its files, checking its entries, making it smaller.
//!
//! This is for people and cron jobs. It takes time linear in the number of files, and other
//! processes may go on using the folder.

use std::io;
use std::time::SystemTime;

use super::folder::{DiskStore, cost};
use super::name::{self, Kind};
use crate::{Entry, EntryError, Key, Store};

/// The numbers and sizes of the files in a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskStat {
    /// Number of entries.
    pub entries: u64,
    /// Sum of their lengths.
    pub bytes: u64,
    /// Bytes that entries and last keys take in blocks of 4 KiB. The limit applies to them.
    pub disk_bytes: u64,
    /// Number of lineages whose last build is known.
    pub last_builds: u64,
    /// Entries in quarantine.
    pub quarantined: u64,
    /// Files that are being written, or whose writer was killed.
    pub leftovers: u64,
    /// Files that do not belong to the store.
    pub foreign: u64,
    /// Last use of the least recently used entry.
    pub oldest: Option<SystemTime>,
    /// Last use of the most recently used entry.
    pub newest: Option<SystemTime>,
}

/// An entry in a folder, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EntryInfo {
    /// Its key.
    pub key: Key,
    /// Its length.
    pub bytes: u64,
    /// When it was last used; noted about once an hour.
    pub last_used: SystemTime,
}

/// The findings of [`DiskStore::verify`].
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Entries that were read.
    pub checked: u64,
    /// Sum of their lengths.
    pub bytes: u64,
    /// Entries of other versions of the format, which another version of this crate may be using.
    /// They were left alone.
    pub other_versions: u64,
    /// Entries that were damaged. They are in quarantine now, or removed.
    pub broken: Vec<(Key, EntryError)>,
    /// Entries that could not be read, or were damaged and could not be moved. They are still in
    /// place.
    pub unreadable: Vec<(Key, io::Error)>,
}

/// The work of [`DiskStore::gc`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcReport {
    /// Entries and last keys that were removed.
    pub removed: u64,
    /// Sum of their lengths.
    pub removed_bytes: u64,
    /// Entries and last keys that are left, if no other process removed them.
    pub kept: u64,
    /// Sum of their lengths.
    pub kept_bytes: u64,
    /// Files of killed writers that were removed.
    pub leftovers: u64,
    /// Files that could not be removed.
    pub failed: u64,
}

impl DiskStore {
    /// Lists the entries in the order of their keys. Entries that are removed in the meantime may
    /// be missing.
    pub fn entries(&self) -> impl Iterator<Item = EntryInfo> {
        self.shards().into_iter().flat_map(move |shard| {
            let folder = self.folder().join(&shard);
            let names = self.names(&folder, &shard).into_iter();
            names.filter_map(move |(name, kind)| {
                let Kind::Entry(key) = kind else { return None };
                let meta = self.files.meta(&folder.join(name)).ok().filter(|meta| meta.is_file)?;
                Some(EntryInfo { key, bytes: meta.len, last_used: meta.modified })
            })
        })
    }

    /// Counts what is in the folder. A folder that does not exist is empty.
    ///
    /// # Errors
    ///
    /// If the folder cannot be listed.
    pub fn stat(&self) -> io::Result<DiskStat> {
        let mut stat = DiskStat::default();
        for name in self.list_or_empty()? {
            if !name.to_str().is_some_and(|name| name::is_shard(name) || name == name::QUARANTINE) {
                stat.foreign += 1;
            }
        }
        for shard in self.shards() {
            let folder = self.folder().join(&shard);
            for (name, kind) in self.names(&folder, &shard) {
                let Ok(meta) = self.files.meta(&folder.join(name)) else { continue };
                match kind {
                    Kind::Entry(_) if meta.is_file => {
                        stat.entries += 1;
                        stat.bytes += meta.len;
                        stat.disk_bytes += cost(meta.len);
                        stat.oldest = Some(stat.oldest.map_or(meta.modified, |time| time.min(meta.modified)));
                        stat.newest = Some(stat.newest.map_or(meta.modified, |time| time.max(meta.modified)));
                    }
                    Kind::Latest if meta.is_file => {
                        stat.last_builds += 1;
                        stat.disk_bytes += cost(meta.len);
                    }
                    Kind::Temporary => stat.leftovers += 1,
                    Kind::Entry(_) | Kind::Latest | Kind::Foreign => stat.foreign += 1,
                }
            }
        }
        let aside = self.files.list(&self.folder().join(name::QUARANTINE)).unwrap_or_default();
        for name in aside.iter().map(|name| name.to_str().unwrap_or_default()) {
            if !name::is_quarantined(name) {
                stat.foreign += 1;
            } else if !name.ends_with(name::WHY) {
                stat.quarantined += 1;
            }
        }
        Ok(stat)
    }

    /// Reads every entry, and quarantines those that are damaged. `progress` is called with the
    /// number of entries that are done, and the number of all.
    ///
    /// # Errors
    ///
    /// If the folder cannot be listed. Damaged entries are in the report.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> io::Result<VerifyReport> {
        self.list_or_empty()?;
        let mut report = VerifyReport::default();
        let keys: Vec<Key> = self.entries().map(|entry| entry.key).collect();
        for (done, key) in keys.iter().enumerate() {
            progress(done as u64, keys.len() as u64);
            match self.read(&self.path(key)) {
                Ok(None) => {}
                Ok(Some((bytes, meta))) => {
                    report.checked += 1;
                    report.bytes += meta.len;
                    match Entry::from_bytes(key, bytes) {
                        Ok(_) => {}
                        Err(EntryError::OtherVersion) => report.other_versions += 1,
                        Err(reason) => match self.quarantine(key, &reason.to_string()) {
                            Ok(()) => report.broken.push((*key, reason)),
                            Err(error) => report.unreadable.push((*key, error)),
                        },
                    }
                }
                Err(error) => report.unreadable.push((*key, error)),
            }
        }
        progress(keys.len() as u64, keys.len() as u64);
        Ok(report)
    }

    /// Removes the least recently used files until at most `limit` bytes are taken, in blocks of
    /// 4 KiB, and the files that killed writers left.
    ///
    /// # Errors
    ///
    /// If the folder cannot be listed.
    pub fn gc(&self, limit: u64) -> io::Result<GcReport> {
        self.list_or_empty()?;
        let mut report = GcReport::default();
        let mut candidates = Vec::new();
        for shard in self.shards() {
            let folder = self.folder().join(&shard);
            for (name, kind) in self.names(&folder, &shard) {
                let path = folder.join(name);
                match kind {
                    Kind::Entry(_) | Kind::Latest => candidates.extend(self.candidate(path, kind)),
                    Kind::Temporary => report.leftovers += u64::from(self.remove_leftover(&path)),
                    Kind::Foreign => {}
                }
            }
        }
        let (all, all_bytes) =
            (candidates.len() as u64, candidates.iter().map(|candidate| candidate.len).sum::<u64>());
        (report.removed, report.removed_bytes, report.failed) =
            self.evict(candidates, limit, usize::MAX, None);
        (report.kept, report.kept_bytes) = (all - report.removed, all_bytes - report.removed_bytes);
        Ok(report)
    }

    /// The names in the folder; none if it does not exist.
    fn list_or_empty(&self) -> io::Result<Vec<std::ffi::OsString>> {
        match self.files.list(self.folder()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            listed => listed,
        }
    }
}
