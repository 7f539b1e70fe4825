//! The ELF file around code and data: headers, dynamic tables, symbol tables, section headers.

use std::ops::Range;

use kiln_artifact::record::{Linkage, SymbolKind};
use object::elf;
use object::write::StringId;
use object::write::elf::{FileHeader, ProgramHeader, SectionHeader, SectionIndex, Writer};

use super::dynamic::{BLOOM_SHIFT, DynamicSymbols};
use super::image::ImageOptions;
use super::relocations::{RELA, RelaCounts};
use super::symbols::{ElfSymbol, SYMBOL, Strings};
use crate::link::{Addresses, Area, Extent, LinkError, Plan};
use crate::note::{Builder, Span, SumRecord};

/// A file whose frame is written, and where everything in it lies.
pub(crate) struct File {
    pub(crate) addresses: Addresses,
    pub(crate) note: Range<usize>,
    pub(crate) gnu_hash: Span,
    pub(crate) dynsym: Span,
    pub(crate) dynstr: Span,
    pub(crate) rela: Span,
    /// Everything after the note, cut at sections, without gaps.
    pub(crate) parts: Vec<Range<usize>>,
}

/// A section that is loaded, as its header will describe it.
struct LoadedSection<'a> {
    area: Area,
    text: &'a str,
    name: StringId,
    /// Offset in the area; named sections follow what has no section.
    offset: u64,
    size: u64,
    align: u64,
    index: SectionIndex,
    sh_type: u32,
    flags: u32,
}

/// A local or global symbol of the full symbol table.
struct FullSymbol<'a> {
    name: &'a str,
    info: u8,
    area: Area,
    offset: u64,
    size: u64,
}

fn section_type(area: Area) -> (u32, u32) {
    match area {
        Area::Text => (elf::SHT_PROGBITS, elf::SHF_ALLOC | elf::SHF_EXECINSTR),
        Area::EhFrame | Area::EhFrameHdr | Area::Rodata => (elf::SHT_PROGBITS, elf::SHF_ALLOC),
        Area::Relro | Area::Data | Area::Slots => (elf::SHT_PROGBITS, elf::SHF_ALLOC | elf::SHF_WRITE),
        Area::Bss => (elf::SHT_NOBITS, elf::SHF_ALLOC | elf::SHF_WRITE),
    }
}

/// Areas in order of the file; `.dynamic` stands after `.data.rel.ro`.
const ORDER: [Area; 8] = [
    Area::Rodata,
    Area::EhFrameHdr,
    Area::EhFrame,
    Area::Text,
    Area::Relro,
    Area::Slots,
    Area::Data,
    Area::Bss,
];

/// Local symbols first, as ELF wants it; returns how many.
fn full_symbols<'a>(plan: &Plan<'a>) -> (Vec<FullSymbol<'a>>, usize) {
    let (mut locals, mut globals) = (Vec::new(), Vec::new());
    for (number, artifact) in plan.artifacts().iter().enumerate() {
        for (index, symbol) in artifact.symbols().iter().enumerate() {
            let name = artifact.name(symbol);
            let place = plan.locate(number, symbol.section(), symbol.offset.get());
            let Some((area, offset)) = place.filter(|_| !name.is_empty() && !name.contains('\0')) else {
                continue;
            };
            let global = plan.is_definition(number, index)
                && matches!(symbol.linkage(), Linkage::Export | Linkage::Preemptible);
            let kind = if symbol.kind() == SymbolKind::Function { elf::STT_FUNC } else { elf::STT_OBJECT };
            let bind = if global { elf::STB_GLOBAL } else { elf::STB_LOCAL };
            let list = if global { &mut globals } else { &mut locals };
            list.push(FullSymbol { name, info: bind << 4 | kind, area, offset, size: symbol.size.get() });
        }
    }
    let count = locals.len();
    locals.append(&mut globals);
    (locals, count)
}

