//! The records of an artifact's tables: fixed-width, little-endian, unaligned.
//!
//! The same types serve in memory and on disk, so reading an artifact decodes nothing. Fields are raw numbers; an
//! [`Artifact`](crate::Artifact) has checked them, so the typed accessors here cannot fail for records taken from one.

use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::RelocKind;

/// "None" in a `U32` field that holds an index.
pub const NONE: u32 = u32::MAX;

/// A range of the string section, always valid UTF-8.
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

macro_rules! code_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant = $value,)* }

        impl $name {
            /// The value with this code.
            pub fn from_code(code: u8) -> Option<Self> {
                match code { $($value => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

code_enum! {
    /// What a symbol names.
    SymbolKind {
        /// Code.
        Function = 0,
        /// Data.
        Data = 1,
        /// A run-time object; the symbol's name is its stable key.
        Global = 2,
    }
}

code_enum! {
    /// Who may see a symbol.
    Linkage {
        /// Defined elsewhere: in another module, or by the host through a slot.
        Import = 0,
        /// Visible inside its module only; may be anonymous.
        Local = 1,
        /// Visible to the modules it is linked with, not in the image's symbol table.
        Hidden = 2,
        /// Visible to everybody.
        Export = 3,
        /// Like `Export`, but gives way to an `Export` or `Hidden` definition of the same name.
        Preemptible = 4,
    }
}

code_enum! {
    /// Where a symbol lies.
    SectionKind {
        /// Not in this module.
        Undefined = 0,
        /// In the code.
        Text = 1,
        /// In data that is never written.
        ReadOnly = 2,
        /// In data that the program writes.
        Writable = 3,
        /// In writable data that starts as zeros and takes no room in a file.
        Zeroed = 4,
    }
}

/// A function, datum or global that the module defines or uses.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct SymbolRecord {
    /// The symbol's name, or a global's key; empty for an anonymous local.
    pub name: Str,
    /// Offset within its place, in bytes; 0 if undefined.
    pub offset: U64,
    /// Size in bytes; 0 if undefined.
    pub size: U64,
    /// Index of the signature of a function, or [`NONE`].
    pub signature: U32,
    /// Code of a [`SymbolKind`].
    pub kind: u8,
    /// Code of a [`Linkage`].
    pub linkage: u8,
    /// Code of a [`SectionKind`].
    pub section: u8,
    /// 1 if this is a routine of the C library that the compiler itself asked for, else 0.
    pub libcall: u8,
}

impl SymbolRecord {
    /// What the symbol names.
    pub fn kind(&self) -> SymbolKind {
        SymbolKind::from_code(self.kind).unwrap_or(SymbolKind::Data)
    }

    /// Who may see the symbol.
    pub fn linkage(&self) -> Linkage {
        Linkage::from_code(self.linkage).unwrap_or(Linkage::Local)
    }

    /// Where the symbol lies.
    pub fn section(&self) -> SectionKind {
        SectionKind::from_code(self.section).unwrap_or(SectionKind::Undefined)
    }

    /// Whether the module defines the symbol.
    pub fn is_defined(&self) -> bool {
        self.section() != SectionKind::Undefined
    }

    /// Index of the signature, if there is one.
    pub fn signature(&self) -> Option<usize> {
        (self.signature.get() != NONE).then(|| self.signature.get() as usize)
    }
}

/// A function of the module, in order of its place in the code.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct FunctionRecord {
    /// Index of its symbol.
    pub symbol: U32,
    /// First byte in the code.
    pub start: U32,
    /// Number of bytes.
    pub len: U32,
    /// First byte of its unwind rows in the unwind section.
    pub unwind_start: U32,
    /// Number of bytes of its unwind rows; 0 if it has none.
    pub unwind_len: U32,
    /// First of the symbols that it refers to, in the table of references.
    pub references_start: U32,
    /// Number of the symbols that it refers to.
    pub references_len: U32,
    /// Alignment that it asks for, in bytes.
    pub align: U32,
    /// The client's source location that others of the function are relative to, or [`NONE`].
    pub base_location: U32,
    /// First byte of its traps in their section; they end where those of the next function start.
    pub traps_start: U32,
    /// First byte of its source locations, likewise.
    pub source_ranges_start: U32,
    /// First byte of its calls, likewise.
    pub call_sites_start: U32,
    /// First of the exception handlers of its calls, likewise.
    pub handlers_start: U32,
}

/// A place to patch.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Reloc {
    /// The place, in bytes from the start of the section that the table belongs to.
    pub offset: U64,
    /// The addend.
    pub addend: I64,
    /// Index of the symbol.
    pub symbol: U32,
    /// Code of a [`RelocKind`].
    pub kind: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

impl Reloc {
    /// How the place is patched.
    pub fn kind(&self) -> RelocKind {
        RelocKind::from_code(self.kind).unwrap_or(RelocKind::Abs64)
    }
}

/// A call inside the module that is resolved in the code, and what stood there before: with it, a function can be taken out
/// of the code and placed elsewhere.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ResolvedCall {
    /// The bytes that were patched, as the compiler wrote them; those behind the width of the kind are zero.
    pub original: [u8; 8],
    /// The addend.
    pub addend: I64,
    /// The place, in bytes from the start of the code.
    pub offset: U32,
    /// Index of the symbol that is called.
    pub symbol: U32,
    /// Code of a [`RelocKind`].
    pub kind: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

impl ResolvedCall {
    /// How the place was patched.
    pub fn kind(&self) -> RelocKind {
        RelocKind::from_code(self.kind).unwrap_or(RelocKind::Abs64)
    }
}

/// A run of data that asks for a section of its own in an image, together with data of other modules that ask for the same.
///
/// What comes before the first run of a place belongs to no named section.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct NamedData {
    /// Name of the section, not empty, without zero bytes.
    pub name: Str,
    /// First byte in its place, a multiple of the alignment; greater than the end of the run before it.
    pub start: U64,
    /// Number of bytes.
    pub len: U64,
    /// Alignment, a power of two, in bytes.
    pub align: U32,
    /// Code of a [`SectionKind`]: [`SectionKind::ReadOnly`] or [`SectionKind::Writable`].
    pub section: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

impl NamedData {
    /// Where the run lies.
    pub fn section(&self) -> SectionKind {
        SectionKind::from_code(self.section).unwrap_or(SectionKind::Undefined)
    }
}

code_enum! {
    /// What an exception handler entry does; the first entry that matches wins.
    HandlerKind {
        /// Exceptions with tag `value` continue at `target`.
        Tag = 0,
        /// All exceptions continue at `target`.
        Default = 1,
        /// Tags of later entries are read in the context stored at the stack pointer plus `value` bytes.
        ContextStack = 2,
        /// Tags of later entries are read in the context in general purpose register `value`.
        ContextRegister = 3,
    }
}

/// One entry of a call's exception table.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Handler {
    /// Tag, stack offset or register, as `kind` says; 0 for `Default`.
    pub value: U32,
    /// Where to continue, as an offset in the code; 0 for the context kinds.
    pub target: U32,
    /// Code of a [`HandlerKind`].
    pub kind: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// The live references at one call.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct StackMap {
    /// Return address, as an offset in the code.
    pub return_offset: U32,
    /// Bytes of stack, upwards from the stack pointer, that the map covers.
    pub span: U32,
    /// First of its entries in the entry section.
    pub entries_start: U32,
    /// Number of its entries.
    pub entries_len: U32,
}

/// One live reference.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct StackMapEntry {
    /// Bytes upwards from the stack pointer.
    pub offset: U32,
    /// Size of the value in bytes.
    pub size: U32,
}

/// A call that a run-time may switch off by writing no-ops over it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct PatchableCall {
    /// End of the patchable bytes, as an offset in the code.
    pub end: U32,
    /// Number of patchable bytes.
    pub len: U32,
}

/// Facts about the module as a whole; an artifact has exactly one.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Summary {
    /// Target triple.
    pub triple: Str,
    /// Who compiled it, with version: `cranelift 0.135.8, regalloc2 0.15.2`.
    pub producer: Str,
    /// Number of bytes of zeroed data.
    pub zeroed_size: U64,
    /// Alignment of the code, a power of two, in bytes.
    pub text_align: U32,
    /// Alignment of the read-only data.
    pub read_only_align: U32,
    /// Alignment of the writable data.
    pub writable_align: U32,
    /// Alignment of the zeroed data.
    pub zeroed_align: U32,
}

impl Default for Summary {
    /// No strings, no zeroed data, every alignment 1.
    fn default() -> Self {
        Self {
            triple: Str::default(),
            producer: Str::default(),
            zeroed_size: U64::ZERO,
            text_align: U32::new(1),
            read_only_align: U32::new(1),
            writable_align: U32::new(1),
            zeroed_align: U32::new(1),
        }
    }
}
