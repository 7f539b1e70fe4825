//! A content-addressed store of compiled modules.
//!
//! - [`KeyParts`] names everything that native code depends on, and [`KeyParts::key`] cannot forget a field, because it takes the
//!   struct apart exhaustively. A [`Recipe`] is the same by name, and [`explain`] says with it why a key was missed.
//! - [`Entry`] is what is kept for a key: its recipe, the keys of its functions, the artifact.
//! - [`Store`] is what a build asks before it compiles: [`MemoryStore`], [`DiskStore`], the client's own, or one made of others:
//!   [`LayeredStore`] puts a quick one over a large one, [`WriteBehind`] writes in the background.
//! - A store answers with a [`Lookup`]. Whatever is wrong with an entry (truncated, altered, of another version, for another
//!   key) makes it [`Lookup::Corrupt`], which a build treats as a miss that it reports, and heals by storing anew.
//! - [`Event`]s tell what happened; [`Counts`] counts them.
//!
//! # Should I use this crate?
//!
//! If you keep artifacts yourself. `kiln::Compiler` and `kiln::Session` take any [`Store`].
//!
//! ```
//! use kiln_artifact::Contents;
//! use kiln_cache::{Entry, KeyParts, Lookup, MemoryStore, Store, Lineage, explain};
//!
//! let parts = KeyParts { fingerprint: &[7; 32], names: b"", target: "x86_64", settings: "opt_level=none", producer: "example", revision: 1, abi: b"" };
//! let store = MemoryStore::new();
//! assert!(matches!(store.get(&parts.key()), Lookup::Miss));
//!
//! let entry = Entry { recipe: parts.recipe(), functions: [].into(), artifact: Contents::default().finish() };
//! store.put(&parts.key(), &entry)?;
//! store.set_latest(&Lineage::new("main", "x86_64"), &parts.key())?;
//! assert!(matches!(store.get(&parts.key()), Lookup::Hit(found) if found == entry));
//!
//! // The same module, compiled in another way.
//! let faster = KeyParts { settings: "opt_level=speed", ..parts };
//! assert!(matches!(store.get(&faster.key()), Lookup::Miss));
//! let (why, last) = explain(&store, &Lineage::new("main", "x86_64"), &faster.recipe());
//! assert_eq!(why.to_string(), "setting opt_level: was none, is speed");
//! assert_eq!(last, Some(entry));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! A store for many builds, in many processes: what was used last is in memory, everything is in a folder of at most a gigabyte, and
//! writing never holds up a build.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use kiln_cache::{Counts, DiskStore, LayeredStore, MemoryStore, Store, WriteBehind};
//!
//! # let temporary = tempfile::tempdir()?;
//! # let folder = temporary.path().join("cache");
//! let counts = Arc::new(Counts::new());
//! let disk = DiskStore::new(folder).limit(1 << 30).events(counts.clone());
//! let store = LayeredStore::new(
//!     MemoryStore::with_limit(64 << 20),
//!     WriteBehind::new(disk).drop_wait(Duration::from_millis(200)).events(counts.clone()),
//! );
//! // .. builds ..
//! assert!(store.flush(Duration::from_secs(10)));
//! assert_eq!(counts.tally().failed_writes, 0);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # Architecture invariants
//!
//! A cache never decides correctness: nothing here returns an artifact that was not checked, and no failure of a store is an
//! error of a build. No lock is held while a file is read or written or while code of the client runs; entries appear by rename, whole
//! or not at all. There is no index that could disagree with the files. All file operations go through one internal trait, behind
//! which tests let each of them fail.

#![forbid(unsafe_code)]

// Tests inside and outside of the crate share a module, which names the crate.
#[cfg(test)]
extern crate self as kiln_cache;

mod disk;
mod entry;
mod event;
mod files;
mod key;
mod layered;
mod lru;
mod memory;
mod recipe;
mod store;
#[cfg(test)]
mod tests;
mod write_behind;

pub use disk::{DiskStat, DiskStore, EntryInfo, GcReport, VerifyReport};
pub use entry::{Entry, EntryError};
pub use event::{Counts, Event, Events, Tally};
pub use key::{FunctionKey, FunctionParts, Key, KeyParts, Lineage, ParseKeyError};
pub use layered::LayeredStore;
pub use memory::{MemoryStat, MemoryStore};
pub use recipe::{Difference, Field, Recipe};
pub use store::{Lookup, MissReason, Store, explain};
pub use write_behind::WriteBehind;
