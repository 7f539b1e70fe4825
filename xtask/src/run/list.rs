//! Passes the list of a command's files to its worker. A worker that searched for the files itself
//! could find others, and its standard input is not that of the command.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use crate::input::InputFile;

/// A list of files that another process can read while this value lives.
pub(super) struct List(File);

impl List {
    pub(super) fn new(files: &[InputFile]) -> std::io::Result<Self> {
        let file = tempfile::tempfile()?;
        let bytes = |path: &Path| path.as_os_str().to_owned().into_vec();
        let list: Vec<_> = files.iter().map(|file| (bytes(&file.name), bytes(&file.path))).collect();
        let mut out = BufWriter::new(&file);
        serde_json::to_writer(&mut out, &list)?;
        out.flush()?;
        drop(out);
        Ok(Self(file))
    }

    /// The path of the list, for [`read`].
    pub(super) fn path(&self) -> PathBuf {
        of_this_process(&self.0)
    }
}

/// Returns the path at which other processes find an open file of this process.
pub(super) fn of_this_process(file: &File) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into()
}

/// Reads a list that another process made.
pub(super) fn read(path: &Path) -> std::io::Result<Vec<InputFile>> {
    let list: Vec<(Vec<u8>, Vec<u8>)> = serde_json::from_reader(BufReader::new(File::open(path)?))?;
    let path = |bytes| PathBuf::from(OsString::from_vec(bytes));
    Ok(list.into_iter().map(|(name, at)| InputFile::at(path(name), path(at))).collect())
}
