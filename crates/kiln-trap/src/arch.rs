//! The parts that differ between architectures: the entry thunk, how execution continues at a
//! handler, the registers of a signal, and how a compiled frame is left.
//!
//! An architecture is a file with the same items as `x86_64.rs`. `other.rs` is for machines that
//! have none yet.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::*;

#[cfg(not(target_arch = "x86_64"))]
mod other;
#[cfg(not(target_arch = "x86_64"))]
pub(crate) use other::*;

#[cfg(not(target_os = "linux"))]
compile_error!("kiln-trap knows the signal frames and stacks of Linux only");

/// Writes why an architecture is refused.
pub(crate) fn refuse(f: &mut std::fmt::Formatter<'_>, arch: &str) -> std::fmt::Result {
    write!(f, "kiln-trap has no entry thunk for {arch}, only for x86_64")
}
