//! Guards and grace periods: removed code is freed only when no thread can be in it any more.
//!
//! A thread that may run code holds a [`Guard`]. A guard is counted in one of two phases. To start
//! the next phase, the counts of the phase before the current one must be zero. An item that was
//! retired is free after two such changes, because then both counts were zero at some time after
//! it was retired, so every guard from before is gone. This is sleepable RCU (McKenney, "Sleepable
//! Read-Copy Update", 2006), but nobody waits: [`Epochs::advance`] makes as many changes as it can
//! at once.
//!
//! Counts are in shards, so threads seldom share a cache line. A guard remembers its shard, so it
//! can be dropped on another thread.

use crate::sync::{AtomicUsize, Ordering, SHARDS, count_and_fence, fence, shard};

/// The numbers of guards of one shard, by phase. Its alignment gives each shard cache lines of its
/// own: processors fetch lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard([AtomicUsize; 2]);

/// The guards of one [`Jit`](crate::Jit).
#[derive(Debug)]
pub(crate) struct Epochs {
    shards: [Shard; SHARDS],
    /// The number of changes of phase so far. Its lowest bit is the phase of new guards.
    changes: AtomicUsize,
}

/// The time at which an item was retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Epoch(usize);

impl Epoch {
    /// Whether every guard that existed at this time was gone at `later`.
    pub(crate) fn is_past_at(self, later: Self) -> bool {
        later.0.wrapping_sub(self.0) >= 2
    }
}

/// A promise that its holder may run code: what is removed while the guard lives stays in memory
/// until the guard is dropped.
///
/// Make one with [`Jit::guard`](crate::Jit::guard) before looking up a function, and keep it until
/// the call has returned. A guard costs two atomic additions on memory that few threads share.
#[derive(Debug)]
#[must_use = "code is protected only while the guard lives"]
pub struct Guard<'e> {
    epochs: &'e Epochs,
    count: &'e AtomicUsize,
}

impl Default for Epochs {
    fn default() -> Self {
        Self { shards: Default::default(), changes: AtomicUsize::new(0) }
    }
}

impl Epochs {
    /// Makes a guard.
    pub(crate) fn enter(&self) -> Guard<'_> {
        self.enter_at(shard())
    }

    /// Makes a guard that is counted in a shard. This is safe in a signal handler.
    pub(crate) fn enter_at(&self, shard: usize) -> Guard<'_> {
        let phase = self.changes.load(Ordering::Relaxed) & 1;
        let count = &self.shards[shard % SHARDS].0[phase];
        // A fence, which pairs with that in `now`. One of the two is first: then either `advance`
        // sees the count, or this thread sees that the item was taken back.
        count_and_fence(count);
        Guard { epochs: self, count }
    }

    /// Returns the time at which an item is retired that was taken back before this call. This,
    /// [`advance`](Self::advance) and [`is_past`](Self::is_past) are called under one lock, which
    /// orders them.
    pub(crate) fn now(&self) -> Epoch {
        fence(Ordering::SeqCst);
        Epoch(self.changes.load(Ordering::Relaxed))
    }

    /// Starts new phases as long as no guard prevents it, but no more than make everything free
    /// that is retired now.
    pub(crate) fn advance(&self) {
        for _ in 0..2 {
            let changes = self.changes.load(Ordering::Relaxed);
            let next = (changes + 1) & 1;
            // Pairs with the release of `Guard::drop`: what the guard's holder did comes before
            // what is done with the memory afterwards.
            if self.shards.iter().any(|shard| shard.0[next].load(Ordering::Acquire) != 0) {
                return;
            }
            self.changes.store(changes + 1, Ordering::Relaxed);
        }
    }

    /// Forgets all guards, in a child of `fork`: their threads do not exist there. The thread that
    /// forks has none.
    pub(crate) fn forget_guards(&self) {
        let counts = self.shards.iter().flat_map(|shard| &shard.0);
        counts.for_each(|count| count.store(0, Ordering::Relaxed));
    }

    /// Whether every guard that existed at `retired` is gone.
    pub(crate) fn is_past(&self, retired: Epoch) -> bool {
        retired.is_past_at(Epoch(self.changes.load(Ordering::Relaxed)))
    }
}

impl Guard<'_> {
    /// Drops the guard and makes a new one: for a thread that runs for long, at a point where it is
    /// in no compiled code (a safepoint).
    pub fn refresh(&mut self) {
        *self = self.epochs.enter();
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Release);
    }
}
