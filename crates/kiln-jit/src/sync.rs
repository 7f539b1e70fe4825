//! The atomics of [`epoch`](crate::epoch). The test `tests/protocol.rs` compiles that file with
//! loom's, to run all orders of a few threads.

pub(crate) use std::sync::atomic::{AtomicUsize, Ordering, fence};

/// The number of shards of guards. More would make `Epochs::advance` slower, which reads them all.
pub(crate) const SHARDS: usize = 8;
