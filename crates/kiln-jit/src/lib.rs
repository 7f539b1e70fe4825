//! Artifacts in executable memory of this process.
//!
//! [`Jit::link`] takes the same artifacts that an image is written from, and links them with the same code
//! (`kiln_image::link`): layout, relocation, relaxation and stubs are not written twice. What is added here is memory that
//! can be executed, the addresses of what was linked before, and the routines of the C library that Cranelift calls
//! ([`libcalls`]).
//!
//! # Should I use this crate?
//!
//! If you hold artifacts and want to call them. `kiln::Session` starts from IR and remembers what an image needs.
//!
//! # Safety
//!
//! Compiled code can do anything that its IR says. The functions here that hand out or call machine code are `unsafe`:
//! the caller vouches for the IR, for the signature, and that no code is called once its [`Jit`] is dropped.
//!
//! # Architecture invariants
//!
//! No relocation code. All memory of a [`Jit`] lies in one reservation below 2 GiB, so every reference inside reaches.
//! Memory is writable or executable, never both; it is given back when the [`Jit`] is dropped.

mod error;
mod invoke;
mod jit;
pub mod libcalls;
mod memory;
mod sections;
mod unwind;

pub use error::JitError;
pub use invoke::{Cell, invoke};
pub use jit::{CodeRange, Jit, Options};
