//! The content hash: what an image is in memory, in 32 bytes.
//!
//! Two files with the same content hash are the same to every loader: the same bytes at the same
//! addresses with the same permissions, led to by the same headers. Nothing else is in it, so that
//! what is not loaded can be removed: symbols, debug information, section headers.
//!
//! The hash is BLAKE3 in the mode that derives keys, so it is no other hash of the same bytes, over
//! these numbers in little-endian order, and then the hash of each segment:
//!
//! - the machine, the number of program headers, and whether they follow the file header;
//! - each program header, but for its offset in the file; of segments and of the range that is
//!   sealed also but for the length in the file. Segments end at a page, empty ones do not count;
//! - the range of addresses that has the signatures.
//!
//! The hash of a segment is that of its bytes without the zeros at its end, since bytes that are
//! not in the file are zero: whoever relies on the hash maps the rest of each page as zeros, or not
//! at all. Three ranges are left out: the file header, of which only the machine
//! matters; the program headers after it, since they are hashed already; and the signatures.
//! Nobody can have more left out without another hash: all that says where these are is hashed.

use std::fmt;
use std::ops::Range;

use object::elf;

use super::headers::{Headers, ProgramHeader};
use super::segments::Segment;
use super::view::View;
use crate::elf64::{FILE_HEADER, PROGRAM_HEADER};
use crate::error::LoadError;
use crate::note::PREFIX_LEN;

/// Says what is hashed.
const CONTEXT: &str = "kiln image, content that is loaded, version 1";

/// A hash of everything that an image loads, by which images can be named and signed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// Makes the hash of its bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ContentHash {
    /// Writes 64 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from(self.0).to_hex())
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentHash({self})")
    }
}

/// Returns the hash of everything that an image loads: of an image of any architecture, which is in
/// memory as a file.
///
/// Two images with one hash are the same bytes at the same addresses, with the same permissions.
/// What is not loaded may differ: `strip` and `objcopy` keep the hash, `patchelf` does not. Nor do
/// signatures change it.
///
/// # Errors
///
/// Those of [`ImageInfo::parse`](crate::ImageInfo::parse).
pub fn content_hash(bytes: &[u8]) -> Result<ContentHash, LoadError> {
    let headers = Headers::of_bytes(bytes)?;
    Ok(View::of_headers(&headers, bytes)?.content_hash(&headers))
}

impl View<'_> {
    /// Returns the hash of everything that is loaded. `headers` are those of the file; all segments
    /// must be there.
    pub(crate) fn content_hash(&self, headers: &Headers) -> ContentHash {
        let mut text = Vec::with_capacity(64 * headers.list.len());
        let mut add = |number: u64| text.extend_from_slice(&number.to_le_bytes());
        let follows = headers.list.first().is_some_and(|first| first.at == FILE_HEADER as u64);
        add(self.arch.elf_machine().into());
        add(headers.base);
        add(headers.list.len() as u64);
        add(follows.into());
        for header in &headers.list {
            let ProgramHeader { kind, flags, offset: _, address, file_len, mem_len, align, at: _ } = *header;
            if kind == elf::PT_LOAD && mem_len == 0 {
                continue;
            }
            let is_range = matches!(kind, elf::PT_LOAD | elf::PT_GNU_RELRO);
            let end = match kind {
                // `strip` cuts padding off. A segment ends below 2^40, as was checked.
                elf::PT_LOAD => (address + mem_len).next_multiple_of(self.arch.page_size()),
                _ => address.wrapping_add(mem_len),
            };
            [kind.into(), flags.into(), address, end, align].into_iter().for_each(&mut add);
            add(if is_range { 0 } else { file_len });
        }
        let room = self.signer_addresses();
        [room.start, room.end].into_iter().for_each(&mut add);
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(&text);
        let headers_end = FILE_HEADER + if follows { headers.list.len() * PROGRAM_HEADER } else { 0 };
        for (segment, bytes) in self.segments.iter().zip(&self.contents) {
            let mut hash = blake3::Hasher::new();
            for piece in pieces(segment, bytes, headers_end as u64, &room) {
                absorb(&mut hash, piece);
            }
            hasher.update(hash.finalize().as_bytes());
        }
        ContentHash(*hasher.finalize().as_bytes())
    }

    /// Returns the addresses of the signatures in the note.
    fn signer_addresses(&self) -> Range<u64> {
        let (note, room) = (self.places.note.start.get(), self.note.head.signers);
        // The note was found in a segment, and the room in the note.
        let start = note + PREFIX_LEN as u64 + room.start.get();
        start..start + room.len.get()
    }
}

/// Returns the bytes of a segment without the headers of the file, which end at `headers_end`, the
/// signatures at the addresses `room`, and the zeros at the end.
fn pieces<'a>(
    segment: &Segment,
    bytes: &'a [u8],
    headers_end: u64,
    room: &Range<u64>,
) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let len = bytes.len() as u64;
    let clamp = |from: u64, to: u64, base: u64| {
        let at = |place: u64| place.saturating_sub(base).min(len) as usize;
        at(from)..at(to)
    };
    let headers = clamp(0, headers_end, segment.offset);
    let room = clamp(room.start, room.end, segment.start);
    let (first, second) = if headers.start <= room.start { (headers, room) } else { (room, headers) };
    let middle = first.end..second.start.max(first.end);
    let last = second.end.max(middle.end)..bytes.len();
    let mut ranges = [0..first.start, middle, last];
    for range in ranges.iter_mut().rev() {
        range.end = range.start + without_zeros(&bytes[range.clone()]);
        if range.start < range.end {
            break;
        }
    }
    ranges.into_iter().map(|range| &bytes[range])
}

/// Returns the length of `bytes` without the zeros at the end.
fn without_zeros(bytes: &[u8]) -> usize {
    const BLOCK: usize = 64;
    let mut len = bytes.len();
    while let Some((_, block)) = bytes[..len].split_last_chunk::<BLOCK>() {
        if *block != [0; BLOCK] {
            break;
        }
        len -= BLOCK;
    }
    bytes[..len].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Adds bytes to a hash; on all threads of rayon's pool if they are many and the program has it.
fn absorb(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    #[cfg(feature = "write")]
    if bytes.len() >= 1 << 20 {
        hasher.update_rayon(bytes);
        return;
    }
    hasher.update(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_at_the_end_do_not_count() {
        for len in [0, 1, 63, 64, 65, 200] {
            for zeros in [0, 1, 63, 64, 65, 200] {
                let mut bytes = vec![7; len];
                bytes.resize(len + zeros, 0);
                assert_eq!(without_zeros(&bytes), len);
            }
        }
    }
}
