//! The bytes of the code tables: constants and fixed-width records. All numbers are little-endian
//! and unaligned, on every architecture.
//!
//! The head:
//!
//! | bytes | content |
//! |---|---|
//! | 4 | magic, `KCod` |
//! | 4 | version, `u32` |
//! | 4 | length of all tables, `u32` |
//! | 4 | number of pieces, `u32` |
//! | 12 each | a record for each piece, in order of their code |
//! | guide | of these records, see `guide.rs` |
//!
//! A module's record has the first byte of its code; its number; and the first byte of its piece,
//! from the start of the tables; `u32` each.
//!
//! Offsets of code are from the start of the program's code (`.text`), unless noted otherwise. The
//! pieces of the modules follow without gaps. A piece:
//!
//! | bytes | content |
//! |---|---|
//! | 4 | number of functions and stubs, `u32` |
//! | 8 each | a record for each, in order of their code |
//! | guide | of these records |
//! | text | the module's name; empty if the linker was given none |
//! | | the lines of the module |
//! | | the descriptions of functions and stubs, in order |
//!
//! A function's record has the first byte of its code, from the start of the module's; and the
//! first byte of its description, from the start of the piece; `u32` each. In between, in order of
//! code, are records of the module's veneers and of its own stubs, whose last number has the bit
//! [`STUB`] set. The stubs that all modules share are in a piece of their own, the last one; its
//! number is [`NO_MODULE`], and its text is empty. The description of a stub:
//!
//! | content | |
//! |---|---|
//! | number | length of the code in bytes |
//! | text | name of what it leads to |
//! | number | of a replaceable function, the number of its slot in the slot array plus 1; else 0 |
//!
//! Lines, in which numbers are LEB128; only the first number if there are no lines:
//!
//! | content | |
//! |---|---|
//! | number | number of source files |
//! | 2 numbers | length of the stream of lines, and of the texts, in bytes |
//! | 8 each | files: the first bytes of the name and of the folder in the texts; `u32` each |
//! | texts | each is a length and bytes |
//! | part | lines |
//!
//! A description, in which numbers are LEB128 and a text is its length and its bytes:
//!
//! | content | |
//! |---|---|
//! | number | length of the code in bytes |
//! | text | name; empty if the function is anonymous |
//! | 3 numbers | lengths of the streams of traps, calls and stack maps, in bytes |
//! | number | number of exception handlers |
//! | number | length of the stream of source locations, in bytes |
//! | number | base location, only if there are source locations |
//! | 9 each | handlers: value, `u32`; target in the module's code, `u32`; kind, one byte |
//! | 4 parts | traps, calls, stack maps, source locations |
//!
//! A part is a stream of `n` bytes with a checkpoint (12 bytes) in front of it for each whole
//! multiple of [`STRIDE`] bytes below `n`, except 0. So a lookup decodes less than [`STRIDE`] bytes
//! from a checkpoint to the next. A checkpoint is the state of the reader at the first entry that
//! begins there or later: its first byte in the stream, the last offset before it, and `extra`;
//! `u32` each.
//!
//! | stream | an entry | `extra` |
//! |---|---|---|
//! | traps | `offset`; code, one byte | 0 |
//! | calls | `offset` of return; frame offset plus 1, or 0; handlers | handlers before it |
//! | stack maps | `offset` of return; span; length of the roots; the roots | 0 |
//! | lines | `location`, in place of an offset; file; line; column | line before it |
//! | source locations | length and gap; `location` | location before it |
//!
//! Roots are an offset and a size each. Streams of traps, calls, lines and source locations are
//! those of artifacts, see [`kiln_artifact::stream`] and [`kiln_artifact::debug`], also for how
//! `offset`s and `location`s are written.
//!
//! All this, without lines, is less than a third of the code of real programs; comparison H of
//! `benches/peers` measures it. Lines are there only for clients that give some. Fixed-width
//! records would be as long as the code.

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The version of the code tables. Tables of another version are not read.
pub const CODE_TABLES_VERSION: u32 = 4;

pub(super) const MAGIC: [u8; 4] = *b"KCod";

/// The bit of a description's place that says that it describes a stub. Tables are shorter than
/// this.
pub(super) const STUB: u32 = 1 << 31;

/// The number of the piece of the stubs that all modules share.
pub(crate) const NO_MODULE: u32 = u32::MAX;

/// The distance of checkpoints in a stream, in bytes. An entry has at least two bytes, so a lookup
/// decodes about 32 entries at most.
pub(super) const STRIDE: usize = 64;

macro_rules! record {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $ty:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
        #[repr(C)]
        pub(super) struct $name { $($(#[$field_doc])* pub(super) $field: $ty,)* }
    };
}

record! {
    /// The fixed part of the head.
    Head { magic: [u8; 4], version: U32, len: U32, modules: U32, }
}

record! {
    /// A module that has functions.
    ModuleRecord {
        /// First byte of its code.
        code: U32,
        number: U32,
        /// First byte of its piece.
        piece: U32,
    }
}

record! {
    /// A function of a module.
    FunctionRecord {
        /// First byte of its code, from the start of the module's.
        start: U32,
        /// First byte of its description, from the start of the piece.
        description: U32,
    }
}

record! {
    /// A source file of a module: the first bytes of its name and of its folder in the texts.
    FileRecord { name: U32, directory: U32, }
}

record! {
    /// The state of the reader of a stream.
    Checkpoint { position: U32, offset: U32, extra: U32, }
}

record! {
    /// An exception handler, as `kiln_artifact::record::Handler` describes it.
    HandlerRecord { value: U32, target: U32, kind: u8, }
}

#[cfg(feature = "link")]
pub(super) const HEAD: usize = size_of::<Head>();
#[cfg(feature = "link")]
pub(super) const MODULE: usize = size_of::<ModuleRecord>();
pub(super) const FUNCTION: usize = size_of::<FunctionRecord>();
pub(super) const CHECKPOINT: usize = size_of::<Checkpoint>();
pub(super) const HANDLER: usize = size_of::<HandlerRecord>();

/// Returns the number of checkpoints of a stream of `len` bytes.
pub(super) fn checkpoints(len: usize) -> usize {
    len.saturating_sub(1) / STRIDE
}
