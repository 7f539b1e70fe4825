//! Eviction in small steps.
//!
//! Some writes are followed by a sweep. It looks at a sample of the files, and if the sample takes
//! more than its share of the limit, removes the least recently used files of the sample. If files
//! are few, the sample is all of them, and the sweep is exact. Otherwise the sample is taken from
//! as many subfolders as are needed for enough names. Since keys are hashes, it is as good as a
//! random sample. Nothing is remembered between sweeps, so processes need not agree on anything: if
//! several sweep at once, they choose the same oldest files.
//!
//! Bounds of one sweep: it looks at about [`SAMPLE`] files (less than twice as many), and removes
//! at most [`MAX_REMOVED`].

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{AcqRel, Relaxed, Release};
use std::time::SystemTime;

use super::folder::{DiskStore, HOUR, cost, distance, is_gone};
use super::name::{self, Kind};
use super::writer::Writer;
use crate::{Event, Key};

/// The approximate number of files that a sweep looks at.
const SAMPLE: usize = 128;
/// The largest number of files that a sweep removes. It is larger than the number of files that are
/// usually written between two sweeps, so that a folder shrinks when its limit is lowered.
const MAX_REMOVED: usize = 16;
/// One write in this many is followed by a sweep.
const SWEEP_ONE_IN: u32 = 4;
/// One write in this many is followed by a sweep if the last sweep left room.
const SWEEP_WITH_ROOM_ONE_IN: u32 = 64;

/// A file that may be evicted.
pub(super) struct Candidate {
    pub(super) used: SystemTime,
    pub(super) path: PathBuf,
    pub(super) key: Option<Key>,
    pub(super) len: u64,
}

impl DiskStore {
    /// Sweeps after a fraction of the writes, which is chosen by their keys, and always if a
    /// sixteenth of the limit was written since the last sweep. The last write stored `len` bytes
    /// under `key`.
    pub(super) fn sweep_sometimes(&self, key: &Key, len: u64) {
        let unswept = self.shared.unswept.fetch_add(cost(len), Relaxed).saturating_add(cost(len));
        let one_in =
            if unswept <= self.shared.room.load(Relaxed) { SWEEP_WITH_ROOM_ONE_IN } else { SWEEP_ONE_IN };
        if !key.sampled(one_in) && unswept < self.limit / 16 {
            return;
        }
        // One thread is enough.
        if !self.shared.sweeping.swap(true, AcqRel) {
            self.shared.unswept.store(0, Relaxed);
            let free = self.limit.saturating_sub(self.sweep(key));
            // The room is small, so that many processes together do not exceed the limit by much.
            self.shared.room.store((free / 16).min(self.limit / 64), Relaxed);
            self.shared.sweeping.store(false, Release);
        }
    }

    /// Removes old files of a sample. Returns an estimate of the bytes that the whole folder took
    /// before.
    fn sweep(&self, key: &Key) -> u64 {
        self.clear_incoming(usize::MAX);
        let shards = self.shards();
        let own = key.to_string();
        let start = shards.partition_point(|shard| **shard < own[..2]);
        let mut names: Vec<(PathBuf, Kind)> = Vec::new();
        let mut seen = 0;
        for shard in shards[start..].iter().chain(&shards[..start]) {
            let folder = self.folder.join(shard);
            seen += 1;
            for (name, kind) in self.names(&folder, shard) {
                match kind {
                    Kind::Temporary => {
                        self.remove_leftover(&folder.join(name), None);
                    }
                    Kind::Entry(_) | Kind::Latest => names.push((folder.join(name), kind)),
                    Kind::Foreign => {}
                }
            }
            if names.len() >= SAMPLE {
                break;
            }
        }
        let (sample, skipped) = sample(names, usize::from(key.as_bytes()[31]));
        let looked_at = sample.len();
        let candidates: Vec<Candidate> =
            sample.into_iter().filter_map(|(path, kind)| self.candidate(path, kind)).collect();
        // The fraction of all files that was looked at.
        let part = (seen as f64 / shards.len().max(1) as f64)
            * (looked_at as f64 / (looked_at + skipped).max(1) as f64);
        let bytes: u64 = candidates.iter().map(|candidate| cost(candidate.len)).sum();
        self.evict(candidates, (self.limit as f64 * part) as u64, MAX_REMOVED, Some(key));
        (bytes as f64 / part) as u64
    }

    /// Returns the properties of a file that may be evicted; `None` if it has disappeared or is not
    /// a regular file.
    pub(super) fn candidate(&self, path: PathBuf, kind: Kind) -> Option<Candidate> {
        let key = match kind {
            Kind::Entry(key) => Some(key),
            _ => None,
        };
        let meta = self.files.meta(&path).ok().filter(|meta| meta.is_file)?;
        let now = self.files.now();
        let mut used = meta.modified;
        if used > now && distance(used, now) > HOUR {
            // The clock was set back. The file is marked as used now, and ages like others from now
            // on.
            let _ = self.files.touch(&path, now);
            used = now;
        }
        Some(Candidate { used, path, key, len: meta.len })
    }

