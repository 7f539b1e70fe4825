//! The bytes of the tables: hash table, symbol tables, string tables, `.dynamic`.
//!
//! Each table is written to the range that the layout reserved for it. Assertions check this,
//! because headers and checksums rely on the layout.

use std::ops::Range;

use object::write::elf::Writer;
use object::{Endianness, U16, U32, elf, pod};

use super::dynamic::{DynamicSection, VERSION, Version};
use super::dynamic_symbols::{BLOOM_SHIFT, DynamicSymbols};
use super::headers::too_large;
use super::layout::FileLayout;
use super::relocations::Relocations;
use super::symbols::{ElfSymbol, FullSymbols};
use crate::arch::Arch;
use crate::elf64::{SYMBOL, symbol_info, symbol_type};
use crate::link::LinkError;

/// Writes the tables that are loaded, in order of the file. Leaves room for the relocations that
/// are not packed.
///
/// # Errors
///
/// [`LinkError::TooLarge`] if a value does not fit `.dynamic`.
pub(super) fn write_dynamic_tables(
    w: &mut Writer<'_>,
    arch: Arch,
    layout: &FileLayout<'_>,
    symbols: &DynamicSymbols<'_, '_>,
    relocations: &Relocations,
    dynamic: &DynamicSection,
) -> Result<(), LinkError> {
    pad_to(w, layout.gnu_hash.start);
    let hashes: Vec<u32> = symbols.exports.iter().map(|export| export.hash).collect();
    w.write_gnu_hash(
        symbols.first_export(),
        BLOOM_SHIFT,
        symbols.bloom,
        symbols.buckets,
        hashes.len() as u32,
        |index| hashes[index as usize],
    );
    assert_eq!(w.len(), layout.gnu_hash.end, "the hash table is as long as was reserved");

    let mut table = Vec::with_capacity(layout.dynsym.len());
    let mut push = |symbol: ElfSymbol| symbol.write(arch.endian(), &mut table);
    push(ElfSymbol::NULL);
    for &name in &dynamic.undefined {
        push(ElfSymbol { name, info: symbol_info(elf::STB_GLOBAL, elf::STT_NOTYPE), ..ElfSymbol::NULL });
    }
    for (&name, export) in dynamic.exports.iter().zip(&symbols.exports) {
        push(ElfSymbol {
            name,
            info: symbol_info(elf::STB_GLOBAL, export.kind),
            section: layout.section_at(export.area, export.offset),
            value: layout.symbol_value(export.kind, export.area, export.offset),
            size: export.size,
            ..ElfSymbol::NULL
        });
    }
    write_at(w, &layout.dynsym, &table);
    write_at(w, &layout.dynstr, &dynamic.strings);
    if let Some(version) = dynamic.version {
        write_versions(w, arch.endian(), layout, version);
    }

    let packed = relocations.packed.words(&layout.addresses);
    let packed: Vec<u8> = packed.flat_map(|word| arch.u64_bytes(word)).collect();
    if !packed.is_empty() {
        write_at(w, &layout.relr, &packed);
    }
    pad_to(w, layout.dynamic.start);
    for (tag, value) in dynamic.entries(layout) {
        w.write_dynamic(tag, value).map_err(|_| too_large(layout))?;
    }
    assert_eq!(w.len(), layout.dynamic.end, "the dynamic section is as long as was reserved");
    Ok(())
}

/// Writes the note of properties, if there is one.
pub(super) fn write_property(w: &mut Writer<'_>, layout: &FileLayout<'_>, note: &[u8]) {
    if !note.is_empty() {
        write_at(w, &layout.property, note);
    }
}

/// Writes the versions: no symbol has one, but the image needs one.
fn write_versions(w: &mut Writer<'_>, endian: Endianness, layout: &FileLayout<'_>, version: Version) {
    let symbols = layout.versym.len() / 2;
    let versions =
        (0..symbols).map(|index| if index == 0 { elf::VER_NDX_LOCAL } else { elf::VER_NDX_GLOBAL });
    let versions: Vec<_> = versions.map(|version| U16::new(endian, version)).collect();
    write_at(w, &layout.versym, pod::bytes_of_slice(&versions));
    let need = elf::Verneed {
        vn_version: U16::new(endian, elf::VER_NEED_CURRENT),
        vn_cnt: U16::new(endian, 1),
        vn_file: U32::new(endian, version.library),
        vn_aux: U32::new(endian, size_of::<elf::Verneed<Endianness>>() as u32),
        vn_next: U32::new(endian, 0),
    };
    let name = elf::Vernaux {
        vna_hash: U32::new(endian, elf::hash(VERSION.as_bytes())),
        vna_flags: U16::new(endian, 0),
        vna_other: U16::new(endian, elf::VER_NDX_GLOBAL + 1),
        vna_name: U32::new(endian, version.name),
        vna_next: U32::new(endian, 0),
    };
    write_at(w, &layout.verneed, &[pod::bytes_of(&need), pod::bytes_of(&name)].concat());
}

/// Writes the full symbol table and its names, which are not loaded.
pub(super) fn write_full_symbols(
    w: &mut Writer<'_>,
    arch: Arch,
    layout: &FileLayout<'_>,
    symbols: &FullSymbols,
) {
    write_at(w, &layout.symtab, &symbol_table(arch, layout, symbols));
    write_at(w, &layout.strtab, &symbols.names);
}

/// Writes the sections of debug information, the artifacts and the names of sections. Leaves room
/// for the name of the file with the debug information.
pub(super) fn write_rest<'s>(
    w: &mut Writer<'_>,
    layout: &FileLayout<'_>,
    debug: impl Iterator<Item = &'s [u8]>,
    artifacts: &[u8],
) {
    for (range, bytes) in layout.debug.iter().zip(debug) {
        write_at(w, range, bytes);
    }
    pad_to(w, layout.link.end);
    write_at(w, &layout.artifacts, artifacts);
    w.write_shstrtab();
    assert_eq!(w.len(), layout.shstrtab.end, "the section names are as long as was reserved");
}

/// Returns the bytes of the full symbol table.
pub(super) fn symbol_table(arch: Arch, layout: &FileLayout<'_>, symbols: &FullSymbols) -> Vec<u8> {
    let mut table = Vec::with_capacity(SYMBOL * (1 + symbols.list.len()));
    ElfSymbol::NULL.write(arch.endian(), &mut table);
    for symbol in &symbols.list {
        let section = layout.section_at(symbol.area, symbol.offset);
        let value = layout.symbol_value(symbol_type(symbol.info), symbol.area, symbol.offset);
        let (name, info, size) = (symbol.name, symbol.info, symbol.size);
        ElfSymbol { name, info, section, value, size, ..ElfSymbol::NULL }.write(arch.endian(), &mut table);
    }
    table
}

/// Writes `bytes` to `range`, which was reserved for them.
fn write_at(w: &mut Writer<'_>, range: &Range<usize>, bytes: &[u8]) {
    pad_to(w, range.start);
    w.write(bytes);
    assert_eq!(w.len(), range.end, "a table is as long as was reserved");
}

/// Fills the file with zeros up to `offset`.
fn pad_to(w: &mut Writer<'_>, offset: usize) {
    assert!(w.len() <= offset, "tables are written in order of the file");
    w.pad_until(offset);
}
