//! The system calls. Each failure says which call was refused, and why.

use std::ffi::c_void;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::ptr;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::{Errno, pwrite};
use rustix::mm::{
    Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap, mmap_anonymous, mprotect, munmap,
};

/// The system refused a call.
#[derive(Debug, thiserror::Error)]
pub struct Refused {
    /// The call, as `mprotect(PROT_EXEC)`.
    pub call: &'static str,
    /// The purpose of the call.
    pub purpose: &'static str,
    /// The system's reason.
    pub source: io::Error,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the system refuses {}, {}", self.call, self.purpose)?;
        self.likely_cause().map_or(Ok(()), |cause| write!(f, " (likely cause: {cause})"))
    }
}

impl Refused {
    /// Returns the error of code that cannot become executable.
    pub(super) fn to_make_executable(errno: Errno) -> Self {
        let (call, purpose) = ("mprotect(PROT_EXEC)", "to make code executable");
        Self { call, purpose, source: errno.into() }
    }

    /// Returns the system's reason as a number.
    pub(super) fn errno(&self) -> Errno {
        Errno::from_io_error(&self.source).unwrap_or(Errno::ACCESS)
    }

    /// Returns what makes a system refuse such a call, as far as we know.
    fn likely_cause(&self) -> Option<&'static str> {
        let executable = self.call.contains("PROT_EXEC");
        Some(match self.errno() {
            Errno::ACCESS | Errno::PERM if self.call == "memfd_create" => {
                "the sysctl vm.memfd_noexec or a filter of system calls"
            }
            Errno::ACCESS | Errno::PERM if executable => {
                "PR_SET_MDWE, SELinux, a filter of system calls, or files in memory may not be executed"
            }
            Errno::NOSYS => "a filter of system calls, or an old kernel",
            Errno::MFILE | Errno::NFILE => "too many open files",
            Errno::NOMEM | Errno::FAULT if self.call.starts_with("mmap") => {
                "the limit of address space (ulimit -v) or of mappings (vm.max_map_count)"
            }
            Errno::NOMEM | Errno::FAULT | Errno::NOSPC => {
                "no memory left that the system may promise (vm.overcommit_memory, ulimit -d)"
            }
            _ => return None,
        })
    }
}

/// Permissions of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    ReadWrite,
    ReadExecute,
    /// As `ReadExecute`, but branches may only go to marked instructions.
    #[cfg(target_arch = "aarch64")]
    ReadExecuteMarked,
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
            #[cfg(target_arch = "aarch64")]
            Self::ReadExecuteMarked => MprotectFlags::READ | MprotectFlags::EXEC | MprotectFlags::BTI,
        }
    }
}

/// The way to the system.
#[derive(Default)]
pub(super) struct System {
    #[cfg(test)]
    pub(super) refuse: Option<Refuse>,
}

/// In tests: returns with which error a call is refused.
#[cfg(test)]
pub(super) type Refuse = Box<dyn Fn(&str) -> Option<Errno> + Send + Sync>;

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("System")
    }
}

impl System {
    /// Makes one call.
    fn call<T>(
        &self,
        call: &'static str,
        purpose: &'static str,
        make: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Refused> {
        #[cfg(test)]
        let refused = self.refuse.as_ref().and_then(|refuse| refuse(call)).map_or(Ok(()), Err);
        #[cfg(not(test))]
        let refused = Ok(());
        refused.and_then(|()| make()).map_err(|errno| Refused { call, purpose, source: errno.into() })
    }

    /// Reserves `len` bytes of address space without access, at a multiple of `align`, which is at
    /// least a page and divides `len`.
    pub(super) fn reserve(&self, len: usize, align: usize) -> Result<*mut u8, Refused> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let more = if align > rustix::param::page_size() { align } else { 0 };
        // SAFETY: a new mapping at an address that the kernel chooses touches nothing that exists.
        let map = || unsafe { mmap_anonymous(ptr::null_mut(), len + more, ProtFlags::empty(), flags) };
        let start: *mut u8 = self.call("mmap", "to reserve address space", map)?.cast();
        if more == 0 {
            return Ok(start);
        }
        let skip = start.align_offset(align);
        for (unused, len) in [(start, skip), (start.wrapping_add(skip + len), more - skip)] {
            if len > 0 {
                // SAFETY: a part of the new mapping, which nothing uses.
                unsafe { self.unmap(unused, len) };
            }
        }
        Ok(start.wrapping_add(skip))
    }

