//! Debug information of an image: in its own sections, or in a file that belongs to it.
//!
//! Such a file has the section headers of the image, but the bytes of only those sections that are
//! not loaded: symbols and debug information. Both files have the same build id. It is a hash of
//! the image and of its debug information, so an image and a file that do not belong together are
//! not taken for each other.

use object::write::elf::{FileHeader, SectionHeader, Writer};
use object::{Endianness, elf};

use super::headers::{section_header, too_large};
use super::layout::FileLayout;
use super::options::{DebugInfo, ImageOptions};
use super::section::{Extra, SectionContent, sections};
use super::symbols::FullSymbols;
use super::tables::symbol_table;
use crate::dwarf::{self, Section};
use crate::elf64::{NOTE_ALIGN, TABLE_ALIGN};
use crate::link::{LinkError, Plan};

/// Bytes of a build id: as many as those of other linkers have.
const BUILD_ID: usize = 20;
/// Bytes of the note of a build id before the id: three numbers and a name.
const BUILD_ID_HEAD: usize = 16;

/// The debug information of an image that is being written.
#[derive(Default)]
pub(super) struct Debug {
    sections: Vec<Section>,
    in_image: bool,
}

impl Debug {
    /// Returns the sections that the image has for debuggers.
    pub(super) fn extra(options: &ImageOptions) -> Extra {
        let debug: &[&str] = if options.debug == DebugInfo::InImage { &dwarf::NAMES } else { &[] };
        Extra {
            has_symbols: !options.strip,
            has_build_id: options.debug != DebugInfo::None,
            debug,
            has_link: matches!(options.debug, DebugInfo::Separate(_)),
            for_image: true,
        }
    }

    /// Returns the length of the note of the build id, in bytes; 0 if the image has none.
    pub(super) fn build_id_len(options: &ImageOptions) -> usize {
        if options.debug == DebugInfo::None { 0 } else { BUILD_ID_HEAD + BUILD_ID }
    }

    /// Returns the length of `.gnu_debuglink`, in bytes; 0 if there is none.
    pub(super) fn link_len(options: &ImageOptions) -> usize {
        match &options.debug {
            DebugInfo::Separate(name) => (name.len() + 1).next_multiple_of(4) + 4,
            DebugInfo::None | DebugInfo::InImage => 0,
        }
    }

    /// Makes the debug information, if there is to be any. `text` is the address of the code.
    pub(super) fn new(plan: &Plan<'_>, text: u64, options: &ImageOptions) -> Result<Self, LinkError> {
        if options.debug == DebugInfo::None {
            return Ok(Self::default());
        }
        let limit = u64::from(u32::MAX);
        let what = "the debug information".into();
        let sections = dwarf::sections_of(plan, text).map_err(|dwarf::TooLarge| LinkError::TooLarge {
            module: None,
            what,
            size: u64::MAX,
            limit,
        })?;
        Ok(Self { sections, in_image: options.debug == DebugInfo::InImage })
    }

    /// Returns the lengths of the image's sections of debug information. It has all of them, even
    /// if no module has lines.
    pub(super) fn lens(&self, options: &ImageOptions) -> Vec<usize> {
        let count = Self::extra(options).debug.len();
        (0..count).map(|number| self.sections.get(number).map_or(0, |section| section.bytes.len())).collect()
    }

    /// Returns the bytes of the image's sections of debug information.
    pub(super) fn sections(&self) -> impl Iterator<Item = &[u8]> {
        self.sections.iter().filter(|_| self.in_image).map(|section| &*section.bytes)
    }

    /// Completes an image that lacks only its notes, and the name of the file with the debug
    /// information, which is returned.
    pub(super) fn finish(
        self,
        plan: &Plan<'_>,
        layout: &FileLayout<'_>,
        full: &FullSymbols,
        options: &ImageOptions,
        buffer: &mut [u8],
    ) -> Result<Option<Vec<u8>>, LinkError> {
        if options.debug == DebugInfo::None {
            return Ok(None);
        }
        let endian = plan.arch().endian();
        let others = if self.in_image { &[] } else { &*self.sections };
        let build_id = write_build_id(layout, endian, others, buffer);
        let DebugInfo::Separate(name) = &options.debug else { return Ok(None) };
        let file = debug_file(plan, layout, full, &build_id, &self.sections)?;
        write_link(layout, endian, name, &file, buffer);
        Ok(Some(file))
    }
}

