//! Implements [`Store`] for [`DiskStore`].

use std::io::{self, ErrorKind};

use super::folder::{DiskStore, cost};
use super::{latest, name};
use crate::{Entry, EntryError, Event, Key, Lineage, Lookup, Place, Store, entry};

impl Store for DiskStore {
    fn get(&self, key: &Key) -> Lookup {
        if self.is_banned(key) {
            return Lookup::Miss;
        }
        let path = self.path(key);
        match self.read(&path, entry::admit) {
            Ok(None) => Lookup::Miss,
            Ok(Some((bytes, meta))) => match entry::parse(key, bytes) {
                Ok(entry) => {
                    self.used(&path, &meta);
                    Lookup::Hit(entry, Place::Disk)
                }
                Err(reason) => Lookup::Corrupt(reason),
            },
            Err(error) => Lookup::Corrupt(error.downcast().unwrap_or_else(EntryError::Unreadable)),
        }
    }

    fn put(&self, key: &Key, entry: &Entry) -> io::Result<()> {
        entry.check(key)?;
        let head = entry::head(key, entry);
        let artifact = entry.artifact.as_bytes();
        let len = (head.len() + artifact.len()) as u64;
        if cost(len) > self.limit {
            return Err(io::Error::new(ErrorKind::FileTooLarge, "larger than the cache may be"));
        }
        if len > entry::MAX_FILE_LEN {
            return Err(io::Error::new(ErrorKind::FileTooLarge, "larger than an entry may be"));
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
                // The entry is still in place, but this process does not use it again.
                self.set_banned(key, true);
                self.sink.report(&Event::Quarantined { key, reason });
                Err(error)
            }
        }
    }

    fn has(&self, key: &Key) -> bool {
        !self.is_banned(key) && self.files.meta(&self.path(key)).is_ok_and(|meta| meta.is_file)
    }

    fn latest(&self, lineage: &Lineage) -> Option<Key> {
        let path = name::latest(&self.folder, lineage);
        let (bytes, meta) = self.read(&path, latest::admit).ok()??;
        let key = latest::from_bytes(lineage, &bytes)?;
        self.used(&path, &meta);
        Some(key)
    }

    fn set_latest(&self, lineage: &Lineage, key: &Key) -> io::Result<()> {
        if self.latest(lineage) == Some(*key) {
            return Ok(());
        }
        match self.write(&name::latest(&self.folder, lineage), &[&latest::to_bytes(lineage, key)], false) {
            // This process may only read the folder, so no entry can be stored either, and nothing
            // is lost. An error for every hit would only hide other errors.
            Err(error)
                if matches!(error.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied) =>
            {
                Ok(())
            }
            written => written,
        }
    }
}
