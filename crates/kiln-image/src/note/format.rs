//! The bytes of the note: its constants and its records, which are little-endian, unaligned, and
//! the same on every architecture.

use std::ops::Range;

use object::elf;
use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::Sum;
use crate::arch::Arch;
use crate::elf64::NOTE_HEADER;

/// The version of the note, and so of the image format. Images of another version are refused.
pub const FORMAT_VERSION: u32 = 7;

pub(super) const MAGIC: [u8; 8] = *b"KilnImg\0";
/// The ELF note's owner, padded to a multiple of 4 bytes.
const OWNER: [u8; 8] = *b"Kiln\0\0\0\0";
/// Length of the header and the owner, which precede the body of an ELF note, in bytes.
pub(crate) const PREFIX_LEN: usize = NOTE_HEADER + OWNER.len();
/// The value of an index field that refers to nothing.
#[cfg(feature = "write")]
pub(crate) const NONE: u32 = u32::MAX;
/// Instead of a signature: the export is the object of a global, in a saved heap.
#[cfg(any(feature = "load", feature = "write"))]
pub(crate) const OBJECT_OF_GLOBAL: u32 = u32::MAX - 1;
/// Kind of a slot that holds the address of a global.
pub(crate) const SLOT_OF_GLOBAL: u32 = 0;
/// Kind of a slot that holds the address of a symbol.
pub(crate) const SLOT_OF_SYMBOL: u32 = 1;
/// Kind of a slot that holds the address of a routine of the C library.
pub(crate) const SLOT_OF_ROUTINE: u32 = 2;
/// Kind of an import of a function of a base.
#[cfg(any(feature = "load", feature = "write"))]
pub(crate) const IMPORT_OF_FUNCTION: u32 = 0;
/// Kind of an import of data of a base.
#[cfg(any(feature = "load", feature = "write"))]
pub(crate) const IMPORT_OF_DATA: u32 = 1;
/// Kind of an import of what a slot of a base holds, for a global.
#[cfg(any(feature = "load", feature = "write"))]
pub(crate) const IMPORT_OF_GLOBAL: u32 = 2;
/// Length of an id in bytes.
pub(crate) const ID_LEN: usize = 32;
/// The most levels of a processor that an image may have code for.
pub(crate) const MAX_LEVELS: usize = 64;
/// The most bases of an image. Each is a file, and all are searched for every name.
pub const MAX_BASES: usize = 64;

macro_rules! record {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $ty:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
        #[repr(C)]
        pub(crate) struct $name { $(pub(crate) $field: $ty,)* }
    };
}

record! {
    /// A range of the note's body, or of addresses, in bytes.
    Span { start: U64, len: U64, }
}

record! {
    /// A text in the note's strings.
    Text { start: U32, len: U32, }
}

record! {
    /// An external slot. `kind` is [`SLOT_OF_GLOBAL`], [`SLOT_OF_SYMBOL`] or [`SLOT_OF_ROUTINE`];
    /// `signature` is an index into the signatures, or `u32::MAX`. `user` is the offset in the code
    /// of an instruction that uses it, or `u32::MAX` if only data does.
    SlotRecord { key: Text, kind: U32, signature: U32, user: U32, }
}

record! {
    /// A pointer in data, at `address`, that is the value of external slot `slot` plus `addend`.
    SymbolicRecord { address: U64, addend: I64, slot: U32, reserved: U32, }
}

record! {
    /// A replaceable function: the index of its dynamic symbol, and the address of its slot, one of
    /// the internal slots. The records are in order of symbols.
    ReplaceableRecord { symbol: U32, reserved: U32, slot: U64, }
}

record! {
    /// An export, in order of the dynamic symbols: its signature, an index into the signatures or
    /// `u32::MAX`, or [`OBJECT_OF_GLOBAL`]; and the GNU hash of its name, so that an export that a
    /// tool renamed or moved is not taken for another.
    ExportRecord { signature: U32, hash: U32, }
}

record! {
    /// The checksum of a range of addresses. The ranges do not overlap and are in order.
    SumRecord { name: Text, range: Span, sum: Sum, }
}

record! {
    /// A base: an image that this one is a layer on. Its name is that of its file, and `id` its
    /// id. The records are in the order in which bases are loaded.
    BaseRecord { name: Text, id: [u8; ID_LEN], }
}

record! {
    /// An external slot that is filled from base number `base`. `kind` is [`IMPORT_OF_FUNCTION`],
    /// [`IMPORT_OF_DATA`] or [`IMPORT_OF_GLOBAL`]. `signature` is the type that a function has
    /// there, an index into the signatures or `u32::MAX`. `size` is the size of data in bytes; of a
    /// global, it is the number of the base's slot. The records are in order of slots.
    ImportRecord { slot: U32, base: U32, kind: U32, signature: U32, size: U64, }
}

record! {
    /// A replaceable function of base number `base` that has new code, at the address `code`.
    /// `signature` is an index into the signatures.
    ReplacementRecord { name: Text, base: U32, signature: U32, code: U64, }
}

