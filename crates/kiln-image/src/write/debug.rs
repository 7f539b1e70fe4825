//! Debug information of an image: in its own sections, or in a file that belongs to it.
//!
//! Such a file has the section headers of the image, but the bytes of only those sections that are
//! not loaded: symbols and debug information. Both files have the same build id.

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

/// The debug information of an image that is being written.
#[derive(Default)]
pub(super) struct Debug {
    sections: Vec<Section>,
    in_image: bool,
}

impl Debug {
    /// Returns the names of the sections of debug information that the image has.
    pub(super) fn names(options: &ImageOptions) -> &'static [&'static str] {
        if options.debug == DebugInfo::InImage { &dwarf::NAMES } else { &[] }
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
        let count = Self::names(options).len();
        (0..count).map(|number| self.sections.get(number).map_or(0, |section| section.bytes.len())).collect()
    }

    /// Returns the bytes of all sections of debug information, wherever they go.
    pub(super) fn contents(&self) -> impl Iterator<Item = &[u8]> {
        self.sections.iter().map(|section| &*section.bytes)
    }

    /// Returns the bytes of the image's sections of debug information.
    pub(super) fn sections(&self) -> impl Iterator<Item = &[u8]> {
        self.sections.iter().filter(|_| self.in_image).map(|section| &*section.bytes)
    }

    /// Completes an image that lacks only the name of the file with the debug information, which is
    /// returned. `build_id` is the note that both have.
    pub(super) fn finish(
        self,
        plan: &Plan<'_>,
        layout: &FileLayout<'_>,
        full: &FullSymbols,
        options: &ImageOptions,
        build_id: &[u8],
        buffer: &mut [u8],
    ) -> Result<Option<Vec<u8>>, LinkError> {
        let DebugInfo::Separate(name) = &options.debug else { return Ok(None) };
        let file = debug_file(plan, layout, full, build_id, &self.sections)?;
        write_link(layout, plan.arch().endian(), name, &file, buffer);
        Ok(Some(file))
    }
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
    let has = |is: fn(SectionContent) -> bool| layout.sections.iter().any(|section| is(section.content));
    let extra = Extra {
        has_symbols: true,
        has_property: has(|content| matches!(content, SectionContent::Property)),
        has_rela: has(|content| matches!(content, SectionContent::Rela)),
        has_patches: has(|content| matches!(content, SectionContent::Patches)),
        has_relr: has(|content| matches!(content, SectionContent::Relr)),
        debug: &dwarf::NAMES,
        has_link: false,
        has_artifacts: false,
        for_image: false,
    };
    let sections = sections(&mut w, plan, extra);

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
