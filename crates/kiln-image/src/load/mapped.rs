//! A mapped image: its memory, and what was found when it was checked.

use std::fs::File;
use std::ops::Range;
use std::sync::OnceLock;

use kiln_globals::SlotKey;
use rustix::param::page_size;

use super::map::{Access, Piece, Reservation};
use super::origin::not_executable;
use crate::arch::Arch;
use crate::base::{BaseSymbol, BaseSymbolKind, ImageId, START_SYMBOL};
use crate::error::LoadError;
use crate::note::{Head, Note, OBJECT_OF_GLOBAL, PREFIX_LEN, Span};
use crate::read::{
    DynamicSymbol, Found, Headers, Numbers, Segment, TablePlaces, Tables, ThreadLocalPlace, View,
    segment_of_dynamic,
};

/// The mapping and the results of its checks, shared by the unbound and the bound state.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) memory: Reservation,
    pub(super) arch: Arch,
    pub(super) segments: Vec<Segment>,
    /// The tables, all in segments that nobody writes.
    places: TablePlaces,
    /// The fixed part of the note: a copy, so that binding reads no page of the image for it.
    head: Head,
    /// The initial content of thread-local data.
    pub(super) thread_local: Option<ThreadLocalPlace>,
    /// The note's offset in the file, for errors.
    pub(super) note_offset: u64,
    /// The keys of the external slots, read when they are first needed.
    pub(super) slots: OnceLock<Box<[SlotKey]>>,
    /// The indices of the exports in order of their names, sorted when a look-up first needs them.
    pub(super) sorted: OnceLock<Box<[u32]>>,
    /// The numbers of the external slots in order of their keys, sorted when a layer first needs
    /// them.
    slots_by_key: OnceLock<Box<[u32]>>,
}

impl Mapped {
    /// Maps the segments of a file and checks them.
    pub(super) fn new(
        file: &File,
        headers: &Headers,
        segments: Vec<Segment>,
        wanted: Wanted,
        code: Code,
        check: impl FnOnce(&View<'_>) -> Result<(), LoadError>,
    ) -> Result<Self, LoadError> {
        let (skipped, parts) = match code {
            Code::Now => (segment_of_dynamic(headers, &segments), &headers.parts[..]),
            // Everything is hashed, and nothing is used but what is hashed.
            #[cfg(feature = "sign")]
            Code::IfChecked => (None, &[][..]),
        };
        let mut needed = segments.clone();
        let skipped = skipped.map(|number| needed.remove(number));
        let base = if wanted == Wanted::Base { headers.base } else { 0 };
        let mut memory =
            map(file, &needed, base as usize, code).map_err(|error| not_executable(file, error))?;
        let view = View::parse(headers, parts, segments, |segment| {
            if skipped.is_some_and(|skipped| skipped == *segment) {
                return &[];
            }
            // SAFETY: `map` has made these bytes readable, and nothing writes them yet.
            unsafe { memory.bytes(segment.start as usize, segment.file_len as usize) }
        })?;
        check(&view)?;
        let View { arch, mut segments, places, note, note_offset, thread_local, .. } = view;
        let head = *note.head;
        segments.retain(|segment| skipped.is_none_or(|skipped| skipped.start != segment.start));
        // Nobody writes to the loader's own tables.
        for segment in segments.iter().filter(|segment| segment.has_tables && segment.asks_to_be_written()) {
            memory
                .protect(segment.file_pages(page_size()), Access::Read)
                .map_err(LoadError::io("protect"))?;
        }
        #[cfg(feature = "sign")]
        if code == Code::IfChecked {
            make_executable(file, &mut memory, &segments)?;
        }
        Ok(Self {
            memory,
            arch,
            segments,
            places,
            head,
            thread_local,
            note_offset,
            slots: OnceLock::new(),
            sorted: OnceLock::new(),
            slots_by_key: OnceLock::new(),
        })
    }

    /// Returns the address that the image is made for, or 0.
    pub(super) fn made_for(&self) -> u64 {
        self.places.base
    }

    /// Returns the tables, which are in segments that are never written.
    pub(super) fn tables(&self) -> Tables<'_> {
        let bytes = |start: u64, len: u64| {
            // SAFETY: `View` has found all tables in the file's part of segments that hold tables
            // or are not writable. Those stay readable as long as `memory` lives; only writable
            // segments are written, and segments do not overlap.
            unsafe { self.memory.bytes(start as usize, len as usize) }
        };
        let note = self.places.note;
        let note = Note::again(&self.head, &bytes(note.start.get(), note.len.get())[PREFIX_LEN..]);
        self.places.tables(self.arch, note, |span| match span.len.get() {
            0 => &[],
            len => bytes(span.start.get(), len),
        })
    }

