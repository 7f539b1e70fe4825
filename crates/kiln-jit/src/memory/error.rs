//! The kinds of memory, and the errors.

use std::fmt;

use super::system::Refused;

/// A kind of memory: a contiguous part of a [`Memory`](super::Memory).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Region {
    /// Machine code.
    Code,
    /// Constants and unwind information.
    ReadOnly,
    /// Slots, writable data and zeroed data.
    Data,
}

impl Region {
    /// All regions, in order of addresses.
    pub(super) const ALL: [Self; 3] = [Self::Code, Self::ReadOnly, Self::Data];

    /// Returns the name of the field of [`MemoryOptions`](super::MemoryOptions) that sets the size.
    fn option(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::ReadOnly => "read_only",
            Self::Data => "data",
        }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Code => "code",
            Self::ReadOnly => "read-only data",
            Self::Data => "writable data",
        })
    }
}

/// Memory could not be reserved, allocated or published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The options ask for too much.
    #[error("the regions of a memory have more than {limit} bytes together")]
    TooLarge {
        /// The largest sum, in bytes.
        limit: usize,
    },
    /// A region has no free range of this size.
    #[error(
        "no room for {asked} bytes of {region}: {free} of {size} bytes are free, {largest} of them in one \
         piece; `MemoryOptions::{}` sets the size", region.option()
    )]
    Full {
        /// The region.
        region: Region,
        /// The number of bytes that were asked for.
        asked: u64,
        /// The number of free bytes.
        free: u64,
        /// The number of bytes in the largest free range.
        largest: u64,
        /// The size of the region, in bytes.
        size: u64,
    },
    /// The system lets memory become executable in neither way.
    #[error(
        "no executable memory: {twice}: {}; without a second mapping, {once}: {}", twice.source, once.source
    )]
    NotExecutable {
        /// Why the same memory could not be mapped twice.
        twice: Refused,
        /// Why writable memory could not become executable.
        once: Refused,
    },
    /// The system refused a call.
    #[error(transparent)]
    Refused(#[from] Refused),
}
