//! Writes a linked program as one ELF shared object.
//!
//! `section` lists the sections and `layout` reserves a range for everything, in order of the file.
//! Then `headers` and `tables` write into these ranges, code and data are relocated straight into
//! the file's buffer by [`Plan::emit`](crate::link::Plan::emit), and `describe` ends with the note,
//! which holds the checksums of everything else. `image` calls them in this order.
//!
//! Invariants: the file offset of a loaded section is its virtual address; equal inputs give equal
//! bytes; every part has the length that was reserved for it.

mod base;
mod bases;
mod build_id;
#[cfg_attr(not(feature = "dwarf"), path = "no_debug.rs")]
mod debug;
mod describe;
mod dynamic;
mod dynamic_symbols;
mod headers;
mod image;
mod layout;
mod levels;
mod options;
mod patches;
mod property;
mod relocations;
mod relr;
mod save;
mod section;
mod strings;
mod symbols;
mod tables;
mod temporary;

pub use image::{ImageFiles, write_image, write_image_files, write_layer};
#[cfg(feature = "dwarf")]
pub use options::DebugInfo;
pub use options::{ImageBase, ImageOptions, MAX_TEXT_ALIGN};
pub(crate) use property::property_note;
pub use save::save;
pub(crate) use section::type_and_flags;
pub(crate) use strings::Strings;
pub(crate) use symbols::ElfSymbol;
pub use temporary::temporary_for;
