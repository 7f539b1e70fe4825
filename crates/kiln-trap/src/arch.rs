//! The parts that differ between architectures: the entry thunk, how execution continues at a
//! handler, the registers of a signal, and how a compiled frame is left.
//!
//! An architecture is a file with the same items as `x86_64.rs`.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod x86_64;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) use x86_64::*;

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!("kiln-trap has an entry thunk and signal frames for x86-64 Linux only");
