//! Records about code: functions, calls, exception handlers, stack maps, labels of values.

use zerocopy::little_endian::{I64, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::code_enum::code_enum;
use crate::RelocKind;

/// A function of the module. Records are in the order of the functions' code, and so are the parts
/// of other tables that belong to the functions. No two functions share code bytes, unwind rows or
/// references.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct FunctionRecord {
    /// Index of its symbol.
    pub symbol: U32,
    /// First byte in the code.
    pub start: U32,
    /// Number of bytes.
    pub len: U32,
    /// First byte of its unwind rows in the unwind table.
    pub unwind_start: U32,
    /// Number of bytes of its unwind rows; 0 if it has none.
    pub unwind_len: U32,
    /// First of the symbols that it refers to, in the table of references.
    pub references_start: U32,
    /// Number of the symbols that it refers to.
    pub references_len: U32,
    /// Required alignment, a power of two up to 4096, in bytes.
    pub align: U32,
    /// The client's source location that the function's other source locations are relative to, or
    /// [`NONE`](super::NONE).
    pub base_location: U32,
    /// First byte of its traps in the table of traps; they end where the next function's traps
    /// start.
    pub traps_start: U32,
    /// First byte of its source locations; they end in the same way.
    pub source_ranges_start: U32,
    /// First byte of its calls; they end in the same way.
    pub call_sites_start: U32,
    /// First of the exception handlers of its calls; they end in the same way.
    pub handlers_start: U32,
}

/// A call inside the module that is resolved in the code, with the bytes that resolving it
/// overwrote. They allow a function to be extracted from the code and used in another module.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ResolvedCall {
    /// The bytes of the patch site as the compiler wrote them; bytes beyond the width of the kind
    /// are zero.
    pub original: [u8; 8],
    /// The addend.
    pub addend: I64,
    /// The patch site, in bytes from the start of the code.
    pub offset: U32,
    /// Index of the symbol that is called.
    pub symbol: U32,
    /// A [`RelocKind`] as a byte.
    pub kind: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

impl ResolvedCall {
    /// Returns how the site was patched.
    pub fn kind(&self) -> RelocKind {
        RelocKind::from_code(self.kind).unwrap_or(RelocKind::Abs64)
    }
}

code_enum! {
    /// The effect of an exception handler entry; the first entry that matches wins.
    HandlerKind {
        /// Exceptions with tag `value` continue at `target`.
        Tag = 0,
        /// All exceptions continue at `target`.
        Default = 1,
        /// Tags of later entries are read in the context stored at the stack pointer plus `value`
        /// bytes.
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
    /// The offset in the code where execution continues; 0 for the context kinds.
    pub target: U32,
    /// A [`HandlerKind`] as a byte.
    pub kind: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// The live references at one call. Entries are in the order of their maps, and no two maps share
/// an entry.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct StackMap {
    /// Return address, as an offset in the code.
    pub return_offset: U32,
    /// Bytes of stack, upwards from the stack pointer, that the map covers.
    pub span: U32,
    /// First of its entries in the table of entries.
    pub entries_start: U32,
    /// Number of its entries.
    pub entries_len: U32,
}

/// A live reference on the stack.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct StackMapEntry {
    /// Bytes upwards from the stack pointer.
    pub offset: U32,
    /// Size of the value in bytes.
    pub size: U32,
}

/// A call that a runtime may switch off by writing no-ops over it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct PatchableCall {
    /// End of the patchable bytes, as an offset in the code.
    pub end: U32,
    /// Number of patchable bytes.
    pub len: U32,
}

/// A function whose values have labels, or whose labels have names. Records are in the order of the
/// functions, and so are their parts of the two streams.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct LabelledFunction {
    /// Index of the function.
    pub function: U32,
    /// First byte of its labels in the table of labels; they end where those of the next record
    /// start.
    pub labels_start: U32,
    /// First byte of its variables in the table of variables; they end in the same way.
    pub variables_start: U32,
}
