//! Reading an image without mapping it, for tools and as the first step of loading.
//!
//! [`View`](view::View) checks what a loader relies on: headers, segments, note, and that every
//! table that the note names is in the segment that it must be in. It reads no more than that, so
//! its cost does not grow with the number of exports beyond hashing the note. Nothing in the input
//! is trusted; every access is a checked slice.

mod info;
mod segments;
mod tables;
mod view;

pub use info::{ExportInfo, ImageInfo, SectionInfo, SlotInfo, SymbolType};
#[cfg(feature = "load")]
pub(crate) use segments::{Segment, extent};
#[cfg(feature = "load")]
pub(crate) use tables::Tables;
#[cfg(feature = "load")]
pub(crate) use view::View;
pub use view::verify_bytes;