record! {
    /// A digital signature of the image, or room for one if all is zero. `algorithm` is
    /// `ImageSignature::ED25519`, or something that this version does not know.
    SignerRecord { algorithm: U32, reserved: U32, key: [u8; 32], signature: [Word; 8], }
}

/// Eight bytes of a signature: arrays of up to 32 elements have a default.
pub(crate) type Word = [u8; 8];

record! {
    /// A level of the processor, the lowest first: its name, and the features that its code may
    /// use, `features` of them from `first_feature` on in their table.
    LevelRecord { name: Text, first_feature: U32, features: U32, }
}

record! {
    /// The body of a function for a level: the address of the function's slot, an internal one, and
    /// that of the code. The records are in order of levels and slots; there are none for bodies of
    /// the lowest level, which are in the slots already.
    VersionRecord { slot: U64, code: U64, level: U32, reserved: U32, }
}

record! {
    /// The fixed part of the note's body. `sum` is the checksum of everything after it up to the
    /// exports, which follow all other tables: their number grows with the code, and an image must
    /// be opened in the same time. After them is the room for signatures, which are made when all
    /// else is there. Spans up to `exports`, and those from `signers` on, are ranges of the body;
    /// the others are ranges of addresses, from the load address on. `exports_sum` is the checksum
    /// of the exports. `globals` says how code reaches globals. `table_sums` are those of the
    /// dynamic symbols, of `.gnu.hash` and of the relocations, by what they say: tools move them.
    /// `bases`, `imports` and `replacements` are ranges of the body, too, in front of the strings.
    /// `id` is the image's: BLAKE3 of all that `sum` covers, but for itself, and so of the
    /// checksums of all that is loaded.
    Head {
        sum: U64,
        magic: [u8; 8],
        version: U32,
        head_len: U32,
        table_sums: [Sum; 3],
        exports_sum: Sum,
        kiln_version: Text,
        triple: Text,
        internal_slots: U64,
        relative_count: U64,
        gnu_hash_len: U64,
        first_export: U32,
        globals: U32,
        producers: Span,
        features: Span,
        signatures: Span,
        slots: Span,
        symbolic: Span,
        replaceable: Span,
        sums: Span,
        strings: Span,
        exports: Span,
        slot_array: Span,
        eh_frame: Span,
        code_tables: Span,
        text: Span,
        patches: Span,
        signers: Span,
        levels: Span,
        level_features: Span,
        versions: Span,
        bases: Span,
        imports: Span,
        replacements: Span,
        id: [u8; ID_LEN],
    }
}

/// The range of the id in the body.
#[cfg(feature = "verify")]
pub(super) const IMAGE_ID: Range<usize> = {
    let start = std::mem::offset_of!(Head, id);
    start..start + ID_LEN
};

/// Length of the fixed part in bytes.
pub(crate) const HEAD_LEN: usize = size_of::<Head>();

impl Text {
    /// Returns the range of the text in the strings.
    pub(crate) fn range(&self) -> Range<usize> {
        let start = self.start.get() as usize;
        start..start.saturating_add(self.len.get() as usize)
    }
}

impl Span {
    /// Returns the span of `len` bytes from `start`.
    pub(crate) fn new(start: u64, len: u64) -> Self {
        Self { start: U64::new(start), len: U64::new(len) }
    }

    /// Returns the span that covers `range`.
    #[cfg(feature = "write")]
    pub(crate) fn of(range: &Range<usize>) -> Self {
        Self::new(range.start as u64, range.len() as u64)
    }

    /// Returns the span as a range of indices, if it ends at `limit` or before.
    pub(crate) fn within(&self, limit: usize) -> Option<Range<usize>> {
        let start = usize::try_from(self.start.get()).ok()?;
        let end = start.checked_add(usize::try_from(self.len.get()).ok()?)?;
        (end <= limit).then_some(start..end)
    }
}

/// Returns whether an ELF note that begins so is Kiln's.
pub(crate) fn is_prefix(found: &[u8; PREFIX_LEN], arch: Arch) -> bool {
    found[4..] == prefix(arch, 0)[4..]
}

/// Returns the header and the owner of an ELF note with a body of `body_len` bytes. The numbers of
/// the header are in the byte order of the machine.
///
/// The note is of the type that any owner may use, `NT_VERSION`, whose information is in the name,
/// after the owner's: a checker of ELF files takes a note of an unknown owner with a descriptor for
/// a mistake.
pub(super) fn prefix(arch: Arch, body_len: u32) -> [u8; PREFIX_LEN] {
    let mut prefix = [0; PREFIX_LEN];
    prefix[..4].copy_from_slice(&arch.u32_bytes(body_len.saturating_add(OWNER.len() as u32)));
    prefix[8..12].copy_from_slice(&arch.u32_bytes(elf::NT_VERSION));
    prefix[12..].copy_from_slice(&OWNER);
    prefix
}
