//! The tables of an image: dynamic symbols and their names, relocations, code tables.

use kiln_globals::{KeyRef, SlotKey};
use object::Endianness;
use object::elf;

use super::dynamic::DynamicTables;
use super::number::Numbers;
use super::relr::PackedPlaces;
use crate::arch::Arch;
#[cfg(feature = "load")]
use crate::code::CodeTables;
use crate::elf64::{SYMBOL, symbol_type};
use crate::note::{Note, SLOT_OF_GLOBAL, SLOT_OF_ROUTINE, SLOT_OF_SYMBOL, SlotRecord, Span};
use crate::patch_list::Patches;

/// An entry of the dynamic symbol table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DynamicSymbol {
    #[cfg(feature = "load")]
    pub(crate) index: u32,
    pub(crate) name: u32,
    pub(crate) info: u8,
    /// `st_other`.
    #[cfg(feature = "verify")]
    other: u8,
    pub(crate) section: u16,
    pub(crate) value: u64,
    pub(crate) size: u64,
}

impl DynamicSymbol {
    pub(crate) fn is_function(&self) -> bool {
        symbol_type(self.info) == elf::STT_FUNC
    }

    #[cfg(feature = "load")]
    pub(crate) fn is_thread_local(&self) -> bool {
        symbol_type(self.info) == elf::STT_TLS
    }
}

/// The places of the tables that are read after an image was checked, from the load address on.
/// Nobody writes to them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TablePlaces {
    pub(crate) note: Span,
    pub(crate) gnu_hash: Span,
    pub(crate) dynsym: Span,
    pub(crate) dynstr: Span,
    pub(crate) rela: Span,
    pub(crate) relr: Span,
    /// The list of patches.
    pub(crate) patches: Span,
    /// The address that the image is made for, or 0.
    pub(crate) base: u64,
}

impl TablePlaces {
    /// Combines what the dynamic section says with the lengths that are only in the note. The error
    /// says what is wrong.
    pub(super) fn new(
        note_span: Span,
        dynamic: &DynamicTables,
        note: &Note<'_>,
    ) -> Result<Self, &'static str> {
        let symbols = u64::from(note.head.first_export.get()) + note.exports().len() as u64;
        if symbols > u64::from(u32::MAX) {
            return Err("wrong number of dynamic symbols");
        }
        // What other loaders relocate, this one patches.
        if dynamic.relocates_code && note.head.patches.len.get() == 0 {
            return Err("relocations of code without patches");
        }
        Ok(Self {
            note: note_span,
            gnu_hash: Span::new(dynamic.gnu_hash, note.head.gnu_hash_len.get()),
            dynsym: Span::new(dynamic.dynsym, symbols * SYMBOL as u64),
            dynstr: dynamic.dynstr,
            rela: dynamic.rela,
            relr: dynamic.relr,
            patches: note.head.patches,
            base: dynamic.base,
        })
    }

    /// All places.
    pub(super) fn all(self) -> impl Iterator<Item = Span> {
        let Self { note, gnu_hash, dynsym, dynstr, rela, relr, patches, base: _ } = self;
        [note, gnu_hash, dynsym, dynstr, rela, relr, patches].into_iter()
    }

    /// Returns the tables, of which `bytes` returns the bytes.
    pub(crate) fn tables<'a>(
        &self,
        arch: Arch,
        note: Note<'a>,
        bytes: impl Fn(&Span) -> &'a [u8],
    ) -> Tables<'a> {
        let dynamic = DynamicContents {
            endian: arch.endian(),
            base: self.base,
            gnu_hash: bytes(&self.gnu_hash),
            dynsym: bytes(&self.dynsym),
            dynstr: bytes(&self.dynstr),
            rela: bytes(&self.rela),
            relr: bytes(&self.relr),
        };
        Tables { dynamic, note, code: bytes(&note.head.code_tables), patches: bytes(&self.patches) }
    }
}

