//! The parts of a replaceable function that stay when its code is replaced.
//!
//! A stub in memory has no unwind rows: it is two instructions at most that matter to nobody but a
//! profiler, and to register each would make unwinding slow. An unwinder stops at it. (The stubs of
//! an image and of a unit have rows.)

use kiln_image::Arch;
use kiln_image::link::{self, ExternalDefinition};

use crate::error::JitError;
use crate::memory::{Block, Memory, Region};
use crate::slots::Cell;

/// The slot and the stub of a replaceable function.
#[derive(Debug)]
pub(crate) struct Indirection {
    /// Holds the address of the code that is in force. All callers go through it.
    slot: Cell,
    /// Code that jumps through the slot. Its address is that of the function.
    stub: Block,
}

impl Indirection {
    /// Makes a slot that holds no address yet, and its stub.
    pub(crate) fn allocate(memory: &Memory) -> Result<Self, JitError> {
        let slot = Cell::allocate(memory, 0)?;
        match Self::allocate_stub(memory, slot.address()) {
            Ok(stub) => Ok(Self { slot, stub }),
            Err(error) => {
                // SAFETY: nobody knows the slot.
                unsafe { slot.free(memory) };
                Err(error)
            }
        }
    }

    fn allocate_stub(memory: &Memory, slot: u64) -> Result<Block, JitError> {
        let arch = Arch::host().unwrap_or(Arch::X86_64);
        let size = link::stub_size(arch);
        let stub = memory.allocate(Region::Code, size, size)?;
        // SAFETY: the block is fresh, and the reference ends before it is published.
        let bytes = unsafe { stub.bytes() };
        let written = link::write_stub_to_slot(arch, bytes, stub.address(), slot)
            .map_err(|error| JitError::Link { errors: vec![error], names: Box::default() });
        written.and_then(|()| memory.publish(&[stub])).inspect_err(|_| {
            // SAFETY: nobody knows the stub.
            unsafe { memory.free(stub) };
        })?;
        Ok(stub)
    }

    /// Returns the function's address.
    pub(crate) fn address(&self) -> u64 {
        self.stub.address()
    }

    /// Makes all callers call the code at this address from now on.
    pub(crate) fn store(&self, code: u64) {
        self.slot.store(code);
    }

    /// Returns how code of other units reaches the function.
    pub(crate) fn external(&self) -> ExternalDefinition {
        ExternalDefinition::Replaceable { slot: self.slot.address(), stub: self.stub.address() }
    }

    /// Counts the memory as removed.
    pub(crate) fn retire(self, memory: &Memory) -> Self {
        Self { slot: self.slot.retire(memory), stub: memory.retire(self.stub) }
    }

    /// Frees slot and stub.
    ///
    /// # Safety
    ///
    /// No code uses them any more.
    pub(crate) unsafe fn free(self, memory: &Memory) {
        // SAFETY: the caller promises that nobody uses them.
        unsafe {
            memory.free(self.stub);
            self.slot.free(memory);
        }
    }
}
