//! The sections of an image, as one list in file order.
//!
//! Section indices, section headers and the checksums in the note are all made from this list, so
//! they cannot disagree.

use kiln_globals::THREAD_LOCAL_SECTION;
use object::elf;
use object::write::StringId;
use object::write::elf::{SectionIndex, Writer};

use crate::link::{Area, Extent, Layout, Plan};

/// The read-only areas without code, in file order.
pub(super) const READ_ONLY: [Area; 4] = [Area::Rodata, Area::EhFrameHdr, Area::EhFrame, Area::CodeTables];
/// The areas that stay writable at run time and have bytes in the file, in file order.
pub(super) const WRITABLE: [Area; 2] = [Area::Slots, Area::Data];

/// Bytes in front of zeroed data that has no other data before it. Checkers of ELF files ask for a
/// writable section with bytes in a writable segment, which the output of other linkers always has.
const FILLER: u64 = 8;

/// Returns the number of bytes in front of zeroed data, which may be 0.
pub(super) fn filler(layout: &Layout) -> u64 {
    let has_bytes = WRITABLE.into_iter().any(|area| layout[area].size > 0);
    if layout[Area::Bss].size > 0 && !has_bytes { FILLER } else { 0 }
}

/// The content of a section. Most variants are named after the section.
#[derive(Clone, Copy)]
pub(super) enum SectionContent {
    Note,
    BuildId,
    Property,
    GnuHash,
    Dynsym,
    Dynstr,
    /// The versions of dynamic symbols.
    Versym,
    /// The versions that the image needs.
    Verneed,
    Rela,
    Relr,
    /// The addresses in code that our loader writes.
    Patches,
    Area(AreaPiece),
    /// Bytes in front of zeroed data, see [`FILLER`].
    Filler,
    Dynamic,
    Symtab,
    Strtab,
    /// The section of debug information with this number.
    Debug(usize),
    /// The name of the file with the debug information.
    DebugLink,
    /// The artifacts that the image was linked from.
    Artifacts,
    Shstrtab,
}

#[cfg(feature = "dwarf")]
impl SectionContent {
    /// Whether the section is mapped, or zeroed, when the image is loaded.
    pub(super) fn is_loaded(self) -> bool {
        match self {
            Self::Symtab
            | Self::Strtab
            | Self::Debug(_)
            | Self::DebugLink
            | Self::Artifacts
            | Self::Shstrtab => false,
            Self::Note
            | Self::BuildId
            | Self::Property
            | Self::GnuHash
            | Self::Dynsym
            | Self::Dynstr
            | Self::Versym
            | Self::Verneed
            | Self::Rela
            | Self::Relr
            | Self::Patches
            | Self::Area(_)
            | Self::Filler
            | Self::Dynamic => true,
        }
    }
}

/// A part of an area: one named section, or everything that is in no named section.
#[derive(Clone, Copy)]
pub(super) struct AreaPiece {
    pub(super) area: Area,
    /// Offset in the area, in bytes.
    pub(super) offset: u64,
    pub(super) size: u64,
    pub(super) align: u64,
}

/// A section of the file, with its index.
pub(super) struct FileSection<'p> {
    pub(super) name: &'p str,
    pub(super) content: SectionContent,
    /// Its name in `.shstrtab`; `None` if `object` writes its header.
    pub(super) name_id: Option<StringId>,
    pub(super) index: SectionIndex,
}

impl FileSection<'_> {
    /// Returns whether the note has a checksum of the section: if it is loaded from the file, and
    /// no tool moves or changes it.
    pub(super) fn has_checksum(&self) -> bool {
        matches!(self.content, SectionContent::Patches)
            || self.piece().is_some_and(|piece| piece.area != Area::Bss && piece.size > 0)
    }

    /// Whether it has the initial content of thread-local data.
    pub(super) fn is_thread_local(&self) -> bool {
        self.name == THREAD_LOCAL_SECTION && self.piece().is_some_and(|piece| piece.area == Area::Relro)
    }

    /// Returns the part of an area that is the section's content, or `None` if the content is
    /// something else.
    pub(super) fn piece(&self) -> Option<AreaPiece> {
        if let SectionContent::Area(piece) = self.content { Some(piece) } else { None }
    }
}

/// Returns the type and flags of a section in `area`.
pub(crate) fn type_and_flags(area: Area) -> (u32, u32) {
    match area {
        Area::Text => (elf::SHT_PROGBITS, elf::SHF_ALLOC | elf::SHF_EXECINSTR),
        Area::EhFrame | Area::EhFrameHdr | Area::CodeTables | Area::Rodata => {
            (elf::SHT_PROGBITS, elf::SHF_ALLOC)
        }
        Area::Relro | Area::Data | Area::Slots => (elf::SHT_PROGBITS, elf::SHF_ALLOC | elf::SHF_WRITE),
        Area::Bss => (elf::SHT_NOBITS, elf::SHF_ALLOC | elf::SHF_WRITE),
    }
}