    /// Compares every checksum.
    ///
    /// # Safety
    ///
    /// Nothing may be written yet or meanwhile.
    #[cfg(feature = "verify")]
    pub(super) unsafe fn verify(&self) -> Result<(), LoadError> {
        crate::read::verify(&self.tables(), self.note_offset, |span| {
            let inside = |segment: &&Segment| segment.contains(span, segment.file_len);
            self.segments.iter().find(inside)?;
            // SAFETY: the bytes are in the file's part of a segment, which `map` made readable, and
            // the caller promises that nothing is written.
            Some(unsafe { self.memory.bytes(span.start.get() as usize, span.len.get() as usize) })
        })
    }

    /// Returns the address of the list of patches, from the load address on.
    pub(super) fn patches_start(&self) -> u64 {
        self.places.patches.start.get()
    }

    /// Returns the relocations with addends.
    pub(super) fn rela(&self) -> Numbers<'_> {
        self.numbers(self.places.rela)
    }

    /// Returns the packed relocations.
    pub(super) fn relr(&self) -> Numbers<'_> {
        self.numbers(self.places.relr)
    }

    fn numbers(&self, span: Span) -> Numbers<'_> {
        let bytes = match span.len.get() {
            0 => &[],
            // SAFETY: as in `tables`.
            len => unsafe { self.memory.bytes(span.start.get() as usize, len as usize) },
        };
        Numbers { bytes, endian: self.arch.endian() }
    }

    /// Returns the fixed part of the note.
    pub(super) fn head(&self) -> &Head {
        &self.head
    }

    /// Returns the id of the image.
    pub(super) fn id(&self) -> ImageId {
        ImageId(self.head.id)
    }

    /// Returns the target triple.
    pub(super) fn triple(&self) -> &str {
        let note = self.tables().note;
        note.text(note.head.triple).unwrap_or_default()
    }

    /// Returns the unwind rows, which may be malformed.
    pub(super) fn unwind_rows(&self) -> &[u8] {
        self.with_tables(self.head.eh_frame)
    }

    /// Returns the code tables, which may be malformed.
    #[inline]
    pub(super) fn code_tables(&self) -> &[u8] {
        self.with_tables(self.head.code_tables)
    }

    /// Returns bytes that `View` has found where it found the tables.
    #[inline]
    fn with_tables(&self, span: Span) -> &[u8] {
        match span.len.get() {
            0 => &[],
            // SAFETY: as in `tables`.
            len => unsafe { self.memory.bytes(span.start.get() as usize, len as usize) },
        }
    }

    /// Finds an export.
    pub(super) fn lookup(&self, name: &str) -> Option<DynamicSymbol> {
        let tables = self.tables();
        match tables.lookup(name) {
            Found::Export(symbol) => Some(symbol),
            Found::Nothing => None,
            Found::LongChain => {
                tables.lookup_sorted(self.sorted.get_or_init(|| tables.sorted_exports()), name)
            }
        }
    }

    /// Returns the type of an export, if it is the one that was linked under this name.
    pub(super) fn signature(&self, symbol: u32, name: &[u8]) -> Option<&str> {
        let note = self.tables().note;
        note.signature(note.export(symbol, name)?.signature.get() as usize)
    }

    /// Returns the name by which layers on this very image refer to its first byte.
    pub(super) fn start_symbol(&self) -> String {
        format!("{START_SYMBOL}{}", self.id())
    }

    /// Whether `name` is that name.
    pub(super) fn is_start(&self, name: &str) -> bool {
        name.starts_with(START_SYMBOL) && name == self.start_symbol()
    }

    /// Returns what is exported as `name`, as layers see it.
    pub(super) fn base_symbol(&self, name: &str) -> Option<BaseSymbol<'_>> {
        let Some(symbol) = self.lookup(name) else {
            let start = BaseSymbol { kind: BaseSymbolKind::Data, signature: None, size: 0 };
            return self.is_start(name).then_some(start);
        };
        let note = self.tables().note;
        let signature = note.export(symbol.index, name.as_bytes()).map(|export| export.signature.get());
        let kind = match note.replaceable_slot(symbol.index) {
            Some(_) => BaseSymbolKind::Replaceable,
            None if symbol.is_function() => BaseSymbolKind::Function,
            None if symbol.is_thread_local() => BaseSymbolKind::ThreadLocal,
            None if signature == Some(OBJECT_OF_GLOBAL) => BaseSymbolKind::Global,
            None => BaseSymbolKind::Data,
        };
        let signature = signature.and_then(|index| note.signature(index as usize));
        Some(BaseSymbol { kind, signature, size: symbol.size })
    }

    /// Returns the number of the external slot of the global `key`.
    pub(super) fn slot_of_global(&self, key: &str) -> Option<u32> {
        let slots = self.slots();
        let is_global = |&number: &u32| matches!(slots[number as usize], SlotKey::Global(_));
        let sorted = self.slots_by_key.get_or_init(|| {
            let mut numbers: Vec<u32> = (0..slots.len() as u32).filter(is_global).collect();
            numbers.sort_unstable_by_key(|&number| slots[number as usize].text());
            numbers.into()
        });
        let found = sorted.binary_search_by_key(&key, |&number| slots[number as usize].text()).ok()?;
        Some(sorted[found])
    }

    /// Returns the keys of the external slots, or an empty list if a record is invalid.
    /// `Image::bind` refuses such an image.
    pub(super) fn slots(&self) -> &[SlotKey] {
        self.slots.get_or_init(|| self.tables().slot_keys().unwrap_or_default().into())
    }
}

