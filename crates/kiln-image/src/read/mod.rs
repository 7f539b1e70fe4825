//! Reads an image without mapping it, for tools and as the first step of loading.
//!
//! [`View`](view::View) checks what a loader relies on: headers, segments, note, and that every
//! table that the note or the dynamic section names is in the segment that it must be in. It reads
//! no more than that, so its cost does not grow with the number of exports beyond hashing the note.
//! Nothing in the input is trusted; every access is a checked slice.
//!
//! Time and memory are at most proportional to the length of the input, even if it is malformed.
//! Many records may refer to the same long text, so texts are either refused if they are together
//! longer than their table, or shared instead of copied.

#[cfg(feature = "verify")]
mod content;
#[cfg(feature = "load")]
mod dwarf;
mod dynamic;
#[cfg(feature = "load")]
mod file;
mod headers;
mod info;
#[cfg(feature = "load")]
mod lookup;
mod notes;
mod number;
mod relr;
mod segments;
mod tables;
#[cfg(feature = "load")]
mod thread_local;
#[cfg(feature = "load")]
mod unwind;
#[cfg(feature = "verify")]
mod verify;
mod view;

#[cfg(feature = "verify")]
pub use content::{ContentHash, content_hash};
#[cfg(feature = "load")]
pub(crate) use dwarf::{DebugSection, debug_sections};
#[cfg(feature = "load")]
pub(crate) use dynamic::segment_of_dynamic;
#[cfg(feature = "load")]
pub use file::read_image;
#[cfg(feature = "load")]
pub(crate) use file::{Opened, open_image, read_headers, used_part};
#[cfg(feature = "load")]
pub(crate) use headers::Headers;
pub use info::{
    BaseInfo, ExportInfo, ImageInfo, LevelInfo, ReplacementInfo, SectionInfo, SlotInfo, SymbolType,
    VersionInfo,
};
#[cfg(feature = "load")]
pub(crate) use lookup::Found;
#[cfg(feature = "load")]
pub(crate) use number::Numbers;
#[cfg(feature = "load")]
pub(crate) use relr::PackedPlaces;
#[cfg(feature = "load")]
pub(crate) use segments::{Segment, segments};
#[cfg(feature = "write")]
pub(crate) use tables::DynamicContents;
#[cfg(feature = "load")]
pub(crate) use tables::{BAD_SLOT, DynamicSymbol, TablePlaces, Tables};
#[cfg(feature = "load")]
pub(crate) use thread_local::ThreadLocalPlace;
#[cfg(feature = "load")]
pub(crate) use unwind::is_section;
#[cfg(all(feature = "load", feature = "verify"))]
pub(crate) use verify::verify;
#[cfg(any(feature = "load", feature = "sign"))]
pub(crate) use view::View;
#[cfg(feature = "verify")]
pub use view::verify_bytes;
