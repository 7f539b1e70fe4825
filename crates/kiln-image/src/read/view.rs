//! An image whose headers, segments and note have been checked.
//!
//! What is loaded is checked, and nothing else: what the program headers, the dynamic section and
//! the note lead to. So an image loads that was stripped, copied by `objcopy` or changed by
//! `patchelf`. Addresses in the note are those of code and data, which no tool can move, since code
//! refers to them; tables that tools do move are found through the dynamic section.

use std::ops::Range;

use kiln_globals::GlobalAccess;
use object::elf;

use super::dynamic::DynamicTables;
use super::headers::{FilePart, Headers, ProgramHeader};
use super::notes::find_note;
use super::segments::{Segment, segments};
use super::tables::{TablePlaces, Tables};
#[cfg(feature = "load")]
use super::thread_local::ThreadLocalPlace;
#[cfg(feature = "verify")]
use super::verify::verify;
use crate::arch::Arch;
use crate::elf64::{RELA, RELR, SYMBOL};
use crate::error::LoadError;
use crate::note::{Note, PREFIX_LEN, ReplaceableRecord, Span, VersionRecord};

/// An image whose headers, segments and note have been checked.
pub(crate) struct View<'a> {
    pub(crate) arch: Arch,
    pub(crate) segments: Vec<Segment>,
    pub(crate) places: TablePlaces,
    pub(crate) note: Note<'a>,
    #[cfg(feature = "load")]
    pub(crate) thread_local: Option<ThreadLocalPlace>,
    /// The note's offset in the file, for errors.
    pub(crate) note_offset: u64,
    /// The bytes of each segment that are in the file.
    pub(super) contents: Vec<&'a [u8]>,
}

impl<'a> View<'a> {
    /// Checks an image that is in memory as a file.
    pub(crate) fn of_file(bytes: &'a [u8]) -> Result<Self, LoadError> {
        Self::of_headers(&Headers::of_bytes(bytes)?, bytes)
    }

    /// Checks an image that is in memory as a file, and has these headers.
    pub(super) fn of_headers(headers: &Headers, bytes: &'a [u8]) -> Result<Self, LoadError> {
        let segments = segments(headers, bytes.len() as u64)?;
        Self::parse(headers, &[], segments, |segment| {
            // `segments` has checked that each is in the file.
            &bytes[segment.offset as usize..(segment.offset + segment.file_len) as usize]
        })
    }

    /// Checks an image with these headers and segments, of which `parts` were read from the file.
    /// `contents` returns the bytes of a segment that are in the file.
    pub(crate) fn parse(
        headers: &Headers,
        parts: &'a [FilePart],
        mut segments: Vec<Segment>,
        contents: impl Fn(&Segment) -> &'a [u8],
    ) -> Result<Self, LoadError> {
        let arch = headers.arch;
        let contents: Vec<&[u8]> = segments.iter().map(contents).collect();
        let find = |header: &ProgramHeader, start: u64, len: usize| {
            let address = header.address.checked_add(start)?;
            bytes_read(parts, &segments, address)
                .and_then(|bytes| bytes.get(..len))
                .or_else(|| bytes_at(&segments, &contents, address, len))
        };
        let place =
            find_note(headers, |header, start| find(header, start, PREFIX_LEN)?.first_chunk().copied());
        let Some(place) = place else {
            return Err(LoadError::malformed("no note of kiln", 32));
        };
        let note_offset = place.header.offset.saturating_add(place.start);
        let truncated = || LoadError::malformed("truncated note", note_offset);
        let len = usize::try_from(place.len).map_err(|_| truncated())?;
        let address = place.header.address.checked_add(place.start).ok_or_else(truncated)?;
        let bytes = bytes_at(&segments, &contents, address, len).ok_or_else(truncated)?;
        let read = bytes_read(parts, &segments, address).unwrap_or_default();
        let note = Note::parse(bytes, &read[..read.len().min(len)], arch, note_offset)?;

        let mut dynamic = headers.of_kind(elf::PT_DYNAMIC);
        let (Some(header), None) = (dynamic.next(), dynamic.next()) else {
            return Err(LoadError::malformed("not one dynamic section", 32));
        };
        let section = usize::try_from(header.file_len).ok().and_then(|len| find(header, 0, len));
        let Some(section) = section else {
            return Err(LoadError::malformed("a dynamic section outside the segments", header.at));
        };
        let dynamic = DynamicTables::read(section, arch.endian(), headers.base)
            .map_err(|what| LoadError::malformed(what, header.offset))?;
        let note_span = Span::new(place.header.address + place.start, len as u64);
        let places = TablePlaces::new(note_span, &dynamic, &note)
            .map_err(|what| LoadError::malformed(what, header.offset))?;
        for span in places.all().filter(|span| span.len.get() > 0) {
            let Some(segment) = segments.iter_mut().find(|segment| segment.contains(&span, segment.file_len))
            else {
                return Err(LoadError::malformed("a table outside the segments", header.offset));
            };
            segment.has_tables = true;
        }
        #[cfg(feature = "load")]
        let thread_local = super::thread_local::find(headers, &segments)?;
        let view = Self {
            arch,
            segments,
            places,
            note,
            #[cfg(feature = "load")]
            thread_local,
            note_offset,
            contents,
        };
        view.check_spans()?;
        Ok(view)
    }