/// Says when code becomes executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// When it is mapped.
    Now,
    /// When everything was checked.
    #[cfg(feature = "sign")]
    IfChecked,
}

/// Makes what was checked the only thing in memory, and code executable: the other bytes in the
/// pages of segments, which nobody checked, are cleared or must be zero.
///
/// # Errors
///
/// [`LoadError::Malformed`] if the pages of code or of tables have other bytes.
#[cfg(feature = "sign")]
fn make_executable(file: &File, memory: &mut Reservation, segments: &[Segment]) -> Result<(), LoadError> {
    let page = page_size();
    for segment in segments {
        let pages = segment.file_pages(page);
        let (start, end) = (segment.start as usize, (segment.start + segment.file_len) as usize);
        for beside in [pages.start..start, end..pages.end] {
            if segment.is_writable() {
                // SAFETY: `map` made these pages writable.
                unsafe { memory.clear(beside) };
                continue;
            }
            // SAFETY: `map` made these pages readable, and nothing is written yet.
            let bytes = unsafe { memory.bytes(beside.start, beside.len()) };
            if bytes.iter().any(|byte| *byte != 0) {
                let what = "bytes beside a segment that no signature is about";
                return Err(LoadError::malformed(what, segment.offset));
            }
        }
        // `PR_SET_MDWE` forbids the first, but not to map the file again.
        if segment.is_executable() && memory.protect(pages.clone(), Access::ReadExecute).is_err() {
            let piece = piece(segment, pages, page, Access::ReadExecute);
            memory.map_piece(file, &piece).map_err(|error| not_executable(file, error))?;
        }
    }
    Ok(())
}

/// Returns the part of the memory that has these pages of a segment.
fn piece(segment: &Segment, range: Range<usize>, page: usize, access: Access) -> Piece {
    Piece { range, offset: Some(segment.offset / page as u64 * page as u64), access }
}

/// The address that an image is mapped at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The one that it is made for, if that is free.
    Base,
    /// One that the kernel chooses.
    Any,
}

/// The largest alignment that an image gets: an image may ask for any, which would use up
/// addresses.
const MAX_ALIGN: u64 = 1 << 30;

/// Maps the segments of a file, each at its distance from the address `wanted` if that is free and
/// not 0, or else from a base that the kernel chooses. Code is executable unless it is checked
/// first, since `PR_SET_MDWE` forbids that it becomes so later; what is written when the image is
/// bound is writable, since changing that later takes longer; everything else is read-only.
/// Segments that follow each other in the file, too, are mapped at once.
fn map(file: &File, segments: &[Segment], wanted: usize, code: Code) -> std::io::Result<Reservation> {
    let page = page_size();
    let align = segments.iter().map(|segment| segment.align).max().unwrap_or(1).min(MAX_ALIGN) as usize;
    let mut pieces = Vec::with_capacity(6);
    for segment in segments {
        let Range { start, end: file_end } = segment.file_pages(page);
        let end = (segment.end() as usize).next_multiple_of(page);
        if file_end > start {
            let access = match segment {
                _ if segment.is_executable() && code == Code::Now => Access::ReadExecute,
                _ if segment.is_writable() => Access::ReadWrite,
                _ => Access::Read,
            };
            let piece = piece(segment, start..file_end, page, access);
            match pieces.last_mut() {
                Some(last) if piece.follows(last) => last.range.end = file_end,
                _ => pieces.push(piece),
            }
        }
        if end > file_end {
            pieces.push(Piece { range: file_end..end, offset: None, access: Access::ReadWrite });
        }
    }
    if wanted != 0
        && wanted.is_multiple_of(align)
        && let Some(memory) = Reservation::of_pieces_at(wanted, file, &pieces)?
    {
        return Ok(memory);
    }
    Reservation::of_pieces(file, &pieces, page, align)
}
