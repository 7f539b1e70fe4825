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
//! there is one view.

use std::ops::Range;
use std::ptr;

use super::error::{MemoryError, Region};
use super::options::{Mapping, MemoryOptions};
use super::system::{Access, Refused, System};

/// The mappings of a memory.
#[derive(Debug)]
pub(super) struct Views {
    pub(super) system: System,
    /// The reservation.
    base: *mut u8,
    /// The offsets at which the regions end.
    ends: [usize; 3],
    /// The writable view of the first two regions; null if there is one view.
    writable: *mut u8,
}

// SAFETY: the mappings belong to no thread.
unsafe impl Send for Views {}

impl Views {
    /// Reserves address space for the regions.
    pub(super) fn reserve(system: System, options: &MemoryOptions, page: usize) -> Result<Self, MemoryError> {
        let ends = options.ends(page)?;
        let base = system.reserve(ends[2])?;
        let mut views = Self { system, base, ends, writable: ptr::null_mut() };
        let dual = match options.mapping {
            Mapping::Protect => return Ok(views),
            Mapping::Dual | Mapping::Auto => views.map_twice(),
        };
        match dual {
            Err(refused) if options.mapping == Mapping::Dual => Err(refused.into()),
            Err(_) => {
                // A failure may have left a part of the file in the reservation.
                let system = std::mem::take(&mut views.system);
                drop(views);
                let base = system.reserve(ends[2])?;
                Ok(Self { system, base, ends, writable: ptr::null_mut() })
            }
            Ok(()) => Ok(views),
        }
    }

    /// Puts a file in place of the first two regions, and maps it once more, writable.
    fn map_twice(&mut self) -> Result<(), Refused> {
        let [code, shared, _] = self.ends;
        let file = self.system.memory_file(shared)?;
        // SAFETY: the reservation is new, and nothing uses it.
        unsafe {
            self.system.map_file(self.base, code, Access::ReadExecute, &file, 0)?;
            self.system.map_file(self.base.add(code), shared - code, Access::Read, &file, code)?;
        }
        // SAFETY: a new address.
        let writable = unsafe { self.system.map_file(ptr::null_mut(), shared, Access::ReadWrite, &file, 0)? };
        self.writable = writable;
        self.system.not_in_children(writable, shared)
        // The mappings keep the file, so it takes none of the process's file descriptors.
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

    /// Returns whether blocks of `region` take whole pages, whose permissions change.
    pub(super) fn whole_pages(&self, region: Region) -> bool {
        region != Region::Data && self.writable.is_null()
    }

    /// Returns where `offset` of `region` is executed or read.
    pub(super) fn address(&self, region: Region, offset: usize) -> *mut u8 {
        self.base.wrapping_add(self.start(region) + offset)
    }

    /// Returns where `offset` of `region` is written.
    pub(super) fn writable(&self, region: Region, offset: usize) -> *mut u8 {
        if region == Region::Data || self.writable.is_null() {
            return self.address(region, offset);
        }
        self.writable.wrapping_add(self.start(region) + offset)
    }

    /// Returns the region and the offset in it of an address, if it is in the reservation.
    pub(super) fn find(&self, address: usize) -> Option<(Region, usize)> {
        let offset = address.checked_sub(self.base as usize)?;
        let region = Region::ALL.into_iter().find(|&region| offset < self.ends[region as usize])?;
        Some((region, offset - self.start(region)))
    }

    /// Takes pages of `region` from the system that were not used yet.
    pub(super) fn commit(&self, region: Region, pages: Range<usize>) -> Result<(), Refused> {
        let start = self.writable(region, pages.start);
        if region == Region::Data || self.writable.is_null() {
            // SAFETY: pages of the reservation that nothing uses yet.
            unsafe { self.system.protect(start, pages.len(), Access::ReadWrite) }
        } else {
            self.system.populate(start, pages.len())
        }
    }

    /// Makes whole pages writable, in a memory with one view.
    ///
    /// # Safety
    ///
    /// Nobody uses the pages.
    pub(super) unsafe fn unseal(&self, region: Region, pages: Range<usize>) -> Result<(), Refused> {
        // SAFETY: the caller promises it.
        unsafe { self.system.protect(self.address(region, pages.start), pages.len(), Access::ReadWrite) }
    }

    /// Takes the permission to write whole pages away, in a memory with one view.
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

impl Drop for Views {
    fn drop(&mut self) {
        // SAFETY: these mappings are ours; whoever was given an address in them uses it only while
        // the memory lives.
        unsafe {
            self.system.unmap(self.base, self.ends[2]);
            if !self.writable.is_null() {
                self.system.unmap(self.writable, self.ends[1]);
            }
        }
    }
}
