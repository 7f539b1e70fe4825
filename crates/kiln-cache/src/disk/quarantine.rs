//! Quarantine: an entry that must not be used is moved to the quarantine folder. If it can be
//! neither moved nor removed, at least this process does not use it again.

use std::io;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use super::folder::{DiskStore, is_gone};
use super::name::{self, Kind};
use crate::{EntryError, Key};

/// The largest number of entries that are kept in quarantine.
const MAX_QUARANTINED: usize = 16;

impl DiskStore {
    /// Returns whether the entry of `key` must not be used, although its file is still in place.
    pub(super) fn is_banned(&self, key: &Key) -> bool {
        self.shared.any_banned.load(Relaxed)
            && self.shared.banned.read().unwrap_or_else(PoisonError::into_inner).contains(key)
    }

    pub(super) fn set_banned(&self, key: &Key, banned: bool) {
        if banned || self.shared.any_banned.load(Relaxed) {
            let mut keys = self.shared.banned.write().unwrap_or_else(PoisonError::into_inner);
            let _ = if banned { keys.insert(*key) } else { keys.remove(key) };
            self.shared.any_banned.store(!keys.is_empty(), Relaxed);
        }
    }

    /// Moves the entry of `key` to quarantine, or removes it if that fails. Returns whether there
    /// was an entry.
    pub(super) fn move_aside(&self, key: &Key, reason: &str) -> io::Result<bool> {
        let path = self.path(key);
        match self.is_ours(&path, Kind::Entry(*key)) {
            Ok(true) => {}
            Ok(false) => return Err(io::Error::new(io::ErrorKind::InvalidData, EntryError::Foreign)),
            Err(error) if is_gone(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
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
        // From here on the entry is no longer used. The rest only helps people who look into the
        // folder, so its errors are ignored.
        let note = folder.join(format!("{key}{}", name::WHY));
        let _ = self.files.touch(&aside, self.files.now());
        let _ = self.files.remove(&note);
        let _ = self.files.write_new(&note, &[reason.as_bytes(), b"\n"], false);
        self.bound_quarantine(&folder);
        Ok(true)
    }

    /// Removes the oldest entries of the quarantine if there are too many.
    fn bound_quarantine(&self, folder: &Path) {
        let names = self.files.list(folder).unwrap_or_default();
        let mut entries: Vec<(SystemTime, String)> = names
            .iter()
            .filter_map(|name| name.to_str())
            .filter(|name| name::is_quarantined(name) && !name.ends_with(name::WHY))
            .filter_map(|name| Some((self.files.meta(&folder.join(name)).ok()?.modified, name.to_owned())))
            .collect();
        if entries.len() <= MAX_QUARANTINED {
            return;
        }
        entries.retain(|(_, name)| {
            let key = name.parse();
            key.is_ok_and(|key| self.is_ours(&folder.join(name), Kind::Entry(key)).unwrap_or(false))
        });
        entries.sort_unstable();
        let excess = entries.len().saturating_sub(MAX_QUARANTINED);
        for (_, name) in &entries[..excess] {
            let _ = self.files.remove(&folder.join(name));
            let _ = self.files.remove(&folder.join(format!("{name}{}", name::WHY)));
        }
    }
}
