//! Reads an image without mapping it, for tools and as the first step of loading.
//!
//! [`View`](view::View) checks what a loader relies on: headers, segments, note, and that every
//! table that the note names is in the segment that it must be in. It reads no more than that, so
//! its cost does not grow with the number of exports beyond hashing the note. Nothing in the input
//! is trusted; every access is a checked slice.
//!
//! Time and memory are at most proportional to the length of the input, even if it is malformed.
//! Many records may refer to the same long text, so texts are either refused if they are together
//! longer than their table, or shared instead of copied.

#[cfg(feature = "load")]
mod dwarf;
#[cfg(feature = "load")]
mod file;
mod info;
#[cfg(feature = "load")]
mod lookup;
mod segments;
mod tables;
#[cfg(feature = "load")]
mod unwind;
mod view;

#[cfg(feature = "load")]
pub(crate) use dwarf::{DebugSection, debug_sections};
#[cfg(feature = "load")]
pub use file::read_image;
#[cfg(feature = "load")]
pub(crate) use file::{HEAD, open_image};
pub use info::{ExportInfo, ImageInfo, SectionInfo, SlotInfo, SymbolType};
#[cfg(feature = "load")]
pub(crate) use lookup::Found;
#[cfg(feature = "load")]
pub(crate) use segments::{Segment, extent};
#[cfg(feature = "load")]
pub(crate) use tables::{DynamicSymbol, Tables};
#[cfg(feature = "load")]
pub(crate) use unwind::is_section;
#[cfg(feature = "load")]
pub(crate) use view::View;
pub use view::verify_bytes;
