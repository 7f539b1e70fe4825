//! Work on a whole folder: counting its files, checking its entries, making it smaller.
//!
//! This is for people and cron jobs. It takes time linear in the number of files. Other processes
//! may use the folder meanwhile.

use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use super::folder::{DiskStore, cost, is_gone};
use super::name::{self, Kind};
use crate::files::Meta;
use crate::{Entry, EntryError, Key, Lineage, Store, entry};

/// The numbers and sizes of the files in a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskStat {
    /// Number of entries.
    pub entries: u64,
    /// Sum of their lengths.
    pub bytes: u64,
    /// Bytes that entries and the files of last builds take in blocks of 4 KiB. The limit applies
    /// to this number.
    pub disk_bytes: u64,
    /// Number of lineages whose last build is known.
    pub last_builds: u64,
    /// Entries in quarantine.
    pub quarantined: u64,
    /// Files that are being written, or whose writer was killed.
    pub leftovers: u64,
    /// Files that do not belong to the store, whatever their names are.
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
    /// The time of its last use, which is recorded at most about once an hour.
    pub last_used: SystemTime,
}

/// The result of [`DiskStore::verify`].
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
    /// Files that do not belong to the store, some perhaps with the names of entries. They were
    /// left alone.
    pub foreign: u64,
    /// Entries that were damaged. They are in quarantine now, or removed.
    pub broken: Vec<(Key, EntryError)>,
    /// Entries that could not be read, or were damaged and could not be moved. They are still in
    /// place.
    pub unreadable: Vec<(Key, io::Error)>,
}

/// The result of [`DiskStore::gc`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcReport {
    /// Entries and files of last builds that were removed.
    pub removed: u64,
    /// Sum of their lengths.
    pub removed_bytes: u64,
    /// Entries and files of last builds that are left, if no other process removed them.
    pub kept: u64,
    /// Sum of their lengths.
    pub kept_bytes: u64,
    /// Files of killed writers that were removed.
    pub leftovers: u64,
    /// Files that could not be removed.
    pub failed: u64,
    /// Files that do not belong to the store. They were left alone.
    pub foreign: u64,
}

/// The numbers of files in a folder that are not in the subfolders of entries.
#[derive(Default)]
struct Others {
    foreign: u64,
    quarantined: u64,
    /// Files that are being written, or whose writer was killed.
    incoming: u64,
}

impl DiskStore {
    /// Lists the entries in the order of their keys. Entries that are removed in the meantime may
    /// be missing.
    pub fn entries(&self) -> impl Iterator<Item = EntryInfo> {
        self.listed().filter_map(|(_, kind, meta)| match kind {
            Kind::Entry(key) => Some(EntryInfo { key, bytes: meta.len, last_used: meta.modified }),
            _ => None,
        })
    }

    /// Lists the lineages whose last build is known, in the order of their names, and the key of
    /// each. Files that are removed in the meantime, or are damaged, may be missing.
    pub fn last_builds(&self) -> impl Iterator<Item = (Lineage, Key)> {
        self.listed().filter_map(|(path, kind, _)| match kind {
            Kind::Latest => {
                let lineage = name::lineage(&path)?;
                self.latest(&lineage).map(|key| (lineage, key))
            }
            _ => None,
        })
    }

    /// Lists the files in the subfolders of entries. The kind of a file is determined by its name
    /// and its first bytes.
    fn listed(&self) -> impl Iterator<Item = (PathBuf, Kind, Meta)> {
        self.shards().into_iter().flat_map(move |shard| {
            let folder = self.folder().join(&shard);
            self.names(&folder, &shard).into_iter().filter_map(move |(name, kind)| {
                let path = folder.join(name);
                let meta = self.files.meta(&path).ok()?;
                let kind = match kind {
                    Kind::Entry(_) | Kind::Latest if !meta.is_file => Kind::Foreign,
                    Kind::Entry(_) | Kind::Latest => match self.is_ours(&path, kind) {
                        Ok(false) => Kind::Foreign,
                        Err(error) if is_gone(&error) => return None,
                        // A later read of the whole file reports why it cannot be read.
                        Ok(true) | Err(_) => kind,
                    },
                    kind => kind,
                };
                Some((path, kind, meta))
            })
        })
    }

