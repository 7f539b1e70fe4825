//! Public figures.

/// Bytes of one region: `reserved` is the sum of the other three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegionUsage {
    /// Address space.
    pub reserved: usize,
    /// In use, including what alignment costs.
    pub used: usize,
    /// Removed, but a thread may still run or read it.
    pub retired: usize,
    /// Free.
    pub free: usize,
}

/// How many bytes of a [`Memory`](super::Memory) are used for what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryUsage {
    /// Machine code.
    pub code: RegionUsage,
    /// Constants and unwind information.
    pub read_only: RegionUsage,
    /// Slots, writable data and zeroed data.
    pub data: RegionUsage,
}
