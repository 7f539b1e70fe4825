//! Writes a file in one step, so that no reader sees a part of it.

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Writes `bytes` to the file at `path`, replacing it in one step: a temporary file in the same
/// folder is written and renamed. If the umask permits it, everybody may read and execute the file.
///
/// If `path` is a symbolic link, the file that it names is replaced. Like linkers, this does not
/// sync the file to disk: it can be made again, and what a power failure leaves of it does not pass
/// [`verify_bytes`](crate::verify_bytes).
///
/// # Errors
///
/// If `path` exists and is not a file (a folder, a device), or the temporary file cannot be made,
/// written or renamed. Then what is at `path` is unchanged.
pub fn save(path: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
    let path = path.as_ref();
    let path = &match std::fs::metadata(path) {
        Ok(data) if data.is_file() => path.canonicalize()?,
        Ok(_) => return Err(io::Error::new(io::ErrorKind::InvalidInput, "it exists and is not a file")),
        Err(_) => path.to_owned(),
    };
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // `open` applies the umask to these permissions.
    let mode = std::fs::Permissions::from_mode(0o755);
    let mut file = tempfile::Builder::new().prefix(".kiln-").permissions(mode).tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
