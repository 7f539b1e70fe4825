//! The files that a command line names.
//!
//! A file that can be read only once (standard input, a pipe, a process substitution) is copied
//! when the command starts. The copy is read like every other file: as often as needed, from any
//! position, and by other processes too. The copy has no name, so nothing is left of it afterwards.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{File, FileType, Metadata};
use std::io::{IsTerminal as _, Read};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::output::Failure;

/// Extension of files in text form.
pub(crate) const TEXT: &str = "clif";
/// Extension of files in binary form.
pub(crate) const BINARY: &str = "kir";

/// The name of standard input on a command line.
const STDIN: &str = "-";
/// The largest copy, in bytes.
const LONGEST: u64 = 1 << 30;

/// A file that a command reads.
#[derive(Clone, Debug)]
pub(crate) struct InputFile {
    /// The file's name in messages.
    pub(crate) name: PathBuf,
    /// The path of a regular file with the contents. Other processes can open it as long as this
    /// process lives.
    pub(crate) path: PathBuf,
    /// Keeps the copy open, if the file was copied.
    copy: Option<Arc<File>>,
    /// If debuggers are to show the file's text: the folder that `name` is relative to.
    debugged: Option<Arc<str>>,
}

impl InputFile {
    /// Makes an input file that is called `name` and whose contents are at `path`.
    pub(crate) fn at(name: PathBuf, path: PathBuf) -> Self {
        Self { name, path, copy: None, debugged: None }
    }

    /// The folder that the name is relative to, if debuggers are to show the text.
    pub(super) fn debug_folder(&self) -> Option<&str> {
        self.debugged.as_deref()
    }

    /// Whether the file was copied, because it can be read only once.
    pub(crate) fn is_copy(&self) -> bool {
        self.copy.is_some()
    }
}

/// Returns the files that `paths` name, each only once. Folders are searched for `.clif` and `.kir`
/// files, with all folders inside them.
///
/// The files are in order of their names, so the result of a build does not depend on the order of
/// arguments.
pub(crate) fn files(paths: &[PathBuf]) -> Result<Vec<InputFile>, Failure> {
    let mut files = BTreeMap::new();
    let mut streams = Streams::default();
    for path in paths {
        let error = |error| cannot_read(path, &error);
        if path.as_os_str() != STDIN && std::fs::metadata(path).map_err(error)?.is_dir() {
            let before = files.len();
            search(path, &mut files)?;
            if files.len() == before {
                return Err(Failure::new(format!("no .clif or .kir file in folder {}", path.display())));
            }
        } else {
            let file = streams.file(path)?;
            files.insert(file.name.clone(), file);
        }
    }
    // `a.clif` and `./a.clif` are the same file.
    let mut seen = HashSet::new();
    let new = |file: &InputFile| {
        file.is_copy() || seen.insert(file.path.canonicalize().unwrap_or_else(|_| file.path.clone()))
    };
    Ok(files.into_values().filter(new).collect())
}

/// Makes the texts of `files` those that debuggers show.
pub(crate) fn debugged(files: Vec<InputFile>) -> Vec<InputFile> {
    // A relative path means the same file only in the same folder.
    let folder: Arc<str> = std::env::current_dir().unwrap_or_default().to_string_lossy().into();
    let debugged = |file| InputFile { debugged: Some(folder.clone()), ..file };
    files.into_iter().map(debugged).collect()
}

/// Returns the files that `paths` name, in the same order. None of them may be a folder.
pub(crate) fn in_order(paths: &[PathBuf]) -> Result<Vec<InputFile>, Failure> {
    let mut streams = Streams::default();
    paths.iter().map(|path| streams.file(path)).collect()
}

/// Returns the image that `path` names.
pub(crate) fn image(path: &Path) -> Result<InputFile, Failure> {
    Streams::default().file(path)
}

fn cannot_read(path: &Path, error: &std::io::Error) -> Failure {
    Failure::while_doing(format!("cannot read {}", path.display()), error)
}

