//! Tells debuggers, profilers and the unwinder of the process about machine code in memory.
#![cfg(target_os = "linux")]

mod describe;
#[cfg(feature = "debugger")]
pub mod gdb;
mod lock;
#[cfg(any(feature = "debugger", feature = "profiler"))]
mod machine;
#[cfg(feature = "profiler")]
pub mod perf;
#[cfg(feature = "unwinder")]
pub mod unwind;

pub use describe::{Code, Function, Section};
