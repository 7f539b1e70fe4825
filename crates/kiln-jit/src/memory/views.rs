//! The mappings: one reservation with the three regions, and where they are written.
//!
//! Code and read-only data are a file in memory that is mapped twice. The reservation has the view
//! that is executed and read; the other view is elsewhere and is writable. Only the page tables
//! differ, so what is written through one view is seen through the other at once, and permissions
//! never change. Where the system refuses this, the memory is mapped once, and the pages of a block
//! are writable until they are published.
//!
//! Invariants: no page is writable and executable at one address. The number of mappings does not
//! depend on what is allocated, except that pages that are not yet published split a mapping where
//! there is one view. No file descriptor stays open, because a process may close all that it has.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use super::error::{MemoryError, Region};
use super::index::Index;
use super::options::{Mapping, MemoryOptions};
use super::system::{Access, Refused, System};

/// Ranges of the two regions that are in the file.
pub(super) type SharedRanges = [(Region, Vec<Range<usize>>); 2];

/// The mappings of a memory.
#[derive(Debug)]
pub(super) struct Views {
    system: System,
    /// The reservation.
    base: *mut u8,
    /// The offsets at which the regions end.
    ends: [usize; 3],
    /// The addresses of the views are multiples of this: the size of a page, or of a huge one.
    unit: usize,
    huge_pages: bool,
    /// Whether code and read-only data are a file that is mapped twice.
    dual: bool,
    /// The writable view of the first two regions; null if there is none.
    writable: AtomicPtr<u8>,
    /// Whether the file is that of a process of which this one is a child.
    parents: AtomicBool,
}

// SAFETY: the mappings belong to no thread.
unsafe impl Send for Views {}
// SAFETY: as above; methods that change mappings are unsafe or change only unused pages.
unsafe impl Sync for Views {}

impl Views {
    /// Reserves address space for the regions.
    pub(super) fn reserve(system: System, options: &MemoryOptions, page: usize) -> Result<Self, MemoryError> {
        let ends = options.ends(page)?;
        let (unit, huge_pages) = (options.unit(page), options.huge_pages);
        let new = |system: System, dual| {
            let base = system.reserve(ends[2], unit)?;
            if huge_pages {
                system.prefer_huge_pages(base, ends[2]);
            }
            let writable = AtomicPtr::new(ptr::null_mut());
            Ok::<_, Refused>(Self {
                system,
                base,
                ends,
                unit,
                huge_pages,
                dual,
                writable,
                parents: AtomicBool::new(false),
            })
        };
        if options.mapping == Mapping::Protect {
            let views = new(system, false)?;
            views.try_permissions(page)?;
            return Ok(views);
        }
        let mut views = new(system, true)?;
        match views.map_twice() {
            Ok(()) => Ok(views),
            Err(refused) if options.mapping == Mapping::Dual => Err(refused.into()),
            Err(twice) => {
                // The failure may have left a part of the file in this reservation.
                let system = std::mem::take(&mut views.system);
                drop(views);
                let views = new(system, false)?;
                match views.try_permissions(page) {
                    Ok(()) => Ok(views),
                    Err(once) => Err(MemoryError::NotExecutable { twice, once }),
                }
            }
        }
    }

    /// Puts a file in place of the first two regions, and maps it once more, writable.
    fn map_twice(&mut self) -> Result<(), Refused> {
        let file = self.system.memory_file(self.ends[1])?;
        *self.writable.get_mut() = self.map_writable(&file)?;
        // SAFETY: the reservation is new, and nothing uses it.
        unsafe { self.map_run(&file) }
    }

    /// Maps `file` where it is written, and not in children.
    fn map_writable(&self, file: &OwnedFd) -> Result<*mut u8, Refused> {
        let len = self.ends[1];
        let writable = self.system.reserve(len, self.unit)?;
        // SAFETY: the address space was just reserved.
        let mapped = unsafe { self.system.map_file(writable, len, Access::ReadWrite, file, 0) };
        mapped.and_then(|()| self.system.not_in_children(writable, len)).inspect_err(|_| {
            // SAFETY: the mapping is new.
            unsafe { self.system.unmap(writable, len) };
        })?;
        if self.huge_pages {
            self.system.prefer_huge_pages(writable, len);
        }
        Ok(writable)
    }

