//! Memory for code and data, from one reservation.
//!
//! - `views.rs` maps it, `system.rs` makes the system calls, `cache.rs` looks after instruction
//!   caches;
//! - `ranges.rs` knows what is free, `pages.rs` what was taken from the system;
//! - `options.rs`, `usage.rs` and `error.rs` are what a client sees.
//!
//! A reservation has three regions: code, read-only data, and writable data. Each is contiguous, so
//! small batches share pages, and the number of mappings is a constant. Code is written through a
//! second mapping of the same memory. Allocating and freeing is bookkeeping under one short lock;
//! the system is asked for pages in steps.
//!
//! Invariant: all blocks of a [`Memory`] are within [`MemoryOptions::LIMIT`] bytes.

mod cache;
mod error;
mod options;
mod pages;
mod ranges;
mod system;
#[cfg(test)]
mod tests;
mod usage;
mod views;

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::JitError;

pub use error::{MemoryError, Region};
pub use options::{Mapping, MemoryOptions};
use pages::Pages;
use ranges::Ranges;
pub use system::Refused;
use system::System;
pub use usage::{MemoryUsage, RegionUsage};
use views::Views;

/// Address space for code and data, which any number of [`Jit`](crate::Jit)s share.
pub struct Memory {
    state: Mutex<State>,
    page: usize,
}

#[derive(Debug)]
struct State {
    views: Views,
    regions: [RegionState; 3],
}

#[derive(Debug)]
struct RegionState {
    ranges: Ranges,
    pages: Pages,
    retired: usize,
}

/// A block of memory. It is zeroed at first, and writable until it is published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    address: *mut u8,
    writable: *mut u8,
    len: usize,
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

    /// Returns the part of the block at `range`, to free it by itself.
    ///
    /// # Panics
    ///
    /// If `range` is not inside, or does not begin and end at a multiple of 8 bytes or at the end.
    pub(crate) fn part(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {} bytes", self.len);
        let whole = |offset: usize| offset.is_multiple_of(GRANULE) || offset == self.len;
        assert!(whole(range.start) && whole(range.end), "{range:?} is not whole cells");
        let (address, writable) =
            (self.address.wrapping_add(range.start), self.writable.wrapping_add(range.start));
        Self { address, writable, len: range.len(), retired: self.retired }
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

/// Blocks begin at multiples of this number of bytes: the size of a slot.
const GRANULE: usize = 8;

/// Bytes of code or read-only data that are taken from the system at once.
const SHARED_STEP: usize = 64 << 10;
/// Bytes of writable data that are taken from the system at once. Taking them uses no memory yet.
const DATA_STEP: usize = 1 << 20;

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("usage", &self.usage()).finish_non_exhaustive()
    }
}

impl Memory {
    /// Reserves address space.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] if the options are out of range or the system refuses.
    pub fn reserve(options: MemoryOptions) -> Result<Arc<Self>, MemoryError> {
        let page = rustix::param::page_size();
        let views = Views::reserve(System::default(), &options, page)?;
        let regions = Region::ALL.map(|region| {
            let size = views.size(region);
            let step = if region == Region::Data { DATA_STEP } else { SHARED_STEP };
            // If pages change their permissions, each block takes its own.
            let step = if views.whole_pages(region) { page } else { step };
            RegionState { ranges: Ranges::new(size), pages: Pages::new(size, page, step), retired: 0 }
        });
        Ok(Arc::new(Self { state: Mutex::new(State { views, regions }), page }))
    }

    /// Returns the memory that everything in this process shares that has none of its own. It is
    /// reserved at the first call, with the default options, and never given back.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] if the system refuses. The next call tries again.
    pub fn shared() -> Result<Arc<Self>, MemoryError> {
        static SHARED: Mutex<Option<Arc<Memory>>> = Mutex::new(None);
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(memory) = &*shared {
            return Ok(memory.clone());
        }
        let memory = Self::reserve(MemoryOptions::default())?;
        *shared = Some(memory.clone());
        Ok(memory)
    }

    /// Returns how many bytes are used for what.
    pub fn usage(&self) -> MemoryUsage {
        let state = self.lock();
        let mut usage = MemoryUsage::default();
        for region in Region::ALL {
            let reserved = state.views.size(region);
            let RegionState { ranges, retired, .. } = &state.regions[region as usize];
            let (free, retired) = (ranges.free(), *retired);
            *usage.region_mut(region) =
                RegionUsage { reserved, used: reserved - free - retired, retired, free };
        }
        usage
    }

    /// Returns the lock of the bookkeeping, which no client code runs under.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a block for code, as [`allocate`](Self::allocate) does. `is_start` says whether a
    /// function begins at an offset of the block. No function of the block will begin at a multiple
    /// of [`BOUNDARY`].
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

