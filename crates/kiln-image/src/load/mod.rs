//! Loads an image into this process's memory, where it is first checked and unbound ([`Image`]),
//! then bound ([`Loaded`]).
//!
//! The steps: address space is reserved once and the file is mapped into it, read-only. Everything
//! that the loader relies on is checked there. Binding sets permissions, fills pointers in data and
//! slots, and makes relocated data read-only again. Code is never written. This is the only module
//! with `unsafe` code; it relies on checks that release builds make.
//!
//! The file must not be modified while it is mapped, as with `dlopen`; [`save`](crate::save)
//! replaces a file by renaming and never modifies one. [`Image::open_private`] maps a copy that
//! nobody can modify.
//!
//! Offsets of a file are indices here, and sums of 32-bit numbers do not overflow, because all
//! architectures of images have 64-bit addresses.

/// Offsets of files are indices in this module.
const _: () = assert!(usize::BITS == 64, "images are for machines with 64-bit addresses");

mod bind;
mod function;
mod image;
mod map;
mod mapped;
mod pointer;
mod unmapped;

pub use bind::Loaded;
pub use function::{FunctionRef, TypeMismatchError};
pub use image::Image;
pub use pointer::{AbiValue, FunctionPointer};