    /// Maps `file` in place of the first two regions.
    ///
    /// # Safety
    ///
    /// The file has the content of everything in the regions that is in use.
    unsafe fn map_run(&self, file: &OwnedFd) -> Result<(), Refused> {
        let [code, shared, _] = self.ends;
        // SAFETY: the range is a part of the reservation; the caller promises that nobody sees a
        // difference.
        unsafe {
            self.system.map_file(self.base, code, Access::ReadExecute, file, 0)?;
            self.system.map_file(self.base.add(code), shared - code, Access::Read, file, code)?;
        }
        if self.huge_pages {
            self.system.prefer_huge_pages(self.base, shared);
        }
        Ok(())
    }

    /// Returns whether the file is that of a process of which this one is a child. Then nothing in
    /// it may be written, and this process has no writable view.
    pub(super) fn is_parents(&self) -> bool {
        self.parents.load(Ordering::Acquire)
    }

    /// Notes that this process is a child. Returns whether the file is that of the parent.
    pub(super) fn in_child(&self) -> bool {
        // The writable view does not exist here, and what is at its address is not ours.
        self.writable.store(ptr::null_mut(), Ordering::Relaxed);
        self.parents.store(self.dual, Ordering::Release);
        self.dual
    }

    /// Replaces the file of the parent by a copy of its used pages. Pages that were open stay open.
    pub(super) fn copy_for_child(&self, used: SharedRanges, open: SharedRanges) -> Result<(), Refused> {
        let file = self.system.memory_file(self.ends[1])?;
        for (region, ranges) in used {
            for range in ranges {
                let start = self.address(region, range.start);
                // SAFETY: pages of the reservation, which can be read.
                unsafe { self.system.copy(&file, self.start(region) + range.start, start, range.len())? };
            }
        }
        let writable = self.map_writable(&file)?;
        // SAFETY: the file has a copy of every page that was used. The parent writes only to parts
        // of them that nothing here uses.
        let mapped = unsafe { self.map_run(&file) }.and_then(|()| {
            let all = open.iter().flat_map(|(region, ranges)| ranges.iter().map(|range| (*region, range)));
            // SAFETY: they were open before.
            all.into_iter().try_for_each(|(region, range)| unsafe { self.unseal(region, range.clone()) })
        });
        if let Err(refused) = mapped {
            // SAFETY: nobody knows this mapping. Each region has either file, with the same
            // content.
            unsafe { self.system.unmap(writable, self.ends[1]) };
            return Err(refused);
        }
        self.writable.store(writable, Ordering::Relaxed);
        self.parents.store(false, Ordering::Release);
        Ok(())
    }

    /// Finds out whether a page may be writable and later executable, so that a refusal is found
    /// now and not when the first code is published.
    fn try_permissions(&self, page: usize) -> Result<(), Refused> {
        // SAFETY: the reservation is new, and nothing uses it.
        unsafe {
            self.system.protect(self.base, page, Access::ReadWrite)?;
            self.system.protect(self.base, page, Access::ReadExecute)
        }
    }

    /// Returns the offset at which a region starts.
    fn start(&self, region: Region) -> usize {
        match region {
            Region::Code => 0,
            Region::ReadOnly => self.ends[0],
            Region::Data => self.ends[1],
        }
    }

    /// Returns the size of a region, in bytes.
    pub(super) fn size(&self, region: Region) -> usize {
        self.ends[region as usize] - self.start(region)
    }

    /// Returns whether `region` is in the file that is mapped twice.
    pub(super) fn shared(&self, region: Region) -> bool {
        self.dual && region != Region::Data
    }

    /// Returns whether blocks of `region` take whole pages, whose permissions change.
    pub(super) fn whole_pages(&self, region: Region) -> bool {
        !self.dual && region != Region::Data
    }

    /// Returns where `offset` of `region` is executed or read.
    pub(super) fn address(&self, region: Region, offset: usize) -> *mut u8 {
        self.base.wrapping_add(self.start(region) + offset)
    }

