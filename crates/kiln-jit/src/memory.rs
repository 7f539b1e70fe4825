//! Memory for code and data, from one reservation.
//!
//! The arena of cranelift-jit provides it: address space is reserved at once, pages are committed
//! as they are used, and permissions change when a batch is published. Invariant: all blocks of a
//! [`Memory`] are within [`Memory::LIMIT`] bytes.

use cranelift_jit::{ArenaMemoryProvider, BranchProtection, JITMemoryKind, JITMemoryProvider};

use crate::error::JitError;

/// One reservation of address space.
pub(crate) struct Memory {
    arena: ArenaMemoryProvider,
}

/// A block of fresh, zeroed memory that is still writable.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    start: *mut u8,
    len: usize,
}

impl Block {
    /// The address of its first byte; dangling if it is empty.
    pub(crate) fn address(self) -> u64 {
        self.start as u64
    }

    /// The block's bytes.
    ///
    /// # Safety
    ///
    /// The block must not have been published, and no other reference to it may be live.
    pub(crate) unsafe fn bytes<'a>(self) -> &'a mut [u8] {
        // SAFETY: `Memory::allocate` got these bytes from the arena, zeroed by the system. The
        // caller promises that no other reference exists and that they are still writable.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl Memory {
    /// The largest reservation: every reference inside must fit into 32 bits, signed.
    pub(crate) const LIMIT: usize = 1 << 31;

    /// Reserves `size` bytes of address space, rounded up to whole pages.
    pub(crate) fn reserve(size: usize) -> Result<Self, JitError> {
        if size == 0 || size > Self::LIMIT {
            return Err(JitError::Memory(
                format!("a reservation of {size} bytes, at most {}", Self::LIMIT).into(),
            ));
        }
        let arena = ArenaMemoryProvider::new_with_size(size)
            .map_err(|error| JitError::Memory(format!("cannot reserve {size} bytes: {error}").into()))?;
        Ok(Self { arena })
    }

    /// Takes a block of `len` bytes, zeroed and writable until it is published.
    pub(crate) fn allocate(&mut self, len: u64, align: u64, kind: JITMemoryKind) -> Result<Block, JitError> {
        let limit = page_size();
        if align > limit {
            return Err(JitError::Alignment { align, limit });
        }
        let len = usize::try_from(len).ok().filter(|&len| len < Self::LIMIT);
        let len = len.ok_or_else(|| JitError::Memory("a block of 2 GiB or more".into()))?;
        if len == 0 {
            return Ok(Block { start: std::ptr::NonNull::<u8>::dangling().as_ptr(), len });
        }
        let start = self
            .arena
            .allocate(len, align, kind)
            .map_err(|error| JitError::Memory(format!("no room for {len} bytes: {error}").into()))?;
        Ok(Block { start, len })
    }

    /// Sets the permissions of every block: code becomes executable, constants read-only.
    pub(crate) fn publish(&mut self) -> Result<(), JitError> {
        JITMemoryProvider::finalize(&mut self.arena, BranchProtection::None)
            .map_err(|error| JitError::Memory(error.to_string().into()))
    }

    /// Unmaps the reservation.
    ///
    /// # Safety
    ///
    /// Nothing in it may be used afterwards.
    pub(crate) unsafe fn free(&mut self) {
        // SAFETY: the caller promises that nothing in it is used.
        unsafe { JITMemoryProvider::free_memory(&mut self.arena) };
    }
}

/// The largest alignment that the arena provides, which is the size of a page, in bytes.
fn page_size() -> u64 {
    4096
}
