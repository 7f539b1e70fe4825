//! The note: what an image says about itself beyond ELF, in one `PT_NOTE` named `Kiln`.
//!
//! Its body is a fixed [`Head`](format::Head), then tables that the head refers to. The head begins
//! with a checksum of everything after it, which covers all that a loader relies on in the note;
//! the checksums of what is loaded are in a table and are compared only on demand. Invariant:
//! [`Note::parse`] has checked that every table is inside the body, so accessors only slice.

#[cfg(feature = "write")]
mod builder;
mod check;
mod checksum;
mod format;
mod view;

#[cfg(feature = "write")]
pub(crate) use builder::NoteBuilder;
#[cfg(feature = "write")]
pub(crate) use checksum::checksum_parallel;
#[cfg(feature = "verify")]
pub(crate) use checksum::{Sum, checksum, truncate};
#[cfg(feature = "load")]
pub(crate) use format::Head;
#[cfg(any(feature = "write", feature = "sign"))]
pub(crate) use format::SignerRecord;
#[cfg(any(feature = "load", feature = "write"))]
pub(crate) use format::{
    BaseRecord, IMPORT_OF_DATA, IMPORT_OF_FUNCTION, IMPORT_OF_GLOBAL, ImportRecord, LevelRecord,
    OBJECT_OF_GLOBAL, ReplacementRecord,
};
#[cfg(feature = "write")]
pub(crate) use format::{ExportRecord, MAX_LEVELS, NONE, SumRecord, SymbolicRecord};
pub use format::{FORMAT_VERSION, MAX_BASES};
pub(crate) use format::{
    ID_LEN, PREFIX_LEN, ReplaceableRecord, SLOT_OF_GLOBAL, SLOT_OF_ROUTINE, SLOT_OF_SYMBOL, SlotRecord, Span,
    Text, VersionRecord, is_prefix,
};
pub(crate) use view::Note;
