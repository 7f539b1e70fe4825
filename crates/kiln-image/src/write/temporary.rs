//! Temporary files in the folder of an output file. Their names say which output they are for, so
//! that the next write to the same output removes the files that a killed process left behind.
//!
//! An output has a few such names. The process that writes a temporary file holds a lock on it,
//! which the system releases however the process ends; so a file that can be locked is a leftover.
//! Where files cannot be locked, a file that nobody wrote to for an hour is a leftover.
//!
//! Invariant: a file is removed only under its lock, and only if the name still leads to it. So the
//! file that another process has just given the name of the output is never touched.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::NamedTempFile;

/// The number of processes that can write to one output at once under names that a later write
/// finds.
const NAMES: usize = 4;
/// The time without a write after which a file is a leftover, where files cannot be locked.
const OLD: Duration = Duration::from_secs(60 * 60);

/// Makes the temporary file for an output, in the same folder and with this mode under the umask,
/// and removes the temporary files that killed processes left for this output. Rename the file to
/// the output with `persist`; dropping it removes it.
///
/// # Errors
///
/// If the file cannot be made. The error does not name it, because its name would mean nothing to
/// a user.
pub fn temporary_for(output: &Path, mode: u32) -> io::Result<NamedTempFile> {
    let folder = match output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let names = names(output);
    for name in &names {
        remove_leftover(&folder.join(name));
    }
    // Opened here, because the errors of `tempfile` name the file. `open` applies the umask.
    let open = |path: &Path| {
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        match file.try_lock() {
            // Another process took it for a leftover before it was locked.
            Err(TryLockError::WouldBlock) => Err(ErrorKind::AlreadyExists.into()),
            Ok(()) if !leads_to(path, &file) => Err(ErrorKind::AlreadyExists.into()),
            // Where files cannot be locked, others leave the file alone because it is new.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
        }
    };
    for name in names {
        match tempfile::Builder::new().prefix(&name).rand_bytes(0).make_in(folder, open) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => return made,
        }
    }
    // All names are in use. If this process is killed, its file with a random name stays.
    tempfile::Builder::new().prefix(".kiln-").make_in(folder, open)
}

/// Returns the names of the temporary files of an output.
fn names(output: &Path) -> [String; NAMES] {
    let name = output.file_name().unwrap_or_default();
    let hash = blake3::hash(name.as_encoded_bytes()).to_hex();
    std::array::from_fn(|number| format!(".kiln-new-{}-{number}", &hash[..16]))
}

/// Removes the file at `path` if no process is writing it.
fn remove_leftover(path: &PathBuf) {
    // Something that is not a plain file was not made by this module.
    if !path.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
        return;
    }
    let Ok(file) = OpenOptions::new().write(true).open(path) else { return };
    let is_left = match file.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(_)) => {
            let modified = file.metadata().and_then(|meta| meta.modified());
            modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > OLD))
        }
    };
    if is_left && leads_to(path, &file) {
        // If this fails, the next write tries again.
        let _ = std::fs::remove_file(path);
    }
}

/// Returns whether `path` is a name of the open file.
fn leads_to(path: &Path, file: &File) -> bool {
    let place = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
    match (path.symlink_metadata(), file.metadata()) {
        (Ok(named), Ok(open)) => place(named) == place(open),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(folder: &Path) -> Vec<String> {
        let names = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn leftovers_go_with_the_next_write_to_the_same_output() {
        let folder = tempfile::tempdir().unwrap();
        let (output, other) = (folder.path().join("a.so"), folder.path().join("b.so"));
        for name in names(&output).iter().chain(&names(&other)) {
            std::fs::write(folder.path().join(name), b"a part").unwrap();
        }
        temporary_for(&output, 0o644).unwrap().persist(&output).unwrap();
        let mut left = names(&other).to_vec();
        left.push("a.so".into());
        left.sort();
        assert_eq!(listed(folder.path()), left, "those of another output are not looked for");
        drop(temporary_for(&other, 0o644).unwrap());
        assert_eq!(listed(folder.path()), ["a.so"]);
    }

    #[test]
    fn files_that_are_being_written_stay() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("a.so");
        let writers: Vec<_> = (0..NAMES + 2).map(|_| temporary_for(&output, 0o644).unwrap()).collect();
        assert_eq!(listed(folder.path()).len(), writers.len());
        for writer in writers {
            writer.persist(&output).unwrap();
        }
        assert_eq!(listed(folder.path()), ["a.so"]);
    }

    #[test]
    fn only_plain_files_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("a.so");
        let [folder_name, link, ..] = names(&output);
        std::fs::create_dir(folder.path().join(&folder_name)).unwrap();
        std::fs::write(&output, b"the output").unwrap();
        std::os::unix::fs::symlink(&output, folder.path().join(&link)).unwrap();
        temporary_for(&output, 0o644).unwrap().persist(&output).unwrap();
        assert_eq!(listed(folder.path()).len(), 3);
    }

    /// Many threads replace one output: each succeeds, and the output is always whole.
    #[test]
    fn writers_of_one_output_do_not_disturb_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("a.so");
        std::fs::write(&output, [7; 1000]).unwrap();
        std::thread::scope(|scope| {
            for byte in 0..8_u8 {
                let output = &output;
                scope.spawn(move || {
                    for _ in 0..100 {
                        let mut file = temporary_for(output, 0o644).unwrap();
                        io::Write::write_all(&mut file, &[byte; 1000]).unwrap();
                        file.persist(output).unwrap();
                        let read = std::fs::read(output).unwrap();
                        assert!(read.len() == 1000 && read.iter().all(|byte| *byte == read[0]));
                    }
                });
            }
        });
        assert_eq!(listed(folder.path()), ["a.so"]);
    }
}
