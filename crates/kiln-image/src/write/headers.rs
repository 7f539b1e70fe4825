//! The headers of an image's file: file header, program headers, section headers.

use std::ops::Range;

use object::write::elf::{FileHeader, ProgramHeader, SectionHeader, Writer};
use object::{Endianness, elf};

use super::layout::{FileLayout, SegmentKind};
use super::section::{FileSection, SectionContent, type_and_flags};
use crate::elf64::{NOTE_ALIGN, PROPERTY_ALIGN, READ_EXECUTE, READ_WRITE, RELA, RELR, SYMBOL, TABLE_ALIGN};
use crate::link::{Area, LinkError, Plan};

/// Writes the file header and the program headers.
///
/// # Errors
///
/// [`LinkError::TooLarge`] if there are more sections than the header can count.
pub(super) fn write_file_headers(
    w: &mut Writer<'_>,
    plan: &Plan<'_>,
    layout: &FileLayout<'_>,
) -> Result<(), LinkError> {
    let arch = plan.arch();
    let features = plan.artifacts().iter().flat_map(|artifact| artifact.features());
    let written = w.write_file_header(&FileHeader {
        os_abi: elf::ELFOSABI_NONE,
        abi_version: 0,
        e_type: elf::ET_DYN,
        e_machine: arch.elf_machine(),
        e_entry: 0,
        e_flags: arch.elf_flags(features),
    });
    written.map_err(|_| too_large(layout))?;
    w.write_align_program_headers();
    for &segment in &layout.segments {
        w.write_program_header(&program_header(plan, layout, segment));
    }
    Ok(())
}

/// Returns the error for a file that has too many sections for the fields of ELF.
pub(super) fn too_large(layout: &FileLayout<'_>) -> LinkError {
    LinkError::TooLarge { module: None, what: "the file".into(), size: layout.len as u64, limit: 1 << 32 }
}

fn program_header(plan: &Plan<'_>, layout: &FileLayout<'_>, segment: SegmentKind) -> ProgramHeader {
    let page = plan.arch().page_size() as usize;
    let (p_type, p_flags, range, align) = match segment {
        SegmentKind::ReadOnly => (elf::PT_LOAD, elf::PF_R, layout.read_only.clone(), page),
        SegmentKind::Code => (elf::PT_LOAD, READ_EXECUTE, layout.code.clone(), layout.text_align),
        SegmentKind::Relro => (elf::PT_LOAD, READ_WRITE, layout.relro.clone(), page),
        SegmentKind::Writable => (elf::PT_LOAD, READ_WRITE, layout.writable.clone(), page),
        SegmentKind::Dynamic => (elf::PT_DYNAMIC, READ_WRITE, layout.dynamic.clone(), TABLE_ALIGN),
        SegmentKind::Note => (elf::PT_NOTE, elf::PF_R, layout.note.clone(), NOTE_ALIGN),
        SegmentKind::BuildId => (elf::PT_NOTE, elf::PF_R, layout.build_id.clone(), NOTE_ALIGN),
        SegmentKind::PropertyNote => (elf::PT_NOTE, elf::PF_R, layout.property.clone(), PROPERTY_ALIGN),
        SegmentKind::Property => (elf::PT_GNU_PROPERTY, elf::PF_R, layout.property.clone(), PROPERTY_ALIGN),
        SegmentKind::UnwindIndex => {
            let start = layout.offset(Area::EhFrameHdr);
            let range = start..start + plan.layout()[Area::EhFrameHdr].size as usize;
            (elf::PT_GNU_EH_FRAME, elf::PF_R, range, 4)
        }
        SegmentKind::ThreadLocal => {
            let (range, align) = layout.thread_local.clone();
            (elf::PT_TLS, elf::PF_R, range, align)
        }
        SegmentKind::Stack => (elf::PT_GNU_STACK, READ_WRITE, 0..0, 16),
        SegmentKind::SealedRelro => (elf::PT_GNU_RELRO, elf::PF_R, layout.relro.clone(), 1),
    };
    let address = if let SegmentKind::Stack = segment { 0 } else { layout.address(&range) };
    let memory_end = if let SegmentKind::Writable = segment { layout.zeroed_end } else { range.end };
    ProgramHeader {
        p_type,
        p_flags,
        p_offset: range.start as u64,
        p_vaddr: address,
        p_paddr: address,
        p_filesz: range.len() as u64,
        p_memsz: (memory_end - range.start) as u64,
        p_align: align as u64,
    }
}

/// Writes the section headers. The full symbol table has `local_symbols` local symbols, without the
/// null symbol.
pub(super) fn write_section_headers(w: &mut Writer<'_>, layout: &FileLayout<'_>, local_symbols: usize) {
    w.write_null_section_header();
    for section in &layout.sections {
        let range = layout.range(section.content);
        match section.content {
            SectionContent::GnuHash => w.write_gnu_hash_section_header(layout.address(&range)),
            SectionContent::Dynamic => w.write_dynamic_section_header(layout.address(&range)),
            SectionContent::Shstrtab => w.write_shstrtab_section_header(),
            _ => {
                let header = section_header(layout, &layout.sections, section, range, local_symbols);
                w.write_section_header(&header);
            }
        }
    }
}