impl File {
    /// Lays out and writes everything but areas, relocations and the note, for which room is left.
    #[expect(
        clippy::too_many_lines,
        reason = "one straight line: reserve everything in order, then write it in order"
    )]
    pub(crate) fn write<'w>(
        plan: &'w Plan<'_>,
        symbols: &'w DynamicSymbols<'w, '_>,
        counts: &RelaCounts,
        note: &mut Builder,
        options: &'w ImageOptions,
        needs_libc: bool,
        buffer: &'w mut Vec<u8>,
    ) -> Result<Self, LinkError> {
        let arch = plan.arch();
        let page = arch.page_size() as usize;
        let layout = plan.layout();
        let size = |area: Area| layout[area].size as usize;
        let mut w = Writer::new(arch.endian(), true, buffer);

        // Section indices and names.
        let note_name = w.add_section_name(b".note.kiln");
        w.reserve_section_index();
        w.reserve_gnu_hash_section_index();
        let dynsym_name = w.add_section_name(b".dynsym");
        let dynsym_index = w.reserve_dynsym_section_index();
        let dynstr_name = w.add_section_name(b".dynstr");
        let dynstr_index = w.reserve_dynstr_section_index();
        let has_rela = counts.rela > 0;
        let rela_name = has_rela.then(|| {
            w.reserve_section_index();
            w.add_section_name(b".rela.dyn")
        });
        let mut loaded: Vec<LoadedSection<'_>> = Vec::new();
        for area in ORDER {
            let (sh_type, flags) = section_type(area);
            let unnamed = Some((area.name(), 0, plan.unnamed(area))).filter(|(_, _, extent)| extent.size > 0);
            let named = plan.sections().filter(|section| section.area == area).map(|section| {
                (section.name, section.offset, Extent { size: section.size, align: section.align })
            });
            for (text, offset, Extent { size, align }) in unnamed.into_iter().chain(named) {
                let name = w.add_section_name(text.as_bytes());
                let index = w.reserve_section_index();
                loaded.push(LoadedSection { area, text, name, offset, size, align, index, sh_type, flags });
            }
            if area == Area::Relro {
                w.reserve_dynamic_section_index();
            }
        }
        let symtab_name = w.add_section_name(b".symtab");
        w.reserve_section_index();
        let strtab_name = w.add_section_name(b".strtab");
        let strtab_index = w.reserve_section_index();
        w.reserve_shstrtab_section_index();
        // Sections of an area lie one behind the other.
        let sections_of = Area::ALL.map(|area| {
            let start = loaded.iter().position(|section| section.area == area).unwrap_or(0);
            let count = loaded[start..].iter().take_while(|section| section.area == area).count();
            &loaded[start..start + count]
        });
        let section_of = |area: Area, offset: u64| {
            let sections = sections_of[area as usize];
            let behind = sections.partition_point(|section| section.offset <= offset);
            // An empty datum may lie in an area without a section. There are no more sections than 16 bits number.
            sections.get(behind.saturating_sub(1)).map_or(elf::SHN_ABS, |section| section.index.0 as u16)
        };

        // Strings.
        let mut dynamic_names = Strings::new();
        let undefined: Vec<u32> = symbols.undefined.iter().map(|(name, _)| dynamic_names.add(name)).collect();
        let exports: Vec<u32> = symbols.exports.iter().map(|export| dynamic_names.add(export.name)).collect();
        let mut dynamics: Vec<(i64, u64)> = Vec::new();
        if needs_libc {
            for library in ["libm.so.6", "libc.so.6"] {
                dynamics.push((elf::DT_NEEDED, dynamic_names.add(library).into()));
            }
        }
        if let Some(soname) = &options.soname {
            dynamics.push((elf::DT_SONAME, dynamic_names.add(soname).into()));
        }
        let dynamic_names = dynamic_names.finish()?;
        let (full, local_count) = full_symbols(plan);
        let mut full_names = Strings::new();
        let name_of: Vec<u32> = full.iter().map(|symbol| full_names.add(symbol.name)).collect();
        let full_names = full_names.finish()?;

        // Reserve, in order of the file. A section's address is its offset.
        let has_text = size(Area::Text) > 0;
        let has_data = size(Area::Slots) + size(Area::Data) + size(Area::Bss) > 0;
        let has_unwind = size(Area::EhFrame) > 0;
        let segments = 6 + u32::from(has_text) + u32::from(has_data) + u32::from(has_unwind);
        let mut parts: Vec<(&str, usize)> = Vec::new();
        w.reserve_file_header();
        w.reserve_program_headers(segments);
        let names = part_names(has_rela, &loaded);
        for name in &names {
            let name = note.text(name);
            note.sums.push(SumRecord { name, ..SumRecord::default() });
        }
        let too_long =
            || LinkError::TooLarge { what: "the note", size: u64::MAX, limit: u64::from(u32::MAX) };
        let note_len = note.len().ok_or_else(too_long)?;
        let note_at = w.reserve(note_len, 4);

        let export_count = symbols.exports.len() as u32;
        let gnu_hash_at = w.reserve_gnu_hash(symbols.bloom, symbols.buckets, export_count);
        let gnu_hash_len = w.reserved_len() - gnu_hash_at;
        parts.push((".gnu.hash", gnu_hash_at));
        let dynsym_len = SYMBOL * (1 + undefined.len() + exports.len());
        let dynsym_at = w.reserve(dynsym_len, 8);
        parts.push((".dynsym", dynsym_at));
        let dynstr_len = dynamic_names.len();
        let dynstr_at = w.reserve(dynstr_len, 1);
        parts.push((".dynstr", dynstr_at));
        let rela_at = w.reserve(counts.rela * RELA, 8);
        if has_rela {
            parts.push((".rela.dyn", rela_at));
        }
        let mut addresses = Addresses::default();
        let mut dynamic_at = 0;
        let (mut text_at, mut relro_at, mut data_at) = (0, 0, 0);
        let mut read_only_end = 0;
        let mut data_file_end = 0;
        let mut bss_end = 0;
        let relocations = usize::from(has_rela) * 4;
        let dynamic_count = dynamics.len() + 5 + relocations + 2 + 1;
        for area in ORDER {
            match area {
                Area::Text => {
                    read_only_end = w.reserved_len();
                    if has_text {
                        text_at = w.reserve(0, page);
                    }
                }
                Area::Relro => relro_at = w.reserve(0, page),
                Area::Slots => data_at = w.reserve(0, page),
                _ => {}
            }
            if area == Area::Bss {
                data_file_end = w.reserved_len();
                let start = data_file_end.next_multiple_of(layout[area].align as usize);
                addresses[area] = start as u64;
                bss_end = if size(area) > 0 { start + size(area) } else { data_file_end };
            } else {
                addresses[area] = w.reserve(size(area), layout[area].align as usize) as u64;
                let sections = loaded.iter().filter(|section| section.area == area && section.size > 0);
                parts.extend(
                    sections.map(|section| (section.text, (addresses[area] + section.offset) as usize)),
                );
            }
            if area == Area::Relro {
                dynamic_at = w.reserve_dynamic(dynamic_count);
                parts.push((".dynamic", dynamic_at));
            }
        }
        let symtab_len = SYMBOL * (1 + full.len());
        let symtab_at = w.reserve(symtab_len, 8);
        parts.push((".symtab", data_file_end));
        let strtab_at = w.reserve(full_names.len(), 1);
        parts.push((".strtab", strtab_at));
        parts.push((".shstrtab", w.reserved_len()));
        w.reserve_shstrtab();
        parts.push(("section headers", w.reserved_len()));
        w.reserve_section_headers();
        let file_len = w.reserved_len();
        debug_assert!(parts.iter().map(|part| part.0).eq(names), "parts are as announced");

        // Write, in the same order.
        let features = plan.artifacts().iter().flat_map(|artifact| artifact.features());
        let written = w.write_file_header(&FileHeader {
            os_abi: elf::ELFOSABI_NONE,
            abi_version: 0,
            e_type: elf::ET_DYN,
            e_machine: arch.elf_machine(),
            e_entry: 0,
            e_flags: arch.elf_flags(features),
        });
        let too_large = |_| LinkError::TooLarge { what: "the file", size: file_len as u64, limit: 1 << 32 };
        written.map_err(too_large)?;
        w.write_align_program_headers();
        let mut segment = |p_type, p_flags, start: usize, file: usize, mem: usize, align: usize| {
            w.write_program_header(&ProgramHeader {
                p_type,
                p_flags,
                p_offset: start as u64,
                p_vaddr: start as u64,
                p_paddr: start as u64,
                p_filesz: file as u64,
                p_memsz: mem as u64,
                p_align: align as u64,
            });
        };
        let (r, rw, rx) = (elf::PF_R, elf::PF_R | elf::PF_W, elf::PF_R | elf::PF_X);
        segment(elf::PT_LOAD, r, 0, read_only_end, read_only_end, page);
        if has_text {
            segment(elf::PT_LOAD, rx, text_at, size(Area::Text), size(Area::Text), page);
        }
        let relro_len = data_at - relro_at;
        segment(elf::PT_LOAD, rw, relro_at, relro_len, relro_len, page);
        if has_data {
            segment(elf::PT_LOAD, rw, data_at, data_file_end - data_at, bss_end - data_at, page);
        }
        let dynamic_len = dynamic_count * 16;
        segment(elf::PT_DYNAMIC, rw, dynamic_at, dynamic_len, dynamic_len, 8);
        segment(elf::PT_NOTE, r, note_at, note_len, note_len, 4);
        if has_unwind {
            let (at, len) = (addresses[Area::EhFrameHdr] as usize, size(Area::EhFrameHdr));
            segment(elf::PT_GNU_EH_FRAME, r, at, len, len, 4);
        }
        segment(elf::PT_GNU_STACK, rw, 0, 0, 0, 16);
        segment(elf::PT_GNU_RELRO, r, relro_at, relro_len, relro_len, 1);

        w.pad_until(note_at + note_len);
        let hashes: Vec<u32> = symbols.exports.iter().map(|export| export.hash).collect();
        w.write_gnu_hash(
            symbols.first_export(),
            BLOOM_SHIFT,
            symbols.bloom,
            symbols.buckets,
            export_count,
            |index| hashes[index as usize],
        );
        let mut table = Vec::with_capacity(dynsym_len);
        let mut symbol = |symbol: ElfSymbol| symbol.write(arch.endian(), &mut table);
        symbol(ElfSymbol::NULL);
        for name in undefined {
            symbol(ElfSymbol { name, info: elf::STB_GLOBAL << 4 | elf::STT_NOTYPE, ..ElfSymbol::NULL });
        }
        for (name, export) in exports.into_iter().zip(&symbols.exports) {
            let kind = if export.function { elf::STT_FUNC } else { elf::STT_OBJECT };
            symbol(ElfSymbol {
                name,
                info: elf::STB_GLOBAL << 4 | kind,
                section: section_of(export.area, export.offset),
                value: addresses[export.area] + export.offset,
                size: export.size,
            });
        }
        w.pad_until(dynsym_at);
        w.write(&table);
        w.write(&dynamic_names);
        w.pad_until(dynamic_at);
        dynamics.push((elf::DT_GNU_HASH, gnu_hash_at as u64));
        dynamics.push((elf::DT_STRTAB, dynstr_at as u64));
        dynamics.push((elf::DT_SYMTAB, dynsym_at as u64));
        dynamics.push((elf::DT_STRSZ, dynstr_len as u64));
        dynamics.push((elf::DT_SYMENT, 24));
        if has_rela {
            dynamics.push((elf::DT_RELA, rela_at as u64));
            dynamics.push((elf::DT_RELASZ, (counts.rela * RELA) as u64));
            dynamics.push((elf::DT_RELAENT, RELA as u64));
            dynamics.push((elf::DT_RELACOUNT, counts.relative as u64));
        }
        dynamics.push((elf::DT_FLAGS, elf::DF_BIND_NOW.into()));
        dynamics.push((elf::DT_FLAGS_1, elf::DF_1_NOW.into()));
        dynamics.push((elf::DT_NULL, 0));
        for (tag, value) in dynamics {
            w.write_dynamic(tag, value).map_err(too_large)?;
        }
        w.pad_until(symtab_at);
        let mut table = Vec::with_capacity(symtab_len);
        ElfSymbol::NULL.write(arch.endian(), &mut table);
        for (name, symbol) in name_of.into_iter().zip(&full) {
            let FullSymbol { name: _, info, area, offset, size } = *symbol;
            let (section, value) = (section_of(area, offset), addresses[area] + offset);
            ElfSymbol { name, info, section, value, size }.write(arch.endian(), &mut table);
        }
        w.write(&table);
        w.write(&full_names);
        w.write_shstrtab();

        w.write_null_section_header();
        // A table that is loaded.
        let table = |name, sh_type, at: usize, len: usize, align: u64| SectionHeader {
            name: Some(name),
            sh_type,
            sh_flags: elf::SHF_ALLOC.into(),
            sh_addr: at as u64,
            sh_offset: at as u64,
            sh_size: len as u64,
            sh_link: 0,
            sh_info: 0,
            sh_addralign: align,
            sh_entsize: 0,
        };
        w.write_section_header(&table(note_name, elf::SHT_NOTE, note_at, note_len, 4));
        w.write_gnu_hash_section_header(gnu_hash_at as u64);
        w.write_section_header(&SectionHeader {
            sh_link: dynstr_index.0,
            sh_info: 1,
            sh_entsize: SYMBOL as u64,
            ..table(dynsym_name, elf::SHT_DYNSYM, dynsym_at, dynsym_len, 8)
        });
        w.write_section_header(&table(dynstr_name, elf::SHT_STRTAB, dynstr_at, dynstr_len, 1));
        if let Some(name) = rela_name {
            w.write_section_header(&SectionHeader {
                sh_link: dynsym_index.0,
                sh_entsize: RELA as u64,
                ..table(name, elf::SHT_RELA, rela_at, counts.rela * RELA, 8)
            });
        }
        let mut sections = loaded.iter().peekable();
        for area in ORDER {
            while let Some(section) = sections.next_if(|section| section.area == area) {
                w.write_section_header(&SectionHeader {
                    name: Some(section.name),
                    sh_type: section.sh_type,
                    sh_flags: section.flags.into(),
                    sh_addr: addresses[area] + section.offset,
                    sh_offset: match area {
                        Area::Bss => data_file_end as u64,
                        _ => addresses[area] + section.offset,
                    },
                    sh_size: section.size,
                    sh_link: 0,
                    sh_info: 0,
                    sh_addralign: section.align,
                    sh_entsize: 0,
                });
            }
            if area == Area::Relro {
                w.write_dynamic_section_header(dynamic_at as u64);
            }
        }
        w.write_section_header(&SectionHeader {
            sh_flags: 0,
            sh_addr: 0,
            sh_link: strtab_index.0,
            sh_info: 1 + local_count as u32,
            sh_entsize: SYMBOL as u64,
            ..table(symtab_name, elf::SHT_SYMTAB, symtab_at, symtab_len, 8)
        });
        w.write_section_header(&SectionHeader {
            sh_flags: 0,
            sh_addr: 0,
            ..table(strtab_name, elf::SHT_STRTAB, strtab_at, full_names.len(), 1)
        });
        w.write_shstrtab_section_header();
        assert_eq!(w.len(), file_len, "written as much as was reserved");

        let ends = parts.iter().skip(1).map(|&(_, start)| start).chain([file_len]);
        let starts = [note_at + note_len].into_iter().chain(parts.iter().skip(1).map(|&(_, start)| start));
        Ok(Self {
            addresses,
            note: note_at..note_at + note_len,
            gnu_hash: Span::new(gnu_hash_at as u64, gnu_hash_len as u64),
            dynsym: Span::new(dynsym_at as u64, dynsym_len as u64),
            dynstr: Span::new(dynstr_at as u64, dynstr_len as u64),
            rela: Span::new(rela_at as u64, (counts.rela * RELA) as u64),
            parts: starts.zip(ends).map(|(start, end)| start..end).collect(),
        })
    }
}

/// Names of the parts that have checksums, in order of the file.
fn part_names<'a>(has_rela: bool, loaded: &[LoadedSection<'a>]) -> Vec<&'a str> {
    let mut names = vec![".gnu.hash", ".dynsym", ".dynstr"];
    if has_rela {
        names.push(".rela.dyn");
    }
    for area in ORDER {
        let parts = loaded.iter().filter(|part| part.area == area && area != Area::Bss && part.size > 0);
        names.extend(parts.map(|part| part.text));
        if area == Area::Relro {
            names.push(".dynamic");
        }
    }
    names.extend([".symtab", ".strtab", ".shstrtab", "section headers"]);
    names
}
