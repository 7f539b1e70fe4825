//! The bookkeeping of a memory: takes ranges of its regions and gives them back.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::io::Errno;

use super::error::{MemoryError, Region};
use super::options::MemoryOptions;
use super::pages::Pages;
use super::ranges::Ranges;
use super::system::{Refused, System};
use super::usage::RegionUsage;
use super::views::Views;

/// The mappings, and what is free in each region.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) views: Views,
    regions: [Mutex<RegionState>; 3],
    pub(super) page: usize,
    /// The error with which the system refuses to close pages of code that were open.
    cannot_close: OnceLock<Errno>,
}

/// One region; offsets are from its start.
#[derive(Debug)]
pub(super) struct RegionState {
    pub(super) ranges: Ranges,
    pages: Pages,
    /// Bytes in use that are counted as retired.
    retired: usize,
    /// Pages of a dual mapping that are writable where they will be executed or read.
    open: Vec<Range<usize>>,
    /// Bytes that were given back since pages were last returned to the system.
    given: usize,
}

/// A range that was taken, and the parts of it that are not zero.
pub(super) struct Taken {
    pub(super) range: Range<usize>,
    pub(super) dirty: Vec<Range<usize>>,
}

/// Ranges begin at multiples of this number of bytes: the size of a slot.
pub(super) const GRANULE: usize = 8;

/// Bytes of code or read-only data that are taken from the system at once.
const SHARED_STEP: usize = 64 << 10;
/// Bytes of writable data that are taken from the system at once. Taking them uses no memory yet.
const DATA_STEP: usize = 1 << 20;

/// When this many bytes were given back and as many are free, pages go back to the system.
const RETURN: usize = 1 << 20;
/// Only free ranges of this many bytes go back: each is a system call.
const RETURN_LEAST: usize = 64 << 10;
/// Bytes that go back to the system while a lock is held, which takes about a millisecond.
const RETURN_AT_ONCE: usize = 8 << 20;

impl Core {
    /// Reserves address space.
    pub(super) fn reserve(system: System, options: &MemoryOptions) -> Result<Self, MemoryError> {
        let page = rustix::param::page_size();
        let views = Views::reserve(system, options, page)?;
        let regions = Region::ALL.map(|region| {
            let size = views.size(region);
            let step = if region == Region::Data { DATA_STEP } else { SHARED_STEP };
            // If pages change their permissions, each block takes its own.
            let step = if views.whole_pages(region) { page } else { step };
            let pages = Pages::new(size, page, step);
            let ranges = Ranges::new(size);
            Mutex::new(RegionState { ranges, pages, retired: 0, open: Vec::new(), given: 0 })
        });
        Ok(Self { views, regions, page, cannot_close: OnceLock::new() })
    }

