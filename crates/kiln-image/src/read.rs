//! Reads an image without mapping it, for tools and as the first step of loading.
//!
//! [`View`] checks what a loader goes by: headers, segments, note, and that every table the note points at lies where
//! it must. It reads no more than that, so its cost does not grow with the number of exports beyond hashing the note.
//! Nothing in the input is trusted; every access is a checked slice.

use object::Endianness;
use object::elf::{self, FileHeader64, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader};

use crate::arch::Arch;
#[cfg(feature = "load")]
use crate::elf64::GNU_HASH_HEADER;
use crate::elf64::{FILE_HEADER, PROGRAM_HEADER, READ_EXECUTE, READ_WRITE, RELA, SYMBOL, symbol_type};
use crate::error::LoadError;
use crate::note::{self, Note, SlotRecord, Span, Sum, checksum};

mod info;

pub use info::{ExportInfo, ImageInfo, SectionInfo, SlotInfo, SymbolType};

const MAX_SEGMENTS: usize = 16;

/// A part of the file that is mapped with one set of permissions, at an address equal to its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) start: u64,
    pub(crate) file_len: u64,
    pub(crate) mem_len: u64,
    pub(crate) flags: u32,
    /// Written by the loader only.
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

    fn contains(&self, span: &Span, len: u64) -> bool {
        let (start, size) = (span.start.get(), span.len.get());
        start >= self.start && start.checked_add(size).is_some_and(|end| end <= self.start + len)
    }
}

/// An entry of the dynamic symbol table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DynamicSymbol {
    #[cfg(feature = "load")]
    pub(crate) index: u32,
    pub(crate) name: u32,
    pub(crate) info: u8,
    pub(crate) section: u16,
    pub(crate) value: u64,
    pub(crate) size: u64,
}

impl DynamicSymbol {
    pub(crate) fn is_function(&self) -> bool {
        symbol_type(self.info) == elf::STT_FUNC
    }
}

/// The checked skeleton of an image.
#[derive(Clone)]
pub(crate) struct View<'a> {
    pub(crate) arch: Arch,
    pub(crate) note: Note<'a>,
    /// The ELF note's range of the file.
    pub(crate) note_range: std::ops::Range<usize>,
    pub(crate) segments: Vec<Segment>,
    bytes: &'a [u8],
}

/// The dynamic tables, read where they lie.
#[derive(Clone, Copy)]
pub(crate) struct Tables<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) endian: Endianness,
    pub(crate) note: Note<'a>,
}

impl<'a> View<'a> {
    /// Checks an image of `file_len` bytes, of which at least everything that is mapped read-only is in `bytes`.
    pub(crate) fn parse(bytes: &'a [u8], file_len: u64) -> Result<Self, LoadError> {
        let fail = |what, offset| Err(LoadError::malformed(what, offset));
        let Ok(header) = FileHeader64::<Endianness>::parse(bytes) else {
            return fail("no 64-bit ELF header", 0);
        };
        let Ok(endian) = header.endian() else { return fail("unknown byte order", 5) };
        let Some(arch) = Arch::from_elf_machine(header.e_machine(endian)) else {
            return fail("unknown machine", 18);
        };
        if endian != arch.endian() {
            return fail("byte order that the machine does not have", 5);
        }
        if header.e_type(endian) != elf::ET_DYN {
            return fail("an ELF file that is not a shared object", 16);
        }
        if header.e_phoff(endian) != FILE_HEADER as u64 {
            return fail("program headers in another place", 32);
        }
        let phdrs = match header.program_headers(endian, bytes) {
            Ok(phdrs) if (1..=MAX_SEGMENTS).contains(&phdrs.len()) => phdrs,
            _ => return fail("bad program header table", FILE_HEADER as u64),
        };
        let headers_end = FILE_HEADER + phdrs.len() * PROGRAM_HEADER;
        let note_range = find_note(phdrs, endian, headers_end, bytes.len())?;
        let note = Note::parse(&bytes[note_range.clone()], arch, note_range.start as u64)?;
        if file_len != note.head.file_len.get() {
            return Err(LoadError::Length { found: file_len, expected: note.head.file_len.get() });
        }
        if bytes.get(..headers_end).map(checksum) != Some(note.head.headers_sum) {
            return Err(LoadError::Altered { section: "headers".into() });
        }
        let segments = segments(phdrs, endian, arch, file_len)?;
        let view = Self { arch, note, note_range, segments, bytes };
        view.check_tables()?;
        Ok(view)
    }

