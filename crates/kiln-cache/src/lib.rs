//! A content-addressed store of compiled modules.
//!
#![doc = include_str!("../README.md")]
//!
//! # What is in it?
//!
//! - [`KeyParts`] has a field for everything that native code depends on. Its
//!   [`key`](KeyParts::key) includes every field: the code destructures the struct with every field
//!   named, so the compiler reports a field that is left out. A [`Recipe`] holds the same parts as
//!   separate fields, with long parts as hashes. [`explain`] uses it to say why there was no entry
//!   for a key.
//! - An [`Entry`] is the value that is stored for a key: the key's recipe, the keys of the module's
//!   functions, and the artifact.
//! - A [`Lineage`] identifies a module independently of its IR, so it stays the same when the
//!   module is edited. A store maps it to the key of the module's last build.
//! - A [`Store`] is where a build looks before it compiles a module. There are [`MemoryStore`] and
//!   [`DiskStore`], and stores that wrap others: [`LayeredStore`] puts a fast store in front of a
//!   large one, [`WriteBehind`] writes in the background, [`Claims`] lets one of many processes
//!   compile what all miss. Clients can write their own.
//! - A store answers with a [`Lookup`]. An entry with any defect (truncated, altered, of another
//!   version, for another key) is [`Lookup::Corrupt`]: a build treats it as a miss, reports it, and
//!   replaces it after it has compiled the module again.
//! - Builds and stores report what happens as [`Event`]s; [`Counts`] counts them.
//!
//! # Architecture invariants
//!
//! A cache never decides correctness: nothing here returns an artifact that was not checked, and no
//! failure of a store makes a build fail. No lock is held while a file is read or written, or while
//! the client's code runs. An entry is written under a temporary name and then renamed, so it
//! appears whole or not at all. There is no index that could disagree with the files. All file
//! operations of [`DiskStore`] go through one internal trait, so that tests can make each of them
//! fail.

#![forbid(unsafe_code)]

// Unit and integration tests share a module, which refers to this crate by name.
#[cfg(test)]
extern crate self as kiln_cache;

mod claims;
mod difference;
mod disk;
mod entry;
mod error;
mod event;
mod files;
mod key;
mod layered;
mod lineage;
mod lru;
mod memory;
mod parts;
mod recipe;
mod store;
#[cfg(test)]
mod tests;
mod write_behind;

pub use claims::Claims;
pub use difference::{Difference, Field};
pub use disk::{DiskStat, DiskStore, EntryInfo, GcReport, VerifyReport};
pub use entry::Entry;
pub use error::EntryError;
pub use event::{Counts, Event, Events, Tally};
pub use key::{FunctionKey, Key, ParseKeyError};
pub use layered::LayeredStore;
pub use lineage::{Lineage, ParseLineageError};
pub use memory::{MemoryStat, MemoryStore};
pub use parts::{FunctionParts, KeyParts};
pub use recipe::Recipe;
pub use store::{Lookup, MissReason, Place, Store, explain};
pub use write_behind::WriteBehind;
