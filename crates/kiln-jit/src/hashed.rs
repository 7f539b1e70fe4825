//! Names with their hashes.
//!
//! A table that grows hashes all of its keys again. Thousands of names lie all over memory, so that
//! takes longer than everything else that is done for a small unit. A name that knows its hash is
//! not read.

use std::hash::{BuildHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use foldhash::fast::RandomState;
use papaya::Equivalent;

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

impl PartialEq for HashedName {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.name == other.name
    }
}

impl Eq for HashedName {}

impl Hash for HashedName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// A name that is looked up, and its hash.
pub(crate) struct Wanted<'a> {
    pub(crate) hash: u64,
    pub(crate) name: &'a str,
}

impl Hash for Wanted<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Equivalent<HashedName> for Wanted<'_> {
    fn equivalent(&self, key: &HashedName) -> bool {
        self.hash == key.hash && *self.name == *key.name
    }
}

/// Takes hashes of names as they are.
#[derive(Clone, Default)]
pub(crate) struct AsIs(u64);

impl BuildHasher for AsIs {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self(0)
    }
}

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("the keys write a hash");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
