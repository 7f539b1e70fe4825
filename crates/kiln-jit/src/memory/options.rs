//! The options of a memory.

use rustix::process::{Resource, getrlimit};

use super::error::{MemoryError, Region};

/// Options of a [`Memory`](super::Memory).
///
/// The three sizes are of address space. Memory is used only as it is allocated. Each is rounded up
/// to whole pages, and together they are at most 2 GiB. Code and read-only data may take their
/// address space twice, see [`Mapping::Dual`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryOptions {
    /// Bytes for machine code.
    pub code: usize,
    /// Bytes for constants and unwind information.
    pub read_only: usize,
    /// Bytes for slots, writable data and zeroed data.
    pub data: usize,
    /// How code is written.
    pub mapping: Mapping,
    /// Whether to ask the system for huge pages (2 MiB), which make much code faster and take more
    /// memory. Each region is rounded up to that size. The system may not have them: for code that
    /// is mapped twice it must be told in `/sys/kernel/mm/transparent_hugepage/shmem_enabled`.
    pub huge_pages: bool,
}

/// How code and read-only data are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mapping {
    /// As [`Dual`](Self::Dual), or as [`Protect`](Self::Protect) where the system refuses that.
    #[default]
    Auto,
    /// The same memory is mapped at two addresses. One is executable or read-only; the other is
    /// writable, and a child of `fork` does not have it. Permissions never change, so this works
    /// under `PR_SET_MDWE`.
    Dual,
    /// There is one mapping, whose pages are first writable and then executable or read-only. Each
    /// block takes whole pages, and publishing takes a system call.
    Protect,
}

impl MemoryOptions {
    /// Returns options that divide `size` bytes: three eighths for code, two for read-only data,
    /// three for writable data.
    pub fn with_size(size: usize) -> Self {
        let eighth = size / 8;
        let code = 3 * eighth;
        Self {
            code,
            read_only: 2 * eighth,
            data: size - 5 * eighth,
            mapping: Mapping::Auto,
            huge_pages: false,
        }
    }

    /// Returns the size of a region, in bytes.
    pub(super) fn size(&self, region: Region) -> usize {
        match region {
            Region::Code => self.code,
            Region::ReadOnly => self.read_only,
            Region::Data => self.data,
        }
    }

    /// Returns the number of bytes of which each region has a multiple.
    pub(super) fn unit(&self, page: usize) -> usize {
        if self.huge_pages { page.max(2 << 20) } else { page }
    }

    /// Returns the offsets at which the three regions end, in whole pages.
    pub(super) fn ends(&self, page: usize) -> Result<[usize; 3], MemoryError> {
        let mut end = 0_usize;
        let mut ends = [0; 3];
        for region in Region::ALL {
            let size = self.size(region).max(1).checked_next_multiple_of(self.unit(page));
            let sum = size.and_then(|size| end.checked_add(size)).filter(|&end| end <= Self::LIMIT);
            end = sum.ok_or(MemoryError::TooLarge { limit: Self::LIMIT })?;
            ends[region as usize] = end;
        }
        Ok(ends)
    }

    /// The size of the largest reservation, in bytes: every distance inside must fit into a signed
    /// 32-bit number.
    pub const LIMIT: usize = 1 << 31;
}

impl Default for MemoryOptions {
    /// Divides 1 GiB, or an eighth of the address space that the process may have (`ulimit -v`).
    fn default() -> Self {
        let limit = getrlimit(Resource::As).current.unwrap_or(u64::MAX);
        Self::with_size((limit / 8).clamp(1 << 20, 1 << 30) as usize)
    }
}