    fn check_tables(&self) -> Result<(), LoadError> {
        let head = self.note.head;
        let at = (self.note_range.start + note::PREFIX_LEN) as u64;
        let Some(first) = self.segments.first() else { return Err(LoadError::malformed("no segment", at)) };
        // The loader reads these while it writes other segments.
        if first.start != 0
            || first.flags != elf::PF_R
            || self.note_range.end as u64 > first.file_len
            || first.file_len > self.bytes.len() as u64
        {
            return Err(LoadError::malformed("a note outside the read-only segment", at));
        }
        let readable = first.file_len;
        for table in [&head.gnu_hash, &head.dynsym, &head.dynstr, &head.rela, &head.eh_frame] {
            if table.len.get() != 0 && !first.contains(table, readable) {
                return Err(LoadError::malformed("a table outside the read-only segment", at));
            }
        }
        let inside = |span: &Span, fits: &dyn Fn(&Segment) -> bool| {
            span.len.get() == 0 || self.segments.iter().any(|s| fits(s) && s.contains(span, s.mem_len))
        };
        if !inside(&head.text, &|segment| segment.flags & elf::PF_X != 0) {
            return Err(LoadError::malformed("code outside the executable segment", at));
        }
        let slots = (self.note.slots().len() as u64).checked_add(head.internal_slots.get());
        if slots.and_then(|slots| slots.checked_mul(8)) != Some(head.slot_array.len.get())
            || !head.slot_array.start.get().is_multiple_of(8)
            || !inside(&head.slot_array, &|segment| segment.is_writable() && !segment.relro)
        {
            return Err(LoadError::malformed("a misplaced slot array", at));
        }
        if !head.rela.len.get().is_multiple_of(RELA as u64)
            || head.relative_count.get() > head.rela.len.get() / RELA as u64
            || !head.dynsym.len.get().is_multiple_of(SYMBOL as u64)
        {
            return Err(LoadError::malformed("a table of broken length", at));
        }
        Ok(())
    }

    pub(crate) fn tables(&self) -> Tables<'a> {
        Tables { bytes: self.bytes, endian: self.arch.endian(), note: self.note }
    }

    /// Compares every checksum; `sum` hashes a range of the file. Together with the checks of [`View::parse`] this
    /// covers every byte of the file.
    pub(crate) fn verify(
        &self,
        sum: &mut dyn FnMut(std::ops::Range<u64>) -> Result<Sum, LoadError>,
    ) -> Result<(), LoadError> {
        let mut end = self.note_range.end as u64;
        for record in self.note.sums() {
            let (start, len) = (record.range.start.get(), record.range.len.get());
            let next = start.checked_add(len).filter(|&next| next <= self.note.head.file_len.get());
            let (true, Some(next)) = (start == end, next) else {
                return Err(LoadError::malformed("checksums with a gap", start));
            };
            if sum(start..next)? != record.sum {
                let section = self.note.text(record.name).unwrap_or("a section").into();
                return Err(LoadError::Altered { section });
            }
            end = next;
        }
        if end == self.note.head.file_len.get() {
            Ok(())
        } else {
            Err(LoadError::malformed("checksums that end early", end))
        }
    }
}

/// Compares every checksum of an image that is in memory as a whole.
///
/// # Errors
///
/// [`LoadError::Altered`] names the part that was altered; other errors as for [`ImageInfo::parse`].
pub fn verify_bytes(bytes: &[u8]) -> Result<(), LoadError> {
    let view = View::parse(bytes, bytes.len() as u64)?;
    view.verify(&mut |range| {
        let bytes = bytes.get(range.start as usize..range.end as usize);
        bytes.map(checksum).ok_or_else(|| LoadError::malformed("truncated", range.start))
    })
}

/// How much address space the image takes, and how many bytes of the file are mapped, both in bytes. Only an estimate
/// for a reservation: [`View::parse`] checks what is behind it.
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
    if mapped == 0 || span > 1 << 40 {
        return Err(LoadError::malformed("no segment, or one that is too large", FILE_HEADER as u64));
    }
    Ok((span, mapped as usize))
}

