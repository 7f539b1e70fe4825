//! Putting bytes into a file so that nobody ever sees half of them.

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Writes `bytes` to the file at `path`, replacing it in one step: a temporary file in the same folder is written,
/// synced and renamed. The file is readable and executable for all whom the umask lets.
///
/// # Errors
///
/// When the temporary file cannot be made, written or renamed; then the old file is as it was.
pub fn save(path: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
    let path = path.as_ref();
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // `open` applies the umask to the permissions asked for.
    let mode = std::fs::Permissions::from_mode(0o755);
    let mut file = tempfile::Builder::new().prefix(".kiln-").permissions(mode).tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
