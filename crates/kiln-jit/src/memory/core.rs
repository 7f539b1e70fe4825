//! The bookkeeping of a memory: takes ranges of its regions and gives them back.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::io::Errno;

use super::error::{MemoryError, Region};
use super::forks;
use super::index::{CELL, Index};
use super::options::MemoryOptions;
use super::pages::Pages;
use super::ranges::Ranges;
use super::system::{Refused, System};
use super::usage::RegionUsage;
use super::views::Views;
use crate::epoch::{Epoch, Epochs};

/// The mappings, and what is free in each region.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) views: Views,
    regions: [Mutex<RegionState>; 3],
    /// The blocks of code that can be found by an address. It changes while the region is locked.
    pub(super) index: Index,
    /// Those who look up an address. `now` and `advance` are called while the region of code is
    /// locked.
    pub(super) lookups: Epochs,
    pub(super) page: usize,
    /// The error with which the system refuses to close pages of code that were open.
    cannot_close: OnceLock<Errno>,
    /// In tests: how many more ranges are taken before one is refused.
    #[cfg(test)]
    pub(super) fuse: std::sync::atomic::AtomicUsize,
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
    /// Ranges that were given back, but a child of a fork may still use them.
    waiting: Vec<Waiting>,
    /// Bytes of such ranges since the children were last looked at.
    waiting_since: usize,
    /// Bytes that were given back since pages were last returned to the system.
    given: usize,
    /// Ranges that were given back, but who looks up an address may still read them.
    looked_at: Vec<(Epoch, Range<usize>)>,
}

/// A range that children of the forks after `since`, up to and including `until`, may use.
#[derive(Debug)]
struct Waiting {
    range: Range<usize>,
    since: u32,
    until: u32,
}

/// A range that was taken, and the parts of it that are not zero.
pub(super) struct Taken {
    pub(super) range: Range<usize>,
    pub(super) dirty: Vec<Range<usize>>,
}

