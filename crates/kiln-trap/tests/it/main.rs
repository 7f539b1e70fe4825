//! Traps, exceptions and walks with plain cranelift-jit code.

#[path = "../../examples/cranelift_jit/program.rs"]
mod program;

mod child;
mod exceptions;
mod ranges;
mod signals;
mod stack;
mod traps;
mod walks;
