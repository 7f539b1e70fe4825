//! Tells debuggers, profilers and the unwinder of the process about machine code in memory.
//!
//! - [`unwind`]: panics and exceptions unwind through the code, and backtraces show it.
//! - [`gdb`]: gdb and lldb show functions by name, unwind through them and set breakpoints.
//! - [`perf`]: `perf report` shows functions by name.
//! - [`valgrind`]: valgrind runs new code, not the code that was at its address before.
//!
//! # Should I use this crate?
//!
//! Yes, if you make machine code, with Cranelift or without, and want it to be seen. If you use
//! `kiln::Session` or `kiln_jit`, it is done already: see `JitOptions`.
//!
//! # How?
//!
//! Describe the code, tell whom you want, and drop what you get before the memory is used again:
//!
//! ```
//! use kiln_debug::{Code, Function, gdb, perf};
//!
//! # static MEMORY: [u8; 16] = [0xc3; 16];
//! # let address = MEMORY.as_ptr() as usize;
//! let functions = [Function { name: "square", address, size: 16 }];
//! let code = Code { functions: &functions, ranges: &[address..address + 16], ..Code::default() };
//! // Costs one load if no debugger is there.
//! let debugger = gdb::is_watching().then(|| gdb::Registration::new(&code));
//! if std::env::var_os("MY_PROFILER").is_some() {
//!     // SAFETY: the function is in memory.
//!     unsafe { perf::add(perf::Kind::Map, &code) };
//! }
//! drop(debugger);
//! ```
//!
//! `examples/plain_cranelift.rs` does it for a `cranelift_jit::JITModule`, with unwind rows.
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
