//! A content-addressed store of artifacts.
//!
//! - [`KeyParts`] names everything that native code depends on; [`KeyParts::key`] cannot forget a field, because it takes the
//!   struct apart exhaustively.
//! - [`Store`] is what a build asks before it compiles: [`MemoryStore`], [`DiskStore`], or the client's own.
//! - A store answers with a [`Lookup`]. Whatever is wrong with an entry (truncated, altered, of another version, for another
//!   key) makes it [`Lookup::Corrupt`], which a build treats as a miss that it reports, and heals by storing anew.
//!
//! # Should I use this crate?
//!
//! If you keep artifacts yourself. `kiln::Compiler` and `kiln::Session` take any [`Store`].
//!
//! ```
//! use kiln_cache::{KeyParts, Lookup, MemoryStore, Store};
//!
//! let parts = KeyParts { fingerprint: &[7; 32], names: b"", target: "x86_64", settings: "opt_level=speed", producer: "example", revision: 1, abi: b"" };
//! let store = MemoryStore::new();
//! assert!(matches!(store.get(&parts.key()), Lookup::Miss));
//! ```
//!
//! # Architecture invariants
//!
//! A cache never decides correctness: nothing here returns an artifact that was not checked, and no failure of a store is an
//! error of a build. No lock is held while a file is read or written; entries appear by rename, whole or not at all.

#![forbid(unsafe_code)]

mod disk;
mod entry;
mod key;
mod memory;

use kiln_artifact::Artifact;

pub use disk::DiskStore;
pub use entry::Corrupt;
pub use key::{Key, KeyParts};
pub use memory::MemoryStore;

/// What a store knows about a key.
#[derive(Debug)]
pub enum Lookup {
    /// The artifact, checked.
    Hit(Artifact),
    /// Nothing.
    Miss,
    /// An entry that cannot be used, and why.
    Corrupt(Corrupt),
}

/// Keeps artifacts by key. Called from many threads at once.
pub trait Store: Sync {
    /// What is stored under `key`.
    fn get(&self, key: &Key) -> Lookup;

    /// Stores `artifact` under `key`, replacing what is there.
    ///
    /// # Errors
    ///
    /// When the artifact could not be stored. The caller may report it; nothing else depends on it.
    fn put(&self, key: &Key, artifact: &Artifact) -> std::io::Result<()>;
}
