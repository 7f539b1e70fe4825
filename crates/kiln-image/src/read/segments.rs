//! The segments of an image and its note, found in the program headers and checked.

use std::ops::Range;

use object::Endianness;
#[cfg(feature = "load")]
use object::elf::FileHeader64;
use object::elf::{self, ProgramHeader64};
#[cfg(feature = "load")]
use object::read::elf::FileHeader;
use object::read::elf::ProgramHeader;

use crate::arch::Arch;
use crate::elf64::{FILE_HEADER, PROGRAM_HEADER, READ_EXECUTE, READ_WRITE};
use crate::error::LoadError;
use crate::note::Span;

/// Addresses of an image end below this, in bytes from the load address.
const MAX_SPAN: u64 = 1 << 40;

/// A part of the file that is mapped with the same permissions, at an address equal to its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) start: u64,
    pub(crate) file_len: u64,
    pub(crate) mem_len: u64,
    pub(crate) flags: u32,
    /// Whether only the loader writes it.
    pub(crate) relro: bool,
}

impl Segment {
    pub(crate) fn is_writable(&self) -> bool {
        self.flags & elf::PF_W != 0
    }

    #[cfg(feature = "load")]
    pub(crate) fn is_executable(&self) -> bool {
        self.flags & elf::PF_X != 0
    }

    /// Whether `span` is in the first `len` bytes of the segment.
    pub(super) fn contains(&self, span: &Span, len: u64) -> bool {
        let (start, size) = (span.start.get(), span.len.get());
        start >= self.start && start.checked_add(size).is_some_and(|end| end <= self.start + len)
    }
}

/// Returns the size of the address space that an image takes and the length of the part of its
/// file that is mapped, both in bytes. This is an estimate for a reservation, made before anything
/// is checked.
#[cfg(feature = "load")]
pub(crate) fn extent(head: &[u8], file_len: u64) -> Result<(u64, usize), LoadError> {
    let bad = |_| LoadError::malformed("no 64-bit ELF header", 0);
    let header = FileHeader64::<Endianness>::parse(head).map_err(bad)?;
    let endian = header.endian().map_err(bad)?;
    let bad = |_| LoadError::malformed("bad program header table", FILE_HEADER as u64);
    let phdrs = header.program_headers(endian, head).map_err(bad)?;
    let loads = phdrs.iter().filter(|phdr| phdr.p_type(endian) == elf::PT_LOAD);
    let (mut span, mut mapped) = (0, 0);
    for load in loads {
        span = load.p_vaddr(endian).saturating_add(load.p_memsz(endian)).max(span);
        mapped = load.p_offset(endian).saturating_add(load.p_filesz(endian)).max(mapped);
    }
    let mapped = mapped.min(file_len);
    let span = span.max(mapped);
    if mapped == 0 || span > MAX_SPAN {
        return Err(LoadError::malformed("no segment, or one that is too large", FILE_HEADER as u64));
    }
    Ok((span, mapped as usize))
}

/// Returns the file range of Kiln's note, which must be the first note, follow the headers and end
/// at `limit` or before. Another note has the build id, which only debuggers read.
pub(super) fn note_range(
    phdrs: &[ProgramHeader64<Endianness>],
    endian: Endianness,
    headers_end: usize,
    limit: usize,
) -> Result<Range<usize>, LoadError> {
    let mut notes = phdrs.iter().filter(|phdr| phdr.p_type(endian) == elf::PT_NOTE);
    let Some(note) = notes.next() else {
        return Err(LoadError::malformed("no note", FILE_HEADER as u64));
    };
    let span = Span::new(note.p_offset(endian), note.p_filesz(endian));
    match span.within(limit) {
        Some(range) if range.start == headers_end => Ok(range),
        _ => Err(LoadError::malformed("a misplaced note", FILE_HEADER as u64)),
    }
}

/// Returns the segments that are loaded, in order of their addresses, after checking them.
pub(super) fn segments(
    phdrs: &[ProgramHeader64<Endianness>],
    endian: Endianness,
    arch: Arch,
    file_len: u64,
) -> Result<Vec<Segment>, LoadError> {
    let page = arch.page_size();
    let fail =
        |what, index: usize| Err(LoadError::malformed(what, (FILE_HEADER + index * PROGRAM_HEADER) as u64));
    let mut segments: Vec<Segment> = Vec::with_capacity(4);
    let mut end = 0u64;
    for (index, phdr) in phdrs.iter().enumerate() {
        if phdr.p_type(endian) != elf::PT_LOAD {
            continue;
        }
        let (start, file, mem) = (phdr.p_offset(endian), phdr.p_filesz(endian), phdr.p_memsz(endian));
        if phdr.p_vaddr(endian) != start || start % page != 0 || phdr.p_align(endian) != page {
            return fail("a segment that is not at its file offset or not on a page", index);
        }
        if start < end {
            return fail("segments that overlap", index);
        }
        if file > mem || start.checked_add(file).is_none_or(|end| end > file_len) {
            return fail("a segment outside the file", index);
        }
        let Some(new_end) = start.checked_add(mem).filter(|&end| end < MAX_SPAN) else {
            return fail("a segment that is too large", index);
        };
        let flags = phdr.p_flags(endian);
        if !matches!(flags, elf::PF_R | READ_EXECUTE | READ_WRITE) {
            return fail("a segment both writable and executable, or with unknown permissions", index);
        }
        if file < mem && flags & elf::PF_W == 0 {
            return fail("zeroed data that is not writable", index);
        }
        end = new_end;
        segments.push(Segment { start, file_len: file, mem_len: mem, flags, relro: false });
    }
    // Only the last segment may end with zeroed data, because the rest of the file after its bytes
    // is not mapped.
    let count = segments.len();
    if segments.iter().take(count.saturating_sub(1)).any(|segment| segment.file_len != segment.mem_len) {
        return fail("zeroed data before the last segment", 0);
    }
    for (index, phdr) in phdrs.iter().enumerate() {
        if phdr.p_type(endian) == elf::PT_GNU_RELRO {
            let (start, len) = (phdr.p_vaddr(endian), phdr.p_memsz(endian));
            let target =
                segments.iter_mut().find(|s| s.start == start && s.mem_len == len && s.is_writable());
            match target {
                Some(segment) if len % page == 0 => segment.relro = true,
                _ => return fail("a RELRO range that is not a segment", index),
            }
        }
    }
    Ok(segments)
}