/// Writes the note of the build id into the image, which is complete except for the notes and the
/// link. Returns the note.
fn write_build_id(
    layout: &FileLayout<'_>,
    endian: Endianness,
    dwarf: &[Section],
    buffer: &mut [u8],
) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_rayon(buffer);
    for section in dwarf {
        hasher.update_rayon(&section.bytes);
    }
    let number = |value: u32| match endian {
        Endianness::Little => value.to_le_bytes(),
        Endianness::Big => value.to_be_bytes(),
    };
    let mut note = Vec::with_capacity(layout.build_id.len());
    for value in [4, BUILD_ID as u32, elf::NT_GNU_BUILD_ID] {
        note.extend(number(value));
    }
    note.extend(b"GNU\0");
    note.extend(&hasher.finalize().as_bytes()[..BUILD_ID]);
    buffer[layout.build_id.clone()].copy_from_slice(&note);
    note
}

/// Writes the name and the checksum of the file with the debug information into the image.
fn write_link(layout: &FileLayout<'_>, endian: Endianness, name: &str, file: &[u8], buffer: &mut [u8]) {
    let section = &mut buffer[layout.link.clone()];
    section[..name.len()].copy_from_slice(name.as_bytes());
    let sum = crc32fast::hash(file);
    let at = section.len() - 4;
    section[at..].copy_from_slice(&match endian {
        Endianness::Little => sum.to_le_bytes(),
        Endianness::Big => sum.to_be_bytes(),
    });
}

/// Returns the file with symbols and debug information for an image that is laid out in `layout`.
///
/// # Errors
///
/// [`LinkError::TooLarge`] if there are more sections than the header can count.
fn debug_file(
    plan: &Plan<'_>,
    layout: &FileLayout<'_>,
    full: &FullSymbols,
    build_id: &[u8],
    dwarf: &[Section],
) -> Result<Vec<u8>, LinkError> {
    let arch = plan.arch();
    let mut buffer = Vec::new();
    let mut w = Writer::new(arch.endian(), true, &mut buffer);
    // The loaded sections have the numbers that they have in the image, which symbols refer to.
    let has_relocations = layout.sections.iter().any(|s| matches!(s.content, SectionContent::Rela));
    let extra = Extra {
        has_symbols: true,
        has_build_id: true,
        debug: &dwarf::NAMES,
        has_link: false,
        for_image: false,
    };
    let sections = sections(&mut w, plan, has_relocations, extra);

    w.reserve_file_header();
    let symbols = symbol_table(arch, layout, full);
    let mut ranges = Vec::with_capacity(sections.len());
    let mut contents: Vec<&[u8]> = Vec::with_capacity(sections.len());
    for section in &sections {
        let (bytes, align): (&[u8], usize) = match section.content {
            SectionContent::BuildId => (build_id, NOTE_ALIGN),
            SectionContent::Symtab => (&symbols, TABLE_ALIGN),
            SectionContent::Strtab => (&full.names, 1),
            SectionContent::Debug(number) => (dwarf.get(number).map_or(&[], |section| &section.bytes), 1),
            _ => (&[], 1),
        };
        let start = w.reserve(bytes.len(), align);
        ranges.push(start..start + bytes.len());
        contents.push(bytes);
    }
    w.reserve_shstrtab();
    w.reserve_section_headers();

    let features = plan.artifacts().iter().flat_map(|artifact| artifact.features());
    let header = FileHeader {
        os_abi: elf::ELFOSABI_NONE,
        abi_version: 0,
        e_type: elf::ET_DYN,
        e_machine: arch.elf_machine(),
        e_entry: 0,
        e_flags: arch.elf_flags(features),
    };
    w.write_file_header(&header).map_err(|_| too_large(layout))?;
    for (range, bytes) in ranges.iter().zip(&contents) {
        w.pad_until(range.start);
        w.write(bytes);
    }
    w.write_shstrtab();
    w.write_null_section_header();
    for (section, range) in sections.iter().zip(ranges) {
        if let SectionContent::Shstrtab = section.content {
            w.write_shstrtab_section_header();
            continue;
        }
        let is_here = !section.content.is_loaded() || matches!(section.content, SectionContent::BuildId);
        let place = if section.content.is_loaded() { layout.range(section.content) } else { range.clone() };
        let header = section_header(layout, &sections, section, place, full.local_count);
        w.write_section_header(&match is_here {
            true => SectionHeader { sh_offset: range.start as u64, ..header },
            // As `objcopy --only-keep-debug` does.
            false => SectionHeader { sh_type: elf::SHT_NOBITS, sh_offset: range.start as u64, ..header },
        });
    }
    Ok(buffer)
}
