//! The atomics of [`epoch`](crate::epoch). The test `tests/protocol.rs` compiles that file with
//! loom's, to run all orders of a few threads. So that file has no tests of its own: they are in
//! `jit/tests/epochs.rs`.

pub(crate) use std::sync::atomic::{AtomicUsize, Ordering, fence};

/// The number of shards of guards. More would make `Epochs::advance` slower, which reads them all.
pub(crate) const SHARDS: usize = 8;

/// Adds 1, before everything that this thread reads afterwards.
#[inline]
pub(crate) fn count_and_fence(count: &AtomicUsize) {
    // On x86-64, an addition that is atomic is a fence, and one more takes as long again (Intel's
    // manual, volume 3, "Locked Instructions"). The compiler moves no later access before it.
    if cfg!(all(target_arch = "x86_64", not(miri))) {
        count.fetch_add(1, Ordering::SeqCst);
        return;
    }
    count.fetch_add(1, Ordering::Relaxed);
    fence(Ordering::SeqCst);
}

/// Returns the number of this thread's shard.
pub(crate) fn shard() -> usize {
    use std::cell::Cell;
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    // A thread whose thread-local values are already gone uses the first shard.
    SHARD
        .try_with(|shard| {
            if shard.get() == usize::MAX {
                shard.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
            }
            shard.get()
        })
        .unwrap_or(0)
}
