//! The one door to the file system and its clock.
//!
//! [`crate::DiskStore`] does everything through [`Files`], so tests can make the n-th operation fail, or end the "process" there.
//! Only operations that work on network file systems are in it: no lock, no mapping, no append.

use std::ffi::OsString;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::SystemTime;

/// What is known of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meta {
    pub(crate) len: u64,
    pub(crate) modified: SystemTime,
    pub(crate) is_file: bool,
}

/// What a store does with files.
pub(crate) trait Files: Send + Sync + std::fmt::Debug {
    /// The time.
    fn now(&self) -> SystemTime;
    /// A file's whole content.
    fn read(&self, path: &Path) -> io::Result<(Vec<u8>, Meta)>;
    /// Makes a file that does not exist yet, of `parts` one behind the other; `sync` waits until they are on the medium.
    fn write_new(&self, path: &Path, parts: &[&[u8]], sync: bool) -> io::Result<()>;
    /// Moves a file over whatever file has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Sets the time of last use.
    fn touch(&self, path: &Path, time: SystemTime) -> io::Result<()>;
    /// Makes a folder and those above it, unless it is there.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// Names in a folder, sorted.
    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>>;
    /// What is known of a file; of a symbolic link itself, not of what it points to.
    fn meta(&self, path: &Path) -> io::Result<Meta>;
}

/// The operating system's.
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
            // Files appear whole and stay as they are, so their length is known, and the end need not be looked for.
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
        // The umask says who may read it: other users of a shared folder should.
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
