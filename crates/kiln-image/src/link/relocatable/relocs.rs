//! Relocations as the plan of an object tells them: of no file format.

use kiln_artifact::RelocKind;

use super::super::layout::Area;
use super::super::resolve::ResolvedId;

/// The address that a relocation means.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RelocTarget {
    /// An offset in an area of the object.
    Area(Area, u64),
    /// A resolved symbol, which the other linker finds by name.
    Symbol(ResolvedId),
    /// The label with this number among those of the module.
    Label(u32),
}

/// The use that code makes of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// The code needs the address itself.
    Address,
    /// The code calls the address, and may do so through a stub.
    Call,
    /// The code needs a slot of the other linker's that holds the address.
    Got,
}

/// A relocation of code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TextReloc {
    /// The patch site, in bytes from the start of the area.
    pub(crate) offset: u64,
    pub(crate) kind: RelocKind,
    pub(crate) via: Via,
    pub(crate) target: RelocTarget,
    pub(crate) addend: i64,
}

/// A pointer in data or in a slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DataReloc {
    pub(crate) area: Area,
    /// Offset in the area, in bytes.
    pub(crate) offset: u64,
    pub(crate) target: RelocTarget,
    pub(crate) addend: i64,
}

/// Takes the relocations of one module's code, in order of offset.
pub(crate) trait RelocSink {
    /// Takes a relocation of code. The patch site is at `at` in `text`, which has the instruction.
    fn text(&mut self, reloc: TextReloc, text: &[u8], at: usize);
    /// Takes the pointer to code, at an offset in the area of code, of an unwind row. The first
    /// offset is that of the pointer in the area of unwind rows.
    fn unwind(&mut self, offset: u64, code: u64);
}
