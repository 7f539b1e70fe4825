//! The records of an artifact's tables: fixed-width, little-endian, unaligned.
//!
//! The same types are used in memory and on disk, so reading an artifact decodes nothing. Fields
//! are raw numbers. The records of an [`Artifact`](crate::Artifact) have been checked, so their
//! typed accessors return exactly what the bytes say.

use kiln_globals::GlobalAccess;
use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::RelocKind;

/// The value for "none" in a `U32` field that holds an index.
pub const NONE: u32 = u32::MAX;

/// A range of the string table, always valid UTF-8.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Str {
    /// First byte.
    pub start: U32,
    /// Number of bytes.
    pub len: U32,
}

mod code;
mod code_enum;

pub use code::{
    FunctionRecord, Handler, HandlerKind, LabelledFunction, PatchableCall, ResolvedCall, StackMap,
    StackMapEntry,
};
use code_enum::code_enum;

code_enum! {
    /// The kind of thing that a symbol names.
    SymbolKind {
        /// Code.
        Function = 0,
        /// Data.
        Data = 1,
        /// A run-time object; the symbol's name is its stable key. Usually the host has it; a
        /// module of a saved heap defines it, as exported data.
        Global = 2,
    }
}

code_enum! {
    /// The visibility of a symbol.
    Linkage {
        /// Defined elsewhere: in another module, or by the host through a slot.
        Import = 0,
        /// Visible inside its module only; may be anonymous.
        Local = 1,
        /// Visible to the modules that it is linked with, but not in the image's symbol table.
        Hidden = 2,
        /// Visible to all modules, and in the image's symbol table.
        Export = 3,
        /// Like `Export`, but an `Export` or `Hidden` definition of the same name overrides it: a
        /// weak definition (`STB_WEAK`), in the terms of ELF. It is decided when modules are
        /// linked: nothing is interposed at run time. The name is Cranelift's.
        Preemptible = 4,
        /// A function like `Export`, whose code can be exchanged while it is in use: every call
        /// goes through the function's slot, also from its own module. Of several definitions of
        /// the name, the last is in force.
        Replaceable = 5,
    }
}

code_enum! {
    /// The section of the module that a symbol is in.
    SectionKind {
        /// No section: the module does not define the symbol.
        Undefined = 0,
        /// Code.
        Text = 1,
        /// Data that is never written once it is relocated.
        ReadOnly = 2,
        /// Data that the program writes.
        Writable = 3,
        /// Writable data that starts as zeros and takes no room in a file.
        Zeroed = 4,
    }
}

/// A function, data object or global that the module defines or uses.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct SymbolRecord {
    /// The symbol's name, or a global's key; empty for an anonymous local.
    pub name: Str,
    /// Offset within its section, in bytes; 0 if undefined.
    pub offset: U64,
    /// Size in bytes; 0 if undefined.
    pub size: U64,
    /// Index of the signature of a function, or [`NONE`].
    pub signature: U32,
    /// A [`SymbolKind`] as a byte.
    pub kind: u8,
    /// A [`Linkage`] as a byte.
    pub linkage: u8,
    /// A [`SectionKind`] as a byte.
    pub section: u8,
    /// 1 if this is a routine of the C library that the code generator calls, else 0.
    pub libcall: u8,
}

impl SymbolRecord {
    /// Returns the kind of thing that the symbol names.
    #[inline]
    pub fn kind(&self) -> SymbolKind {
        SymbolKind::from_code(self.kind).unwrap_or(SymbolKind::Data)
    }

    /// Returns the symbol's visibility.
    #[inline]
    pub fn linkage(&self) -> Linkage {
        Linkage::from_code(self.linkage).unwrap_or(Linkage::Local)
    }

    /// Returns the section that the symbol is in.
    #[inline]
    pub fn section(&self) -> SectionKind {
        SectionKind::from_code(self.section).unwrap_or(SectionKind::Undefined)
    }

