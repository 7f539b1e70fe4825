//! The steps from artifacts to the bytes of an object, in order.

use std::ops::Range;

use kiln_artifact::Artifact;
use kiln_globals::GlobalTable;
use object::elf;
use object::write::StringId;
use object::write::elf::{FileHeader, SectionHeader, Writer};

use super::debug::Debug;
use super::options::{GlobalSymbols, ObjectOptions};
use super::reloc::{ElfReloc, relative32_type, text_type};
use super::section::{IN_FILE, Section, Sections};
use super::symbols::Symbols;
use crate::arch::Arch;
use crate::elf64::{PROPERTY_ALIGN, RELA, SYMBOL, TABLE_ALIGN};
use crate::link::{
    Area, DataReloc, LinkError, MAX_SECTIONS, ObjectPlan, Output, RelocSink, TextReloc, default_arch,
    plan_object,
};

/// Writes `artifacts` as one relocatable object, for a linker. The globals of `table` come first
/// among the globals. Equal inputs give equal bytes.
///
/// | in the object | from |
/// |---|---|
/// | `.text` | code; one section, so a linker keeps or drops all of it |
/// | `.rodata`, `.data`, `.bss` | data |
/// | `.data.rel.ro` | data that is only read, with addresses |
/// | a section of its own name | data that modules place there; the linker makes `__start_NAME` |
/// | `.kiln.slots` | the slots of globals, then those of replaceable functions |
/// | `.eh_frame` | unwind rows |
/// | `.debug_*` | debug information, if asked for: lines, functions, variables |
/// | `.note.GNU-stack` | a mark: the stack need not be executable |
/// | `.note.gnu.property` | landing pads of aarch64, if all modules have them |
///
/// | symbol | binding and visibility |
/// |---|---|
/// | exported | global |
/// | hidden | global, hidden: for the linked file only |
/// | preemptible | weak: a strong definition elsewhere overrides it |
/// | replaceable | global, the stub; `kiln_slot_NAME` is the slot with the address of its code |
/// | import, routine of the C library | undefined |
/// | global | as [`GlobalSymbols`] says |
/// | local | local; left out by [`ObjectOptions::strip`] |
///
/// # Errors
///
/// As for [`write_image`](crate::write_image), and for what an object cannot hold: a module that
/// defines a name under which another one needs a routine of the C library, the address of a global
/// in data if globals have slots, or more code than a call reaches.
///
/// # Example
///
/// ```
/// use kiln_globals::GlobalTable;
/// use kiln_image::{ObjectOptions, write_object};
///
/// let object = write_object(&[], &GlobalTable::new(), &ObjectOptions::default());
/// let object = object.expect("there is nothing to link");
/// assert!(object.starts_with(b"\x7fELF"));
/// // Write it to `program.o`; then `cc main.c program.o`.
/// ```
pub fn write_object(
    artifacts: &[Artifact],
    table: &GlobalTable,
    options: &ObjectOptions,
) -> Result<Vec<u8>, Vec<LinkError>> {
    #[cfg(feature = "tracing")]
    let _span = tracing::debug_span!("object").entered();
    let arch = default_arch(artifacts, options.triple.as_deref())?;
    let plan = plan_object(arch, artifacts, table, options.globals == GlobalSymbols::Named)?;
    let debug = Debug::of(&plan, options).map_err(|error| vec![error])?;
    let sections = Sections::of(&plan, &debug);
    let pointers = plan.data_relocs();
    let symbols = Symbols::of(&plan, &sections, &pointers, options)?;
    let object = Object { arch: plan.plan().arch(), plan, sections, symbols, debug };
    object.write(&pointers).map_err(|error| vec![error])
}

/// An object that is being written.
struct Object<'p> {
    arch: Arch,
    plan: ObjectPlan<'p>,
    sections: Sections<'p>,
    symbols: Symbols,
    debug: Debug,
}

/// The ranges of the file.
struct Layout {
    /// The file offset of each area.
    areas: Vec<(Area, Range<usize>)>,
    /// The note about properties.
    property: Range<usize>,
    /// The sections of debug information.
    debug: Vec<Range<usize>>,
    /// The relocations of each section.
    relocs: Vec<Range<usize>>,
    symtab: Range<usize>,
    strtab: Range<usize>,
}

