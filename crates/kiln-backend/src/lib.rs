//! Compiles IR to artifacts.
//!
#![doc = include_str!("../README.md")]
//!
//! # What is in it?
//!
//! [`compile`] is one pure function: the artifact's bytes depend on the module and on the code
//! generator's settings, and on nothing else. [`compile_all`] is the work queue: it runs the
//! *functions* of all modules in parallel on rayon's current pool, so that one large module does
//! not keep one thread busy while the others wait, and then assembles every module, in parallel
//! again. Both give the same bytes, whatever the number of threads.
//!
//! A worker *pre-links* its module: functions are laid out one after the other, and calls between
//! them are resolved at once (veneers included), so linking many modules later means copying bytes
//! and applying a few relocations.
//!
//! A function whose code is in an earlier artifact need not be compiled: see [`Reuse`].
//!
//! # Architecture invariants
//!
//! This crate uses no files, clocks or process-wide counters, and iterates over no hash map. The
//! verifier runs here only for functions that the front end has left unverified, as a builder does:
//! every function is verified once, and code that is reused was verified when it was made.
//!
//! # Bugs of Cranelift 0.135.8
//!
//! - On x86-64 without AVX, which is the default, `fcmp` of vectors faults if an operand is loaded
//!   without the flag `aligned` from an address that is not a multiple of 16. Set `has_avx`, or
//!   load integers and `bitcast` them.
//! - `umax.i128` at `opt_level=speed` has no lowering on x86-64, and `fcmp uno` of vectors has none
//!   on aarch64. Both are errors that name the function.

#![forbid(unsafe_code)]

mod assemble;
mod colocate;
mod compiled;
mod data;
mod debug;
mod error;
mod function;
mod islands;
mod limits;
mod producer;
mod queue;
mod reloc;
mod reuse;
mod s390x;
mod symbols;
mod tables;
mod thread_locals;
mod unwind;

pub use assemble::TargetNames;
pub use colocate::reference_classes;
pub use error::{CompileError, CompileErrorKind, silence_code_generator};
pub use producer::{PRODUCER, REVISION, settings_text};
pub use queue::{
    Built, Job, Piece, compile, compile_all, compile_all_here, compile_piece, is_small, join_pieces,
};
pub use reuse::Reuse;
