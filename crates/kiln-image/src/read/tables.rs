//! The dynamic tables of an image: symbols and their names.

use std::ops::Range;

use kiln_globals::SlotKey;
use object::Endianness;
use object::elf;

#[cfg(feature = "load")]
use crate::code::CodeTables;
use crate::elf64::{SYMBOL, symbol_type};
use crate::note::{Note, SLOT_OF_GLOBAL, SLOT_OF_ROUTINE, SLOT_OF_SYMBOL, SlotRecord, Span};

/// An entry of the dynamic symbol table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DynamicSymbol {
    #[cfg(feature = "load")]
    pub(crate) index: u32,
    pub(crate) name: u32,
    pub(crate) info: u8,
    pub(crate) section: u16,
    pub(crate) value: u64,
    pub(crate) size: u64,
}

impl DynamicSymbol {
    pub(crate) fn is_function(&self) -> bool {
        symbol_type(self.info) == elf::STT_FUNC
    }
}

/// The dynamic tables, as views of the image's bytes.
#[derive(Clone, Copy)]
pub(crate) struct Tables<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) endian: Endianness,
    pub(crate) note: Note<'a>,
}

impl<'a> Tables<'a> {
    fn big(&self) -> bool {
        self.endian == Endianness::Big
    }

    pub(super) fn u32(&self, offset: usize) -> Option<u32> {
        let bytes = *self.bytes.get(offset..)?.first_chunk()?;
        Some(if self.big() { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// The 8-byte number at `offset`, in the byte order of the machine.
    pub(crate) fn u64(&self, offset: usize) -> Option<u64> {
        let bytes = *self.bytes.get(offset..)?.first_chunk()?;
        Some(if self.big() { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) })
    }

    pub(super) fn span(&self, span: Span) -> Option<Range<usize>> {
        span.within(self.bytes.len())
    }

    /// The symbol with this index of the dynamic symbol table.
    pub(crate) fn symbol(&self, index: u32) -> Option<DynamicSymbol> {
        let table = self.span(self.note.head.dynsym)?;
        let start = (index as usize).checked_mul(SYMBOL)?.checked_add(table.start)?;
        if start.checked_add(SYMBOL)? > table.end {
            return None;
        }
        Some(DynamicSymbol {
            #[cfg(feature = "load")]
            index,
            name: self.u32(start)?,
            info: *self.bytes.get(start + 4)?,
            section: {
                let bytes = *self.bytes.get(start + 6..)?.first_chunk()?;
                if self.big() { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
            },
            value: self.u64(start + 8)?,
            size: self.u64(start + 16)?,
        })
    }

    /// Number of dynamic symbols, the null symbol included.
    pub(crate) fn symbol_count(&self) -> u32 {
        // `View` has refused tables with more symbols than fit.
        u32::try_from(self.note.head.dynsym.len.get() / SYMBOL as u64).unwrap_or(u32::MAX)
    }

    /// The code tables, if there are some. They may be malformed.
    #[cfg(feature = "load")]
    pub(crate) fn code_tables(&self) -> Option<CodeTables<'a>> {
        CodeTables::read(self.code_table_bytes()?)
    }

    /// The bytes of the code tables.
    pub(crate) fn code_table_bytes(&self) -> Option<&'a [u8]> {
        self.bytes.get(self.span(self.note.head.code_tables)?)
    }

    /// The names of dynamic symbols, each ended by a zero.
    pub(super) fn names(&self) -> Option<&'a [u8]> {
        self.bytes.get(self.span(self.note.head.dynstr)?)
    }

    /// Returns the exports in order of their indices, with their names. The item of a malformed
    /// export is `None`.
    ///
    /// Symbols must not share bytes of their names, so the names together are not longer than their
    /// table. The iterator ends at the first fault.
    pub(crate) fn exports(self) -> impl Iterator<Item = Option<(u32, DynamicSymbol, &'a [u8])>> {
        let names = self.names().unwrap_or_default();
        let mut room = names.len();
        let mut ended = false;
        (1..self.symbol_count())
            .map_while(move |index| {
                if ended {
                    return None;
                }
                let export = (|| {
                    let symbol = self.symbol(index)?;
                    if symbol.section == elf::SHN_UNDEF {
                        return Some((index, symbol, &[][..]));
                    }
                    let rest = names.get(symbol.name as usize..)?;
                    // The search for the end of the name is bounded, too.
                    let name = &rest[..rest[..rest.len().min(room)].iter().position(|&byte| byte == 0)?];
                    room -= name.len() + 1;
                    Some((index, symbol, name))
                })();
                ended = export.is_none();
                Some(export)
            })
            .filter(|export| !matches!(export, Some((_, symbol, _)) if symbol.section == elf::SHN_UNDEF))
    }

    /// Returns the keys of the external slots, in order. The error says what is wrong.
    pub(crate) fn slot_keys(&self) -> Result<Vec<SlotKey>, &'static str> {
        self.note.check_keys()?;
        self.note.slots().iter().map(|slot| self.slot_key(slot).ok_or("bad slot in the note")).collect()
    }

    /// Returns the key of an external slot, or `None` if its record is invalid.
    fn slot_key(&self, slot: &SlotRecord) -> Option<SlotKey> {
        let text = self.note.text(slot.key)?;
        Some(match slot.kind.get() {
            SLOT_OF_GLOBAL => SlotKey::Global(text.into()),
            SLOT_OF_SYMBOL => SlotKey::Symbol(text.into()),
            SLOT_OF_ROUTINE => SlotKey::Routine(text.into()),
            _ => return None,
        })
    }
}
