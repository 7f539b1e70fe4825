//! Names with their hashes.
//!
//! A table that grows hashes all of its keys again. Thousands of names lie all over memory, so that
//! takes longer than everything else that is done for a small unit. A name that knows its hash is
//! not read.

use std::hash::BuildHasher;
use std::ops::Deref;
use std::sync::Arc;

use foldhash::fast::RandomState;

/// Hashes the names of one program.
#[derive(Clone, Default)]
pub(crate) struct NameHasher(RandomState);

impl NameHasher {
    /// Returns the hash of a name.
    pub(crate) fn hash(&self, name: &str) -> u64 {
        self.0.hash_one(name)
    }
}

/// A name, and its hash.
#[derive(Clone, Debug)]
pub(crate) struct HashedName {
    hash: u64,
    name: Arc<str>,
}

impl HashedName {
    /// `hash` is that of the name by the program's hasher.
    pub(crate) fn new(name: &str, hash: u64) -> Self {
        Self { hash, name: name.into() }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn shared(&self) -> &Arc<str> {
        &self.name
    }
}

impl Deref for HashedName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.name
    }
}
