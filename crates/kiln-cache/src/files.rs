//! File operations and the clock, behind one trait.
//!
//! [`crate::DiskStore`] accesses its folder only through [`Files`], so tests can make the n-th
//! operation fail, or simulate that the process dies there. The trait has only operations that work
//! on network file systems: no locks, no memory mapping, no appending.

use std::ffi::OsString;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::EntryError;
use crate::entry::HEADER_LEN;

/// Properties of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meta {
    pub(crate) len: u64,
    pub(crate) modified: SystemTime,
    pub(crate) is_file: bool,
}

/// Decides from a file's first bytes and its length whether to read it; an error refuses it.
pub(crate) type Admit = fn(&[u8], u64) -> Result<(), EntryError>;

/// The length up to which a file is read at once, in bytes. Of a longer file the first bytes are
/// checked before memory is allocated for the rest, because a sparse file may have any length.
const AT_ONCE: u64 = 1 << 20;

/// The operations of a store on files.
pub(crate) trait Files: Send + Sync + std::fmt::Debug {
    /// Returns the current time.
    fn now(&self) -> SystemTime;
    /// Reads a whole regular file. If the file is long, `admit` is called with its first
    /// [`HEADER_LEN`] bytes and its length before memory is allocated for the rest.
    fn read(&self, path: &Path, admit: Admit) -> io::Result<(Vec<u8>, Meta)>;
    /// Reads the first bytes of a regular file: as many as `head` has room for, or all that the
    /// file has. Returns their number.
    fn read_head(&self, path: &Path, head: &mut [u8]) -> io::Result<usize>;
    /// Creates a file, which must not exist yet, and writes `parts` to it, one after the other. If
    /// `sync` is set, waits until they are on the storage device.
    fn write_new(&self, path: &Path, parts: &[&[u8]], sync: bool) -> io::Result<()>;
    /// Renames a file, and replaces the file that has the new name, if there is one.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Sets the modification time, which records the last use.
    fn touch(&self, path: &Path, time: SystemTime) -> io::Result<()>;
    /// Creates a folder and those above it, unless they exist.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// Returns the names in a folder, sorted.
    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>>;
    /// Returns the properties of a file. Symbolic links are not followed.
    fn meta(&self, path: &Path) -> io::Result<Meta>;
}

/// The operating system's files.
#[derive(Debug)]
pub(crate) struct RealFiles;

impl Meta {
    fn new(meta: &fs::Metadata) -> io::Result<Self> {
        Ok(Self { len: meta.len(), modified: meta.modified()?, is_file: meta.is_file() })
    }
}

/// Returns whether an error of [`Files::read`] or [`Files::read_head`] means that the path is not a
/// regular file.
pub(crate) fn is_no_file(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput
}

/// Opens a regular file for reading.
///
/// Never blocks: without `O_NONBLOCK`, opening a named pipe would wait until another process opens
/// it for writing. Symbolic links are refused as well, because the store makes none.
fn open(path: &Path) -> io::Result<(File, Meta)> {
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let no_file = || io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        // `ELOOP`: a symbolic link. `ENXIO`: a socket, or a device file without its device.
        Some(code) if [Errno::LOOP, Errno::NXIO].map(Errno::raw_os_error).contains(&code) => no_file(),
        _ => error,
    })?;
    let meta = Meta::new(&file.metadata()?)?;
    if meta.is_file { Ok((file, meta)) } else { Err(no_file()) }
}

impl Files for RealFiles {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn read(&self, path: &Path, admit: Admit) -> io::Result<(Vec<u8>, Meta)> {
        let (mut file, meta) = open(path)?;
        let mut bytes = Vec::new();
        if meta.len > AT_ONCE {
            bytes.resize(HEADER_LEN, 0);
            file.read_exact(&mut bytes)?;
            admit(&bytes, meta.len).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
        // Files appear whole and do not change, so the length is exact: no need to read until the
        // end of the file.
        let len = usize::try_from(meta.len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let start = bytes.len();
        bytes.try_reserve_exact(len - start)?;
        bytes.resize(len, 0);
        file.read_exact(&mut bytes[start..])?;
        Ok((bytes, meta))
    }

    fn read_head(&self, path: &Path, head: &mut [u8]) -> io::Result<usize> {
        let (mut file, _) = open(path)?;
        let mut filled = 0;
        while filled < head.len() {
            match file.read(&mut head[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_new(&self, path: &Path, parts: &[&[u8]], sync: bool) -> io::Result<()> {
        // No mode is set: the umask decides whether other users of a shared folder may read it.
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
        open(path)?.0.set_times(FileTimes::new().set_modified(time))
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
