//! A memory and its blocks.

use std::collections::VecDeque;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex};

use super::boundary::starts_at_boundary;
use super::cache;
use super::core::{Core, Taken};
use super::error::{MemoryError, Region};
use super::fork;
use super::options::{Mapping, MemoryOptions};
use super::system::System;
use super::usage::MemoryUsage;
use crate::error::JitError;

/// Address space for code and data, which any number of [`Jit`](crate::Jit)s share.
///
/// # Children of `fork`
///
/// A child of the C library's `fork` can run what was published before, and can link and free. Code
/// and read-only data are shared with the parent until the child first takes memory for them; then
/// it copies what is in use. Memory that was in use at a fork is used again by the parent only when
/// no child can see it any more: each child has made its copy, has ended, or executes another
/// program. Until then such memory counts as retired. With [`Mapping::Protect`](super::Mapping)
/// nothing is shared.
///
/// A child that is made by a system call directly, without that function, may execute another
/// program or end, but must not link, and must not run code that the parent removes meanwhile.
///
/// A thread that calls `fork` must not hold a [`Located`](super::Located): in the child, it keeps
/// no memory.
pub struct Memory {
    /// The registration of the code, see `trap.rs`. Dropped first.
    #[cfg(feature = "trap")]
    pub(super) traps: std::sync::OnceLock<kiln_trap::Registration>,
    pub(super) core: Core,
    /// Code that is no longer in use, but whose addresses still mean it to a profiler.
    kept: Mutex<Kept>,
}

/// Blocks that are freed when there are too many.
#[derive(Default)]
struct Kept {
    /// The oldest first.
    blocks: VecDeque<Block>,
    bytes: usize,
}

/// A block of memory, writable until it is published. A block of writable data is zeroed at first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub(super) address: *mut u8,
    pub(super) writable: *mut u8,
    pub(super) len: usize,
    retired: bool,
}

// SAFETY: a block is two addresses of memory that belongs to no thread.
unsafe impl Send for Block {}
// SAFETY: as above; only unsafe methods give access to it.
unsafe impl Sync for Block {}

impl Block {
    /// Returns the address at which the first byte is executed and read; dangling if the block is
    /// empty.
    pub(crate) fn address(self) -> u64 {
        self.address as u64
    }

    /// Whether the block has no bytes.
    pub(crate) fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Returns the block's bytes, where they are written.
    ///
    /// # Safety
    ///
    /// The block must be in use and not published, and no other reference to it may be live.
    pub(crate) unsafe fn bytes<'a>(self) -> &'a mut [u8] {
        // SAFETY: `Memory::allocate` took these bytes for this block alone and made them writable.
        // The caller promises that no other reference exists and that this is still so.
        unsafe { std::slice::from_raw_parts_mut(self.writable, self.len) }
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("usage", &self.usage()).finish_non_exhaustive()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        fork::remove(&self.core);
    }
}

impl Memory {
    /// Reserves address space.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] if the options are out of range or the system refuses.
    pub fn reserve(options: MemoryOptions) -> Result<Arc<Self>, MemoryError> {
        Self::with_system(System::default(), options)
    }

    /// Reserves address space through `system`.
    pub(super) fn with_system(system: System, options: MemoryOptions) -> Result<Arc<Self>, MemoryError> {
        let memory = Arc::new(Self {
            #[cfg(feature = "trap")]
            traps: std::sync::OnceLock::new(),
            core: Core::reserve(system, &options)?,
            kept: Mutex::default(),
        });
        // SAFETY: an `Arc` does not move what it owns, and `drop` removes it.
        unsafe { fork::add(&memory.core)? };
        Ok(memory)
    }

    /// Returns the memory that everything in this process shares that has none of its own. It is
    /// reserved at the first call, with the default options, and never given back.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] if the system refuses. The next call tries again.
    pub fn shared() -> Result<Arc<Self>, MemoryError> {
        static SHARED: AtomicPtr<Memory> = AtomicPtr::new(ptr::null_mut());
        Self::shared_in(&SHARED, Mapping::Auto)
    }

