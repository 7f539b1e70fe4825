//! A content-addressed store of compiled modules.
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
//! # Should I use this crate?
//!
//! Yes, if you keep artifacts yourself, or write a store for `kiln::Compiler`, which takes any
//! [`Store`].
//!
//! ```
//! use kiln_artifact::Contents;
//! use kiln_cache::{Entry, KeyParts, Lineage, Lookup, MemoryStore, Store, explain};
//!
//! let parts = KeyParts {
//!     fingerprint: &[7; 32],
//!     names: b"",
//!     target: "x86_64",
//!     settings: "opt_level=none",
//!     producer: "example",
//!     revision: 1,
//!     abi: b"",
//! };
//! let store = MemoryStore::new();
//! assert!(matches!(store.get(&parts.key()), Lookup::Miss));
//!
//! let artifact = Contents::default().finish();
//! let entry = Entry { recipe: parts.recipe(), functions: [].into(), artifact };
//! store.put(&parts.key(), &entry)?;
//! store.set_latest(&Lineage::new("program", "main", "x86_64"), &parts.key())?;
//! assert!(matches!(store.get(&parts.key()), Lookup::Hit(found, _) if found == entry));
//!
//! // The same module with other settings.
//! let faster = KeyParts { settings: "opt_level=speed", ..parts };
//! assert!(matches!(store.get(&faster.key()), Lookup::Miss));
//! let lineage = Lineage::new("program", "main", "x86_64");
//! let (reason, last) = explain(&store, &lineage, &faster.recipe());
//! assert_eq!(reason.to_string(), "setting opt_level: was none, is speed");
//! assert_eq!(last, Some(entry));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! A store for many builds, in many processes: recently used entries are in memory, all entries are
//! in a folder of at most one gibibyte, and no build waits for a write.
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