/// The name and the number of a table of relocations, and the position of the section it is for.
struct RelocSection {
    target: usize,
    name: StringId,
}

impl Object<'_> {
    fn write(&self, pointers: &[DataReloc]) -> Result<Vec<u8>, LinkError> {
        let relocs = self.pointers(pointers);
        let count = 2 * self.sections.list.len() + 4;
        if count > MAX_SECTIONS {
            let limit = MAX_SECTIONS as u64;
            let (what, size) = ("the number of sections of an object".into(), count as u64);
            return Err(LinkError::TooLarge { module: None, what, size, limit });
        }
        let mut buffer = Vec::new();
        let layout = self.write_frame(&relocs, &mut buffer)?;
        self.emit(&layout, &mut buffer)?;
        Ok(buffer)
    }

    /// Returns the relocations of each section but those of code and unwind rows, in order of
    /// offset.
    fn pointers(&self, pointers: &[DataReloc]) -> Vec<Vec<ElfReloc>> {
        let mut relocs: Vec<Vec<ElfReloc>> = self.sections.list.iter().map(|_| Vec::new()).collect();
        for &DataReloc { area, offset, target, addend } in pointers {
            let (position, offset) = self.sections.find(area, offset);
            // Pointers never refer to labels, which belong to modules.
            let (symbol, more) = self.symbols.of_target(&self.sections, 0, target);
            let (kind, addend) = (self.arch.abs64_reloc(), addend.wrapping_add(more));
            relocs[position].push(ElfReloc { offset, symbol, kind, addend });
        }
        relocs.iter_mut().for_each(|list| list.sort_by_key(|reloc| reloc.offset));
        let first = self.sections.first_debug;
        let symbol = |section: Option<usize>| {
            let code = || self.sections.find(Area::Text, 0).0;
            Symbols::of_section(section.map_or_else(code, |number| first + number))
        };
        for number in 0..self.debug.sections.len() {
            relocs[first + number].extend(self.debug.relocs(self.arch, number, symbol));
        }
        relocs
    }

    /// Returns the number of relocations of the code.
    fn text_count(&self) -> usize {
        let modules = 0..self.plan.plan().artifacts().len();
        modules.map(|module| self.plan.text_count_of(module)).sum::<usize>() + self.plan.stub_reloc_count()
    }

    /// Lays out the file, and writes headers and tables. Leaves room for areas, and for the
    /// relocations of code.
    fn write_frame(&self, relocs: &[Vec<ElfReloc>], buffer: &mut Vec<u8>) -> Result<Layout, LinkError> {
        let mut w = Writer::new(self.arch.endian(), true, buffer);
        let list = &self.sections.list;
        let names: Vec<StringId> =
            list.iter().map(|section| w.add_section_name(section.name.as_bytes())).collect();
        for _ in list {
            w.reserve_section_index();
        }

        // The number of relocations of each section.
        let count = |position: usize| match list[position].area {
            Some((Area::Text, _)) => self.text_count(),
            Some((Area::EhFrame, _)) => self.plan.unwind_count(),
            _ => relocs[position].len(),
        };
        let counts: Vec<usize> = (0..list.len()).map(count).collect();
        let reloc_names: Vec<String> = list.iter().map(|section| format!(".rela{}", section.name)).collect();
        let mut tables = Vec::new();
        for (target, name) in reloc_names.iter().enumerate().filter(|(target, _)| counts[*target] > 0) {
            w.reserve_section_index();
            tables.push(RelocSection { target, name: w.add_section_name(name.as_bytes()) });
        }
        let symtab_index = w.reserve_section_index();
        let symtab_name = w.add_section_name(b".symtab");
        let strtab_index = w.reserve_section_index();
        let strtab_name = w.add_section_name(b".strtab");
        w.reserve_shstrtab_section_index();

        let layout = self.reserve(&mut w, &counts);
        let program = self.plan.plan();
        let features = program.artifacts().iter().flat_map(|artifact| artifact.features());
        let header = FileHeader {
            os_abi: elf::ELFOSABI_NONE,
            abi_version: 0,
            e_type: elf::ET_REL,
            e_machine: self.arch.elf_machine(),
            e_entry: 0,
            e_flags: self.arch.elf_flags(features),
        };
        let written = w.write_file_header(&header);
        written.map_err(|_| {
            let (what, size) = ("the file".into(), layout.strtab.end as u64);
            LinkError::TooLarge { module: None, what, size, limit: 1 << 32 }
        })?;
        if !layout.property.is_empty() {
            w.pad_until(layout.property.start);
            w.write(&self.sections.property);
        }
        for (section, range) in self.debug.sections.iter().zip(&layout.debug) {
            w.pad_until(range.start);
            w.write(&section.bytes);
        }
        for (list, range) in relocs.iter().zip(&layout.relocs).filter(|(list, _)| !list.is_empty()) {
            w.pad_until(range.start);
            let mut bytes = vec![0; range.len()];
            let mut rest = &mut *bytes;
            list.iter().for_each(|reloc| reloc.put(self.arch.endian(), &mut rest));
            w.write(&bytes);
        }
        w.pad_until(layout.symtab.start);
        w.write(&self.symbols.write(self.arch, &self.sections));
        w.pad_until(layout.strtab.start);
        w.write(&self.symbols.names);
        w.write_shstrtab();
        w.write_null_section_header();
        for (section, name) in list.iter().zip(names) {
            w.write_section_header(&SectionHeader {
                name: Some(name),
                sh_type: section.sh_type,
                sh_flags: section.sh_flags.into(),
                sh_addr: 0,
                sh_offset: layout.start_of(section) as u64,
                sh_size: section.extent.size,
                sh_link: 0,
                sh_info: 0,
                sh_addralign: section.extent.align,
                sh_entsize: 0,
            });
        }
        let table = |name, sh_type, range: &Range<usize>, align| SectionHeader {
            name: Some(name),
            sh_type,
            sh_flags: 0,
            sh_addr: 0,
            sh_offset: range.start as u64,
            sh_size: range.len() as u64,
            sh_link: 0,
            sh_info: 0,
            sh_addralign: align as u64,
            sh_entsize: 0,
        };
        for RelocSection { target, name } in tables {
            w.write_section_header(&SectionHeader {
                sh_flags: elf::SHF_INFO_LINK.into(),
                sh_link: symtab_index.0,
                sh_info: 1 + target as u32,
                sh_entsize: RELA as u64,
                ..table(name, elf::SHT_RELA, &layout.relocs[target], TABLE_ALIGN)
            });
        }
        w.write_section_header(&SectionHeader {
            sh_link: strtab_index.0,
            sh_info: self.symbols.first_global(),
            sh_entsize: SYMBOL as u64,
            ..table(symtab_name, elf::SHT_SYMTAB, &layout.symtab, TABLE_ALIGN)
        });
        w.write_section_header(&table(strtab_name, elf::SHT_STRTAB, &layout.strtab, 1));
        w.write_shstrtab_section_header();
        Ok(layout)
    }

    /// Reserves a range for everything, in order of the file.
    fn reserve(&self, w: &mut Writer<'_>, counts: &[usize]) -> Layout {
        w.reserve_file_header();
        let areas = IN_FILE.map(|area| {
            let extent = self.plan.plan().layout()[area];
            let start = w.reserve(extent.size as usize, extent.align as usize);
            (area, start..start + extent.size as usize)
        });
        let mut reserve = |size: usize, align: usize| {
            let start = w.reserve(size, align);
            start..start + size
        };
        let property = reserve(self.sections.property.len(), PROPERTY_ALIGN);
        let debug = self.debug.sections.iter().map(|section| reserve(section.bytes.len(), 1)).collect();
        let relocs = counts.iter().map(|count| reserve(RELA * count, TABLE_ALIGN)).collect();
        let symtab = reserve(self.symbols.table_size(), TABLE_ALIGN);
        let strtab = reserve(self.symbols.names.len(), 1);
        w.reserve_shstrtab();
        w.reserve_section_headers();
        Layout { areas: areas.into(), property, debug, relocs, symtab, strtab }
    }

    /// Copies code and data into the file, and writes the relocations of code and of unwind rows.
    fn emit(&self, layout: &Layout, buffer: &mut [u8]) -> Result<(), LinkError> {
        let mut rest = buffer;
        let mut done = 0;
        let mut cut = |range: &Range<usize>| {
            if range.is_empty() {
                return Default::default();
            }
            let (_, tail) = std::mem::take(&mut rest).split_at_mut(range.start - done);
            let (bytes, tail) = tail.split_at_mut(range.len());
            (rest, done) = (tail, range.end);
            bytes
        };
        let [text, rodata, relro, data, _, eh_frame]: [&mut [u8]; IN_FILE.len()] =
            std::array::from_fn(|number| cut(&layout.areas[number].1));
        // Tables of relocations are in the order of the sections, in which code is the first.
        let position = |area| self.sections.find(area, 0).0;
        let mut text_relocs = cut(&layout.relocs[position(Area::Text)]);
        let mut unwind_relocs: &mut [u8] = match self.plan.unwind_count() {
            0 => &mut [],
            _ => cut(&layout.relocs[position(Area::EhFrame)]),
        };
        let modules = self.plan.plan().artifacts().len();
        let text_symbol = Symbols::of_section(position(Area::Text));
        let sinks = (0..=modules).map(|module| {
            let (text, unwind) = match module < modules {
                true => (self.plan.text_count_of(module), self.plan.unwind_count_of(module)),
                false => (text_relocs.len() / RELA, unwind_relocs.len() / RELA),
            };
            let (text, unwind) = (take(&mut text_relocs, text), take(&mut unwind_relocs, unwind));
            Sink { object: self, module, text_symbol, text, unwind }
        });
        let sinks = sinks.collect();
        // Objects have no index of unwind rows, and no code tables.
        let (eh_frame_hdr, code_tables): (&mut [u8], &mut [u8]) = (&mut [], &mut []);
        self.plan.emit(Output { text, eh_frame, eh_frame_hdr, code_tables, rodata, relro, data }, sinks)
    }
}

