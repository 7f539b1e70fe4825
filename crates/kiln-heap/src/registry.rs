//! A registry of objects, for run-time systems that do not know where their objects are.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::memory::Visit;
use crate::object::{Object, Target};

/// Objects that were registered one by one, each with the offsets of its pointers.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    objects: BTreeMap<usize, (Object, Arc<[usize]>)>,
}

/// An object cannot be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the object of {size} bytes at {address:#x} overlaps the one of {other_size} bytes at {other:#x}")]
pub struct RegistryError {
    /// The address of the object.
    pub address: usize,
    /// Its size in bytes.
    pub size: usize,
    /// The address of the object that was registered before.
    pub other: usize,
    /// Its size in bytes.
    pub other_size: usize,
}

impl Registry {
    /// Makes an empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers an object. `pointers` are the offsets of its pointers in bytes, in ascending
    /// order; objects of one type share them.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] if it shares bytes with an object that is registered.
    ///
    /// # Safety
    ///
    /// The memory must be readable until the object is [removed](Self::remove) or the registry is
    /// dropped, as [`Visit`] says.
    #[expect(unsafe_code, reason = "its memory will be read")]
    pub unsafe fn register(
        &mut self,
        object: Object,
        pointers: impl Into<Arc<[usize]>>,
    ) -> Result<(), RegistryError> {
        let end = object.address.saturating_add(object.size);
        let before = self.objects.range(..end.max(object.address.saturating_add(1))).next_back();
        if let Some((_, (other, _))) = before
            && (other.address == object.address || other.address.saturating_add(other.size) > object.address)
        {
            return Err(RegistryError {
                address: object.address,
                size: object.size,
                other: other.address,
                other_size: other.size,
            });
        }
        self.objects.insert(object.address, (object, pointers.into()));
        Ok(())
    }

    /// Removes the object at an address. Returns whether there was one.
    pub fn remove(&mut self, address: usize) -> bool {
        self.objects.remove(&address).is_some()
    }

    /// Returns the number of objects.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are no objects.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Returns the object that has the byte at an address.
    pub fn find(&self, address: usize) -> Option<&Object> {
        let (_, (object, _)) = self.objects.range(..=address).next_back()?;
        (address - object.address < object.size).then_some(object)
    }
}

// SAFETY: every object was registered with the promise that it can be read.
#[expect(unsafe_code, reason = "passes on what `register` was promised")]
unsafe impl Visit for Registry {
    fn target(&mut self, pointer: usize) -> Option<Target<'_>> {
        self.find(pointer).copied().map(Target::Object)
    }

    fn pointers(&mut self, object: &Object, report: &mut dyn FnMut(usize)) {
        if let Some((_, pointers)) = self.objects.get(&object.address) {
            pointers.iter().copied().for_each(report);
        }
    }
}