/// Returns the header of one of `sections`, whose range is `range`: in the image that is laid out
/// in `layout`, if it is loaded.
pub(super) fn section_header(
    layout: &FileLayout<'_>,
    sections: &[FileSection<'_>],
    section: &FileSection<'_>,
    range: Range<usize>,
    local_symbols: usize,
) -> SectionHeader {
    let index_of = |wanted: fn(SectionContent) -> bool| {
        let section = sections.iter().find(|section| wanted(section.content));
        section.map_or(0, |section| section.index.0)
    };
    let table = |section, sh_type, range: Range<usize>, align| SectionHeader {
        sh_addr: layout.address(&range),
        ..table(section, sh_type, range, align)
    };
    let dynsym = || index_of(|content| matches!(content, SectionContent::Dynsym));
    let dynstr = || index_of(|content| matches!(content, SectionContent::Dynstr));
    let not_loaded = |sh_type, align| SectionHeader {
        sh_flags: 0,
        sh_addr: 0,
        ..table(section, sh_type, range.clone(), align)
    };
    match section.content {
        SectionContent::Note | SectionContent::BuildId => table(section, elf::SHT_NOTE, range, NOTE_ALIGN),
        SectionContent::Property => table(section, elf::SHT_NOTE, range, PROPERTY_ALIGN),
        SectionContent::GnuHash => {
            SectionHeader { sh_link: dynsym(), ..table(section, elf::SHT_GNU_HASH, range, TABLE_ALIGN) }
        }
        SectionContent::Dynsym => SectionHeader {
            sh_link: dynstr(),
            sh_info: 1, // the null symbol is the only local one
            sh_entsize: SYMBOL as u64,
            ..table(section, elf::SHT_DYNSYM, range, TABLE_ALIGN)
        },
        SectionContent::Dynstr => table(section, elf::SHT_STRTAB, range, 1),
        SectionContent::Versym => SectionHeader {
            sh_link: dynsym(),
            sh_entsize: 2,
            ..table(section, elf::SHT_GNU_VERSYM, range, 2)
        },
        SectionContent::Verneed => SectionHeader {
            sh_link: dynstr(),
            sh_info: 1, // one library
            ..table(section, elf::SHT_GNU_VERNEED, range, TABLE_ALIGN)
        },
        SectionContent::Relr => {
            SectionHeader { sh_entsize: RELR as u64, ..table(section, elf::SHT_RELR, range, TABLE_ALIGN) }
        }
        SectionContent::Patches => table(section, elf::SHT_PROGBITS, range, 1),
        SectionContent::Rela => SectionHeader {
            sh_link: dynsym(),
            sh_entsize: RELA as u64,
            ..table(section, elf::SHT_RELA, range, TABLE_ALIGN)
        },
        SectionContent::Area(piece) => {
            let (sh_type, flags) = type_and_flags(piece.area);
            let tls = if section.is_thread_local() { elf::SHF_TLS } else { 0 };
            SectionHeader {
                sh_flags: (flags | tls).into(),
                sh_addr: layout.addresses[piece.area] + piece.offset,
                sh_size: piece.size,
                ..table(section, sh_type, range, piece.align as usize)
            }
        }
        SectionContent::Filler => SectionHeader {
            sh_flags: (elf::SHF_ALLOC | elf::SHF_WRITE).into(),
            ..table(section, elf::SHT_PROGBITS, range, 1)
        },
        SectionContent::Dynamic => SectionHeader {
            sh_flags: (elf::SHF_ALLOC | elf::SHF_WRITE).into(),
            sh_link: dynstr(),
            sh_entsize: size_of::<elf::Dyn64<Endianness>>() as u64,
            ..table(section, elf::SHT_DYNAMIC, range, TABLE_ALIGN)
        },
        SectionContent::Symtab => SectionHeader {
            sh_link: index_of(|content| matches!(content, SectionContent::Strtab)),
            sh_info: 1 + local_symbols as u32,
            sh_entsize: SYMBOL as u64,
            ..not_loaded(elf::SHT_SYMTAB, TABLE_ALIGN)
        },
        SectionContent::Strtab | SectionContent::Shstrtab => not_loaded(elf::SHT_STRTAB, 1),
        SectionContent::Debug(_) => not_loaded(elf::SHT_PROGBITS, 1),
        SectionContent::DebugLink => not_loaded(elf::SHT_PROGBITS, 4),
        SectionContent::Artifacts => not_loaded(elf::SHT_PROGBITS, 1),
    }
}

/// Returns the header of a section that is loaded and only read, without its address.
fn table(section: &FileSection<'_>, sh_type: u32, range: Range<usize>, align: usize) -> SectionHeader {
    SectionHeader {
        name: section.name_id,
        sh_type,
        sh_flags: elf::SHF_ALLOC.into(),
        sh_addr: 0,
        sh_offset: range.start as u64,
        sh_size: range.len() as u64,
        sh_link: 0,
        sh_info: 0,
        sh_addralign: align as u64,
        sh_entsize: 0,
    }
}