/// Ranges of data begin at multiples of this number of bytes: the size of a slot.
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
            let step = if options.huge_pages { step.max(options.unit(page)) } else { step };
            // If pages change their permissions, each block takes its own.
            let step = if views.whole_pages(region) { page } else { step };
            let pages = Pages::new(size, page, step);
            let ranges = Ranges::new(size);
            Mutex::new(RegionState {
                ranges,
                pages,
                retired: 0,
                open: Vec::new(),
                waiting: Vec::new(),
                waiting_since: 0,
                given: 0,
                looked_at: Vec::new(),
            })
        });
        Ok(Self {
            index: views.index()?,
            lookups: Epochs::default(),
            views,
            regions,
            page,
            cannot_close: OnceLock::new(),
            #[cfg(test)]
            fuse: usize::MAX.into(),
        })
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
    pub(super) fn unit(&self, region: Region) -> usize {
        match region {
            _ if self.views.whole_pages(region) => self.page,
            // What begins at a multiple of a cell can be looked up. With the same unit for lengths,
            // no free ranges remain between.
            Region::Code => CELL,
            Region::ReadOnly | Region::Data => GRANULE,
        }
    }

    /// Takes `len` bytes that begin at a multiple of `align`, which is at most a page. Which parts
    /// of them are not zero is found out for data only: code and constants are written as a whole.
    pub(super) fn take(&self, region: Region, len: u64, align: usize) -> Result<Taken, MemoryError> {
        #[cfg(test)]
        self.burn(region)?;
        self.leave_parent(region)?;
        let zeroed = region == Region::Data || self.views.whole_pages(region);
        self.take_units(region, &mut self.lock(region), len, align, self.unit(region), zeroed)
    }

    /// Takes the pages from the system that a range of about `len` bytes will be in, if nothing
    /// else is taken before it. Taking them later takes as long, so a failure is for whoever needs
    /// them.
    pub(super) fn take_pages_ahead(&self, region: Region, len: u64) {
        if !self.views.shared(region) || self.views.is_parents() {
            return;
        }
        let unit = self.unit(region);
        let mut state = self.lock(region);
        let RegionState { ranges, pages, .. } = &mut *state;
        let Some(len) = usize::try_from(len).ok().and_then(|len| len.checked_next_multiple_of(unit)) else {
            return;
        };
        let Some(start) = ranges.take(len, unit) else { return };
        ranges.give(start..start + len);
        let _ = pages.take(start..start + len, &|pages| self.views.commit(region, pages));
    }

    /// In tests: fails if the fuse has burnt down.
    #[cfg(test)]
    pub(super) fn burn(&self, region: Region) -> Result<(), MemoryError> {
        use std::sync::atomic::Ordering::Relaxed;
        let full = MemoryError::Full { region, asked: 0, free: 0, largest: 0, size: 0 };
        // After this failure everything works again.
        if self.fuse.fetch_sub(1, Relaxed) == 0 { Err(full) } else { Ok(()) }
    }

    /// Takes a multiple of `unit` bytes.
    fn take_units(
        &self,
        region: Region,
        state: &mut RegionState,
        len: u64,
        align: usize,
        unit: usize,
        zeroed: bool,
    ) -> Result<Taken, MemoryError> {
        let rounded = usize::try_from(len).ok().and_then(|len| len.checked_next_multiple_of(unit));
        let take = |ranges: &mut Ranges| {
            let start = ranges.take(rounded?, align.max(unit))?;
            Some(start..start + rounded?)
        };
        let range = take(&mut state.ranges).or_else(|| {
            state.look_at_children();
            take(&mut state.ranges)
        });
        let RegionState { ranges, pages, .. } = state;
        let Some(range) = range else {
            let (free, largest) = (ranges.free() as u64, ranges.largest() as u64);
            let size = self.views.size(region) as u64;
            return Err(MemoryError::Full { region, asked: len, free, largest, size });
        };
        let commit = |pages| self.views.commit(region, pages);
        let mut dirty = pages.touch(range.clone(), forks::count(), zeroed, &commit);
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
        self.leave_parent(region)?;
        let mut state = self.lock(region);
        let taken = self.take_units(region, &mut state, len, self.page, self.page, true)?;
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
        // SAFETY: the caller promises it. Nobody looks at most writable data.
        unsafe { self.give_after(region != Region::Data, region, range, retired) };
    }

    /// Gives a range back, as [`give`](Self::give) does. `looked_at` says that whoever looks an
    /// address up may read it.
    ///
    /// # Safety
    ///
    /// Nobody else uses the range.
    pub(super) unsafe fn give_after(
        &self,
        looked_at: bool,
        region: Region,
        range: Range<usize>,
        retired: bool,
    ) {
        let lookups = looked_at.then(|| self.wait_for_lookups());
        let mut state = self.lock(region);
        if retired {
            state.retired -= range.len();
        }
        state.given += range.len();
        let is_watched = self.views.shared(region) && forks::is_watching();
        match lookups {
            Some((since, until)) if !since.is_past_at(until) => state.looked_at.push((since, range)),
            _ => state.give_when_unused(range, is_watched),
        }
        if let Some((_, until)) = lookups {
            state.give_unseen(until, is_watched);
        }
        while state.given >= RETURN && self.return_pages(region, &mut state) {
            // Others may use the region in between.
            drop(state);
            state = self.lock(region);
        }
    }

    /// Returns the time now, and the time after as many steps as guards of lookups permit.
    fn wait_for_lookups(&self) -> (Epoch, Epoch) {
        let _code = self.lock(Region::Code);
        let now = self.lookups.now();
        self.lookups.advance();
        (now, self.lookups.now())
    }

    /// Returns some free pages to the system, and whether there are more.
    fn return_pages(&self, region: Region, state: &mut RegionState) -> bool {
        let RegionState { ranges, pages, given, .. } = state;
        let in_use = self.views.size(region) - ranges.free();
        let mut budget = RETURN_AT_ONCE;
        // The pages of a parent are not ours to give.
        if pages.used() >= in_use + RETURN && !(self.views.shared(region) && self.views.is_parents()) {
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
        let (_, until) = self.wait_for_lookups();
        let mut state = self.lock(region);
        state.give_unseen(until, self.views.shared(region) && forks::is_watching());
        state.look_at_children();
        let waiting = state.waiting.iter().map(|waiting| &waiting.range);
        let waiting: usize =
            waiting.chain(state.looked_at.iter().map(|(_, range)| range)).map(Range::len).sum();
        let (reserved, free) = (self.views.size(region), state.ranges.free());
        let retired = state.retired + waiting;
        RegionUsage { reserved, used: reserved - free - retired, retired, free }
    }
}