    /// Maps `len` bytes that are zero, and take memory as they are written.
    pub(super) fn zeroed(&self, len: usize) -> Result<*mut u8, Refused> {
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
        // SAFETY: a new mapping at an address that the kernel chooses touches nothing that exists.
        let map = || unsafe { mmap_anonymous(ptr::null_mut(), len, access, flags) };
        let start: *mut u8 = self.call("mmap", "to get memory for bookkeeping", map)?.cast();
        // Few of the pages are ever written.
        // SAFETY: this does not change what can be read there.
        let _ = unsafe { madvise(start.cast(), len, Advice::LinuxNoHugepage) };
        Ok(start)
    }

    /// Asks for huge pages, which the system may not have.
    pub(super) fn prefer_huge_pages(&self, address: *mut u8, len: usize) {
        // SAFETY: this does not change what can be read there.
        let _ = unsafe { madvise(address.cast(), len, Advice::LinuxHugepage) };
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
        let file = self.call("memfd_create", "to make memory that can be mapped twice", create)?;
        self.call("ftruncate", "to make memory that can be mapped twice", || ftruncate(&file, len as u64))?;
        Ok(file)
    }

    /// Maps `len` bytes of `file` from `offset` at `address`, shared.
    ///
    /// # Safety
    ///
    /// The `len` bytes at `address` belong to the caller, and what is there now is not used
    /// afterwards.
    pub(super) unsafe fn map_file(
        &self,
        address: *mut u8,
        len: usize,
        access: Access,
        file: &OwnedFd,
        offset: usize,
    ) -> Result<(), Refused> {
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        let (call, purpose) = match access {
            Access::Read => ("mmap(PROT_READ)", "to map read-only data"),
            Access::ReadWrite => ("mmap(PROT_WRITE)", "to map code where it is written"),
            _ => ("mmap(PROT_EXEC)", "to map code where it runs"),
        };
        // SAFETY: the caller owns the range.
        let map = || unsafe { mmap(address.cast(), len, access.prot(), flags, file, offset as u64) };
        self.call(call, purpose, map).map(drop)
    }

    /// Sets the permissions of whole pages.
    ///
    /// # Safety
    ///
    /// The pages belong to the caller, and nobody uses them in a way that is no longer permitted.
    pub(super) unsafe fn protect(&self, address: *mut u8, len: usize, access: Access) -> Result<(), Refused> {
        let (call, purpose) = match access {
            Access::Read => ("mprotect(PROT_READ)", "to seal read-only data"),
            Access::ReadWrite => ("mprotect(PROT_WRITE)", "to make memory writable"),
            _ => ("mprotect(PROT_EXEC)", "to make code executable"),
        };
        // SAFETY: the caller owns the pages.
        self.call(call, purpose, || unsafe { mprotect(address.cast(), len, access.mprotect()) })
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
        self.call("madvise(MADV_POPULATE_WRITE)", "to get memory for code", populate)
    }

    /// Gives pages back to the system. They read as zero afterwards. `shared` says that they are of
    /// a file, at a writable mapping.
    ///
    /// # Safety
    ///
    /// The pages belong to the caller, and nobody uses them.
    pub(super) unsafe fn discard(&self, address: *mut u8, len: usize, shared: bool) -> Result<(), Refused> {
        let (call, advice) = if shared {
            ("madvise(MADV_REMOVE)", Advice::LinuxRemove)
        } else {
            ("madvise(MADV_DONTNEED)", Advice::LinuxDontNeed)
        };
        // SAFETY: the caller promises it.
        self.call(call, "to give memory back", || unsafe { madvise(address.cast(), len, advice) })
    }

    /// Copies memory to `offset` of a file.
    ///
    /// # Safety
    ///
    /// The memory can be read.
    pub(super) unsafe fn copy(
        &self,
        file: &OwnedFd,
        offset: usize,
        from: *const u8,
        len: usize,
    ) -> Result<(), Refused> {
        let mut done = 0;
        while done < len {
            // SAFETY: the caller promises that it can be read. Another process may write to parts
            // of it that are not in use; only the system reads them here.
            let bytes = unsafe { std::slice::from_raw_parts(from.add(done), len - done) };
            let write = || match pwrite(file, bytes, (offset + done) as u64) {
                Ok(0) => Err(Errno::NOSPC),
                result => result,
            };
            done += self.call("pwrite", "to copy the memory of the parent process", write)?;
        }
        Ok(())
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
