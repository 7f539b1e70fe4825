//! The one door to the file system and its clock.
//!
//! [`crate::DiskStore`] does everything through [`Files`], so tests can make the n-th operation
//! fail, or end the "process" there. It has only operations that work on network file systems: no
//! lock, no mapping, no append.

use std::ffi::OsString;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::SystemTime;

/// Properties of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meta {
    pub(crate) len: u64,
    pub(crate) modified: SystemTime,
    pub(crate) is_file: bool,
}

/// The operations of a store on files.
pub(crate) trait Files: Send + Sync + std::fmt::Debug {
    /// Returns the time.
    fn now(&self) -> SystemTime;
    /// Reads a whole file.
    fn read(&self, path: &Path) -> io::Result<(Vec<u8>, Meta)>;
    /// Makes a file that does not exist yet, and writes `parts` to it, one after the other. `sync`
    /// waits until they are on the medium.
    fn write_new(&self, path: &Path, parts: &[&[u8]], sync: bool) -> io::Result<()>;
    /// Renames a file, over the file that has the new name, if any.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Sets the time of last use.
    fn touch(&self, path: &Path, time: SystemTime) -> io::Result<()>;
    /// Makes a folder and those above it, unless they exist.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// Returns the names in a folder, sorted.
    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>>;
    /// Returns the properties of a file. Those of a symbolic link are its own, not those of its
    /// target.
    fn meta(&self, path: &Path) -> io::Result<Meta>;
}

/// The files of the operating system.
#[derive(Debug)]
pub(crate) struct RealFiles;

impl Meta {
    fn new(meta: &fs::Metadata) -> io::Result<Self> {
        Ok(Self { len: meta.len(), modified: meta.modified()?, is_file: meta.is_file() })
    }
}

impl Files for RealFiles {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn read(&self, path: &Path) -> io::Result<(Vec<u8>, Meta)> {
        let mut file = File::open(path)?;
        let meta = Meta::new(&file.metadata()?)?;
        let mut bytes = Vec::new();
        if meta.is_file {
            // Files appear whole and do not change, so the length is exact and one read is enough.
            let len = usize::try_from(meta.len).map_err(|_| io::ErrorKind::FileTooLarge)?;
            bytes.try_reserve_exact(len)?;
            bytes.resize(len, 0);
            file.read_exact(&mut bytes)?;
        } else {
            file.read_to_end(&mut bytes)?;
        }
        Ok((bytes, meta))
    }

    fn write_new(&self, path: &Path, parts: &[&[u8]], sync: bool) -> io::Result<()> {
        // The umask decides who may read it: other users of a shared folder should be able to.
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        if sync { file.sync_all() } else { Ok(()) }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn touch(&self, path: &Path, time: SystemTime) -> io::Result<()> {
        File::open(path)?.set_times(FileTimes::new().set_modified(time))
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        let mut names = fs::read_dir(folder)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort_unstable();
        Ok(names)
    }

    fn meta(&self, path: &Path) -> io::Result<Meta> {
        Meta::new(&fs::symlink_metadata(path)?)
    }
}