/// The steps before and after a fork.
impl Core {
    /// Returns whether a child that is made now shares memory that is ours. The regions are locked.
    pub(super) fn will_share(&self, regions: &[MutexGuard<'_, RegionState>]) -> bool {
        let used = |region: Region| self.views.shared(region) && regions[region as usize].pages.used() > 0;
        !self.views.is_parents() && Region::ALL.into_iter().any(used)
    }

    /// Notes that this is a child, while the regions are locked. Returns whether memory is shared
    /// with an ancestor.
    pub(super) fn in_child(&self) -> bool {
        self.lookups.forget_guards();
        self.views.in_child()
    }

    /// Copies the memory now, in a child, because pages are open. If that fails, they cannot be
    /// written any more: that would change them in the parent.
    pub(super) fn copy_open_pages(&self) {
        if self.leave_parent(Region::Code).is_err() {
            for region in [Region::Code, Region::ReadOnly] {
                for open in &self.lock(region).open {
                    // SAFETY: the pages stay readable.
                    let _ = unsafe { self.views.seal(region, open.clone()) };
                }
            }
        }
    }

    /// Makes the memory private if it is shared with the parent.
    fn leave_parent(&self, region: Region) -> Result<(), MemoryError> {
        if !self.views.shared(region) || !self.views.is_parents() {
            return Ok(());
        }
        let mut code = self.lock(Region::Code);
        let mut read_only = self.lock(Region::ReadOnly);
        if !self.views.is_parents() {
            return Ok(());
        }
        let regions = [(Region::Code, &mut *code), (Region::ReadOnly, &mut *read_only)];
        let used = regions.each_ref().map(|(region, state)| (*region, state.pages.used_ranges().collect()));
        let open = regions.each_ref().map(|(region, state)| (*region, state.open.clone()));
        self.views.copy_for_child(used, open)?;
        for (_, state) in regions {
            state.pages.forget_clean();
            for Waiting { range, .. } in std::mem::take(&mut state.waiting) {
                state.ranges.give(range);
            }
        }
        forks::one_is_private();
        Ok(())
    }

    /// Says that a memory that is about to be dropped shares nothing with an ancestor.
    pub(super) fn leave_ancestor(&self) {
        if self.views.is_parents() {
            forks::one_is_private();
        }
    }
}

/// Bytes that wait for children before the children are looked at again.
const LOOK: usize = 64 << 10;

impl RegionState {
    /// Returns whether pages are writable where they will be executed or read.
    pub(super) fn has_open_pages(&self) -> bool {
        !self.open.is_empty()
    }

    /// Gives ranges back that nobody who looks up an address can read any more.
    fn give_unseen(&mut self, until: Epoch, is_watched: bool) {
        if self.looked_at.is_empty() {
            return;
        }
        let past = self.looked_at.partition_point(|(since, _)| since.is_past_at(until));
        for (_, range) in self.looked_at.drain(..past).collect::<Vec<_>>() {
            self.give_when_unused(range, is_watched);
        }
    }

    /// Gives a range back as far as no child can use it; the rest waits. `is_watched` says that
    /// there may be children.
    fn give_when_unused(&mut self, range: Range<usize>, is_watched: bool) {
        if !is_watched {
            self.ranges.give(range);
            return;
        }
        let until = forks::count();
        for (since, part) in self.pages.by_age(range) {
            if since == until {
                self.ranges.give(part);
            } else {
                self.waiting_since += part.len();
                self.waiting.push(Waiting { range: part, since, until });
            }
        }
        if self.waiting_since >= LOOK {
            self.look_at_children();
        }
    }

    /// Gives ranges back that waited for children which do not use them any more.
    fn look_at_children(&mut self) {
        self.waiting_since = 0;
        if self.waiting.is_empty() {
            return;
        }
        let live = forks::live();
        let is_used = |waiting: &Waiting| {
            live.iter().any(|forks| *forks.start() <= waiting.until && *forks.end() > waiting.since)
        };
        for Waiting { range, .. } in self.waiting.extract_if(.., |waiting| !is_used(waiting)) {
            self.ranges.give(range);
        }
    }
}
