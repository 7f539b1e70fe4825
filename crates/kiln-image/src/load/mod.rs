//! Loads an image into the memory of this process: an [`Image`] is checked but not yet bound, a
//! [`Loaded`] image is bound and can be called.
//!
//! The segments of the file are mapped next to each other: code executable, slots and data
//! writable, everything else read-only. Everything that the loader relies on is checked before
//! anything is written. Binding fills pointers in data and slots, and makes relocated data
//! read-only. Code is never written, not even when a function is replaced: that writes its slot.
//! This is the only module of the crate with `unsafe` code, which relies only on checks that
//! release builds make, too.
//!
//! The file must not be modified while it is mapped, as with `dlopen`; [`save`](crate::save)
//! replaces a file by renaming and never modifies one. [`Image::open_private`] maps a copy that
//! nobody can modify.
//!
//! This module uses file offsets as `usize` indices and adds 32-bit numbers without checking for
//! overflow, because every supported architecture has 64-bit addresses.

/// Checks that `usize` can hold every file offset, as this module requires.
const _: () = assert!(usize::BITS == 64, "images are for machines with 64-bit addresses");

mod bind;
mod function;
mod image;
mod layer;
pub mod libcalls;
mod locate;
mod map;
mod mapped;
mod observers;
mod open;
mod origin;
mod overridden;
mod overrides;
mod places;
mod pointer;
mod replace;
mod thread_locals;
#[cfg(feature = "trap")]
mod trap;
#[cfg(feature = "sign")]
mod verified;

pub use bind::Loaded;
pub use function::{FunctionRef, FunctionText, TypeMismatchError};
pub use image::Image;
pub use layer::with_bases;
pub use open::OpenOptions;
pub use overrides::Override;
pub use pointer::{AbiValue, FunctionPointer, bind_function};
pub use replace::ReplaceError;
pub use thread_locals::{ThreadLocalData, ThreadLocals, WithThreadLocals};
