//! Names run-time objects without addresses, and lays out the slots that will hold their addresses.
//!
#![doc = include_str!("../README.md")]
//!
//! # What is in it?
//!
//! Compiled code that refers to a run-time object (a symbol table, an interned string, a type
//! descriptor) must not contain the object's address, or the code can be neither cached nor saved.
//! Instead, it loads the address from a *slot*. This crate describes those slots:
//!
//! - [`GlobalTable`] interns *stable keys*, strings that mean the same object in every process, and
//!   numbers them in order of first use ([`GlobalId`]). It never sees an address.
//! - [`Slots`] is the globals module: the ordered list of slots, each described by a [`SlotKey`].
//!   All globals of the table come first, slot *i* being global *i*, so the layout is known before
//!   any function is compiled. The linker appends slots for symbols that no module defines.
//! - [`Bindings`] gives the addresses, when code is linked in the process or an image is loaded.
//!   Any type that finds the address of a key implements [`Resolve`]. It is told the type with
//!   which compiled code calls a function of the host ([`Signature`]), so that a function of
//!   another type is an error and not a wrong number.
//!
//! The crate also has what other crates of Kiln share: [`GlobalAccess`], the choice between slots
//! and addresses in code, [`Signature`], the type of a function as text, [`list_errors`], and
//! [`is_reserved_section`].

// Errors are written by hand here, in `kiln-artifact` and in the loader of `kiln-image`: a derive
// macro would be a large part of what a program that only loads images has to build.
#![forbid(unsafe_code)]

mod access;
mod bindings;
mod error_list;
mod hash;
mod keys;
mod reserved;
mod signature;
mod slots;
#[cfg(feature = "table")]
mod table;

pub use access::GlobalAccess;
pub use bindings::Bindings;
pub use error_list::{SHOWN_ERRORS, list_errors};
pub use keys::Near;
pub use reserved::{THREAD_LOCAL_SECTION, is_reserved_section};
pub use signature::{Param, Signature, SignatureError, signatures_agree};
pub use slots::{
    KeyRef, Or, Resolve, SlotKey, Slots, UnboundError, UnboundSlot, Unresolved, addresses, addresses_of_refs,
};
#[cfg(feature = "table")]
pub use table::{GlobalId, GlobalTable};
