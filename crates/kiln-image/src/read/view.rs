//! The check of an image: headers, segments and note.

use std::ops::Range;

use object::Endianness;
use object::elf::{self, FileHeader64, ProgramHeader64};
use object::read::elf::FileHeader;

use super::segments::{Segment, note_range, segments};
use super::tables::Tables;
use crate::arch::Arch;
use crate::elf64::{FILE_HEADER, PROGRAM_HEADER, RELA, SYMBOL};
use crate::error::LoadError;
use crate::note::{Note, PREFIX_LEN, ReplaceableRecord, Span, Sum, checksum};

/// The most program headers that an image may have.
const MAX_SEGMENTS: usize = 16;

/// An image whose headers, segments and note have been checked.
#[derive(Clone)]
pub(crate) struct View<'a> {
    pub(crate) arch: Arch,
    pub(crate) note: Note<'a>,
    /// The ELF note's range of the file.
    pub(crate) note_range: Range<usize>,
    pub(crate) segments: Vec<Segment>,
    bytes: &'a [u8],
}

/// The headers of an image, after the checks that need no other part of the image.
struct Headers<'a> {
    arch: Arch,
    phdrs: &'a [ProgramHeader64<Endianness>],
    /// The end of the program headers.
    end: usize,
    note_range: Range<usize>,
}

impl<'a> Headers<'a> {
    /// Finds the headers at the start of `bytes`, and the note, which ends at `limit` or before.
    fn parse(bytes: &'a [u8], limit: usize) -> Result<Self, LoadError> {
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
            return fail("program headers at a wrong offset", 32);
        }
        let phdrs = match header.program_headers(endian, bytes) {
            Ok(phdrs) if (1..=MAX_SEGMENTS).contains(&phdrs.len()) => phdrs,
            _ => return fail("bad program header table", FILE_HEADER as u64),
        };
        let end = FILE_HEADER + phdrs.len() * PROGRAM_HEADER;
        let note_range = note_range(phdrs, endian, end, limit)?;
        Ok(Self { arch, phdrs, end, note_range })
    }
}

/// Checks that a file of `file_len` bytes is an image of this length, as far as that can be
/// decided from `head`, the start of the file.
#[cfg(feature = "load")]
pub(super) fn peek(head: &[u8], file_len: u64) -> Result<(), LoadError> {
    let limit = usize::try_from(file_len).unwrap_or(usize::MAX);
    let Headers { arch, note_range, .. } = Headers::parse(head, limit)?;
    let note = head.get(note_range.start..).unwrap_or_default();
    Note::peek(note, note_range.len(), arch, note_range.start as u64, file_len)?;
    Ok(())
}

impl<'a> View<'a> {
    /// Checks an image of `file_len` bytes. `bytes` must hold at least the read-only segment.
    pub(crate) fn parse(bytes: &'a [u8], file_len: u64) -> Result<Self, LoadError> {
        let Headers { arch, phdrs, end, note_range } = Headers::parse(bytes, bytes.len())?;
        let note = Note::parse(&bytes[note_range.clone()], arch, note_range.start as u64, file_len)?;
        if bytes.get(..end).map(checksum) != Some(note.head.headers_sum) {
            return Err(LoadError::Altered { section: "headers".into() });
        }
        let segments = segments(phdrs, arch.endian(), arch, file_len)?;
        let view = Self { arch, note, note_range, segments, bytes };
        view.check_tables()?;
        Ok(view)
    }

