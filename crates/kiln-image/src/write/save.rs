//! Writes a file in one step, so that no reader sees a part of it.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use tempfile::NamedTempFile;

use super::temporary::temporary_for;

/// Writes `bytes` to the file at `path`, replacing it in one step: a temporary file in the same
/// folder is written and renamed. Temporary files that killed processes left behind when they
/// wrote the same file are removed. If the umask permits it, everybody may read and execute the
/// file.
///
/// If `path` is a symbolic link, the file that it names is replaced. Like linkers, this does not
/// sync the file to disk: an image can be made again, and a file that a power failure damaged does
/// not pass [`verify_bytes`](crate::verify_bytes).
///
/// If no file can be created in the folder, but the file at `path` exists and is writable, its
/// contents are overwritten. That is not atomic: a reader may see a part of the new contents, an
/// error leaves an incomplete file, and a process that has mapped the old file sees its memory
/// change.
///
/// # Errors
///
/// If `path` exists and is not a file (a folder, a device), or no file can be made, written or
/// renamed. Then what is at `path` is unchanged, unless it had to be overwritten.
pub fn save(path: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
    #[cfg(feature = "tracing")]
    let _span = tracing::debug_span!("write").entered();
    save_in(path.as_ref(), bytes, &|path| temporary_for(path, 0o755))
}

/// A function that makes the temporary file for an output.
type Temporary<'a> = &'a dyn Fn(&Path) -> io::Result<NamedTempFile>;

fn save_in(path: &Path, bytes: &[u8], temporary: Temporary<'_>) -> io::Result<()> {
    let path = &match std::fs::metadata(path) {
        Ok(data) if data.is_file() => path.canonicalize()?,
        Ok(_) => return Err(io::Error::new(ErrorKind::InvalidInput, "it exists and is not a file")),
        Err(_) => path.to_owned(),
    };
    let replaced = temporary(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.persist(path).map_err(|error| error.error).map(drop)
    });
    match replaced {
        Err(error) if not_in_folder(&error) => {
            let mut file = OpenOptions::new().write(true).open(path).map_err(|_| error)?;
            file.write_all(bytes)?;
            file.set_len(bytes.len() as u64)
        }
        other => other,
    }
}

/// Returns whether an error says that the folder cannot be changed, although the file itself
/// perhaps can. A file that is a mount point gives the error "busy".
fn not_in_folder(error: &io::Error) -> bool {
    use ErrorKind::{CrossesDevices, PermissionDenied, ReadOnlyFilesystem, ResourceBusy};
    matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem | ResourceBusy | CrossesDevices)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder in which no file can be made.
    fn refuse(_: &Path) -> io::Result<NamedTempFile> {
        Err(ErrorKind::PermissionDenied.into())
    }

    #[test]
    fn a_file_is_overwritten_if_its_folder_must_not_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.so");
        // There is no file to overwrite.
        assert_eq!(save_in(&path, b"new", &refuse).unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert!(!path.exists());
        for old in ["", "something longer"] {
            std::fs::write(&path, old).unwrap();
            save_in(&path, b"new", &refuse).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"new");
        }
        // Another error is not answered by overwriting.
        let full = |_: &Path| Err(ErrorKind::StorageFull.into());
        assert_eq!(save_in(&path, b"newer", &full).unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn errors_do_not_name_the_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let error = save(folder.path().join("nowhere/a.so"), b"new").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(!error.to_string().contains(".kiln-"), "{error}");
    }
}
