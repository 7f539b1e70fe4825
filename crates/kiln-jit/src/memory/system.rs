//! The system calls. Each failure says which call was refused, and why.

use std::ffi::c_void;
use std::io;
use std::os::fd::OwnedFd;
use std::ptr;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{
    Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap, mmap_anonymous, mprotect, munmap,
};

/// The system refused a call.
#[derive(Debug, thiserror::Error)]
#[error("the system refuses {call} ({purpose})")]
pub struct Refused {
    /// The call.
    pub call: &'static str,
    /// What the call was for.
    pub purpose: &'static str,
    /// The system's reason.
    pub source: io::Error,
}

/// Permissions of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    ReadWrite,
    ReadExecute,
}

impl Access {
    fn prot(self) -> ProtFlags {
        ProtFlags::from_bits_retain(self.mprotect().bits())
    }

    fn mprotect(self) -> MprotectFlags {
        match self {
            Self::Read => MprotectFlags::READ,
            Self::ReadWrite => MprotectFlags::READ | MprotectFlags::WRITE,
            Self::ReadExecute => MprotectFlags::READ | MprotectFlags::EXEC,
        }
    }
}

/// The way to the system.
#[derive(Debug, Default)]
pub(super) struct System {}

impl System {
    /// Makes one call.
    fn call<T>(
        &self,
        call: &'static str,
        purpose: &'static str,
        make: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Refused> {
        make().map_err(|errno| Refused { call, purpose, source: errno.into() })
    }

    /// Reserves `len` bytes of address space without access.
    pub(super) fn reserve(&self, len: usize) -> Result<*mut u8, Refused> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address that the kernel chooses touches nothing that exists.
        let map = || unsafe { mmap_anonymous(ptr::null_mut(), len, ProtFlags::empty(), flags) };
        Ok(self.call("mmap", "to reserve address space", map)?.cast())
    }

    /// Makes a file of `len` bytes in memory that has no name.
    pub(super) fn memory_file(&self, len: usize) -> Result<OwnedFd, Refused> {
        let flags = MemfdFlags::CLOEXEC;
        // The file is never executed as a program, and a system may insist that it cannot be. Older
        // kernels do not know the flag.
        let create = || match memfd_create("kiln", flags | MemfdFlags::NOEXEC_SEAL) {
            Err(Errno::INVAL) => memfd_create("kiln", flags),
            result => result,
        };
        let file = self.call("memfd_create", "memory for code", create)?;
        self.call("ftruncate", "memory for code", || ftruncate(&file, len as u64))?;
        Ok(file)
    }

    /// Maps `len` bytes of `file` from `offset`, shared: at `address`, or at a new address if that
    /// is null.
    ///
    /// # Safety
    ///
    /// If `address` is not null, the `len` bytes there belong to the caller, and what is there now
    /// is not used afterwards.
    pub(super) unsafe fn map_file(
        &self,
        address: *mut u8,
        len: usize,
        access: Access,
        file: &OwnedFd,
        offset: usize,
    ) -> Result<*mut u8, Refused> {
        let place = if address.is_null() { MapFlags::empty() } else { MapFlags::FIXED };
        let flags = MapFlags::SHARED | place;
        let purpose = match access {
            Access::Read => "read-only data",
            Access::ReadWrite => "the writable mapping of code",
            Access::ReadExecute => "executable memory",
        };
        // SAFETY: the caller owns the range, or the kernel chooses a new one.
        let map = || unsafe { mmap(address.cast(), len, access.prot(), flags, file, offset as u64) };
        Ok(self.call("mmap", purpose, map)?.cast())
    }

    /// Sets the permissions of whole pages.
    ///
    /// # Safety
    ///
    /// The pages belong to the caller, and nobody uses them in a way that is no longer permitted.
    pub(super) unsafe fn protect(&self, address: *mut u8, len: usize, access: Access) -> Result<(), Refused> {
        let purpose = match access {
            Access::Read => "to seal read-only data",
            Access::ReadWrite => "to make memory writable",
            Access::ReadExecute => "to make code executable",
        };
        // SAFETY: the caller owns the pages.
        self.call("mprotect", purpose, || unsafe { mprotect(address.cast(), len, access.mprotect()) })
    }

    /// Says that children of `fork` do not get these pages.
    pub(super) fn not_in_children(&self, address: *mut u8, len: usize) -> Result<(), Refused> {
        // SAFETY: this changes nothing in this process.
        let advise = || unsafe { madvise(address.cast(), len, Advice::LinuxDontFork) };
        self.call("madvise(MADV_DONTFORK)", "to hide the writable mapping from children", advise)
    }

    /// Takes pages of writable memory from the system now, so that writing to them cannot fail.
    pub(super) fn populate(&self, address: *mut u8, len: usize) -> Result<(), Refused> {
        // SAFETY: this does not change what can be read there.
        let populate = || match unsafe { madvise(address.cast(), len, Advice::LinuxPopulateWrite) } {
            // Kernels before 5.14 do not know it, and take pages when they are written.
            Err(Errno::INVAL) => Ok(()),
            result => result,
        };
        self.call("madvise(MADV_POPULATE_WRITE)", "memory for code", populate)
    }

    /// Removes a mapping.
    ///
    /// # Safety
    ///
    /// It belongs to the caller, and nothing in it is used afterwards.
    pub(super) unsafe fn unmap(&self, address: *mut u8, len: usize) {
        // SAFETY: the caller promises it. After an error, which cannot be handled here, the range
        // stays mapped.
        let _ = unsafe { munmap(address.cast::<c_void>(), len) };
    }
}
