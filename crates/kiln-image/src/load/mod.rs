//! Loading: an image in this process's memory, first checked and unbound ([`Image`]), then bound ([`Loaded`]).
//!
//! The steps: one reservation of address space; the file mapped read-only into it, everything a loader goes by checked
//! there; then, at binding, permissions set, pointers in data and slots filled, relocated data sealed. Code is never
//! written. The only module with `unsafe` code; it rests on checks done in release builds.
//!
//! The file must not be modified while it is mapped, exactly as with `dlopen`; [`save`](crate::save) replaces a file by
//! renaming and never modifies one.

mod bind;
mod function;
mod image;
mod map;
mod pointer;

pub use bind::Loaded;
pub use function::{FunctionRef, TypeMismatchError};
pub use image::Image;
pub use pointer::{AbiValue, FunctionPointer};
