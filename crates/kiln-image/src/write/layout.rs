//! The layout of an image's file: every range, reserved in order before a byte is written.
//!
//! ```text
//! read-only segment  file header, program headers, notes, .gnu.hash, .dynsym, .dynstr, versions,
//!                    .rela.dyn, .relr.dyn, .kiln.patches, .rodata, .eh_frame_hdr, .eh_frame,
//!                    .kiln.code
//! code segment       .text
//! relro segment      .data.rel.ro, .dynamic
//! writable segment   .kiln.slots, .data, and the addresses of .bss
//! not loaded         .symtab, .strtab, .kiln.artifacts, .shstrtab, section headers
//! ```
//!
//! Each segment starts at a page. Named sections follow the section that has the other data of
//! their area. A virtual address is an offset in the file plus the base, the address that the
//! image is made for, which is usually 0. Only addresses of `.bss` differ: they continue those of
//! the last segment, but the file continues with tables that are not loaded.

use std::ops::Range;

use object::elf;
use object::write::elf::Writer;

use super::build_id::BUILD_ID_NOTE;
use super::section::{FileSection, READ_ONLY, SectionContent, WRITABLE, filler};
use crate::arch::Arch;
use crate::elf64::{NOTE_ALIGN, PROPERTY_ALIGN, RELA, SYMBOL, TABLE_ALIGN, VERNEED};
use crate::link::{Addresses, Area, Layout, LinkError};

/// An entry of the program header table.
#[derive(Clone, Copy)]
pub(super) enum SegmentKind {
    ReadOnly,
    Code,
    Relro,
    Writable,
    Dynamic,
    Note,
    BuildId,
    /// The note of properties, for those that look for notes.
    PropertyNote,
    Property,
    /// The initial content of thread-local data.
    ThreadLocal,
    UnwindIndex,
    Stack,
    /// The range that loaders make read-only after relocation.
    SealedRelro,
}

/// The lengths of the tables.
pub(super) struct TableSizes {
    /// The address that the image is made for, or 0.
    pub(super) base: u64,
    /// Bytes of the note.
    pub(super) note: usize,
    /// Bytes of the note of properties; 0 for none.
    pub(super) property: usize,
    /// Words of the Bloom filter.
    pub(super) bloom: u32,
    /// Buckets of the GNU hash table.
    pub(super) buckets: u32,
    /// Exported symbols.
    pub(super) exports: u32,
    /// Dynamic symbols, without the null symbol.
    pub(super) dynamic_symbols: usize,
    /// Bytes of `.dynstr`.
    pub(super) dynstr: usize,
    /// Dynamic relocations that are not packed.
    pub(super) relocations: usize,
    /// Bytes of packed relocations; 0 for none.
    pub(super) relr: usize,
    /// Bytes of the list of patches; 0 for none.
    pub(super) patches: usize,
    /// The alignment of code, in bytes.
    pub(super) text_align: usize,
    /// Entries of `.dynamic`.
    pub(super) dynamic: usize,
    /// Symbols of the full table, without the null symbol; `None` if there is no such table.
    pub(super) symbols: Option<usize>,
    /// Bytes of `.strtab`.
    pub(super) strtab: usize,
    /// Bytes of `.gnu_debuglink`; 0 for none.
    pub(super) link: usize,
    /// Bytes of artifacts; 0 for none.
    pub(super) artifacts: usize,
}

/// The ranges of the file, in order, and the addresses of areas.
pub(super) struct FileLayout<'p> {
    pub(super) segments: Vec<SegmentKind>,
    pub(super) sections: Vec<FileSection<'p>>,
    /// The sections of each area, as a range of `sections`.
    sections_of: [Range<usize>; Area::ALL.len()],

    pub(super) note: Range<usize>,
    pub(super) build_id: Range<usize>,
    pub(super) property: Range<usize>,
    pub(super) gnu_hash: Range<usize>,
    pub(super) dynsym: Range<usize>,
    pub(super) dynstr: Range<usize>,
    pub(super) versym: Range<usize>,
    pub(super) verneed: Range<usize>,
    pub(super) rela: Range<usize>,
    pub(super) relr: Range<usize>,
    pub(super) patches: Range<usize>,
    /// The address that the image is made for, or 0.
    pub(super) base: u64,
    pub(super) addresses: Addresses,
    /// The segment that begins with the file header.
    pub(super) read_only: Range<usize>,
    pub(super) code: Range<usize>,
    /// The alignment of the segment of code, in bytes.
    pub(super) text_align: usize,
    pub(super) dynamic: Range<usize>,
    /// The initial content of thread-local data, and its alignment in bytes.
    pub(super) thread_local: (Range<usize>, usize),
    /// The segment of relocated data and `.dynamic`, up to the next segment.
    pub(super) relro: Range<usize>,
    /// The bytes of the segment of slots and written data.
    pub(super) writable: Range<usize>,
    /// The bytes in front of zeroed data that has no other data before it.
    filler: Range<usize>,
    /// The address at which the segment's zeroed data ends.
    pub(super) zeroed_end: usize,
    pub(super) symtab: Range<usize>,
    pub(super) strtab: Range<usize>,
    /// The sections of debug information.
    pub(super) debug: Vec<Range<usize>>,
    pub(super) link: Range<usize>,
    pub(super) artifacts: Range<usize>,
    pub(super) shstrtab: Range<usize>,
    /// Length of the file in bytes.
    pub(super) len: usize,
}

