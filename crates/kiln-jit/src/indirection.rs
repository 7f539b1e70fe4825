//! The parts of a replaceable function that stay when its code is replaced: a slot, and a stub that
//! jumps through it.
//!
//! They are made many at a time. Stub *i* of a *chunk* jumps through slot *i*, from when the chunk
//! is made until it is freed, so executable memory is never written again, and a replaceable
//! function takes two numbers out of a list. One unwind row, registered once, says of all stubs of
//! a chunk that they leave the stack alone: a registration for each would make unwinding slow. The
//! chunk begins with a header, so [`Memory::locate`] finds the function that a stub leads to.
//!
//! A chunk without a stub in use is freed.

use std::collections::BTreeMap;

use kiln_debug::PlainRows;
use kiln_image::link::{self, ExternalDefinition};
use kiln_image::{Arch, Override};

use crate::error::JitError;
use crate::memory::{Block, BlockHeader, HEADER, JumpShape, Memory, Region};
use crate::slots::{Cell, SLOT_SIZE};

/// The number of stubs of the first chunk; each later one has twice as many as the one before.
const FEWEST: u64 = 16;
/// The most stubs of a chunk.
const MOST: u64 = 256;

/// The slot and the stub of a replaceable function.
#[derive(Debug)]
pub(crate) struct Indirection {
    /// Holds the address of the code that is in force. All callers go through it.
    slot: u64,
    /// Code that jumps through the slot. Its address is that of the function.
    stub: u64,
    owner: Owner,
}

/// The owner of a slot and a stub.
#[derive(Debug)]
enum Owner {
    /// They are those with this number of the chunk with this number.
    Chunk { chunk: u32, number: u32 },
    /// They are those of an image that the program is linked on.
    Base(Override),
}

impl Indirection {
    /// Returns the function's address.
    pub(crate) fn address(&self) -> u64 {
        self.stub
    }

    /// Makes all callers call the code at this address from now on.
    pub(crate) fn store(&self, code: u64) {
        match &self.owner {
            // SAFETY: the slot is one of those of a chunk, which is freed after this.
            Owner::Chunk { .. } => unsafe { Cell::store_at(self.slot, code) },
            // SAFETY: the code was linked for the type that the base's function has. It is taken
            // out of the slot before it is removed: see `retire`.
            Owner::Base(code_of_base) => unsafe { code_of_base.set(code as *const u8) },
        }
    }

    /// Makes the indirection of a function of an image that the program is linked on.
    pub(crate) fn of_base(code: Override) -> Self {
        Self { slot: 0, stub: code.address().addr() as u64, owner: Owner::Base(code) }
    }

    /// Whether it is in an image that the program is linked on. All code reaches the function as
    /// what it is there, whether it is replaced or not.
    pub(crate) fn is_of_base(&self) -> bool {
        matches!(self.owner, Owner::Base(_))
    }

    /// Takes the code out of the slot of an image.
    pub(crate) fn retire(&self) {
        if let Owner::Base(code) = &self.owner {
            code.clear();
        }
    }

    /// Returns how code of other units reaches the function, which is no function of a base.
    pub(crate) fn external(&self) -> Option<ExternalDefinition> {
        let (slot, stub) = (self.slot, self.stub);
        (!self.is_of_base()).then_some(ExternalDefinition::Replaceable { slot, stub })
    }
}

/// Returns the size of a stub, in bytes.
pub(crate) fn stub_size() -> u64 {
    link::stub_size(arch())
}

fn arch() -> Arch {
    Arch::host().unwrap_or(Arch::X86_64)
}

/// Stubs and their slots, in memory.
#[derive(Debug)]
struct Chunk {
    /// Dropped first.
    rows: PlainRows,
    stubs: Block,
    slots: Block,
    /// The numbers that are not in use.
    free: Vec<u32>,
    in_use: u32,
}

impl Chunk {
    fn allocate(memory: &Memory, least: u64, unwind: bool) -> Result<Self, JitError> {
        let (size, page) = (stub_size(), memory.code_unit());
        // All of the pages that it takes in any case.
        let bytes = (HEADER + least * size).next_multiple_of(page);
        let count = (bytes - HEADER) / size;
        let slots = memory.allocate(Region::Data, count * SLOT_SIZE, SLOT_SIZE)?;
        let stubs = match memory.allocate(Region::Code, HEADER + count * size, HEADER) {
            Ok(stubs) => stubs,
            Err(error) => {
                // SAFETY: nobody knows the block.
                unsafe { memory.free(slots) };
                return Err(error);
            }
        };
        let code = stubs.address() + HEADER..stubs.address() + HEADER + count * size;
        let mut rows = PlainRows::new(code.start as usize..code.end as usize);
        let chunk = |rows| Self { rows, stubs, slots, free: (0..count as u32).rev().collect(), in_use: 0 };
        if let Err(error) = Self::write(memory, stubs, slots, count) {
            // SAFETY: nobody knows the stubs.
            unsafe { chunk(rows).free(memory, false) };
            return Err(error);
        }
        if unwind {
            // SAFETY: a stub only jumps. All code in the region is ours, or its rows are registered
            // in the same way.
            unsafe { rows.register(memory.code_range()) };
        }
        // SAFETY: the block is published with its header, and hidden before it is freed.
        unsafe { memory.show(stubs) };
        Ok(chunk(rows))
    }