    /// Whether the module defines the symbol.
    #[inline]
    pub fn is_defined(&self) -> bool {
        self.section() != SectionKind::Undefined
    }

    /// Returns the index of the signature, if there is one.
    #[inline]
    pub fn signature(&self) -> Option<usize> {
        (self.signature.get() != NONE).then(|| self.signature.get() as usize)
    }
}

/// A relocation: the patch site, how to patch it, and the symbol whose address to patch in.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Reloc {
    /// The patch site, in bytes from the start of the section that the table is for.
    pub offset: U64,
    /// The addend.
    pub addend: I64,
    /// Index of the symbol.
    pub symbol: U32,
    /// A [`RelocKind`] as a byte.
    pub kind: u8,
    /// [`Reloc::TAKES_ADDRESS`], [`Reloc::OWN`], both or none; none in data.
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

impl Reloc {
    /// A flag of an access to a function's slot: the code may use the address for something else
    /// than a call, so it must be the same everywhere. Without the flag, the address is only
    /// called, and may be that of the code that is in force at the moment.
    pub const TAKES_ADDRESS: u8 = 1;
    /// A flag: the symbol means the module's own definition, even if another definition of its name
    /// is used everywhere else.
    pub const OWN: u8 = 2;

    /// Whether all of `flag` is set.
    #[inline]
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag == flag
    }

    /// Returns how the site is patched.
    #[inline]
    pub fn kind(&self) -> RelocKind {
        RelocKind::from_code(self.kind).unwrap_or(RelocKind::Abs64)
    }
}

/// A run of data that belongs to a named section of an image, together with the runs of that name
/// in other modules.
///
/// Data before the first run of a section kind is in no named section.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct NamedData {
    /// Name of the section, not empty, without zero bytes.
    pub name: Str,
    /// Offset of the first byte in the module's section, a multiple of the alignment; greater than
    /// the end of the previous run in that section.
    pub start: U64,
    /// Number of bytes.
    pub len: U64,
    /// Alignment, a power of two up to 4096, in bytes.
    pub align: U32,
    /// A [`SectionKind`] as a byte: [`SectionKind::ReadOnly`] or [`SectionKind::Writable`].
    pub section: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

impl NamedData {
    /// Returns the section of the module that the run is in.
    #[inline]
    pub fn section(&self) -> SectionKind {
        SectionKind::from_code(self.section).unwrap_or(SectionKind::Undefined)
    }
}

/// A file that the lines of the module are in.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct SourceFile {
    /// The path, without zero bytes and not empty; relative to `directory`.
    pub name: Str,
    /// The folder, without zero bytes; empty if it is not known.
    pub directory: Str,
    /// The language, as a `DW_LANG` code of DWARF; 0 if it has none.
    pub language: U16,
    /// Zero.
    pub reserved: [u8; 2],
}

/// Facts about the module as a whole; an artifact has exactly one.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Summary {
    /// Target triple.
    pub triple: Str,
    /// Name and version of the compiler: `cranelift 0.135.8, regalloc2 0.15.2`.
    pub producer: Str,
    /// Number of bytes of zeroed data.
    pub zeroed_size: U64,
    /// Alignment of the code, a power of two up to 4096, in bytes.
    pub text_align: U32,
    /// Alignment of the read-only data.
    pub read_only_align: U32,
    /// Alignment of the writable data.
    pub writable_align: U32,
    /// Alignment of the zeroed data.
    pub zeroed_align: U32,
    /// The code of a [`GlobalAccess`], which says how code reaches what is outside of the module.
    pub globals: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

impl Default for Summary {
    /// Returns a summary with empty strings, no zeroed data and every alignment 1.
    fn default() -> Self {
        Self {
            triple: Str::default(),
            producer: Str::default(),
            zeroed_size: U64::ZERO,
            text_align: U32::new(1),
            read_only_align: U32::new(1),
            writable_align: U32::new(1),
            zeroed_align: U32::new(1),
            globals: GlobalAccess::Slots.code(),
            reserved: [0; 3],
        }
    }
}
