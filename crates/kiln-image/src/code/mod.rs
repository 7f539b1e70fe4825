//! The code tables: what is known about each instruction of a linked program, for whoever stands at
//! one, e.g. a signal handler, an unwinder or a garbage collector.
//!
//! They are one run of bytes, the same in an image (section `.kiln.code`) and in memory. The linker
//! writes them, and [`CodeTables`] reads them where they lie: it allocates nothing, takes no lock
//! and makes no system call. Looking a place up is two binary searches, for the function and in the
//! function, and then reads a few dozen entries at most, however long the function is.
//!
//! Why so: debug information (DWARF) has most of this too, but it must be decoded from its
//! beginning, takes more room than the code, and is removed by `strip`.
//!
//! Finding a function takes about 50 ns with a megabyte of code. To read source and trap of a place
//! takes longer than that again, because it looks at four more places of the tables: the head of
//! the description, a checkpoint, and two streams. Each may be a miss of the cache, and decoding a
//! stream takes about 20 ns. Rows of fixed width for blocks of code would come on top of the
//! streams, which are half as long as the code where every instruction has a location.
//!
//! Invariants: nothing is checked when the tables are made or mapped, because that would take time
//! in proportion to their length. So the reader takes no number for granted: whatever the bytes
//! are, it reads inside them, in a bounded number of steps, and never panics.
//!
//! The files: `format` is the byte format, `write` makes the tables of one module and `stubs` those
//! of stubs, through `sink`. `cursor` reads numbers, `part` finds a place in a stream, `group`
//! reads four entries at once, `piece` has the tables of a module, `tables` finds a function,
//! `function` answers questions about it, `guide` makes searches short, `lines` has the lines of a
//! module, `location` is an answer with addresses, `trap` has the names of traps. `lookup` puts
//! answers in the terms of kiln-trap.

mod cursor;
mod format;
mod function;
mod group;
mod guide;
mod lines;
mod location;
#[cfg(feature = "trap")]
pub mod lookup;
mod part;
mod piece;
#[cfg(feature = "link")]
mod sink;
#[cfg(feature = "link")]
mod stubs;
mod tables;
mod trap;
#[cfg(feature = "link")]
mod write;

pub use format::CODE_TABLES_VERSION;
#[cfg(feature = "link")]
pub(crate) use format::NO_MODULE;
pub use function::{
    Call, Function, Handler, Handlers, Root, Roots, SourceRange, Sources, StackMap, name_of_stub,
};
pub use lines::SourceLine;
pub use location::Location;
#[cfg(feature = "link")]
pub(crate) use stubs::{PIECE_BOUND, StubRow, piece as stub_piece, row_bound};
pub use tables::{CodeTables, TableSizes};
pub use trap::TrapCode;
#[cfg(feature = "link")]
pub(crate) use write::{ModuleTables, head_len, write_head};