    /// Removes the least recently used of `candidates` until they take at most `share` bytes, but
    /// at most `max` of them.
    ///
    /// The entry of `spare` is not removed: it was just written, but may look as old as others,
    /// since file systems keep time in steps of milliseconds. Returns the number and the total
    /// length of the removed files, and the number of files that could not be removed.
    pub(super) fn evict(
        &self,
        mut candidates: Vec<Candidate>,
        share: u64,
        max: usize,
        spare: Option<&Key>,
    ) -> (u64, u64, u64) {
        let mut total: u64 = candidates.iter().map(|candidate| cost(candidate.len)).sum();
        let (mut removed, mut bytes, mut failed) = (0, 0, 0);
        if total <= share {
            return (0, 0, 0);
        }
        candidates.sort_unstable_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
        let may_go = candidates.iter().filter(|candidate| spare.is_none() || candidate.key.as_ref() != spare);
        let mut tried = 0;
        for candidate in may_go {
            if total <= share || tried == max {
                break;
            }
            // Only files that are about to be removed are opened, to check their first bytes.
            let kind = candidate.key.map_or(Kind::Latest, Kind::Entry);
            match self.is_ours(&candidate.path, kind) {
                Ok(true) => {}
                Ok(false) => {
                    total -= cost(candidate.len);
                    continue;
                }
                // Another process removed it.
                Err(error) if is_gone(&error) => {
                    total -= cost(candidate.len);
                    continue;
                }
                Err(_) => {
                    failed += 1;
                    continue;
                }
            }
            tried += 1;
            match self.files.remove(&candidate.path) {
                Ok(()) => {
                    removed += 1;
                    bytes += candidate.len;
                    if let Some(key) = &candidate.key {
                        self.sink.report(&Event::Evicted { key, bytes: candidate.len });
                    }
                }
                // Another process removed it.
                Err(error) if is_gone(&error) => {}
                Err(_) => {
                    failed += 1;
                    continue;
                }
            }
            total -= cost(candidate.len);
        }
        (removed, bytes, failed)
    }

    /// Removes unfinished files of processes that have ended, but at most `max` files. Returns
    /// their number.
    pub(super) fn clear_incoming(&self, max: usize) -> u64 {
        let folder = self.folder.join(name::INCOMING);
        let names = self.files.list(&folder).unwrap_or_default();
        let temporary = names.iter().filter_map(|name| Some((name, name::writer(name.to_str()?)?)));
        let removed = temporary.map(|(name, writer)| self.remove_leftover(&folder.join(name), Some(writer)));
        removed.filter(|removed| *removed).take(max).count() as u64
    }

    /// Removes a temporary file if its writer has ended, or if it was last modified over an hour
    /// ago. Returns whether the file was removed.
    pub(super) fn remove_leftover(&self, path: &Path, writer: Option<Writer>) -> bool {
        let is_old =
            || self.files.meta(path).is_ok_and(|meta| distance(self.files.now(), meta.modified) > HOUR);
        let ended = writer.and_then(Writer::has_ended).unwrap_or(false) || is_old();
        let removed = ended && self.files.remove(path).is_ok();
        if removed {
            self.sink.report(&Event::LeftoverRemoved);
        }
        removed
    }
}

/// Chooses about [`SAMPLE`] of `names`, evenly spread from an offset. Returns the chosen names, and
/// the number of the others.
fn sample<T>(names: Vec<T>, offset: usize) -> (Vec<T>, usize) {
    let total = names.len();
    let step = total / SAMPLE;
    if step < 2 {
        return (names, 0);
    }
    let sample: Vec<T> = names.into_iter().skip(offset % step).step_by(step).take(SAMPLE).collect();
    let skipped = total - sample.len();
    (sample, skipped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_write_removes_what_ended_writers_left() {
        let folder = tempfile::tempdir().unwrap();
        let incoming = folder.path().join(name::INCOMING);
        std::fs::create_dir(&incoming).unwrap();
        let this = Writer::this().unique_name();
        let parts: Vec<&str> = this.split('-').collect();
        let [place, process, started, random] = parts[..] else { panic!("{this}") };
        let of = |place: &str, process: &str, started: &str| {
            let path = incoming.join(format!(".kiln-new-{place}-{process}-{started}-{random}"));
            std::fs::write(&path, b"KilnEn").unwrap();
            path
        };
        let ended = of(place, "4294967295", started);
        let earlier = of(place, process, "1");
        let stays =
            [of(place, process, started), of("0123456789abcdef", "1", "1"), incoming.join("not ours")];
        std::fs::write(&stays[2], b"KilnEn").unwrap();
        let store = DiskStore::new(folder.path());
        let path = folder.path().join("ab").join("a file");
        store.write(&path, &[b"content"], false).unwrap();
        assert!(!ended.exists() && !earlier.exists());
        assert!(stays.iter().all(|path| path.exists()));
        // Later ones are left to sweeps.
        let ended = of(place, "4294967295", started);
        store.write(&path, &[b"content"], false).unwrap();
        assert!(ended.exists());
        assert_eq!(store.clear_incoming(usize::MAX), 1);
        assert!(!ended.exists());
    }
}