    /// Checks that the ranges in the note are in the segments that they must be in.
    fn check_tables(&self) -> Result<(), LoadError> {
        let head = self.note.head;
        let note_offset = (self.note_range.start + PREFIX_LEN) as u64;
        let Some(first) = self.segments.first() else {
            return Err(LoadError::malformed("no segment", note_offset));
        };
        // The loader reads the note and the tables while it writes other segments.
        if first.start != 0
            || first.flags != elf::PF_R
            || self.note_range.end as u64 > first.file_len
            || first.file_len > self.bytes.len() as u64
        {
            return Err(LoadError::malformed("a note outside the read-only segment", note_offset));
        }
        let readable = first.file_len;
        let tables =
            [&head.gnu_hash, &head.dynsym, &head.dynstr, &head.rela, &head.eh_frame, &head.code_tables];
        for table in tables {
            if table.len.get() != 0 && !first.contains(table, readable) {
                return Err(LoadError::malformed("a table outside the read-only segment", note_offset));
            }
        }
        let inside = |span: &Span, fits: &dyn Fn(&Segment) -> bool| {
            span.len.get() == 0 || self.segments.iter().any(|s| fits(s) && s.contains(span, s.mem_len))
        };
        if !inside(&head.text, &|segment| segment.flags & elf::PF_X != 0) {
            return Err(LoadError::malformed("code outside the executable segment", note_offset));
        }
        let slots = (self.note.slots().len() as u64).checked_add(head.internal_slots.get());
        if slots.and_then(|slots| slots.checked_mul(8)) != Some(head.slot_array.len.get())
            || !head.slot_array.start.get().is_multiple_of(8)
            || !inside(&head.slot_array, &|segment| segment.is_writable() && !segment.relro)
        {
            return Err(LoadError::malformed("a misplaced slot array", note_offset));
        }
        if !head.rela.len.get().is_multiple_of(RELA as u64)
            || head.relative_count.get() > head.rela.len.get() / RELA as u64
            || !head.dynsym.len.get().is_multiple_of(SYMBOL as u64)
        {
            return Err(LoadError::malformed("a table of broken length", note_offset));
        }
        let symbols = head.dynsym.len.get() / SYMBOL as u64;
        let exports_end = u64::from(head.first_export.get()) + self.note.export_signatures().len() as u64;
        if symbols > u64::from(u32::MAX) || exports_end > symbols.max(1) {
            return Err(LoadError::malformed("wrong number of dynamic symbols", note_offset));
        }
        self.check_replaceable(exports_end, note_offset)
    }

    /// Checks the slots of replaceable functions, which the loader writes at any time.
    /// `exports_end` is the index after that of the last export.
    fn check_replaceable(&self, exports_end: u64, note_offset: u64) -> Result<(), LoadError> {
        let head = self.note.head;
        let records = self.note.replaceable();
        // `check_tables` has checked that the sums do not overflow.
        let external_end = head.slot_array.start.get() + 8 * self.note.slots().len() as u64;
        let end = head.slot_array.start.get() + head.slot_array.len.get();
        let fits = |record: &ReplaceableRecord| {
            let (symbol, slot) = (record.symbol.get(), record.slot.get());
            (u64::from(head.first_export.get())..exports_end).contains(&symbol.into())
                && (external_end..end).contains(&slot)
                && slot.is_multiple_of(8)
        };
        if !records.iter().all(fits) || !records.is_sorted_by(|a, b| a.symbol.get() < b.symbol.get()) {
            return Err(LoadError::malformed("a misplaced slot of a replaceable function", note_offset));
        }
        Ok(())
    }

    /// The dynamic tables.
    pub(crate) fn tables(&self) -> Tables<'a> {
        Tables { bytes: self.bytes, endian: self.arch.endian(), note: self.note }
    }

    /// Compares every checksum; `sum` hashes a range of the file. Together with the checks of
    /// [`View::parse`] this covers every byte of the file, once.
    pub(crate) fn verify(
        &self,
        sum: &mut dyn FnMut(Range<u64>) -> Result<Sum, LoadError>,
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
/// [`LoadError::Altered`] names the part that was altered; other errors as for
/// [`ImageInfo::parse`](crate::ImageInfo::parse).
pub fn verify_bytes(bytes: &[u8]) -> Result<(), LoadError> {
    let view = View::parse(bytes, bytes.len() as u64)?;
    view.verify(&mut |range| {
        // The casts keep the values: no range ends after the end of the file, whose length is that
        // of `bytes`.
        let bytes = bytes.get(range.start as usize..range.end as usize);
        bytes.map(checksum).ok_or_else(|| LoadError::malformed("truncated", range.start))
    })
}