    /// Returns where `offset` of `region` is written.
    pub(super) fn writable(&self, region: Region, offset: usize) -> *mut u8 {
        if !self.shared(region) {
            return self.address(region, offset);
        }
        self.writable.load(Ordering::Relaxed).wrapping_add(self.start(region) + offset)
    }

    /// Returns the region and the offset in it of an address, if it is in the reservation.
    pub(super) fn find(&self, address: usize) -> Option<(Region, usize)> {
        let offset = address.checked_sub(self.base as usize)?;
        let region = Region::ALL.into_iter().find(|&region| offset < self.ends[region as usize])?;
        Some((region, offset - self.start(region)))
    }

    /// Returns the offset of an address in the region of code, which is the first.
    pub(super) fn find_code(&self, address: usize) -> Option<usize> {
        let offset = address.wrapping_sub(self.base as usize);
        (offset < self.ends[0]).then_some(offset)
    }

    /// Maps the index of the region of code.
    pub(super) fn index(&self) -> Result<Index, Refused> {
        Index::new(&self.system, self.size(Region::Code))
    }

    /// Takes pages of `region` from the system that nothing uses yet.
    pub(super) fn commit(&self, region: Region, pages: Range<usize>) -> Result<(), Refused> {
        let start = self.writable(region, pages.start);
        if self.shared(region) {
            self.system.populate(start, pages.len())
        } else {
            // SAFETY: pages of the reservation that nothing uses yet.
            unsafe { self.system.protect(start, pages.len(), Access::ReadWrite) }
        }
    }

    /// Returns whether pages that were given back are still ours: then they need no new commit.
    pub(super) fn stays(&self, region: Region) -> bool {
        region == Region::Data
    }

    /// Gives pages of `region` back to the system.
    ///
    /// # Safety
    ///
    /// Nobody uses the pages.
    pub(super) unsafe fn discard(&self, region: Region, pages: Range<usize>) -> Result<(), Refused> {
        let start = self.writable(region, pages.start);
        // SAFETY: the caller promises it.
        unsafe { self.system.discard(start, pages.len(), self.shared(region)) }
    }

    /// Makes whole pages writable where they are executed or read.
    ///
    /// # Safety
    ///
    /// Nobody uses the pages.
    pub(super) unsafe fn unseal(&self, region: Region, pages: Range<usize>) -> Result<(), Refused> {
        // SAFETY: the caller promises it.
        unsafe { self.system.protect(self.address(region, pages.start), pages.len(), Access::ReadWrite) }
    }

    /// Takes the permission to write whole pages away where they are executed or read.
    ///
    /// # Safety
    ///
    /// Nobody writes to the pages.
    pub(super) unsafe fn seal(&self, region: Region, pages: Range<usize>) -> Result<(), Refused> {
        let access = if region == Region::Code { Access::ReadExecute } else { Access::Read };
        // SAFETY: the caller promises it.
        unsafe { self.system.protect(self.address(region, pages.start), pages.len(), access) }
    }
}

#[cfg(target_arch = "aarch64")]
impl Views {
    /// Makes branches to anything but marked targets in executable pages trap, if the processor
    /// knows such marks.
    ///
    /// # Safety
    ///
    /// All code in the pages has the marks.
    pub(super) unsafe fn protect_branches(&self, pages: Range<usize>) -> Result<(), Refused> {
        if !std::arch::is_aarch64_feature_detected!("bti") {
            return Ok(());
        }
        let start = self.address(Region::Code, pages.start);
        // SAFETY: the caller promises it.
        unsafe { self.system.protect(start, pages.len(), Access::ReadExecuteMarked) }
    }
}

#[cfg(not(target_arch = "aarch64"))]
impl Views {
    /// Does nothing: this architecture has no protection of branches.
    pub(super) unsafe fn protect_branches(&self, _pages: Range<usize>) -> Result<(), Refused> {
        Ok(())
    }
}

impl Drop for Views {
    fn drop(&mut self) {
        let writable = *self.writable.get_mut();
        // SAFETY: these mappings are ours; whoever was given an address in them uses it only while
        // the memory lives.
        unsafe {
            self.system.unmap(self.base, self.ends[2]);
            if !writable.is_null() {
                self.system.unmap(writable, self.ends[1]);
            }
        }
    }
}