fn search(folder: &Path, files: &mut BTreeMap<PathBuf, InputFile>) -> Result<(), Failure> {
    for entry in std::fs::read_dir(folder).map_err(|error| cannot_read(folder, &error))? {
        let path = entry.map_err(|error| cannot_read(folder, &error))?.path();
        // Links are followed, as the user of a folder of links expects. The system's limit on links
        // ends a cycle.
        if path.is_dir() {
            search(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == TEXT || extension == BINARY) {
            let data = std::fs::metadata(&path).map_err(|error| cannot_read(&path, &error))?;
            if !data.is_file() {
                return Err(wrong_kind(&path, data.file_type()));
            }
            files.insert(path.clone(), InputFile::at(path.clone(), path));
        }
    }
    Ok(())
}

/// Refuses a file that is not a regular file.
fn wrong_kind(path: &Path, kind: FileType) -> Failure {
    let kind = match kind {
        kind if kind.is_dir() => "a folder",
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Failure::new(format!("cannot read {}: it is {kind}", path.display()))
}

/// The files that can be read only once and that this command has read.
#[derive(Default)]
struct Streams(HashMap<(u64, u64), PathBuf>);

impl Streams {
    fn file(&mut self, path: &Path) -> Result<InputFile, Failure> {
        let error = |error| cannot_read(path, &error);
        let is_stdin = path.as_os_str() == STDIN || is_descriptor(path, Some(0));
        let opened = if is_stdin { Path::new("/proc/self/fd/0") } else { path };
        let data = std::fs::metadata(opened).map_err(error)?;
        if !is_stdin && data.is_file() && !is_descriptor(path, None) {
            return Ok(InputFile::at(path.into(), path.into()));
        }
        let name = if path.as_os_str() == STDIN { Path::new("<stdin>") } else { path };
        if let Some(first) = self.0.insert((data.dev(), data.ino()), name.into()) {
            let (first, second) = (first.display(), name.display());
            return Err(Failure::new(format!("{first} and {second} are the same, which is read only once")));
        }
        let copy = if is_stdin {
            refuse_endless(path, &data, std::io::stdin().is_terminal())?;
            copy(path, &mut std::io::stdin().lock())?
        } else {
            // This comes before the file is opened, because opening a device may have side effects.
            refuse_endless(path, &data, false)?;
            // Opening a FIFO waits for its writer, perhaps forever. A pipe that this process has
            // inherited is open already.
            if data.file_type().is_fifo() && !is_descriptor(path, None) {
                return Err(wrong_kind(path, data.file_type()));
            }
            copy(path, &mut open_now(path).map_err(error)?)?
        };
        let path = format!("/proc/{}/fd/{}", std::process::id(), copy.as_raw_fd()).into();
        Ok(InputFile { name: name.into(), path, copy: Some(Arc::new(copy)), debugged: None })
    }
}

/// Opens a file that this process has open already, or that is no FIFO. `/dev/fd/7` is opened once
/// more, which would wait for another writer if the writer of a FIFO has come and gone.
fn open_now(path: &Path) -> std::io::Result<File> {
    let without_waiting = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(without_waiting).open(path)?;
    // Reading waits again.
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

/// Refuses inputs that have no end or no contents: folders, and all devices except terminals and
/// the null device.
fn refuse_endless(path: &Path, data: &Metadata, is_terminal: bool) -> Result<(), Failure> {
    let kind = data.file_type();
    let is_null = std::fs::metadata("/dev/null").is_ok_and(|null| null.rdev() == data.rdev());
    let device = kind.is_block_device() || (kind.is_char_device() && !is_null && !is_terminal);
    if kind.is_dir() || device {
        return Err(wrong_kind(path, kind));
    }
    Ok(())
}

fn copy(path: &Path, from: &mut dyn Read) -> Result<File, Failure> {
    let error = |error| cannot_read(path, &error);
    let mut copy = tempfile::tempfile().map_err(error)?;
    if std::io::copy(&mut from.take(LONGEST + 1), &mut copy).map_err(error)? > LONGEST {
        return Err(too_long(path));
    }
    Ok(copy)
}

pub(super) fn too_long(path: &Path) -> Failure {
    Failure::new(format!("cannot read {}: it is longer than {} MiB", path.display(), LONGEST >> 20))
}

/// Refuses a module that is longer than any module that this program writes.
pub(super) fn refuse_long(path: &Path, length: u64) -> Result<(), Failure> {
    if length > LONGEST { Err(too_long(path)) } else { Ok(()) }
}

/// Whether a path, such as `/dev/stdin` or `/dev/fd/63`, leads to a file descriptor of this
/// process. Such a path means another file in another process. If `number` is given, only the
/// descriptor with that number counts.
fn is_descriptor(path: &Path, number: Option<u32>) -> bool {
    /// Linux's limit on symbolic links in a path.
    const LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let (Some(folder), Some(last)) = (path.parent(), path.file_name()) else { return false };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let Ok(folder) = folder.canonicalize() else { return false };
        if folder.starts_with("/proc") && folder.ends_with("fd") {
            return number.is_none_or(|number| *last == *number.to_string());
        }
        match std::fs::read_link(folder.join(last)) {
            Ok(link) => path = folder.join(link),
            Err(_) => return false,
        }
    }
    false
}
