//! The dynamic section: where the tables are that dynamic linkers read.
//!
//! Tools move these tables, and the dynamic section is what they keep right. Only addresses are
//! taken from it; View checks where they lead.

use object::Endianness;
use object::elf;

#[cfg(feature = "load")]
use super::headers::{Headers, ProgramHeader};
use super::number::Numbers;
#[cfg(feature = "load")]
use super::segments::Segment;
use crate::elf64::{DYNAMIC, RELA, RELR, SYMBOL};
use crate::note::Span;

/// The places of the dynamic tables: distances from the load address, that is, without the address
/// that the image is made for. The lengths of tables of
/// which an image has none are 0.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DynamicTables {
    pub(crate) gnu_hash: u64,
    pub(crate) dynsym: u64,
    pub(crate) dynstr: Span,
    pub(crate) rela: Span,
    pub(crate) relr: Span,
    /// Whether there are relocations of code, for other loaders.
    pub(crate) relocates_code: bool,
    /// The address that the image is made for, or 0.
    pub(crate) base: u64,
}

impl DynamicTables {
    /// Reads the entries of a dynamic section of an image that is made for the address `base`. The
    /// error says what is wrong.
    pub(super) fn read(section: &[u8], endian: Endianness, base: u64) -> Result<Self, &'static str> {
        let numbers = Numbers { bytes: section, endian };
        let mut tables = Self { base, ..Self::default() };
        for at in (0..section.len()).step_by(DYNAMIC) {
            let (Some(tag), Some(value)) = (numbers.u64(at), numbers.u64(at + 8)) else {
                return Err("a dynamic section without an end");
            };
            let place = value.wrapping_sub(base);
            let right = match tag.cast_signed() {
                elf::DT_NULL => return Ok(tables),
                elf::DT_GNU_HASH => set(&mut tables.gnu_hash, place),
                elf::DT_SYMTAB => set(&mut tables.dynsym, place),
                elf::DT_STRTAB => set_number(&mut tables.dynstr.start, place),
                elf::DT_STRSZ => set_number(&mut tables.dynstr.len, value),
                elf::DT_RELA => set_number(&mut tables.rela.start, place),
                elf::DT_RELASZ => set_number(&mut tables.rela.len, value),
                elf::DT_RELR => set_number(&mut tables.relr.start, place),
                elf::DT_RELRSZ => set_number(&mut tables.relr.len, value),
                elf::DT_TEXTREL => {
                    tables.relocates_code = true;
                    true
                }
                elf::DT_SYMENT => value == SYMBOL as u64,
                elf::DT_RELAENT => value == RELA as u64,
                elf::DT_RELRENT => value == RELR as u64,
                // The linker makes no such relocations, and this loader would not apply them.
                elf::DT_REL | elf::DT_JMPREL | elf::DT_INIT | elf::DT_INIT_ARRAY => false,
                _ => true,
            };
            if !right {
                return Err("an entry of the dynamic section that images do not have");
            }
        }
        Err("a dynamic section without an end")
    }
}

/// Returns the number of the segment that has the dynamic section and nothing else that a loader
/// reads or writes, if there is one. Its pages need not be mapped when the section was read from
/// the file already.
#[cfg(feature = "load")]
pub(crate) fn segment_of_dynamic(headers: &Headers, segments: &[Segment]) -> Option<usize> {
    let header = headers.of_kind(elf::PT_DYNAMIC).next()?;
    let part = headers.parts.iter().find(|part| part.offset == header.offset)?;
    let number = segments.iter().position(|segment| segment.start == header.address)?;
    let segment = segments.get(number).filter(|segment| segment.relro)?;
    let tables = DynamicTables::read(&part.bytes, headers.arch.endian(), headers.base).ok()?;
    // Without a relocation, nothing else is sealed after it was written. No page has something
    // besides: tables are elsewhere, and so is all that another program header leads to.
    let is_inside = |address: u64| (segment.start..segment.end()).contains(&address);
    let starts = [tables.gnu_hash, tables.dynsym, tables.dynstr.start.get()];
    let is_other = |header: &ProgramHeader| {
        !matches!(header.kind, elf::PT_LOAD | elf::PT_DYNAMIC | elf::PT_GNU_RELRO | elf::PT_GNU_STACK)
            && is_inside(header.address)
    };
    let alone = tables.rela.len.get() == 0
        && tables.relr.len.get() == 0
        && segment.mem_len <= headers.arch.page_size()
        && !starts.into_iter().any(is_inside)
        && !headers.list.iter().any(is_other);
    alone.then_some(number)
}

fn set(field: &mut u64, value: u64) -> bool {
    *field = value;
    true
}

fn set_number(field: &mut zerocopy::little_endian::U64, value: u64) -> bool {
    field.set(value);
    true
}
