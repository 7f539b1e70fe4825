//! The interface between a build and the machines that compile for it.
//!
#![doc = include_str!("../README.md")]
//!
//! # Architecture invariants
//!
//! Both forms are read from untrusted bytes, in time and memory proportional to their length.
//! Equal modules in equal order make equal bytes. A result is an entry of a cache: its key is the
//! hash of everything that its code depends on, so no result is taken for that of another module,
//! of other settings, or of another version of Kiln.

#![forbid(unsafe_code)]

mod cut;
mod farm;
mod results;
mod shard;
mod wire;

pub use cut::cut;
pub use farm::{Answer, Answers, Farm, Run};
pub use results::{Refused, WorkerError, WorkerErrorKind, read_results, write_results};
pub use shard::{Item, ShardItem, read_shard, write_shard};
pub use wire::FormatError;
