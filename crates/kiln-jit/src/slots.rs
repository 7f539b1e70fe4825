//! The slots of a running program: 8-byte cells in memory that all units share.
//!
//! A slot belongs to its key, not to the unit that used it first, so it outlives units, and is
//! freed with the last unit that uses it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState as FastHash;

use crate::batch::SlotKind;
use crate::error::JitError;
use crate::memory::{Block, Memory, Region};

/// The size of a slot, in bytes.
pub(crate) const SLOT_SIZE: u64 = 8;

/// The memory of one slot, which code may read at any time.
#[derive(Debug)]
pub(crate) struct Cell(Block);

impl Cell {
    pub(crate) fn allocate(memory: &Memory, value: u64) -> Result<Self, JitError> {
        let cell = Self(memory.allocate(Region::Data, SLOT_SIZE, SLOT_SIZE)?);
        cell.store(value);
        Ok(cell)
    }

    /// Returns the address of the slot.
    pub(crate) fn address(&self) -> u64 {
        self.0.address()
    }

    fn value(&self) -> &AtomicU64 {
        // SAFETY: the block is 8 aligned bytes of data, which are mapped until `free`, and which
        // code and this type access only as a whole.
        unsafe { AtomicU64::from_ptr(self.0.address() as *mut u64) }
    }

    /// Changes the address that the slot holds. Callers on other threads see either value.
    pub(crate) fn store(&self, value: u64) {
        self.value().store(value, Ordering::Release);
    }

    /// Changes the address that a slot holds which is a part of a larger block.
    ///
    /// # Safety
    ///
    /// The slot is 8 aligned bytes of data that are mapped, and that code and this type access only
    /// as a whole.
    pub(crate) unsafe fn store_at(slot: u64, value: u64) {
        // SAFETY: the caller promises it.
        unsafe { AtomicU64::from_ptr(slot as *mut u64) }.store(value, Ordering::Release);
    }

    /// Returns the address that the slot holds.
    pub(crate) fn load(&self) -> u64 {
        self.value().load(Ordering::Acquire)
    }

    /// Counts the memory as removed.
    pub(crate) fn retire(self, memory: &Memory) -> Self {
        Self(memory.retire(self.0))
    }

    /// Frees the slot.
    ///
    /// # Safety
    ///
    /// No code reads it any more.
    pub(crate) unsafe fn free(self, memory: &Memory) {
        // SAFETY: the caller promises that nobody uses it.
        unsafe { memory.free(self.0) };
    }
}

/// A slot for something of the host.
pub(crate) struct Slot {
    pub(crate) cell: Cell,
    /// The number of units that use it.
    users: usize,
    /// The number of units whose data holds a copy of the value.
    pub(crate) copies: usize,
    /// The types with which units call the function, each once.
    types: Vec<Box<str>>,
}

/// The slots of all units, by kind and name.
#[derive(Default)]
pub(crate) struct Slots([HashMap<Arc<str>, Slot, FastHash>; 3]);

impl Slots {
    fn of(&self, kind: SlotKind) -> &HashMap<Arc<str>, Slot, FastHash> {
        &self.0[kind as usize]
    }

    fn of_mut(&mut self, kind: SlotKind) -> &mut HashMap<Arc<str>, Slot, FastHash> {
        &mut self.0[kind as usize]
    }

    pub(crate) fn get(&self, kind: SlotKind, name: &str) -> Option<&Slot> {
        self.of(kind).get(name)
    }

    /// Whether there is no slot of a kind.
    pub(crate) fn is_empty(&self, kind: SlotKind) -> bool {
        self.of(kind).is_empty()
    }

    /// Whether a slot exists that serves code that expects this type.
    pub(crate) fn serves(&self, kind: SlotKind, name: &str, expected: Option<&str>) -> bool {
        self.get(kind, name).is_some_and(|slot| {
            expected.is_none_or(|expected| slot.types.iter().any(|known| **known == *expected))
        })
    }

    /// Adds a user of a slot; a new slot takes `cell`. Returns the slot's address and its name.
    pub(crate) fn add_user(
        &mut self,
        kind: SlotKind,
        name: &str,
        expected: Option<&str>,
        cell: impl FnOnce() -> Cell,
    ) -> (u64, Arc<str>) {
        let slots = self.of_mut(kind);
        let name = slots.get_key_value(name).map_or_else(|| name.into(), |(name, _)| name.clone());
        let slot = slots.entry(name.clone()).or_insert_with(|| Slot {
            cell: cell(),
            users: 0,
            copies: 0,
            types: Vec::new(),
        });
        slot.users += 1;
        if let Some(expected) = expected
            && !slot.types.iter().any(|known| **known == *expected)
        {
            slot.types.push(expected.into());
        }
        (slot.cell.address(), name)
    }

    /// Notes that data of a unit holds a copy of the slot's value. Returns the slot's name.
    pub(crate) fn add_copy(&mut self, kind: SlotKind, name: &str) -> Option<Arc<str>> {
        let slots = self.of_mut(kind);
        let name = slots.get_key_value(name)?.0.clone();
        slots.get_mut(&name)?.copies += 1;
        Some(name)
    }

    /// Notes that the data of a unit is gone.
    pub(crate) fn remove_copy(&mut self, kind: SlotKind, name: &str) {
        if let Some(slot) = self.of_mut(kind).get_mut(name) {
            slot.copies -= 1;
        }
    }

    /// Removes a user of a slot. Returns the cell if that was the last one.
    pub(crate) fn remove_user(&mut self, kind: SlotKind, name: &str) -> Option<Cell> {
        let slots = self.of_mut(kind);
        let slot = slots.get_mut(name)?;
        slot.users -= 1;
        if slot.users > 0 {
            return None;
        }
        slots.remove(name).map(|slot| slot.cell)
    }

    /// Takes all cells out.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Cell> {
        self.0.iter_mut().flat_map(|slots| slots.drain().map(|(_, slot)| slot.cell))
    }

    /// Returns the number of slots.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(HashMap::len).sum()
    }
}
