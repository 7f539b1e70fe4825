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
    /// Returns the address of the first byte; dangling if the block is empty.
    pub(crate) fn address(self) -> u64 {
        self.start as u64
    }

    /// Returns the block's bytes.
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
    /// The size of the largest reservation, in bytes: every distance inside must fit into a signed
    /// 32-bit number.
    pub(crate) const LIMIT: usize = 1 << 31;

    /// Reserves `size` bytes of address space, rounded up to whole pages.
    pub(crate) fn reserve(size: usize) -> Result<Self, JitError> {
        if size == 0 || size > Self::LIMIT {
            return Err(JitError::Memory(
                format!("a reservation of {size} bytes, at most {}", Self::LIMIT).into(),
            ));
        }
        let mut arena = ArenaMemoryProvider::new_with_size(size)
            .map_err(|error| JitError::Memory(format!("cannot reserve {size} bytes: {error}").into()))?;
        // Large reservations often begin at a [`BOUNDARY`], where no function may begin. This byte
        // takes that place, and the first code follows it.
        arena
            .allocate(1, 1, JITMemoryKind::Executable)
            .map_err(|error| JitError::Memory(error.to_string().into()))?;
        Ok(Self { arena })
    }

    /// Takes a block for code, as [`allocate`](Self::allocate) does. `is_start` says whether a
    /// function begins at an offset of the block. No function of the block will begin at a multiple
    /// of [`BOUNDARY`].
    pub(crate) fn allocate_code(
        &mut self,
        len: u64,
        align: u64,
        is_start: impl Fn(u64) -> bool,
    ) -> Result<Block, JitError> {
        loop {
            let block = self.allocate(len, align, JITMemoryKind::Executable)?;
            if !starts_at_boundary(block.address(), len, &is_start) {
                return Ok(block);
            }
            // This block stays empty, and the next is after the boundary.
        }
    }

    /// Takes a block of `len` bytes, which are zeroed, and writable until they are published.
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

/// A function must not begin at a multiple of this number of bytes. When linkers remove a function,
/// they leave its unwind rows with a zero address, and libgcc's unwinder ignores such rows. If
/// addresses are encoded in 4 bytes, it tests only the low 32 bits of the address that it computes
/// (`unwind-dw2-fde.c`, `classify_object_over_fdes`), so it also ignores a function at a multiple
/// of 4 GiB, and no panic can unwind through that function.
const BOUNDARY: u64 = 1 << 32;

/// Returns the largest alignment that the arena provides, in bytes: the size of a page.
fn page_size() -> u64 {
    4096
}

/// Returns whether a function in `len` bytes of code at `address` begins at a [`BOUNDARY`].
/// `is_start` says whether a function begins at an offset.
fn starts_at_boundary(address: u64, len: u64, is_start: impl Fn(u64) -> bool) -> bool {
    let offset = address.next_multiple_of(BOUNDARY) - address;
    offset < len && is_start(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_at_a_boundary_are_found() {
        let start = 5 * BOUNDARY;
        let only = |offset| move |other| other == offset;
        assert!(starts_at_boundary(start, 1, only(0)));
        assert!(starts_at_boundary(start - 16, 17, only(16)));
        // The boundary is inside a function, is after the code, or there is no code.
        assert!(!starts_at_boundary(start - 16, 17, only(8)));
        assert!(!starts_at_boundary(start - 16, 16, only(16)));
        assert!(!starts_at_boundary(start + 1, 4096, |_| true));
        assert!(!starts_at_boundary(start, 0, |_| true));
    }

    #[test]
    fn no_function_begins_at_a_multiple_of_four_gigabytes() {
        const SIZE: u64 = 256 << 20;
        // All at once, so that they are side by side and together span many multiples.
        let mut all: Vec<_> = (0..8).map(|_| Memory::reserve(Memory::LIMIT).unwrap()).collect();
        for memory in &mut all {
            let mut blocks = 0;
            while let Ok(block) = memory.allocate_code(SIZE, 16, |_| true) {
                let start = block.address();
                assert!(start % BOUNDARY != 0 && start / BOUNDARY == (start + SIZE - 1) / BOUNDARY);
                blocks += 1;
            }
            assert!(blocks >= 6, "{blocks}");
            // SAFETY: nothing of it was given out.
            unsafe { memory.free() };
        }
        // A boundary inside a function does no harm.
        let mut memory = Memory::reserve(Memory::LIMIT).unwrap();
        assert_eq!((0..7).filter(|_| memory.allocate_code(SIZE, 16, |_| false).is_ok()).count(), 7);
    }
}