/// The dynamic tables that an image was linked with.
#[derive(Clone, Copy)]
#[cfg_attr(
    not(any(feature = "load", feature = "verify")),
    expect(dead_code, reason = "only symbols are shown")
)]
pub(crate) struct DynamicContents<'a> {
    pub(crate) endian: Endianness,
    /// The address that the image is made for, or 0.
    pub(crate) base: u64,
    pub(crate) gnu_hash: &'a [u8],
    pub(crate) dynsym: &'a [u8],
    /// The names of dynamic symbols, each ended by a zero.
    pub(crate) dynstr: &'a [u8],
    #[cfg_attr(not(feature = "verify"), expect(dead_code, reason = "the loader has its place"))]
    pub(crate) rela: &'a [u8],
    pub(crate) relr: &'a [u8],
}

impl<'a> DynamicContents<'a> {
    /// The symbol with this index of the dynamic symbol table.
    pub(crate) fn symbol(&self, index: u32) -> Option<DynamicSymbol> {
        let start = (index as usize).checked_mul(SYMBOL)?;
        let bytes = self.dynsym.get(start..)?.get(..SYMBOL)?;
        let entry = Numbers { bytes, endian: self.endian };
        Some(DynamicSymbol {
            #[cfg(feature = "load")]
            index,
            name: entry.u32(0)?,
            info: bytes[4],
            #[cfg(feature = "verify")]
            other: bytes[5],
            section: entry.u16(6)?,
            value: self.distance(entry.u64(8)?, bytes[4]),
            size: entry.u64(16)?,
        })
    }

    /// Returns the distance of a symbol of this type from the load address. What is thread-local
    /// has a distance from something else.
    fn distance(&self, value: u64, info: u8) -> u64 {
        if symbol_type(info) == elf::STT_TLS { value } else { value.wrapping_sub(self.base) }
    }

    /// Number of dynamic symbols, the null symbol included.
    pub(crate) fn symbol_count(&self) -> u32 {
        // `TablePlaces` has refused tables with more symbols than fit.
        u32::try_from(self.dynsym.len() / SYMBOL).unwrap_or(u32::MAX)
    }
}

/// All tables that are read after an image was checked.
#[derive(Clone, Copy)]
pub(crate) struct Tables<'a> {
    pub(crate) dynamic: DynamicContents<'a>,
    pub(crate) note: Note<'a>,
    /// The code tables, if there are some. They may be malformed.
    pub(crate) code: &'a [u8],
    /// The list of patches. It may be malformed.
    patches: &'a [u8],
}

impl<'a> Tables<'a> {
    fn numbers(&self, bytes: &'a [u8]) -> Numbers<'a> {
        Numbers { bytes, endian: self.dynamic.endian }
    }

    #[cfg(feature = "load")]
    pub(super) fn gnu_hash(&self) -> Numbers<'a> {
        self.numbers(self.dynamic.gnu_hash)
    }

    /// The distances of pointers whose relocations are packed. They may be anywhere.
    pub(super) fn packed(&self) -> impl Iterator<Item = u64> {
        let (mut places, table) = (PackedPlaces::new(self.dynamic.base), self.numbers(self.dynamic.relr));
        std::iter::from_fn(move || places.next(table))
    }

