//! Fixups: pointers in data, internal slots, and addresses in code, which must be filled once the
//! linked bytes are in place.
//!
//! The image writer turns fixups into dynamic relocations; the JIT applies them at once.

use super::direct::{PatchSource, TextPatch};
use super::layout::{Area, Layout};
use crate::patch_list::PATCH_LEN;

/// A word of data, or a slot, that must hold an address of the program itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pointer {
    /// The area it is in: relocated data, data or slots.
    pub area: Area,
    /// Offset in the area, in bytes.
    pub offset: u64,
    /// The address that it must hold, in the same address space as the
    /// [`Addresses`](super::Addresses) given to the linker.
    pub target: u64,
}

/// The source of the value of a symbolic pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PointerSource {
    /// The value of the external slot with this number.
    Slot(u32),
    /// The value of the slot at this address, which exists outside this link.
    KnownSlot(u64),
}

/// A word of data that must hold the value of a slot plus an addend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SymbolicPointer {
    /// The area it is in: relocated data or data.
    pub area: Area,
    /// Offset in the area, in bytes.
    pub offset: u64,
    /// The slot.
    pub source: PointerSource,
    /// The number that is added to the slot's value.
    pub addend: i64,
}

/// All words that remain to be filled. Pointers in data are in order of module; within a module,
/// the pointers in read-only data come first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fixups {
    /// Addresses of the program itself, in data.
    pub pointers: Vec<Pointer>,
    /// Values of slots, in data.
    pub symbolic: Vec<SymbolicPointer>,
    /// Pairs of words by which code finds thread-local data, in [`Area::Relro`]; the target is the
    /// address of its initial content.
    pub thread_locals: Vec<Pointer>,
    /// Contents of the internal slots. Each is in [`Area::Slots`].
    pub internal_slots: Vec<Pointer>,
    /// Addresses in code, in order of module and relocation. Only modules that reach globals
    /// directly have some.
    pub text: Vec<TextPatch>,
}

/// The memory that fixups are applied to, each area as large as the layout says.
#[derive(Debug)]
#[expect(missing_docs, reason = "each is the area of its name")]
pub struct FixupOutput<'o> {
    pub text: &'o mut [u8],
    pub relro: &'o mut [u8],
    pub data: &'o mut [u8],
    pub slots: &'o mut [u8],
}

impl Fixups {
    /// Writes every pointer, in the byte order of this machine. `value` returns the content of a
    /// slot, `thread_local` the words for thread-local data whose initial content is at an address.
    ///
    /// # Panics
    ///
    /// If `out` is smaller than the layout that these fixups were made for.
    pub fn apply(
        &self,
        out: FixupOutput<'_>,
        value: &mut dyn FnMut(PointerSource) -> u64,
        thread_local: &mut dyn FnMut(u64) -> [u64; 2],
    ) {
        let FixupOutput { text, relro, data, slots } = out;
        let mut write = |area: Area, offset: u64, word: u64| {
            let bytes: &mut [u8] = match area {
                Area::Relro => relro,
                Area::Data => data,
                _ => slots,
            };
            let offset = offset as usize;
            bytes[offset..offset + 8].copy_from_slice(&word.to_ne_bytes());
        };
        for pointer in self.pointers.iter().chain(&self.internal_slots) {
            write(pointer.area, pointer.offset, pointer.target);
        }
        for pointer in &self.symbolic {
            let word = value(pointer.source).wrapping_add_signed(pointer.addend);
            write(pointer.area, pointer.offset, word);
        }
        for pointer in &self.thread_locals {
            let words = thread_local(pointer.target);
            write(pointer.area, pointer.offset, words[0]);
            write(pointer.area, pointer.offset + 8, words[1]);
        }
        for &TextPatch { offset, source, addend } in &self.text {
            let word = match source {
                PatchSource::Program(address) => address,
                PatchSource::Slot(number) => value(PointerSource::Slot(number)),
                PatchSource::KnownSlot(address) => value(PointerSource::KnownSlot(address)),
            };
            let bytes = &mut text[offset as usize..][..PATCH_LEN as usize];
            bytes.copy_from_slice(&word.wrapping_add_signed(addend).to_ne_bytes());
        }
    }

    /// Whether nothing remains to be filled.
    pub fn is_empty(&self) -> bool {
        self.pointers.is_empty()
            && self.symbolic.is_empty()
            && self.internal_slots.is_empty()
            && self.thread_locals.is_empty()
            && self.text.is_empty()
    }
}

impl FixupOutput<'_> {
    /// Whether each area is as large as `layout` says.
    pub fn fits(&self, layout: &Layout) -> bool {
        let same = |bytes: &[u8], area| bytes.len() as u64 == layout[area].size;
        same(self.text, Area::Text)
            && same(self.relro, Area::Relro)
            && same(self.data, Area::Data)
            && same(self.slots, Area::Slots)
    }
}