fn find_note(
    phdrs: &[ProgramHeader64<Endianness>],
    endian: Endianness,
    headers_end: usize,
    limit: usize,
) -> Result<std::ops::Range<usize>, LoadError> {
    let mut notes = phdrs.iter().filter(|phdr| phdr.p_type(endian) == elf::PT_NOTE);
    let (Some(note), None) = (notes.next(), notes.next()) else {
        return Err(LoadError::malformed("not exactly one note", FILE_HEADER as u64));
    };
    let span = Span::new(note.p_offset(endian), note.p_filesz(endian));
    match span.within(limit) {
        Some(range) if range.start == headers_end => Ok(range),
        _ => Err(LoadError::malformed("a misplaced note", FILE_HEADER as u64)),
    }
}

fn segments(
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
        let Some(new_end) = start.checked_add(mem).filter(|&end| end < 1 << 40) else {
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
    // Zeroed data may only end the last segment: behind it, the file goes on with what is not mapped.
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

impl<'a> Tables<'a> {
    fn big(&self) -> bool {
        self.endian == Endianness::Big
    }

    fn u32(&self, at: usize) -> Option<u32> {
        let bytes = *self.bytes.get(at..)?.first_chunk()?;
        Some(if self.big() { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    pub(crate) fn u64(&self, at: usize) -> Option<u64> {
        let bytes = *self.bytes.get(at..)?.first_chunk()?;
        Some(if self.big() { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) })
    }

    fn span(&self, span: Span) -> Option<std::ops::Range<usize>> {
        span.within(self.bytes.len())
    }

    pub(crate) fn symbol(&self, index: u32) -> Option<DynamicSymbol> {
        let table = self.span(self.note.head.dynsym)?;
        let at = table.start.checked_add(index as usize * SYMBOL)?;
        if at + SYMBOL > table.end {
            return None;
        }
        Some(DynamicSymbol {
            #[cfg(feature = "load")]
            index,
            name: self.u32(at)?,
            info: *self.bytes.get(at + 4)?,
            section: {
                let bytes = *self.bytes.get(at + 6..)?.first_chunk()?;
                if self.big() { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
            },
            value: self.u64(at + 8)?,
            size: self.u64(at + 16)?,
        })
    }

    pub(crate) fn symbol_count(&self) -> u32 {
        u32::try_from(self.note.head.dynsym.len.get() / SYMBOL as u64).unwrap_or(0)
    }

    /// The name that starts at `offset` of the string table, without its final zero.
    pub(crate) fn name(&self, offset: u32) -> Option<&'a [u8]> {
        let table = self.bytes.get(self.span(self.note.head.dynstr)?)?;
        let rest = table.get(offset as usize..)?;
        Some(&rest[..rest.iter().position(|&byte| byte == 0)?])
    }

    /// Finds an export through the GNU hash table. Ends on any bytes: each step moves forward in the table.
    #[cfg(feature = "load")]
    pub(crate) fn lookup(&self, name: &str) -> Option<DynamicSymbol> {
        let range = self.span(self.note.head.gnu_hash)?;
        let table = Tables { bytes: self.bytes.get(range)?, ..*self };
        let (buckets, base) = (table.u32(0)?, table.u32(4)?);
        let (bloom_len, shift) = (table.u32(8)?, table.u32(12)?);
        let hash = elf::gnu_hash(name.as_bytes());
        let bloom = (hash / 64).checked_rem(bloom_len)? as usize;
        let word = table.u64(GNU_HASH_HEADER + 8 * bloom)?;
        if word >> (hash % 64) & word >> (hash.checked_shr(shift).unwrap_or(0) % 64) & 1 == 0 {
            return None;
        }
        let buckets_at = GNU_HASH_HEADER + 8 * bloom_len as usize;
        let chains_at = buckets_at + 4 * buckets as usize;
        let mut index = table.u32(buckets_at + 4 * hash.checked_rem(buckets)? as usize)?;
        loop {
            let chain = table.u32(chains_at.checked_add(4 * index.checked_sub(base)? as usize)?)?;
            if chain | 1 == hash | 1 {
                let symbol = self.symbol(index)?;
                if symbol.section != elf::SHN_UNDEF && self.name(symbol.name)? == name.as_bytes() {
                    return Some(symbol);
                }
            }
            if chain & 1 != 0 {
                return None;
            }
            index = index.checked_add(1)?;
        }
    }

    /// The key of an external slot.
    pub(crate) fn slot_key(&self, slot: &SlotRecord) -> Option<kiln_globals::SlotKey> {
        let text = self.note.text(slot.key)?;
        Some(match slot.kind.get() {
            0 => kiln_globals::SlotKey::Global(text.into()),
            1 => kiln_globals::SlotKey::Symbol(text.into()),
            _ => return None,
        })
    }
}
