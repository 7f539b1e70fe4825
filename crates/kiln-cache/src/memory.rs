//! Artifacts of this process.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use kiln_artifact::Artifact;

use crate::{Key, Lookup, Store};

/// Keeps artifacts in memory, without a limit, until it is dropped.
#[derive(Debug, Default)]
pub struct MemoryStore {
    entries: Mutex<HashMap<Key, Artifact>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of artifacts.
    pub fn len(&self) -> usize {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &Key) -> Lookup {
        // The lock covers a map access and a reference count, never client code.
        match self.entries.lock().unwrap_or_else(PoisonError::into_inner).get(key) {
            Some(artifact) => Lookup::Hit(artifact.clone()),
            None => Lookup::Miss,
        }
    }

    fn put(&self, key: &Key, artifact: &Artifact) -> std::io::Result<()> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).insert(*key, artifact.clone());
        Ok(())
    }
}
