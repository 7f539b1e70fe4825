//! The dynamic tables of an image: symbols, their names, and the hash table that finds them.

use std::ops::Range;

use kiln_globals::SlotKey;
use object::Endianness;
use object::elf;

#[cfg(feature = "load")]
use crate::elf64::GNU_HASH_HEADER;
use crate::elf64::{SYMBOL, symbol_type};
use crate::note::{Note, SLOT_OF_GLOBAL, SLOT_OF_SYMBOL, SlotRecord, Span};

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

    fn u32(&self, offset: usize) -> Option<u32> {
        let bytes = *self.bytes.get(offset..)?.first_chunk()?;
        Some(if self.big() { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// The 8-byte number at `offset`, in the byte order of the machine.
    pub(crate) fn u64(&self, offset: usize) -> Option<u64> {
        let bytes = *self.bytes.get(offset..)?.first_chunk()?;
        Some(if self.big() { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) })
    }

    fn span(&self, span: Span) -> Option<Range<usize>> {
        span.within(self.bytes.len())
    }

    /// The symbol with this index of the dynamic symbol table.
    pub(crate) fn symbol(&self, index: u32) -> Option<DynamicSymbol> {
        let table = self.span(self.note.head.dynsym)?;
        let start = table.start.checked_add(index as usize * SYMBOL)?;
        if start + SYMBOL > table.end {
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
        u32::try_from(self.note.head.dynsym.len.get() / SYMBOL as u64).unwrap_or(0)
    }

    /// The name that starts at `offset` of the string table, without the zero that ends it.
    pub(crate) fn name(&self, offset: u32) -> Option<&'a [u8]> {
        let table = self.bytes.get(self.span(self.note.head.dynstr)?)?;
        let rest = table.get(offset as usize..)?;
        Some(&rest[..rest.iter().position(|&byte| byte == 0)?])
    }

    /// Finds an export through the GNU hash table. The search ends on any bytes, since each step
    /// moves forward in the table.
    #[cfg(feature = "load")]
    pub(crate) fn lookup(&self, name: &str) -> Option<DynamicSymbol> {
        let range = self.span(self.note.head.gnu_hash)?;
        let table = Tables { bytes: self.bytes.get(range)?, ..*self };
        let (buckets, base) = (table.u32(0)?, table.u32(4)?);
        let (bloom_len, shift) = (table.u32(8)?, table.u32(12)?);
        let hash = elf::gnu_hash(name.as_bytes());
        let bloom = (hash / 64).checked_rem(bloom_len)? as usize;
        let word = table.u64(GNU_HASH_HEADER + 8 * bloom)?;
        if word >> (hash % 64) & word >> (hash.checked_shr(shift).unwrap_or(0) % 64) & 1 == 0 {
            return None;
        }
        let buckets_start = GNU_HASH_HEADER + 8 * bloom_len as usize;
        let chains_start = buckets_start + 4 * buckets as usize;
        let mut index = table.u32(buckets_start + 4 * hash.checked_rem(buckets)? as usize)?;
        loop {
            let chain = table.u32(chains_start.checked_add(4 * index.checked_sub(base)? as usize)?)?;
            if chain | 1 == hash | 1 {
                let symbol = self.symbol(index)?;
                if symbol.section != elf::SHN_UNDEF && self.name(symbol.name)? == name.as_bytes() {
                    return Some(symbol);
                }
            }
            if chain & 1 != 0 {
                return None;
            }
            index = index.checked_add(1)?;
        }
    }

    /// The key of an external slot; `None` if its record is bad.
    pub(crate) fn slot_key(&self, slot: &SlotRecord) -> Option<SlotKey> {
        let text = self.note.text(slot.key)?;
        Some(match slot.kind.get() {
            SLOT_OF_GLOBAL => SlotKey::Global(text.into()),
            SLOT_OF_SYMBOL => SlotKey::Symbol(text.into()),
            _ => return None,
        })
    }
}