    /// The bytes of `span`, if they are in the file.
    fn bytes(&self, span: &Span) -> Option<&'a [u8]> {
        let len = usize::try_from(span.len.get()).ok()?;
        bytes_at(&self.segments, &self.contents, span.start.get(), len)
    }

    /// Checks that what the note leads to is in the segments in which it must be.
    fn check_spans(&self) -> Result<(), LoadError> {
        let fail = |what| Err(LoadError::malformed(what, self.note_offset));
        let (head, places) = (self.note.head, &self.places);
        let inside = |span: &Span, fits: &dyn Fn(&Segment) -> bool| {
            span.len.get() == 0 || self.segments.iter().any(|s| fits(s) && s.contains(span, s.mem_len))
        };
        // The loader reads these while it writes other segments.
        for table in [&head.eh_frame, &head.code_tables] {
            if !inside(table, &|segment| !segment.is_writable() && segment.contains(table, segment.file_len))
            {
                return fail("a table outside the read-only segments");
            }
        }
        if !inside(&head.text, &Segment::is_executable) {
            return fail("code outside the executable segment");
        }
        let internal = head.internal_slots.get();
        let all = (self.note.slots().len() as u64).checked_add(internal);
        let is_len = |slots: u64| slots.checked_mul(8) == Some(head.slot_array.len.get());
        // Without those of the client, if no code reads them.
        if !(is_len(internal) || all.is_some_and(is_len))
            || !head.slot_array.start.get().is_multiple_of(8)
            || !inside(&head.slot_array, &|segment| segment.is_writable() && !segment.relro)
        {
            return fail("a misplaced slot array");
        }
        if !places.rela.len.get().is_multiple_of(RELA as u64)
            || head.relative_count.get() > places.rela.len.get() / RELA as u64
            || !places.relr.len.get().is_multiple_of(RELR as u64)
        {
            return fail("a table of broken length");
        }
        if GlobalAccess::from_code(u8::try_from(head.globals.get()).unwrap_or(u8::MAX)).is_none() {
            return fail("an unknown way to reach globals");
        }
        // The loader writes to this segment while it reads others.
        let is_code_only = |segment: &Segment| {
            let tables = [&head.eh_frame, &head.code_tables];
            segment.is_executable()
                && !segment.has_tables
                && !tables.iter().any(|table| table.len.get() > 0 && segment.contains(table, segment.mem_len))
        };
        if places.patches.len.get() > 0 && !inside(&head.text, &is_code_only) {
            return fail("patches of what is not only code");
        }
        self.check_replaceable()
    }

    /// Checks the slots of replaceable functions, which the loader writes at any time, and of those
    /// with several bodies.
    fn check_replaceable(&self) -> Result<(), LoadError> {
        let head = self.note.head;
        let records = self.note.replaceable();
        // `check_spans` has checked that the sums do not overflow, `TablePlaces` the number of
        // symbols.
        let exports_end = self.places.dynsym.len.get() / SYMBOL as u64;
        let end = head.slot_array.start.get() + head.slot_array.len.get();
        let external_end = end - 8 * head.internal_slots.get();
        let fits = |record: &ReplaceableRecord| {
            let (symbol, slot) = (record.symbol.get(), record.slot.get());
            (u64::from(head.first_export.get())..exports_end).contains(&symbol.into())
                && (external_end..end).contains(&slot)
                && slot.is_multiple_of(8)
        };
        if !records.iter().all(fits) || !records.is_sorted_by(|a, b| a.symbol.get() < b.symbol.get()) {
            let what = "a misplaced slot of a replaceable function";
            return Err(LoadError::malformed(what, self.note_offset));
        }
        let text = head.text.start.get()..head.text.start.get().saturating_add(head.text.len.get());
        let fits = |version: &VersionRecord| {
            let (slot, code) = (version.slot.get(), version.code.get());
            (external_end..end).contains(&slot) && slot.is_multiple_of(8) && text.contains(&code)
        };
        if !self.note.versions().iter().all(fits) {
            return Err(LoadError::malformed("a misplaced body of a function", self.note_offset));
        }
        Ok(())
    }

    /// The dynamic tables.
    pub(crate) fn tables(&self) -> Tables<'a> {
        // The spans of tables were found in the file; code tables may be empty.
        self.places.tables(self.arch, self.note, |span| self.bytes(span).unwrap_or_default())
    }
}

/// Returns the bytes from `address` on that were read from the file already, if there are some.
fn bytes_read<'a>(parts: &'a [FilePart], segments: &[Segment], address: u64) -> Option<&'a [u8]> {
    let segment = segments[..segments.partition_point(|segment| segment.start <= address)].last()?;
    let inside = address - segment.start;
    let left = usize::try_from(segment.file_len.checked_sub(inside)?).ok()?;
    parts.iter().find_map(|part| {
        let start = usize::try_from((segment.offset + inside).checked_sub(part.offset)?).ok()?;
        let bytes = part.bytes.get(start..).filter(|bytes| !bytes.is_empty())?;
        Some(&bytes[..bytes.len().min(left)])
    })
}

/// Returns `len` bytes from `address` on, if they are in the file's part of one segment.
fn bytes_at<'a>(segments: &[Segment], contents: &[&'a [u8]], address: u64, len: usize) -> Option<&'a [u8]> {
    let number = segments.partition_point(|segment| segment.start <= address).checked_sub(1)?;
    let start = usize::try_from(address - segments.get(number)?.start).ok()?;
    let range: Range<usize> = start..start.checked_add(len)?;
    contents.get(number)?.get(range)
}

/// Compares every checksum of an image that is in memory as a whole: all that is loaded, and
/// nothing else.
///
/// # Errors
///
/// [`LoadError::Altered`] names the part that was altered; other errors as for
/// [`ImageInfo::parse`](crate::ImageInfo::parse).
#[cfg(feature = "verify")]
pub fn verify_bytes(bytes: &[u8]) -> Result<(), LoadError> {
    let view = View::of_file(bytes)?;
    verify(&view.tables(), view.note_offset, |span| view.bytes(span))
}