impl<'p> FileLayout<'p> {
    /// Reserves everything, in order of the file. `areas` are the sizes of code and data, and
    /// `sections` must be numbered. `debug` returns the lengths of the sections of debug
    /// information, when the addresses of areas are known.
    pub(super) fn reserve(
        w: &mut Writer<'_>,
        arch: Arch,
        areas: &Layout,
        sections: Vec<FileSection<'p>>,
        sizes: &TableSizes,
        debug: impl FnOnce(&Addresses) -> Result<Vec<usize>, LinkError>,
    ) -> Result<Self, LinkError> {
        let page = arch.page_size() as usize;
        let size = |area: Area| areas[area].size as usize;
        let thread_local = sections.iter().find(|section| section.is_thread_local());
        let thread_local = thread_local.and_then(FileSection::piece);
        let segments = segments(areas, sizes.property > 0, thread_local.is_some());
        w.reserve_file_header();
        w.reserve_program_headers(segments.len() as u32);
        let note = reserve(w, sizes.note, NOTE_ALIGN);
        let build_id = reserve(w, BUILD_ID_NOTE, NOTE_ALIGN);
        let property = reserve(w, sizes.property, PROPERTY_ALIGN);
        let gnu_hash_start = w.reserve_gnu_hash(sizes.bloom, sizes.buckets, sizes.exports);
        let gnu_hash = gnu_hash_start..w.reserved_len();
        let dynsym = reserve(w, SYMBOL * (1 + sizes.dynamic_symbols), TABLE_ALIGN);
        let dynstr = reserve(w, sizes.dynstr, 1);
        let has_versions = sizes.relr > 0;
        let versym = reserve(w, if has_versions { 2 * (1 + sizes.dynamic_symbols) } else { 0 }, 2);
        let verneed = reserve(w, if has_versions { VERNEED } else { 0 }, TABLE_ALIGN);
        let rela = reserve(w, RELA * sizes.relocations, TABLE_ALIGN);
        let relr = reserve(w, sizes.relr, TABLE_ALIGN);
        let patches = reserve(w, sizes.patches, 1);

        let mut addresses = Addresses::default();
        let mut reserve_area = |w: &mut Writer<'_>, area: Area| {
            let range = reserve(w, size(area), areas[area].align as usize);
            addresses[area] = sizes.base + range.start as u64;
            range
        };
        for area in READ_ONLY {
            reserve_area(w, area);
        }
        let read_only = 0..w.reserved_len();
        if size(Area::Text) > 0 {
            w.reserve(0, page.max(sizes.text_align));
        }
        let code = reserve_area(w, Area::Text);
        let relro_start = w.reserve(0, page);
        reserve_area(w, Area::Relro);
        let dynamic_start = w.reserve_dynamic(sizes.dynamic);
        let dynamic = dynamic_start..w.reserved_len();
        let writable_start = w.reserve(0, page);
        let relro = relro_start..writable_start;
        for area in WRITABLE {
            reserve_area(w, area);
        }
        let filler = reserve(w, filler(areas) as usize, 1);
        let writable = writable_start..w.reserved_len();
        let zeroed_start = writable.end.next_multiple_of(areas[Area::Bss].align as usize);
        addresses[Area::Bss] = sizes.base + zeroed_start as u64;
        let zeroed_size = size(Area::Bss);
        let zeroed_end = if zeroed_size > 0 { zeroed_start + zeroed_size } else { writable.end };

        let thread_local = thread_local.map_or((0..0, 1), |piece| {
            let start = (addresses[piece.area] + piece.offset - sizes.base) as usize;
            (start..start + piece.size as usize, piece.align as usize)
        });

