//! The artifact, the format by which compilers hand modules to linkers: one compiled module, as
//! bytes.
//!
#![doc = include_str!("../README.md")]
//!
//! # What is in it?
//!
//! An [`Artifact`] is what the backend makes of one module, and it is all that a linker, a cache or
//! a tool needs: code with the calls inside the module already resolved, data, relocations,
//! symbols, unwind rows, traps, source locations, lines, stack maps and exception tables. It is
//! *pure*: nothing in it depends on where it will be loaded, on the process or the thread that made
//! it, or on other modules.
//!
//! - [`Contents`] is the editable form, plain vectors; [`Contents::finish`] makes the artifact.
//! - [`Artifact`] is one byte string that is read in place: every [`Table`] is a slice of
//!   little-endian records ([`record`]) or a [`stream`]. [`Artifact::from_bytes`] accepts any bytes
//!   and checks every index once; accessors never fail.
//! - [`RelocKind`] says how a patch site is relocated, in the terms of the ELF processor
//!   supplements.
//! - [`Signature`] is a function's type, which is stored as text and can be read without Cranelift.
//!
//! # Architecture invariants
//!
//! No name is made by concatenation: records refer to each other by index, and only symbols that a
//! module exports or imports need a name. An artifact has no checksum: whatever stores the bytes (a
//! cache entry) adds its own.

#![forbid(unsafe_code)]

mod artifact;
mod check;
mod contents;
pub mod debug;
mod error;
mod functions;
mod layout;
pub mod record;
mod reloc;
pub mod stream;
mod unwind;

pub use artifact::Artifact;
pub use contents::Contents;
pub use error::ArtifactError;
pub use functions::FunctionParts;
pub use layout::{FORMAT_VERSION, Table};
pub use reloc::RelocKind;
// They are in the lowest crate, because bindings of host functions have types, and targets a way to
// reach globals, too.
pub use kiln_globals::{GlobalAccess, Param, Signature, SignatureError, signatures_agree};
