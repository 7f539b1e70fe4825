//! Address space: one reservation per image, released in one piece.
//!
//! Invariant: a [`Reservation`] owns `base..base + len` from its making to its drop, and every method checks that the
//! range it works on lies inside.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::ptr;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mmap_anonymous, mprotect, munmap};

/// What pages may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    ReadWrite,
    ReadExecute,
}

/// An owned range of address space.
#[derive(Debug)]
pub(super) struct Reservation {
    base: *mut u8,
    len: usize,
}

// SAFETY: a reservation is memory that belongs to no thread; methods that write take `&mut self`.
unsafe impl Send for Reservation {}
// SAFETY: as above, and methods that take `&self` only read.
unsafe impl Sync for Reservation {}

impl Reservation {
    /// Reserves `len` bytes, rounded up to `page`, without access.
    pub(super) fn new(len: usize, page: usize) -> io::Result<Self> {
        let len = len.max(1).checked_next_multiple_of(page).ok_or(io::ErrorKind::OutOfMemory)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address that the kernel chooses touches nothing that exists.
        let base = unsafe { mmap_anonymous(ptr::null_mut(), len, ProtFlags::empty(), flags) }?;
        Ok(Self { base: base.cast(), len })
    }

    /// Reserves `len` bytes, rounded up to `page`, and maps as many of `file` read-only there, in one step.
    pub(super) fn of_file(file: &File, len: usize, page: usize) -> io::Result<Self> {
        let rounded = len.max(1).checked_next_multiple_of(page).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: a new mapping at an address that the kernel chooses touches nothing that exists.
        let base = unsafe { mmap(ptr::null_mut(), rounded, ProtFlags::READ, MapFlags::PRIVATE, file, 0) }?;
        Ok(Self { base: base.cast(), len: rounded })
    }

    pub(super) fn base(&self) -> *const u8 {
        self.base
    }

    /// The address of `range`, which must lie inside.
    fn inside(&self, range: &Range<usize>) -> io::Result<*mut c_void> {
        if range.start > range.end || range.end > self.len {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(self.base.wrapping_add(range.start).cast())
    }

    /// Maps the first `len` bytes of `file` read-only to the start of the reservation.
    pub(super) fn map_file(&mut self, file: &File, len: usize) -> io::Result<()> {
        let at = self.inside(&(0..len))?;
        // SAFETY: the range lies in the reservation, which nothing else uses, and no reference into it exists: `self`
        // is borrowed mutably.
        unsafe { mmap(at, len, ProtFlags::READ, MapFlags::PRIVATE | MapFlags::FIXED, file, 0) }?;
        Ok(())
    }

    /// Gives `range`, whose start lies on a page, fresh zeroed pages to read and write.
    pub(super) fn map_zeroed(&mut self, range: Range<usize>) -> io::Result<()> {
        let at = self.inside(&range)?;
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::FIXED);
        // SAFETY: as in `map_file`.
        unsafe { mmap_anonymous(at, range.len(), prot, flags) }?;
        Ok(())
    }

    /// Sets the permissions of the pages of `range`, whose start lies on a page.
    pub(super) fn protect(&mut self, range: Range<usize>, access: Access) -> io::Result<()> {
        let at = self.inside(&range)?;
        let flags = match access {
            Access::Read => MprotectFlags::READ,
            Access::ReadWrite => MprotectFlags::READ | MprotectFlags::WRITE,
            Access::ReadExecute => MprotectFlags::READ | MprotectFlags::EXEC,
        };
        // SAFETY: the range lies in the reservation, and no reference into it exists: `self` is borrowed mutably.
        unsafe { mprotect(at, range.len(), flags) }?;
        Ok(())
    }

    /// The bytes at the start of the reservation.
    ///
    /// # Safety
    ///
    /// `len` bytes are readable, and nobody writes them while the slice lives.
    pub(super) unsafe fn bytes(&self, len: usize) -> &[u8] {
        assert!(len <= self.len, "inside the reservation");
        // SAFETY: inside the reservation, readable and not written, as the caller promises.
        unsafe { std::slice::from_raw_parts(self.base, len) }
    }

    /// Copies `bytes` to `at`.
    ///
    /// # Safety
    ///
    /// The pages are writable.
    pub(super) unsafe fn write(&mut self, at: usize, bytes: &[u8]) {
        let fits = at.checked_add(bytes.len()).is_some_and(|end| end <= self.len);
        assert!(fits, "inside the reservation");
        // SAFETY: inside the reservation, writable as the caller promises; `bytes` is no part of it, since `self` is
        // borrowed mutably.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(at), bytes.len()) }
    }

    /// Clears `range`.
    ///
    /// # Safety
    ///
    /// The pages are writable.
    pub(super) unsafe fn clear(&mut self, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.len, "inside the reservation");
        // SAFETY: inside the reservation, writable as the caller promises.
        unsafe { ptr::write_bytes(self.base.add(range.start), 0, range.len()) }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: the range was reserved by `new` and is released once; whoever handed out addresses in it said that
        // they end with it. An error cannot be acted on here and leaves the range reserved.
        let _ = unsafe { munmap(self.base.cast(), self.len) };
    }
}