    /// Locks a region. No client code runs under the lock.
    pub(super) fn lock(&self, region: Region) -> MutexGuard<'_, RegionState> {
        self.regions[region as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the region of a block, and the range that it takes there.
    ///
    /// # Panics
    ///
    /// If the block is not in this memory.
    pub(super) fn locate(&self, address: usize, len: usize) -> (Region, Range<usize>) {
        let (region, start) = self.views.find(address).expect("a block of this memory");
        let range = start..(start + len).next_multiple_of(self.unit(region));
        assert!(range.end <= self.views.size(region), "a block of this memory");
        (region, range)
    }

    /// Returns the number of bytes of which every range that is taken has a multiple.
    fn unit(&self, region: Region) -> usize {
        if self.views.whole_pages(region) { self.page } else { GRANULE }
    }

    /// Takes `len` bytes that begin at a multiple of `align`, which is at most a page.
    pub(super) fn take(&self, region: Region, len: u64, align: usize) -> Result<Taken, MemoryError> {
        self.take_units(region, &mut self.lock(region), len, align, self.unit(region))
    }

    /// Takes a multiple of `unit` bytes.
    fn take_units(
        &self,
        region: Region,
        state: &mut RegionState,
        len: u64,
        align: usize,
        unit: usize,
    ) -> Result<Taken, MemoryError> {
        let RegionState { ranges, pages, .. } = state;
        let rounded = usize::try_from(len).ok().and_then(|len| len.checked_next_multiple_of(unit));
        let range = rounded.and_then(|rounded| {
            let start = ranges.take(rounded, align.max(unit))?;
            Some(start..start + rounded)
        });
        let Some(range) = range else {
            let (free, largest) = (ranges.free() as u64, ranges.largest() as u64);
            let size = self.views.size(region) as u64;
            return Err(MemoryError::Full { region, asked: len, free, largest, size });
        };
        let mut dirty = pages.touch(range.clone(), 0, &|pages| self.views.commit(region, pages));
        if self.views.whole_pages(region) && dirty.as_ref().is_ok_and(|dirty| !dirty.is_empty()) {
            // SAFETY: the pages were just taken for this block alone.
            dirty = unsafe { self.views.unseal(region, range.clone()) }.and(dirty);
        }
        match dirty {
            Ok(dirty) => Ok(Taken { range, dirty }),
            Err(refused) => {
                ranges.give(range);
                Err(refused.into())
            }
        }
    }

    /// Takes whole pages that are writable where they will be executed or read, until they are
    /// [closed](Self::close). In the writable region all pages are.
    pub(super) fn open(&self, region: Region, len: u64) -> Result<Taken, MemoryError> {
        if let Some(&errno) = self.cannot_close.get() {
            return Err(Refused::to_make_executable(errno).into());
        }
        let mut state = self.lock(region);
        let taken = self.take_units(region, &mut state, len, self.page, self.page)?;
        if region == Region::Data || self.views.whole_pages(region) {
            return Ok(taken);
        }
        let pages = || taken.range.clone();
        // SAFETY: the pages were just taken for this caller alone.
        if let Err(refused) = unsafe { self.views.unseal(region, pages()) } {
            state.ranges.give(pages());
            return Err(refused.into());
        }
        // Find out now whether the pages can be closed: where they cannot, they are lost.
        // SAFETY: as above.
        let closed = unsafe { self.views.seal(region, pages()) };
        if let Err(refused) = closed {
            let _ = self.cannot_close.set(refused.errno());
            return Err(refused.into());
        }
        // SAFETY: as above.
        if let Err(refused) = unsafe { self.views.unseal(region, pages()) } {
            state.ranges.give(pages());
            return Err(refused.into());
        }
        state.open.push(pages());
        Ok(taken)
    }

    /// Takes the permission to write open pages away.
    ///
    /// # Safety
    ///
    /// Nobody writes to the pages.
    pub(super) unsafe fn close(&self, region: Region, pages: Range<usize>) -> Result<(), MemoryError> {
        let mut state = self.lock(region);
        if region != Region::Data {
            // SAFETY: the caller promises it.
            unsafe { self.views.seal(region, pages.clone()) }?;
        }
        state.open.retain(|open| *open != pages);
        Ok(())
    }

    /// Counts bytes that are in use as retired.
    pub(super) fn retire(&self, region: Region, len: usize) {
        self.lock(region).retired += len;
    }

    /// Gives a range back. `retired` says that it was counted as retired.
    ///
    /// # Safety
    ///
    /// Nobody uses the range.
    pub(super) unsafe fn give(&self, region: Region, range: Range<usize>, retired: bool) {
        let mut state = self.lock(region);
        if retired {
            state.retired -= range.len();
        }
        state.given += range.len();
        state.ranges.give(range);
        while state.given >= RETURN && self.return_pages(region, &mut state) {
            // Others may use the region in between.
            drop(state);
            state = self.lock(region);
        }
    }

    /// Returns some free pages to the system, and whether there are more.
    fn return_pages(&self, region: Region, state: &mut RegionState) -> bool {
        let RegionState { ranges, pages, given, .. } = state;
        let in_use = self.views.size(region) - ranges.free();
        let mut budget = RETURN_AT_ONCE;
        if pages.used() >= in_use + RETURN {
            for range in ranges.at_least(RETURN_LEAST.max(self.page)) {
                // SAFETY: the pages are in a free range.
                let call = |pages: Range<usize>| unsafe { self.views.discard(region, pages) };
                budget -= pages.discard(range, budget, self.views.stays(region), &call).min(budget);
                if budget == 0 {
                    return true;
                }
            }
        }
        *given = 0;
        false
    }

    /// Returns how many bytes of a region are used for what.
    pub(super) fn usage(&self, region: Region) -> RegionUsage {
        let state = self.lock(region);
        let (reserved, free, retired) = (self.views.size(region), state.ranges.free(), state.retired);
        RegionUsage { reserved, used: reserved - free - retired, retired, free }
    }
}
