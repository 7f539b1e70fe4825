//! What is left to do once the bytes are where they will stay: pointers in data, and internal slots.
//!
//! An image writes these down as dynamic relocations; a JIT applies them at once.

use super::{Area, Layout};

/// A place that must hold an address of the program itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pointer {
    /// The area of the place: relocated data, data or slots.
    pub area: Area,
    /// The place, in bytes from the start of the area.
    pub offset: u64,
    /// The address, as virtual as the [`Addresses`](super::Addresses) given to the linker.
    pub target: u64,
}

/// Where the value of a symbolic pointer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PointerSource {
    /// The value of the external slot with this number.
    Slot(u32),
    /// The value of the slot at this address, which exists outside this link.
    KnownSlot(u64),
}

/// A place that must hold the value of a slot plus an addend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SymbolicPointer {
    /// The area of the place: relocated data or data.
    pub area: Area,
    /// The place, in bytes from the start of the area.
    pub offset: u64,
    /// Whose value.
    pub source: PointerSource,
    /// What is added to it.
    pub addend: i64,
}

/// Everything that remains to be filled, in order of module and place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fixups {
    /// Addresses of the program itself, in data.
    pub pointers: Vec<Pointer>,
    /// Values of slots, in data.
    pub symbolic: Vec<SymbolicPointer>,
    /// Contents of the internal slots; the area of all is [`Area::Slots`].
    pub internal_slots: Vec<Pointer>,
}

/// The memory that fixups are applied to, each as large as the layout says.
#[derive(Debug)]
#[expect(missing_docs, reason = "each is the area of its name")]
pub struct FixupOutput<'o> {
    pub relro: &'o mut [u8],
    pub data: &'o mut [u8],
    pub slots: &'o mut [u8],
}

impl Fixups {
    /// Writes every pointer, in the byte order of this machine. `value` tells what a slot holds.
    ///
    /// # Panics
    ///
    /// When `out` is smaller than the layout that these fixups were made for.
    pub fn apply(&self, out: FixupOutput<'_>, value: &mut dyn FnMut(PointerSource) -> u64) {
        let FixupOutput { relro, data, slots } = out;
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
    }

    /// Whether nothing remains to be filled.
    pub fn is_empty(&self) -> bool {
        self.pointers.is_empty() && self.symbolic.is_empty() && self.internal_slots.is_empty()
    }
}

impl FixupOutput<'_> {
    /// Whether each part is as large as `layout` says.
    pub fn fits(&self, layout: &Layout) -> bool {
        let same = |bytes: &[u8], area| bytes.len() as u64 == layout[area].size;
        same(self.relro, Area::Relro) && same(self.data, Area::Data) && same(self.slots, Area::Slots)
    }
}
