//! Areas, the parts of a linked program that differ in permissions: their sizes, addresses and
//! bytes.
//!
//! The layout is fixed before a byte is copied. The owner of the memory or the file then decides
//! the address of each area.

use std::ops::{Index, IndexMut};

/// Programs are smaller than this, in bytes: pc-relative unwind pointers reach this far.
pub(super) const MAX_SIZE: u64 = 1 << 31;
/// The smallest alignment of a module's piece of an area, in bytes. Code of s390x needs 2; pointers
/// need 8.
pub(super) const MIN_ALIGN: u64 = 8;
/// The size of a slot, in bytes.
pub(super) const SLOT_SIZE: u64 = 8;

/// A part of a linked program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Area {
    /// Code and stubs. Executable.
    Text,
    /// Unwind rows, `.eh_frame`.
    EhFrame,
    /// Index of the unwind rows, `.eh_frame_hdr`.
    EhFrameHdr,
    /// Facts about each instruction, see [`crate::code`].
    CodeTables,
    /// Data that is never written, not even by the loader.
    Rodata,
    /// Data that is written by the loader only, `.data.rel.ro`.
    Relro,
    /// Data that the program writes.
    Data,
    /// Data that the program writes and that is zero at first.
    Bss,
    /// The slot array: external slots, then internal ones, 8 bytes each.
    Slots,
}

impl Area {
    /// All areas, in order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Text,
        Self::EhFrame,
        Self::EhFrameHdr,
        Self::CodeTables,
        Self::Rodata,
        Self::Relro,
        Self::Data,
        Self::Bss,
        Self::Slots,
    ];

    /// Returns the name of the area's section in an image.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => ".text",
            Self::EhFrame => ".eh_frame",
            Self::EhFrameHdr => ".eh_frame_hdr",
            Self::CodeTables => ".kiln.code",
            Self::Rodata => ".rodata",
            Self::Relro => ".data.rel.ro",
            Self::Data => ".data",
            Self::Bss => ".bss",
            Self::Slots => ".kiln.slots",
        }
    }
}

/// The size and alignment of an area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Size in bytes.
    pub size: u64,
    /// Alignment in bytes, a power of two.
    pub align: u64,
}

impl Default for Extent {
    fn default() -> Self {
        Self { size: 0, align: 1 }
    }
}

impl Extent {
    /// Appends a piece and returns its offset.
    pub(crate) fn push(&mut self, size: u64, align: u64) -> u64 {
        let offset = self.size.next_multiple_of(align);
        self.align = self.align.max(align);
        self.size = offset + size;
        offset
    }
}

/// Sizes and alignments of all areas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout([Extent; Area::ALL.len()]);

impl Index<Area> for Layout {
    type Output = Extent;

    fn index(&self, area: Area) -> &Extent {
        &self.0[area as usize]
    }
}

impl IndexMut<Area> for Layout {
    fn index_mut(&mut self, area: Area) -> &mut Extent {
        &mut self.0[area as usize]
    }
}

impl Layout {
    /// Returns the total size, in bytes, of all areas placed one after the other, each aligned.
    pub fn total(&self) -> u64 {
        self.0
            .iter()
            .fold(0, |sum: u64, extent| sum.next_multiple_of(extent.align).saturating_add(extent.size))
    }
}

/// The virtual address of each area when the program runs; for an image, its distance from the load
/// address. An area of size 0 may have any address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses([u64; Area::ALL.len()]);

impl Index<Area> for Addresses {
    type Output = u64;

    fn index(&self, area: Area) -> &u64 {
        &self.0[area as usize]
    }
}

impl IndexMut<Area> for Addresses {
    fn index_mut(&mut self, area: Area) -> &mut u64 {
        &mut self.0[area as usize]
    }
}

/// The memory to link into, exactly as large as the layout says.
/// [`Plan::emit`](crate::link::Plan::emit) does not write zeroed data and slots;
/// [`Fixups`](crate::link::Fixups) describe the content of slots.
#[derive(Debug)]
#[expect(missing_docs, reason = "each is the area of its name")]
pub struct Output<'o> {
    pub text: &'o mut [u8],
    pub eh_frame: &'o mut [u8],
    pub eh_frame_hdr: &'o mut [u8],
    pub code_tables: &'o mut [u8],
    pub rodata: &'o mut [u8],
    pub relro: &'o mut [u8],
    pub data: &'o mut [u8],
}
