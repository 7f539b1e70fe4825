//! The segments of an image, found in the program headers and checked.
//!
//! The writer gives each segment an address that is its offset in the file. Tools do not keep that:
//! they remove bytes between segments, cut zeros off a segment's end, and add segments after the
//! last. What they keep is what every loader needs, and that is what is checked.

use object::elf;

use super::headers::{Headers, ProgramHeader};
use crate::arch::Arch;
use crate::elf64::{READ_EXECUTE, READ_WRITE};
use crate::error::LoadError;
use crate::note::Span;

/// Addresses of an image end below this, in bytes from the load address.
const MAX_SPAN: u64 = 1 << 40;

/// A part of the file that is mapped with the same permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Distance of its first byte from the load address.
    pub(crate) start: u64,
    /// Offset of its first byte in the file; equal to `start` modulo the page size.
    pub(crate) offset: u64,
    pub(crate) file_len: u64,
    pub(crate) mem_len: u64,
    flags: u32,
    /// The alignment of its address that makes the best use of large pages, in bytes.
    #[cfg(feature = "load")]
    pub(crate) align: u64,
    /// Whether only the loader writes it.
    pub(crate) relro: bool,
    /// Whether it holds what the loader reads. `patchelf` moves tables to a segment of their own,
    /// which `dlopen` makes writable, though nobody writes to it.
    pub(crate) has_tables: bool,
}

impl Segment {
    /// Whether the loader or the program writes it.
    pub(crate) fn is_writable(&self) -> bool {
        self.flags & elf::PF_W != 0 && !self.has_tables
    }

    /// Whether the file wants it to be writable, though nobody writes it if it has tables.
    #[cfg(feature = "load")]
    pub(crate) fn asks_to_be_written(&self) -> bool {
        self.flags & elf::PF_W != 0
    }

    /// Returns the pages with its bytes that are in the file, as distances from the load address.
    #[cfg(feature = "load")]
    pub(crate) fn file_pages(&self, page: usize) -> std::ops::Range<usize> {
        let start = self.start as usize / page * page;
        match self.file_len {
            0 => start..start,
            len => start..((self.start + len) as usize).next_multiple_of(page),
        }
    }

    pub(crate) fn is_executable(&self) -> bool {
        self.flags & elf::PF_X != 0
    }

    /// The address after the last.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.mem_len
    }

    /// Whether `span` is in the first `len` bytes of the segment.
    pub(crate) fn contains(&self, span: &Span, len: u64) -> bool {
        let (start, size) = (span.start.get(), span.len.get());
        start >= self.start && start.checked_add(size).is_some_and(|end| end <= self.start + len)
    }
}

/// Returns the segments that are loaded, in order of their addresses, after checking them for a
/// file of `file_len` bytes. There is at least one, and the first begins on the first page.
pub(crate) fn segments(headers: &Headers, file_len: u64) -> Result<Vec<Segment>, LoadError> {
    let page = headers.arch.page_size();
    let mut segments: Vec<Segment> = Vec::with_capacity(6);
    for header in headers.of_kind(elf::PT_LOAD) {
        let end = segments.last().map_or(0, |last| last.end().next_multiple_of(page));
        let segment = segment(header, headers.arch, file_len)?;
        // `strip` leaves the header of a segment that it emptied.
        let Some(segment) = segment else { continue };
        if segment.start < end {
            return Err(LoadError::malformed("segments that overlap", header.at));
        }
        if segments.is_empty() && segment.start >= page {
            return Err(LoadError::malformed("no segment on the first page", header.at));
        }
        segments.push(segment);
    }
    if segments.is_empty() {
        return Err(LoadError::malformed("no segment", 32));
    }
    for header in headers.of_kind(elf::PT_GNU_RELRO) {
        seal(&mut segments, header, page)?;
    }
    Ok(segments)
}

/// Returns the end of the part of the file that is loaded.
#[cfg(feature = "load")]
pub(super) fn loaded_end(segments: &[Segment]) -> u64 {
    segments.iter().map(|segment| segment.offset + segment.file_len).max().unwrap_or(0)
}

/// Checks one segment. `None` if it is empty.
fn segment(header: &ProgramHeader, arch: Arch, file_len: u64) -> Result<Option<Segment>, LoadError> {
    let fail = |what| Err(LoadError::malformed(what, header.at));
    let &ProgramHeader { flags, offset, address: start, file_len: file, mem_len, align, .. } = header;
    if file > mem_len || offset.checked_add(file).is_none_or(|end| end > file_len) {
        return fail("a segment outside the file");
    }
    if mem_len == 0 {
        return Ok(None);
    }
    let aligned = align.is_power_of_two() && align >= arch.page_size();
    if !aligned || !(start ^ offset).is_multiple_of(align) {
        return fail("a segment whose address and offset do not agree");
    }
    if start.checked_add(mem_len).is_none_or(|end| end >= MAX_SPAN) {
        return fail("a segment that is too large");
    }
    if !matches!(flags, elf::PF_R | READ_EXECUTE | READ_WRITE) {
        return fail("a segment both writable and executable, or with unknown permissions");
    }
    if file < mem_len && flags & elf::PF_W == 0 {
        return fail("zeroed data that is not writable");
    }
    Ok(Some(Segment {
        start,
        offset,
        file_len: file,
        mem_len,
        flags,
        #[cfg(feature = "load")]
        align,
        relro: false,
        has_tables: false,
    }))
}

/// Marks the segment that is read-only after relocation. `strip` cuts zeros off its end, or all of
/// it, but not off the range.
fn seal(segments: &mut [Segment], header: &ProgramHeader, page: u64) -> Result<(), LoadError> {
    let fail = || LoadError::malformed("a RELRO range that is not a segment", header.at);
    let (start, end) = (header.address, header.address.checked_add(header.mem_len).ok_or_else(fail)?);
    for segment in segments.iter_mut().filter(|segment| segment.flags & elf::PF_W != 0) {
        if segment.start >= end || segment.end() <= start {
            continue;
        }
        // Loaders protect whole pages, so the last page must be one.
        if segment.start < start || segment.end() > end || !end.is_multiple_of(page) {
            return Err(fail());
        }
        segment.relro = true;
    }
    Ok(())
}
