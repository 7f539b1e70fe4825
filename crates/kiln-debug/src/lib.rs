//! Tells debuggers, profilers and the unwinder of the process about machine code in memory.
//!
#![doc = include_str!("../README.md")]
//!
//! # What is in it?
//!
//! - [`unwind`]: panics and exceptions unwind through the code, and backtraces show it.
//! - [`gdb`]: gdb and lldb show functions by name, unwind through them and set breakpoints.
//! - [`perf`]: `perf report` shows functions by name.
//! - [`valgrind`]: valgrind runs new code, not the code that was at its address before.
//!
//! # What it costs
//!
//! Nothing that grows, if nobody looks: no description is kept. The unwinder's tables are what
//! remains, and `examples/measure.rs` shows what they cost.
//!
//! # Errors
//!
//! There are none. A debugger that is absent, a full disk or too many open files are no failure of
//! a program: what could not be written is counted, see [`perf::status`].
//!
//! # Features
//!
//! `unwinder`, `debugger` and `profiler`, all of them by default: one for each module. The crate
//! depends on `libc` alone.
//!
//! # Architecture invariants
//!
//! The crate knows nothing of what made the code, and depends on no other crate of Kiln. It has no
//! thread. Its locks are free in a child of `fork`. It is for Linux on x86-64, aarch64, riscv64 and
//! s390x, and empty elsewhere.

#![cfg(target_os = "linux")]

mod describe;
#[cfg(feature = "debugger")]
pub mod gdb;
#[cfg(any(feature = "debugger", feature = "profiler", feature = "unwinder"))]
mod lock;
#[cfg(any(feature = "debugger", feature = "profiler"))]
mod machine;
#[cfg(feature = "profiler")]
pub mod perf;
#[cfg(feature = "unwinder")]
mod plain_rows;
#[cfg(feature = "unwinder")]
pub mod unwind;
pub mod valgrind;

pub use describe::{Code, Function, Section};
#[cfg(feature = "unwinder")]
pub use plain_rows::PlainRows;