    /// Writes and publishes all stubs.
    fn write(memory: &Memory, stubs: Block, slots: Block, count: u64) -> Result<(), JitError> {
        // A slot is all that belongs to a stub.
        let jumps = JumpShape { code: stub_size() as u8, data: SLOT_SIZE as u8, target: 0, reserved: 0 };
        // SAFETY: the block is fresh, and the reference ends before it is published.
        let bytes = unsafe { stubs.bytes() };
        BlockHeader::of_jumps(slots.address(), count as u32, jumps).write(bytes);
        for number in 0..count {
            let at = (HEADER + number * stub_size()) as usize;
            let stub = &mut bytes[at..at + stub_size() as usize];
            let slot = slots.address() + number * SLOT_SIZE;
            link::write_stub_to_slot(arch(), stub, stubs.address() + at as u64, slot)
                .map_err(|error| JitError::Link { errors: vec![error], names: Box::default() })?;
        }
        memory.publish(&[stubs])
    }

    /// Frees everything. If `keep`, addresses of stubs are not used again soon.
    ///
    /// # Safety
    ///
    /// No code uses it any more.
    unsafe fn free(self, memory: &Memory, keep: bool) {
        let Self { rows, stubs, slots, .. } = self;
        memory.hide(stubs);
        drop(rows);
        // SAFETY: the caller promises that nobody uses them. Whoever looks a stub up makes both
        // wait.
        unsafe {
            if keep {
                memory.keep(stubs);
            } else {
                memory.free(stubs);
            }
            memory.free_looked_at(slots);
        }
    }
}

/// The stubs and slots of all replaceable functions.
#[derive(Debug, Default)]
pub(crate) struct Stubs {
    chunks: BTreeMap<u32, Chunk>,
    /// The chunks that may have a free stub.
    open: Vec<u32>,
    next: u32,
    /// Whether the unwinder is told.
    unwind: bool,
    /// Whether addresses of stubs are not used again soon, since a profiler knows them.
    keep: bool,
}

impl Stubs {
    pub(crate) fn new(unwind: bool, keep: bool) -> Self {
        Self { unwind, keep, ..Self::default() }
    }

    /// Takes a slot that holds no address yet, and its stub.
    pub(crate) fn take(&mut self, memory: &Memory) -> Result<Indirection, JitError> {
        loop {
            let Some(&chunk) = self.open.last() else {
                let least = (FEWEST << self.chunks.len().min(8)).min(MOST);
                let made = Chunk::allocate(memory, least, self.unwind)?;
                self.chunks.insert(self.next, made);
                self.open.push(self.next);
                self.next += 1;
                continue;
            };
            let Some(number) = self.chunks.get_mut(&chunk).and_then(|chunk| {
                let number = chunk.free.pop()?;
                chunk.in_use += 1;
                Some(number)
            }) else {
                self.open.pop();
                continue;
            };
            let Chunk { stubs, slots, .. } = &self.chunks[&chunk];
            let slot = slots.address() + u64::from(number) * SLOT_SIZE;
            let stub = stubs.address() + HEADER + u64::from(number) * stub_size();
            return Ok(Indirection { slot, stub, owner: Owner::Chunk { chunk, number } });
        }
    }

    /// Frees slot and stub.
    ///
    /// # Safety
    ///
    /// No code uses them any more.
    pub(crate) unsafe fn give(&mut self, indirection: Indirection, memory: &Memory) {
        let Owner::Chunk { chunk: id, number } = indirection.owner else { return };
        indirection.store(0);
        let Some(chunk) = self.chunks.get_mut(&id) else { return };
        chunk.in_use -= 1;
        if chunk.in_use == 0 {
            if let Some(chunk) = self.chunks.remove(&id) {
                // SAFETY: no stub is in use, and the caller promises that none runs.
                unsafe { chunk.free(memory, self.keep) };
            }
        } else if !self.keep {
            if chunk.free.is_empty() && !self.open.contains(&id) {
                self.open.push(id);
            }
            chunk.free.push(number);
        }
    }
}