    /// Counts the files that are not in the subfolders of entries.
    ///
    /// # Errors
    ///
    /// If the folder cannot be listed. A folder that does not exist is empty.
    fn others(&self) -> io::Result<Others> {
        let names = match self.files.list(self.folder()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            listed => listed?,
        };
        let mut others = Others::default();
        for name in names.iter().map(|name| name.to_str().unwrap_or_default()) {
            let within = || self.files.list(&self.folder().join(name)).unwrap_or_default();
            match name {
                name::INCOMING => {
                    let writers =
                        within().iter().map(|name| name.to_str().and_then(name::writer)).collect::<Vec<_>>();
                    let written = writers.iter().flatten().count();
                    others.incoming += written as u64;
                    others.foreign += (writers.len() - written) as u64;
                }
                name::QUARANTINE => {
                    for name in within().iter().map(|name| name.to_str().unwrap_or_default()) {
                        others.foreign += u64::from(!name::is_quarantined(name));
                        others.quarantined +=
                            u64::from(name::is_quarantined(name) && !name.ends_with(name::WHY));
                    }
                }
                name::CLAIMS => {
                    let is_claim = |name: &&std::ffi::OsString| name.to_str().is_some_and(name::is_claim);
                    let names = within();
                    others.foreign += (names.len() - names.iter().filter(is_claim).count()) as u64;
                }
                name if name::is_shard(name) => {}
                _ => others.foreign += 1,
            }
        }
        Ok(others)
    }

    /// Counts what is in the folder. A folder that does not exist is empty.
    ///
    /// # Errors
    ///
    /// If the folder cannot be listed.
    pub fn stat(&self) -> io::Result<DiskStat> {
        let Others { foreign, quarantined, incoming } = self.others()?;
        let mut stat = DiskStat { foreign, quarantined, leftovers: incoming, ..DiskStat::default() };
        for (_, kind, meta) in self.listed() {
            match kind {
                Kind::Entry(_) => {
                    stat.entries += 1;
                    stat.bytes += meta.len;
                    stat.disk_bytes += cost(meta.len);
                    stat.oldest = Some(stat.oldest.map_or(meta.modified, |time| time.min(meta.modified)));
                    stat.newest = Some(stat.newest.map_or(meta.modified, |time| time.max(meta.modified)));
                }
                Kind::Latest => {
                    stat.last_builds += 1;
                    stat.disk_bytes += cost(meta.len);
                }
                Kind::Temporary => stat.leftovers += 1,
                Kind::Foreign => stat.foreign += 1,
            }
        }
        Ok(stat)
    }

    /// Reads every entry, and quarantines those that are damaged. `progress` is called with the
    /// number of entries that are done, and the number of all entries.
    ///
    /// # Errors
    ///
    /// If the folder cannot be listed. Damaged entries are in the report.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> io::Result<VerifyReport> {
        let mut report = VerifyReport { foreign: self.others()?.foreign, ..VerifyReport::default() };
        let mut keys = Vec::new();
        for (_, kind, _) in self.listed() {
            match kind {
                Kind::Entry(key) => keys.push(key),
                Kind::Foreign => report.foreign += 1,
                Kind::Latest | Kind::Temporary => {}
            }
        }
        for (done, key) in keys.iter().enumerate() {
            progress(done as u64, keys.len() as u64);
            let reason = match self.read(&self.path(key), entry::admit) {
                Ok(None) => continue,
                Ok(Some((bytes, meta))) => {
                    report.checked += 1;
                    report.bytes += meta.len;
                    Entry::from_bytes(key, bytes).err()
                }
                Err(error) => match error.downcast() {
                    Ok(reason) => {
                        report.checked += 1;
                        Some(reason)
                    }
                    Err(error) => {
                        report.unreadable.push((*key, error));
                        continue;
                    }
                },
            };
            match reason {
                None => {}
                Some(EntryError::OtherVersion) => report.other_versions += 1,
                Some(reason) => match self.quarantine(key, &reason.to_string()) {
                    Ok(()) => report.broken.push((*key, reason)),
                    Err(error) => report.unreadable.push((*key, error)),
                },
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
        let mut report = GcReport { foreign: self.others()?.foreign, ..GcReport::default() };
        report.leftovers = self.clear_incoming(usize::MAX);
        let mut candidates = Vec::new();
        for (path, kind, _) in self.listed() {
            match kind {
                Kind::Entry(_) | Kind::Latest => candidates.extend(self.candidate(path, kind)),
                Kind::Temporary => report.leftovers += u64::from(self.remove_leftover(&path, None)),
                Kind::Foreign => report.foreign += 1,
            }
        }
        let (all, all_bytes) =
            (candidates.len() as u64, candidates.iter().map(|candidate| candidate.len).sum::<u64>());
        (report.removed, report.removed_bytes, report.failed) =
            self.evict(candidates, limit, usize::MAX, None);
        (report.kept, report.kept_bytes) = (all - report.removed, all_bytes - report.removed_bytes);
        Ok(report)
    }
}
