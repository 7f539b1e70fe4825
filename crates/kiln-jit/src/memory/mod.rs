//! Memory for code and data, from one reservation.
//!
//! - `handle.rs` has [`Memory`] and its blocks, `provider.rs` makes it usable for cranelift-jit;
//! - `lookup.rs` finds code by an address in it, with `index.rs`; `trap.rs` lets kiln-trap do so;
//! - `core.rs` keeps the books: `ranges.rs` knows what is free, `pages.rs` what was taken from the
//!   system;
//! - `fork.rs` and `forks.rs` look after children of `fork`;
//! - `views.rs` maps it, `system.rs` makes the system calls, `cache.rs` looks after instruction
//!   caches, `boundary.rs` avoids addresses at which no function may begin;
//! - `options.rs`, `usage.rs` and `error.rs` are what a client sees.
//!
//! A reservation has three regions: code, read-only data, and writable data. Each is contiguous, so
//! small batches share pages, and the number of mappings is a constant. Code is written through a
//! second mapping of the same memory. Allocating and freeing is bookkeeping under one short lock;
//! the system is asked for pages in steps.
//!
//! Invariant: all blocks of a [`Memory`] are within [`MemoryOptions::LIMIT`] bytes.

mod boundary;
mod cache;
mod core;
mod error;
mod fork;
mod forks;
mod handle;
mod index;
mod lookup;
mod options;
mod pages;
mod provider;
mod ranges;
mod system;
#[cfg(test)]
mod tests;
#[cfg(feature = "trap")]
mod trap;
mod usage;
mod views;

pub use error::{MemoryError, Region};
pub(crate) use handle::Block;
pub use handle::Memory;
pub use lookup::Located;
pub(crate) use lookup::{BlockHeader, HEADER, JumpShape};
pub use options::{Mapping, MemoryOptions};
pub use provider::MemoryProvider;

pub use system::Refused;
pub use usage::{MemoryUsage, RegionUsage};