    /// The patches, in order. The error says what is wrong with the list; it is the last item.
    pub(crate) fn patches(&self) -> Patches<'a> {
        Patches::new(self.patches, self.note.head.text.len.get())
    }

    /// The code tables, if there are some. They may be malformed.
    #[cfg(feature = "load")]
    pub(crate) fn code_tables(&self) -> Option<CodeTables<'a>> {
        CodeTables::read(self.code)
    }

    /// Returns the exports in order of their indices, with their names. The item of a malformed
    /// export is `None`.
    ///
    /// Symbols must not share bytes of their names, so the names together are not longer than their
    /// table. The iterator ends at the first fault.
    pub(crate) fn exports(self) -> impl Iterator<Item = Option<(u32, DynamicSymbol, &'a [u8])>> {
        let names = self.dynamic.dynstr;
        let mut room = names.len();
        let mut ended = false;
        (1..self.dynamic.symbol_count())
            .map_while(move |index| {
                if ended {
                    return None;
                }
                let export = (|| {
                    let symbol = self.dynamic.symbol(index)?;
                    if symbol.section == elf::SHN_UNDEF {
                        return Some((index, symbol, &[][..]));
                    }
                    let name = name_at(names, &symbol, room)?;
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
        let key = |slot: &SlotRecord| slot_key(slot, self.note.text(slot.key)?).map(KeyRef::to_key);
        self.note.slots().iter().map(|slot| key(slot).ok_or(BAD_SLOT)).collect()
    }

    /// Returns the keys of the external slots, as they are in the note; `None` for a slot whose
    /// record is invalid. The error says what is wrong with all of them.
    #[cfg(feature = "load")]
    pub(crate) fn slot_key_refs(
        &self,
    ) -> Result<impl ExactSizeIterator<Item = Option<KeyRef<'a>>>, &'static str> {
        self.note.check_keys()?;
        // Looking at all texts at once takes less time than at each.
        let strings = self.note.strings().ok_or(BAD_SLOT)?;
        Ok(self.note.slots().iter().map(|slot| slot_key(slot, strings.get(slot.key.range())?)))
    }
}

/// The reason to refuse an image with a slot whose record is invalid.
pub(crate) const BAD_SLOT: &str = "bad slot in the note";

/// Returns the key of an external slot with this text, or `None` if its record is invalid.
fn slot_key<'a>(slot: &SlotRecord, text: &'a str) -> Option<KeyRef<'a>> {
    Some(match slot.kind.get() {
        SLOT_OF_GLOBAL => KeyRef::Global(text),
        SLOT_OF_SYMBOL => KeyRef::Symbol(text),
        SLOT_OF_ROUTINE => KeyRef::Routine(text),
        _ => return None,
    })
}

/// Returns the name of a symbol, if it ends within `room` bytes. The search is bounded, too.
fn name_at<'a>(names: &'a [u8], symbol: &DynamicSymbol, room: usize) -> Option<&'a [u8]> {
    let rest = names.get(symbol.name as usize..)?;
    let rest = &rest[..rest.len().min(room)];
    Some(&rest[..rest.iter().position(|&byte| byte == 0)?])
}

#[cfg(feature = "verify")]
impl DynamicContents<'_> {
    /// Returns the checksums of the dynamic symbols, of the hash table and of the relocations. Each
    /// symbol counts with its name, and without the index of its section and the place of its name,
    /// which tools change.
    pub(crate) fn sums(&self) -> [crate::note::Sum; 3] {
        let mut hasher = blake3::Hasher::new();
        // Symbols may share names, but not so that hashing them takes longer than reading them.
        let mut room = self.dynstr.len();
        let symbols = (0..self.symbol_count()).filter_map(|index| self.symbol(index));
        // Numbers are collected, because each call of the hasher has a cost.
        let mut text = Vec::with_capacity(40 * self.symbol_count().min(1 << 12) as usize);
        for symbol in symbols {
            let Some(name) = name_at(self.dynstr, &symbol, room) else { break };
            room -= name.len();
            text.extend_from_slice(name);
            text.extend([0, symbol.info, symbol.other, u8::from(symbol.section != elf::SHN_UNDEF)]);
            text.extend([symbol.value, symbol.size].map(u64::to_le_bytes).as_flattened());
            if text.len() > 1 << 16 {
                hasher.update(&text);
                text.clear();
            }
        }
        hasher.update(&text);
        let symbols = crate::note::truncate(hasher.finalize());
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(self.rela.len() as u64).to_le_bytes());
        hasher.update(self.rela);
        hasher.update(self.relr);
        let relocations = crate::note::truncate(hasher.finalize());
        [symbols, crate::note::checksum(self.gnu_hash), relocations]
    }
}
