//! Opening the file of an image, and reading it as a whole.
//!
//! A path may name anything: opening a pipe must not wait for a writer, and a device must not be
//! read. A file that is not an image is refused after its headers and a note, however long it is.

use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use object::elf;
use rustix::fs::OFlags;

use super::headers::{FilePart, Headers, bad_table};
use super::notes::find_note;
use super::number::Numbers;
use super::segments::{loaded_end, segments};
use crate::elf64::SECTION_HEADER;
use crate::error::LoadError;
use crate::note::PREFIX_LEN;

/// Number of bytes that suffice for the ELF header and all program headers of most images.
const HEAD: usize = 2048;

/// A dynamic section with more bytes is read when it is mapped.
const MAX_DYNAMIC: u64 = 1024;

/// A regular file that has the headers of an image.
pub(crate) struct Opened {
    pub(crate) file: File,
    pub(crate) metadata: Metadata,
    pub(crate) headers: Headers,
}

/// Opens the file at `path` if it is a regular file with headers like those of an image.
pub(crate) fn open_image(path: &Path) -> Result<Opened, LoadError> {
    // With these flags, opening neither waits for a writer of a pipe nor makes a terminal the
    // controlling terminal of this process.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(LoadError::io("open"))?;
    let metadata = file.metadata().map_err(LoadError::io("examine"))?;
    if !metadata.is_file() {
        return Err(LoadError::NotAFile);
    }
    Ok(Opened { headers: read_headers(&file)?, file, metadata })
}

/// Reads the headers of a file.
pub(crate) fn read_headers(file: &File) -> Result<Headers, LoadError> {
    let mut head = [0; HEAD];
    let len = read_at(file, &mut head, 0).map_err(LoadError::io("read"))?;
    let head = &head[..len];
    let (arch, table) = Headers::table(head)?;
    let mut headers = match head.get(table.start as usize..table.end as usize) {
        Some(found) => Headers::entries(arch, table.start, found),
        None => {
            // `Headers::table` has limited the length.
            let mut found = vec![0; (table.end - table.start) as usize];
            if read_at(file, &mut found, table.start).map_err(LoadError::io("read"))? < found.len() {
                return Err(bad_table());
            }
            Headers::entries(arch, table.start, &found)
        }
    };
    let dynamic = headers.of_kind(elf::PT_DYNAMIC).next().copied();
    headers.parts.push(FilePart { offset: 0, bytes: head.into() });
    if let Some(dynamic) = dynamic.filter(|dynamic| dynamic.file_len <= MAX_DYNAMIC) {
        let mut bytes = vec![0; dynamic.file_len as usize];
        if read_at(file, &mut bytes, dynamic.offset).map_err(LoadError::io("read"))? == bytes.len() {
            headers.parts.push(FilePart { offset: dynamic.offset, bytes: bytes.into() });
        }
    }
    Ok(headers)
}

/// Reads as many bytes from `offset` as there are, up to the length of `bytes`.
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut len = 0;
    while len < bytes.len() {
        match file.read_at(&mut bytes[len..], offset.saturating_add(len as u64)) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// Reads the file of an image, for [`ImageInfo::parse`](crate::ImageInfo::parse) and
/// `verify_bytes`. The image may be for any architecture.
///
/// A file that has no headers and no note of an image is refused before it is read as a whole; so
/// are pipes and devices. What follows the segments and sections is not read. Nothing else about
/// the returned bytes is checked.
///
/// # Errors
///
/// [`LoadError::At`], with the path and the reason.
pub fn read_image(path: impl AsRef<Path>) -> Result<Vec<u8>, LoadError> {
    let path = path.as_ref();
    read(path).map_err(|error| error.at(path))
}

fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let Opened { file, metadata, headers } = open_image(path)?;
    let end = used_part(&file, metadata.len(), &headers)?;
    let mut bytes = Vec::new();
    let expected = usize::try_from(end).map_err(|_| LoadError::malformed("too long for this machine", 0))?;
    bytes.try_reserve_exact(expected).map_err(|_| LoadError::malformed("too long for this machine", 0))?;
    (&file).take(end).read_to_end(&mut bytes).map_err(LoadError::io("read"))?;
    if bytes.len() != expected {
        return Err(LoadError::Length { found: bytes.len() as u64, expected: end });
    }
    Ok(bytes)
}

/// Returns how many bytes of a file of `len` bytes are in segments and sections, from its start, if
/// it has Kiln's note.
pub(crate) fn used_part(file: &File, len: u64, headers: &Headers) -> Result<u64, LoadError> {
    let end = loaded_end(&segments(headers, len)?);
    let note = find_note(headers, |header, start| {
        let mut prefix = [0; PREFIX_LEN];
        let read = read_at(file, &mut prefix, header.offset.checked_add(start)?).ok()?;
        (read == prefix.len()).then_some(prefix)
    });
    if note.is_none() {
        return Err(LoadError::malformed("no note of kiln", 32));
    }
    Ok(sections_end(file, headers)?.min(len).max(end))
}

/// Returns the end of the section headers and of all sections, in bytes from the start of the file.
fn sections_end(file: &File, headers: &Headers) -> Result<u64, LoadError> {
    let read = |bytes: &mut [u8], offset| read_at(file, bytes, offset).map_err(LoadError::io("read"));
    let mut head = [0; crate::elf64::FILE_HEADER];
    read(&mut head, 0)?;
    let head = Numbers { bytes: &head, endian: headers.arch.endian() };
    // The header is long enough, because it was read before.
    let start = head.u64(40).unwrap_or_default();
    let mut table = vec![0; usize::from(head.u16(60).unwrap_or_default()) * SECTION_HEADER];
    let len = read(&mut table, start)?;
    let mut end = start.saturating_add(len as u64);
    for section in table[..len].chunks_exact(SECTION_HEADER) {
        let section = Numbers { bytes: section, endian: headers.arch.endian() };
        let kind = section.u32(4).unwrap_or_default();
        let (offset, size) = (section.u64(24).unwrap_or_default(), section.u64(32).unwrap_or_default());
        if kind != elf::SHT_NOBITS {
            end = end.max(offset.saturating_add(size));
        }
    }
    Ok(end)
}
