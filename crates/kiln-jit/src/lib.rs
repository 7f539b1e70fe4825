//! Links artifacts into executable memory of this process.
//!
//! [`Jit::link`] takes the same artifacts that images are written from, and links them with the
//! same linker (`kiln_image::link`). This crate adds executable memory, the addresses of symbols
//! that were linked before, and the routines of the C library that Cranelift calls ([`libcalls`]).
//! A function that is looked up by name is a [`FunctionRef`](kiln_image::FunctionRef), as in an
//! image.
//!
//! # Should I use this crate?
//!
//! Yes, if you have artifacts and want to call their functions. If you have IR, use
//! `kiln::Session`, which compiles it and keeps what an image needs.
//!
//! # Why not `JITModule`?
//!
//! `cranelift_jit::JITModule` refuses position-independent code, panics on unresolved symbols, and
//! cannot free a part of its memory. It is the reference engine of tests and benches.
//!
//! # Safety
//!
//! Compiled code can do anything that its IR says. So the functions that return or call machine
//! code are `unsafe`: the caller promises that the IR is sound, that the signature is right, and
//! that no code is called once its [`Jit`] is dropped.
//!
//! # Architecture invariants
//!
//! This crate has no relocation code. All memory of a [`Jit`] is in one reservation of at most 2
//! GiB, a [`Memory`], so every reference inside it is in range. No address is writable and
//! executable at once. Memory is freed when the [`Jit`] is dropped.

mod batch;
mod blocks;
mod epoch;
mod error;
mod indirection;
mod invoke;
mod jit;
pub mod libcalls;
mod memory;
mod names;
mod options;
mod program;
mod sections;
mod slots;
mod symbol;
mod sync;
mod unit;
mod unwind;

pub use epoch::Guard;
pub use error::{InUseError, JitError, RebindError, UseOf};
pub use invoke::{Cell, invoke};
pub use jit::{Export, Jit};
pub use memory::{
    Mapping, Memory, MemoryError, MemoryOptions, MemoryProvider, MemoryUsage, Refused, Region, RegionUsage,
};
pub use options::JitOptions;
pub use unit::{Defined, Role, Unit};
