//! Artifacts in a folder.
//!
//! One file per key, named by the key, in a subfolder of its first byte. A file is written under a temporary name in the
//! same folder and renamed, so a reader sees it whole or not at all, whatever happens to the writer. There is no index, no
//! database and no lock: any number of processes may share the folder.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kiln_artifact::Artifact;

use crate::{Corrupt, Key, Lookup, Store, entry};

/// Keeps artifacts in a folder, which is made when something is stored.
#[derive(Clone, Debug)]
pub struct DiskStore {
    folder: PathBuf,
}

impl DiskStore {
    /// A store in `folder`, which need not exist.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the entry of `key` lies, whether or not it exists.
    pub fn path(&self, key: &Key) -> PathBuf {
        let name = key.to_string();
        self.folder.join(&name[..2]).join(&name[2..])
    }
}

impl Store for DiskStore {
    fn get(&self, key: &Key) -> Lookup {
        let bytes = match std::fs::read(self.path(key)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Lookup::Miss,
            Err(error) => return Lookup::Corrupt(Corrupt::Unreadable(error)),
        };
        match entry::parse(key, &bytes) {
            Ok(artifact) => Lookup::Hit(artifact),
            Err(error) => Lookup::Corrupt(error),
        }
    }

    fn put(&self, key: &Key, artifact: &Artifact) -> std::io::Result<()> {
        let path = self.path(key);
        let folder = path.parent().expect("an entry lies in a subfolder");
        std::fs::create_dir_all(folder)?;
        // Other users of a shared folder may read what this one stores, if the umask lets them.
        let mode = std::fs::Permissions::from_mode(0o644);
        let mut file = tempfile::Builder::new().prefix(".new-").permissions(mode).tempfile_in(folder)?;
        file.write_all(&entry::header(key, artifact))?;
        file.write_all(artifact.as_bytes())?;
        file.persist(&path).map_err(|error| error.error)?;
        Ok(())
    }
}
