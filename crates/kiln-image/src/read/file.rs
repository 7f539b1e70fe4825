//! Opening the file of an image, and reading it as a whole.
//!
//! A path may name anything: opening a pipe must not wait for a writer, and a device must not be
//! read. A file that is not an image is refused after its first two kilobytes, however long it is.

use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::view::peek;
use crate::error::LoadError;

/// Number of bytes that suffice for the ELF header, the most program headers that are accepted,
/// and the fixed part of the note.
pub(crate) const HEAD: usize = 2048;

/// Opens the file at `path` if it is a regular file that starts like an image of the file's
/// length. Returns the file, its first [`HEAD`] bytes (all bytes if it is shorter), and its
/// metadata.
pub(crate) fn open_image<'h>(
    path: &Path,
    head: &'h mut [u8; HEAD],
) -> Result<(File, &'h [u8], Metadata), LoadError> {
    // With these flags, opening neither waits for a writer of a pipe nor makes a terminal the
    // controlling terminal of this process.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(LoadError::io("open"))?;
    let metadata = file.metadata().map_err(LoadError::io("examine"))?;
    if !metadata.is_file() {
        return Err(LoadError::NotAFile);
    }
    let mut len = 0;
    while len < HEAD {
        match file.read_at(&mut head[len..], len as u64) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(LoadError::io("read")(error)),
        }
    }
    let head = &head[..len];
    peek(head, metadata.len())?;
    Ok((file, head, metadata))
}

/// Reads the file of an image, for [`ImageInfo::parse`](crate::ImageInfo::parse) and
/// [`verify_bytes`](crate::verify_bytes). The image may be for any architecture.
///
/// A file that is not an image of this format version, or whose length is not that of the image,
/// is refused before it is read as a whole; so are pipes and devices. Nothing else about the
/// returned bytes is checked.
///
/// # Errors
///
/// [`LoadError::At`], with the path and the reason.
pub fn read_image(path: impl AsRef<Path>) -> Result<Vec<u8>, LoadError> {
    let path = path.as_ref();
    read(path).map_err(|error| error.at(path))
}

fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let mut head = [0; HEAD];
    let (file, _, metadata) = open_image(path, &mut head)?;
    let len = metadata.len();
    let mut bytes = Vec::new();
    let expected = usize::try_from(len).map_err(|_| LoadError::malformed("too long for this machine", 0))?;
    bytes.try_reserve_exact(expected).map_err(|_| LoadError::malformed("too long for this machine", 0))?;
    (&file).take(len).read_to_end(&mut bytes).map_err(LoadError::io("read"))?;
    if bytes.len() != expected {
        return Err(LoadError::Length { found: bytes.len() as u64, expected: len });
    }
    Ok(bytes)
}