/// Takes `count` relocations off the front of `bytes`.
fn take<'o>(bytes: &mut &'o mut [u8], count: usize) -> &'o mut [u8] {
    let (taken, rest) = std::mem::take(bytes).split_at_mut(RELA * count);
    *bytes = rest;
    taken
}

impl Layout {
    /// Returns the file offset of a section.
    fn start_of(&self, section: &Section<'_>) -> usize {
        if let Some(number) = section.debug {
            return self.debug[number].start;
        }
        if section.sh_type == elf::SHT_NOTE {
            return self.property.start;
        }
        let Some((area, offset)) = section.area else { return self.strtab.start };
        let range = self.areas.iter().find(|(own, _)| *own == area);
        // Zeroed data has no bytes.
        range.map_or(self.relocs[0].start, |(_, range)| range.start + offset as usize)
    }
}

/// Writes the relocations of one module.
struct Sink<'o> {
    object: &'o Object<'o>,
    module: usize,
    text_symbol: u32,
    text: &'o mut [u8],
    unwind: &'o mut [u8],
}

impl RelocSink for Sink<'_> {
    fn text(&mut self, reloc: TextReloc, text: &[u8], at: usize) {
        let Object { arch, sections, symbols, .. } = self.object;
        let kind = text_type(*arch, &reloc, text, at);
        let (symbol, more) = symbols.of_target(sections, self.module, reloc.target);
        let addend = reloc.addend.wrapping_add(more);
        ElfReloc { offset: reloc.offset, symbol, kind, addend }.put(arch.endian(), &mut self.text);
    }

    fn unwind(&mut self, offset: u64, code: u64) {
        let arch = self.object.arch;
        // The program is smaller than 2 GiB.
        let (kind, addend) = (relative32_type(arch), code as i64);
        ElfReloc { offset, symbol: self.text_symbol, kind, addend }.put(arch.endian(), &mut self.unwind);
    }
}