/// Sections that only some images have.
#[derive(Clone, Copy)]
pub(super) struct Extra {
    pub(super) has_symbols: bool,
    /// Whether the image promises something about its code.
    pub(super) has_property: bool,
    pub(super) has_rela: bool,
    /// Whether there are packed relocations, which need a version of the C library.
    pub(super) has_relr: bool,
    /// Whether code has addresses that our loader writes.
    pub(super) has_patches: bool,
    /// The names of the sections of debug information.
    pub(super) debug: &'static [&'static str],
    /// Whether the debug information is in another file.
    pub(super) has_link: bool,
    /// Whether artifacts are in the image.
    pub(super) has_artifacts: bool,
    /// Whether `object` writes the headers of some sections: in an image it does.
    pub(super) for_image: bool,
}

/// Returns the sections of an image of `plan`, in file order, and reserves their indices and names.
pub(super) fn sections<'p: 'w, 'w>(
    w: &mut Writer<'w>,
    plan: &Plan<'p>,
    extra: Extra,
) -> Vec<FileSection<'p>> {
    let mut list: Vec<(&'p str, SectionContent)> = vec![(".note.kiln", SectionContent::Note)];
    list.push((".note.gnu.build-id", SectionContent::BuildId));
    if extra.has_property {
        list.push((".note.gnu.property", SectionContent::Property));
    }
    list.extend([
        (".gnu.hash", SectionContent::GnuHash),
        (".dynsym", SectionContent::Dynsym),
        (".dynstr", SectionContent::Dynstr),
    ]);
    if extra.has_relr {
        list.extend([(".gnu.version", SectionContent::Versym), (".gnu.version_r", SectionContent::Verneed)]);
    }
    if extra.has_rela {
        list.push((".rela.dyn", SectionContent::Rela));
    }
    if extra.has_relr {
        list.push((".relr.dyn", SectionContent::Relr));
    }
    if extra.has_patches {
        list.push((".kiln.patches", SectionContent::Patches));
    }
    for area in READ_ONLY.into_iter().chain([Area::Text, Area::Relro]) {
        list.extend(pieces(plan, area));
    }
    list.push((".dynamic", SectionContent::Dynamic));
    for area in WRITABLE {
        list.extend(pieces(plan, area));
    }
    if filler(plan.layout()) > 0 {
        list.push((Area::Data.name(), SectionContent::Filler));
    }
    list.extend(pieces(plan, Area::Bss));
    if extra.has_symbols {
        list.extend([(".symtab", SectionContent::Symtab), (".strtab", SectionContent::Strtab)]);
    }
    list.extend(extra.debug.iter().enumerate().map(|(number, name)| (*name, SectionContent::Debug(number))));
    if extra.has_link {
        list.push((".gnu_debuglink", SectionContent::DebugLink));
    }
    if extra.has_artifacts {
        list.push((".kiln.artifacts", SectionContent::Artifacts));
    }
    list.push((".shstrtab", SectionContent::Shstrtab));
    list.into_iter().map(|(name, content)| number(w, name, content, extra.for_image)).collect()
}

/// Returns the sections of `area`: first one for everything that is in no named section, if there
/// is any, then the named sections.
fn pieces<'p>(plan: &Plan<'p>, area: Area) -> impl Iterator<Item = (&'p str, SectionContent)> {
    let piece =
        move |offset, Extent { size, align }| SectionContent::Area(AreaPiece { area, offset, size, align });
    let unnamed = Some(plan.unnamed(area)).filter(|extent| extent.size > 0);
    let named = plan.sections().filter(move |section| section.area == area).map(move |section| {
        (section.name, piece(section.offset, Extent { size: section.size, align: section.align }))
    });
    unnamed.map(|extent| (area.name(), piece(0, extent))).into_iter().chain(named)
}

/// Reserves the index and the name of a section. If `object` writes a section's header, it also
/// reserves the name itself.
fn number<'p: 'w, 'w>(
    w: &mut Writer<'w>,
    name: &'p str,
    content: SectionContent,
    for_image: bool,
) -> FileSection<'p> {
    let own_header = match content {
        SectionContent::Shstrtab => true,
        SectionContent::GnuHash | SectionContent::Dynamic => for_image,
        _ => false,
    };
    let name_id = (!own_header).then(|| w.add_section_name(name.as_bytes()));
    let index = match content {
        SectionContent::Shstrtab => w.reserve_shstrtab_section_index(),
        _ if !for_image => w.reserve_section_index(),
        SectionContent::GnuHash => w.reserve_gnu_hash_section_index(),
        SectionContent::Dynsym => w.reserve_dynsym_section_index(),
        SectionContent::Dynstr => w.reserve_dynstr_section_index(),
        SectionContent::Dynamic => w.reserve_dynamic_section_index(),
        SectionContent::Note
        | SectionContent::BuildId
        | SectionContent::Property
        | SectionContent::Versym
        | SectionContent::Verneed
        | SectionContent::Rela
        | SectionContent::Relr
        | SectionContent::Patches
        | SectionContent::Area(_)
        | SectionContent::Filler
        | SectionContent::Symtab
        | SectionContent::Strtab
        | SectionContent::Debug(_)
        | SectionContent::DebugLink
        | SectionContent::Artifacts => w.reserve_section_index(),
    };
    FileSection { name, content, name_id, index }
}