    /// Takes a block of `len` bytes, which are zeroed.
    pub(crate) fn allocate(&self, region: Region, len: u64, align: u64) -> Result<Block, JitError> {
        let limit = self.page as u64;
        if align > limit {
            return Err(JitError::Alignment { align, limit });
        }
        if len == 0 {
            let dangling = std::ptr::NonNull::<u8>::dangling().as_ptr();
            return Ok(Block { address: dangling, writable: dangling, len: 0, retired: false });
        }
        let mut state = self.lock();
        let State { views, regions } = &mut *state;
        let unit = if views.whole_pages(region) { self.page } else { GRANULE };
        let RegionState { ranges, pages, .. } = &mut regions[region as usize];
        let rounded = usize::try_from(len).ok().and_then(|len| len.checked_next_multiple_of(unit));
        let taken = rounded.and_then(|rounded| {
            let start = ranges.take(rounded, (align as usize).max(unit))?;
            Some(start..start + rounded)
        });
        let Some(taken) = taken else {
            let (free, largest) = (ranges.free() as u64, ranges.largest() as u64);
            let size = views.size(region) as u64;
            return Err(MemoryError::Full { region, asked: len, free, largest, size }.into());
        };
        let mut dirty = pages.touch(taken.clone(), &|pages| views.commit(region, pages));
        if views.whole_pages(region) && dirty.as_ref().is_ok_and(|dirty| !dirty.is_empty()) {
            // SAFETY: the pages were just taken for this block alone.
            dirty = unsafe { views.unseal(region, taken.clone()) }.and(dirty);
        }
        let dirty = dirty.map_err(|refused| {
            ranges.give(taken.clone());
            MemoryError::from(refused)
        })?;
        let block = Block {
            address: views.address(region, taken.start),
            writable: views.writable(region, taken.start),
            len: len as usize,
            retired: false,
        };
        drop(state);
        for range in dirty {
            // SAFETY: a part of the memory that was just taken for this block and made writable.
            unsafe { block.writable.add(range.start - taken.start).write_bytes(0, range.len()) };
        }
        Ok(block)
    }

    /// Makes blocks usable after they were written: code becomes executable, constants read-only.
    pub(crate) fn publish(&self, blocks: &[Block]) -> Result<(), JitError> {
        let mut code = false;
        for block in blocks.iter().filter(|block| block.len > 0) {
            let state = self.lock();
            let (region, start) = state.views.find(block.address as usize).expect("a block of this memory");
            if state.views.whole_pages(region) {
                let pages = start..(start + block.len).next_multiple_of(self.page);
                // SAFETY: whoever calls this has written the block.
                unsafe { state.views.seal(region, pages) }.map_err(MemoryError::from)?;
            }
            drop(state);
            if region == Region::Code {
                code = true;
                // SAFETY: the block is in use, so it is mapped at both addresses.
                unsafe { cache::publish(block.address, block.writable, block.len) }.map_err(flush_failed)?;
            }
        }
        if code {
            cache::flush_pipelines().map_err(flush_failed)?;
        }
        Ok(())
    }

    /// Counts a block as removed but perhaps still in use, until it is freed. Returns it.
    pub(crate) fn retire(&self, block: Block) -> Block {
        if block.len > 0 && !block.retired {
            let mut state = self.lock();
            let (region, range) = self.range(&state.views, block);
            state.regions[region as usize].retired += range.len();
        }
        Block { retired: true, ..block }
    }

    /// Gives a block back, or a [part](Block::part) of one.
    ///
    /// # Safety
    ///
    /// Nobody uses the memory.
    ///
    /// # Panics
    ///
    /// If it is free already, or not of this memory.
    pub(crate) unsafe fn free(&self, block: Block) {
        if block.len == 0 {
            return;
        }
        let mut state = self.lock();
        let (region, range) = self.range(&state.views, block);
        let RegionState { ranges, retired, .. } = &mut state.regions[region as usize];
        if block.retired {
            *retired -= range.len();
        }
        ranges.give(range);
    }

    /// Returns the region of a block, and the range that it takes there.
    fn range(&self, views: &Views, block: Block) -> (Region, Range<usize>) {
        let (region, start) = views.find(block.address as usize).expect("a block of this memory");
        let unit = if views.whole_pages(region) { self.page } else { GRANULE };
        (region, start..(start + block.len).next_multiple_of(unit))
    }
}

fn flush_failed(source: std::io::Error) -> MemoryError {
    Refused { call: "membarrier", purpose: "to refresh instruction caches", source }.into()
}

/// A function must not begin at a multiple of this number of bytes. When linkers remove a function,
/// they leave its unwind rows with a zero address, and libgcc's unwinder ignores such rows. If
/// addresses are encoded in 4 bytes, it tests only the low 32 bits of the address that it computes
/// (`unwind-dw2-fde.c`, `classify_object_over_fdes`), so it also ignores a function at a multiple
/// of 4 GiB, and no panic can unwind through that function.
const BOUNDARY: u64 = 1 << 32;

/// Returns whether a function in `len` bytes of code at `address` begins at a [`BOUNDARY`].
/// `is_start` says whether a function begins at an offset.
fn starts_at_boundary(address: u64, len: u64, is_start: impl Fn(u64) -> bool) -> bool {
    let offset = address.next_multiple_of(BOUNDARY) - address;
    offset < len && is_start(offset)
}