        let symtab = reserve(w, sizes.symbols.map_or(0, |symbols| SYMBOL * (1 + symbols)), TABLE_ALIGN);
        let strtab = reserve(w, sizes.strtab, 1);
        let debug: Vec<_> = debug(&addresses)?.into_iter().map(|len| reserve(w, len, 1)).collect();
        let link = reserve(w, sizes.link, 4);
        let artifacts = reserve(w, sizes.artifacts, 1);
        let shstrtab_start = w.reserved_len();
        w.reserve_shstrtab();
        let shstrtab = shstrtab_start..w.reserved_len();
        w.reserve_section_headers();
        let len = w.reserved_len();
        Ok(Self {
            segments,
            sections_of: sections_of(&sections),
            sections,
            note,
            build_id,
            property,
            gnu_hash,
            dynsym,
            dynstr,
            versym,
            verneed,
            rela,
            relr,
            patches,
            base: sizes.base,
            addresses,
            read_only,
            code,
            text_align: page.max(sizes.text_align),
            dynamic,
            thread_local,
            relro,
            writable,
            filler,
            zeroed_end,
            symtab,
            strtab,
            debug,
            link,
            artifacts,
            shstrtab,
            len,
        })
    }

    /// Returns the range of a section in the file.
    pub(super) fn range(&self, content: SectionContent) -> Range<usize> {
        match content {
            SectionContent::Note => self.note.clone(),
            SectionContent::BuildId => self.build_id.clone(),
            SectionContent::Property => self.property.clone(),
            SectionContent::Versym => self.versym.clone(),
            SectionContent::Verneed => self.verneed.clone(),
            SectionContent::Relr => self.relr.clone(),
            SectionContent::Patches => self.patches.clone(),
            SectionContent::GnuHash => self.gnu_hash.clone(),
            SectionContent::Dynsym => self.dynsym.clone(),
            SectionContent::Dynstr => self.dynstr.clone(),
            SectionContent::Rela => self.rela.clone(),
            SectionContent::Area(piece) if piece.area == Area::Bss => self.writable.end..self.writable.end,
            SectionContent::Area(piece) => {
                let start = self.offset(piece.area) + piece.offset as usize;
                start..start + piece.size as usize
            }
            SectionContent::Filler => self.filler.clone(),
            SectionContent::Dynamic => self.dynamic.clone(),
            SectionContent::Symtab => self.symtab.clone(),
            SectionContent::Strtab => self.strtab.clone(),
            SectionContent::Debug(number) => self.debug[number].clone(),
            SectionContent::DebugLink => self.link.clone(),
            SectionContent::Artifacts => self.artifacts.clone(),
            SectionContent::Shstrtab => self.shstrtab.clone(),
        }
    }

    /// Returns the offset of an area in the file.
    pub(super) fn offset(&self, area: Area) -> usize {
        // An empty area has no place.
        self.addresses[area].saturating_sub(self.base) as usize
    }

    /// Returns the virtual address of the first byte of a range of the file.
    pub(super) fn address(&self, range: &Range<usize>) -> u64 {
        self.base + range.start as u64
    }

    /// Returns the index of the section that holds `offset` of `area`.
    pub(super) fn section_at(&self, area: Area, offset: u64) -> u16 {
        let sections = &self.sections[self.sections_of[area as usize].clone()];
        let starts_before =
            |section: &FileSection<'_>| section.piece().is_some_and(|piece| piece.offset <= offset);
        let after = sections.partition_point(starts_before);
        // Data of size 0 may be in an area without a section. The cast keeps the value: a plan has
        // fewer sections than 16 bits can number.
        sections.get(after.saturating_sub(1)).map_or(elf::SHN_ABS, |section| section.index.0 as u16)
    }

    /// Returns the value of a symbol of type `kind`, `STT_*`: its address, or the offset in the
    /// block of thread-local data.
    pub(super) fn symbol_value(&self, kind: u8, area: Area, offset: u64) -> u64 {
        let address = self.addresses[area] + offset;
        if kind == elf::STT_TLS { address - self.address(&self.thread_local.0) } else { address }
    }

    /// Returns the ranges of the sections that have checksums, in order of the file.
    pub(super) fn checksummed_parts(&self) -> Vec<Range<usize>> {
        let sections = self.sections.iter().filter(|section| section.has_checksum());
        sections.map(|section| self.range(section.content)).collect()
    }
}

/// Returns the entries of the program header table, in order.
fn segments(areas: &Layout, has_property: bool, has_thread_local: bool) -> Vec<SegmentKind> {
    let has = |area: Area| areas[area].size > 0;
    let mut segments = vec![SegmentKind::ReadOnly];
    if has(Area::Text) {
        segments.push(SegmentKind::Code);
    }
    segments.push(SegmentKind::Relro);
    if has(Area::Slots) || has(Area::Data) || has(Area::Bss) {
        segments.push(SegmentKind::Writable);
    }
    segments.extend([SegmentKind::Dynamic, SegmentKind::Note, SegmentKind::BuildId]);
    if has_property {
        segments.extend([SegmentKind::PropertyNote, SegmentKind::Property]);
    }
    if has_thread_local {
        segments.push(SegmentKind::ThreadLocal);
    }
    if has(Area::EhFrame) {
        segments.push(SegmentKind::UnwindIndex);
    }
    segments.extend([SegmentKind::Stack, SegmentKind::SealedRelro]);
    segments
}

/// Returns the index range of the sections of each area, which follow each other.
fn sections_of(sections: &[FileSection<'_>]) -> [Range<usize>; Area::ALL.len()] {
    let mut ranges = [const { 0..0 }; Area::ALL.len()];
    for (number, section) in sections.iter().enumerate() {
        let Some(piece) = section.piece() else { continue };
        let range = &mut ranges[piece.area as usize];
        if range.start == range.end {
            *range = number..number;
        }
        range.end = number + 1;
    }
    ranges
}

/// Reserves `len` bytes and returns their range.
fn reserve(w: &mut Writer<'_>, len: usize, align: usize) -> Range<usize> {
    let start = w.reserve(len, align);
    start..start + len
}
