//! An interpreter of whole programs: an oracle that shares nothing with the code generator.
//!
//! A [`LinkedProgram`] is a set of modules that were linked with each other. A [`Process`] is one
//! execution of it: memory lives as long as the process, so calls see what earlier calls wrote.
//! Cranelift's interpreter executes the instructions; symbols, data, run-time objects and calls
//! across modules are added here.
//!
//! Cranelift's interpreter panics at an instruction that it does not implement; the panic becomes
//! [`InterpretError::Unsupported`]. These instructions are known to be missing or wrong in version
//! 0.135.8, and [`crate::generate`] avoids them:
//!
//! - `avg_round` panics on vectors, and overflows on scalars;
//! - `srem` of the least number and -1 traps, while machines give 0;
//! - `bitcast` between a vector and a scalar panics, and so do big-endian lanes;
//! - `x86_*`, `blendv`, `try_call`, `get_frame_pointer` and similar instructions, dynamic stack
//!   slots and `stack_switch` panic.

mod access;
mod error;
mod machine;
mod memory;
mod process;
mod program;
mod run;

pub use error::InterpretError;
pub use process::Process;
pub use program::LinkedProgram;