    /// Returns another memory that everything in this process shares, which is mapped once
    /// ([`Mapping::Protect`](super::Mapping)): for code that a debugger or perf looks at. Linux
    /// writes no breakpoint into memory that is mapped twice, and perf takes such memory for a file
    /// and looks for names there.
    ///
    /// # Errors
    ///
    /// The same errors as [`shared`](Self::shared).
    pub fn shared_for_tools() -> Result<Arc<Self>, MemoryError> {
        static SHARED: AtomicPtr<Memory> = AtomicPtr::new(ptr::null_mut());
        Self::shared_in(&SHARED, Mapping::Protect)
    }

    fn shared_in(place: &AtomicPtr<Self>, mapping: Mapping) -> Result<Arc<Self>, MemoryError> {
        // A child of `fork` never waits for a lock of a thread that it does not have, so there is
        // none: threads may race to reserve, and one wins.
        let mut shared = place.load(Ordering::Acquire).cast_const();
        if shared.is_null() {
            let options = MemoryOptions { mapping, ..MemoryOptions::default() };
            let new = Arc::into_raw(Self::reserve(options)?);
            let none = ptr::null_mut();
            let first = place.compare_exchange(none, new.cast_mut(), Ordering::AcqRel, Ordering::Acquire);
            shared = match first {
                Ok(_) => new,
                Err(winner) => {
                    // SAFETY: it came from `into_raw` above.
                    drop(unsafe { Arc::from_raw(new) });
                    winner
                }
            };
        }
        // SAFETY: it came from `into_raw`, and the count that this left is never taken back.
        unsafe {
            Arc::increment_strong_count(shared);
            Ok(Arc::from_raw(shared))
        }
    }

    /// Returns how many bytes are used for what.
    pub fn usage(&self) -> MemoryUsage {
        let [code, read_only, data] = Region::ALL.map(|region| self.core.usage(region));
        MemoryUsage { code, read_only, data }
    }

    /// Returns the addresses of the region for code. All code in it is ours or that of
    /// [`MemoryProvider`](super::MemoryProvider)s: who registers unwind rows for such code with
    /// `kiln_debug` names this range as its region, as a [`Jit`](crate::Jit) does.
    pub fn code_range(&self) -> Range<usize> {
        let start = self.core.views.address(Region::Code, 0) as usize;
        start..start + self.core.views.size(Region::Code)
    }

    /// Takes a block for code, as [`allocate`](Self::allocate) does. `is_start` says whether a
    /// function begins at an offset of the block. No function of the block will begin at a multiple
    /// of 4 GiB, see `boundary.rs`.
    pub(crate) fn allocate_code(
        &self,
        len: u64,
        align: u64,
        is_start: impl Fn(u64) -> bool,
    ) -> Result<Block, JitError> {
        let block = self.allocate(Region::Code, len, align)?;
        if !starts_at_boundary(block.address(), len, &is_start) {
            return Ok(block);
        }
        // The region has one boundary at most, so a second block does not contain it.
        let second = self.allocate(Region::Code, len, align);
        // SAFETY: nobody knows the block.
        unsafe { self.free(block) };
        second
    }

    /// Takes a block of `len` bytes, which are zeroed if they are writable data.
    pub(crate) fn allocate(&self, region: Region, len: u64, align: u64) -> Result<Block, JitError> {
        let limit = self.core.page as u64;
        if align > limit {
            return Err(JitError::Alignment { align, limit });
        }
        if len == 0 {
            let dangling = ptr::NonNull::<u8>::dangling().as_ptr();
            return Ok(Block { address: dangling, writable: dangling, len: 0, retired: false });
        }
        let Taken { range, dirty } = self.core.take(region, len, align as usize)?;
        let block = Block {
            address: self.core.views.address(region, range.start),
            writable: self.core.views.writable(region, range.start),
            len: len as usize,
            retired: false,
        };
        for part in dirty {
            // SAFETY: a part of the memory that was just taken for this block and made writable.
            unsafe { block.writable.add(part.start - range.start).write_bytes(0, part.len()) };
        }
        Ok(block)
    }

    /// Takes pages from the system for so many bytes of code and of read-only data, which are
    /// allocated next. The sizes may be wrong.
    pub(crate) fn take_pages_ahead(&self, code: u64, read_only: u64) {
        self.core.take_pages_ahead(Region::Code, code);
        self.core.take_pages_ahead(Region::ReadOnly, read_only);
    }

    /// In tests: lets the `n`-th of the next allocations and publications fail, from 0. Returns how
    /// many are left before it.
    #[cfg(test)]
    pub(crate) fn fail_at(&self, n: usize) -> usize {
        self.core.fuse.swap(n, Ordering::Relaxed)
    }

