//! The host's part of a program that `run` executes: run-time objects, and the symbols of this
//! process.

use std::cell::RefCell;
use std::collections::HashMap;

use kiln::globals::{Resolve, SlotKey, Unresolved};

use super::host;

/// Size of a run-time object, in 8-byte words.
const WORDS: usize = 512;
/// Size of a run-time object, in bytes.
pub(super) const SIZE: usize = 8 * WORDS;

/// The run-time objects: 4096 zeroed bytes for every key, created when the address is first needed.
#[derive(Default)]
pub(super) struct Objects {
    objects: RefCell<HashMap<Box<str>, Box<[u64; WORDS]>>>,
}

impl Objects {
    /// Returns the address of the object `key`, which stays the same as long as `self` lives.
    pub(super) fn address(&self, key: &str) -> usize {
        let mut objects = self.objects.borrow_mut();
        let object = objects.entry(key.into()).or_insert_with(|| Box::new([0; WORDS]));
        object.as_mut_ptr() as usize
    }
}

impl Resolve for Objects {
    fn resolve(&self, key: &SlotKey, _: Option<&str>) -> Result<usize, Unresolved> {
        match key {
            SlotKey::Global(key) => Ok(self.address(key)),
            SlotKey::Symbol(_) | SlotKey::Routine(_) => host::symbol(key).ok_or(Unresolved::Unknown),
        }
    }
}
