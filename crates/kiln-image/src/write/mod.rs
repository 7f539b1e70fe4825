//! Writing: one ELF shared object from a linked program.
//!
//! First every table's length is reserved, then everything is written at its place; code and data are relocated straight
//! into the file's buffer by [`Plan::emit`](crate::link::Plan::emit). Invariants: a section's file offset is its virtual
//! address; equal inputs give equal bytes; what is written is what was reserved.

mod dynamic;
mod file;
mod image;
mod relocations;
mod save;
mod symbols;

pub use image::{ImageOptions, write_image};
pub use save::save;