    /// Makes blocks usable after they were written: code becomes executable, constants read-only.
    /// After an error the blocks can only be freed.
    pub(crate) fn publish(&self, blocks: &[Block]) -> Result<(), JitError> {
        #[cfg(test)]
        self.core.burn(Region::Code)?;
        self.seal(blocks)?;
        let mut is_code = false;
        for block in blocks.iter().filter(|block| block.len > 0) {
            if self.core.locate(block.address as usize, block.len).0 == Region::Code {
                is_code = true;
                // SAFETY: the block is in use, so it is mapped at both addresses.
                unsafe { cache::publish(block.address, block.writable, block.len) }?;
                let start = block.address as usize;
                kiln_debug::valgrind::discard(&(start..start + block.len));
            }
        }
        if is_code {
            cache::flush_pipelines()?;
        }
        Ok(())
    }

    /// Takes the permission to write blocks away, if they have whole pages: with one system call
    /// for blocks that are next to each other.
    fn seal(&self, blocks: &[Block]) -> Result<(), MemoryError> {
        let views = &self.core.views;
        if !views.whole_pages(Region::Code) {
            return Ok(());
        }
        let mut all: Vec<(Region, Range<usize>)> = blocks
            .iter()
            .filter(|block| block.len > 0)
            .map(|block| self.core.locate(block.address as usize, block.len))
            .filter(|&(region, _)| views.whole_pages(region))
            .collect();
        all.sort_unstable_by_key(|(region, range)| (*region as usize, range.start));
        let joined =
            all.chunk_by(|(region, range), (next, after)| region == next && range.end == after.start);
        for run in joined {
            let [(region, first), ..] = run else { continue };
            let pages = first.start..run.last().map_or(first.end, |(_, last)| last.end);
            // SAFETY: whoever calls this has written the blocks.
            unsafe { views.seal(*region, pages) }?;
        }
        Ok(())
    }

    /// Counts a block as removed but perhaps still in use, until it is freed. Returns it.
    pub(crate) fn retire(&self, block: Block) -> Block {
        if block.len > 0 && !block.retired {
            let (region, range) = self.core.locate(block.address as usize, block.len);
            self.core.retire(region, range.len());
        }
        Block { retired: true, ..block }
    }

    /// Gives a block of code back, later: its addresses are not used again until other such blocks
    /// take a quarter of the region.
    ///
    /// # Safety
    ///
    /// Nobody uses the memory.
    pub(crate) unsafe fn keep(&self, block: Block) {
        if block.len == 0 {
            return;
        }
        let limit = self.core.views.size(Region::Code) / 4;
        let mut surplus = Vec::new();
        {
            // In a child of `fork`, a thread that is not there may hold the lock. Then the block is
            // never used again, which is what is wanted.
            let Ok(mut kept) = self.kept.try_lock() else { return };
            kept.bytes += block.len;
            kept.blocks.push_back(block);
            while kept.bytes > limit
                && let Some(oldest) = kept.blocks.pop_front()
            {
                kept.bytes -= oldest.len;
                surplus.push(oldest);
            }
        }
        for block in surplus {
            // SAFETY: whoever gave it here promised that nobody uses it.
            unsafe { self.free(block) };
        }
    }

    /// Returns the number of bytes of which every block of code takes a multiple.
    pub(crate) fn code_unit(&self) -> u64 {
        self.core.unit(Region::Code) as u64
    }

    /// Gives a block of data back that lookups read, and waits for them as blocks of code do.
    ///
    /// # Safety
    ///
    /// Nobody else uses the memory.
    pub(crate) unsafe fn free_looked_at(&self, block: Block) {
        if block.len > 0 {
            let (region, range) = self.core.locate(block.address as usize, block.len);
            // SAFETY: the caller promises it.
            unsafe { self.core.give_after(true, region, range, block.retired) };
        }
    }

    /// Gives a block back. Large free ranges go back to the system.
    ///
    /// # Safety
    ///
    /// Nobody uses the memory.
    ///
    /// # Panics
    ///
    /// If it is free already, or not of this memory.
    pub(crate) unsafe fn free(&self, block: Block) {
        if block.len > 0 {
            let (region, range) = self.core.locate(block.address as usize, block.len);
            // SAFETY: the caller promises it.
            unsafe { self.core.give(region, range, block.retired) };
        }
    }
}
