//! The time that a build may lose to a server.
//!
//! Time spent waiting is taken from a budget; each hit adds the time that compiling would have
//! taken. So a server that helps may take its time, and one that does not costs at most the budget,
//! whatever it does: no answer, slow answers, or quick answers that it has nothing.

use std::time::{Duration, Instant};

/// The bytes of an entry that one thread compiles in a second, at most: a low estimate of the time
/// that a hit saves. Cranelift makes 0.5 to 1 MB of artifacts a second and thread.
const COMPILED_A_SECOND: f64 = 1.5e6;
/// The part of the passing time that is added to the budget, for processes that live long.
const REFILL: f64 = 0.01;

/// A budget of time. The clock is a parameter, so that tests need not wait.
#[derive(Debug)]
pub(crate) struct Patience {
    limit: Duration,
    left: Duration,
    /// The threads that wait now.
    waiting: usize,
    /// The time up to which waiting was taken from the budget, or the budget was filled.
    since: Instant,
    threads: f64,
}

impl Patience {
    /// Starts with a budget of `limit`; `threads` compile at the same time.
    pub(crate) fn new(limit: Duration, threads: usize, now: Instant) -> Self {
        Self { limit, left: limit, waiting: 0, since: now, threads: threads.max(1) as f64 }
    }

    fn settle(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        if self.waiting > 0 {
            self.left = self.left.saturating_sub(passed);
        } else {
            self.left = (self.left + passed.mul_f64(REFILL)).min(self.limit);
        }
        self.since = now;
    }

    /// A thread begins to wait. Returns how long it may, at most.
    pub(crate) fn enter(&mut self, now: Instant) -> Duration {
        self.settle(now);
        self.waiting += 1;
        self.left
    }

    /// A thread ends to wait.
    pub(crate) fn leave(&mut self, now: Instant) {
        self.settle(now);
        self.waiting -= 1;
    }

    /// Adds the time that compiling this many bytes of entries would have taken.
    pub(crate) fn credit(&mut self, bytes: u64) {
        self.left = (self.left + self.saved(bytes)).min(self.limit);
    }

    /// Takes the time back, because the entries cannot be used.
    pub(crate) fn debit(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(self.saved(bytes));
    }

    fn saved(&self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / COMPILED_A_SECOND / self.threads)
    }

    /// Returns how long a waiting thread may go on.
    pub(crate) fn left(&mut self, now: Instant) -> Duration {
        self.settle(now);
        self.left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_taken_once_and_hits_give() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let ms = Duration::from_millis;
        let mut patience = Patience::new(ms(1000), 2, start);
        assert_eq!(patience.enter(at(0)), ms(1000));
        // Two that wait at once lose the build's time once.
        assert_eq!(patience.enter(at(100)), ms(900));
        patience.leave(at(300));
        assert_eq!(patience.left(at(400)), ms(600));
        // 1.5 MB take two threads half a second.
        patience.leave(at(500));
        patience.credit(1_500_000);
        assert_eq!(patience.left(at(500)), ms(1000));
        patience.enter(at(500));
        assert_eq!(patience.left(at(9999)), Duration::ZERO);
        patience.leave(at(9999));
        // A hundredth of the time that passes is given back, up to the limit.
        assert_eq!(patience.left(at(19_999)), ms(100));
        assert_eq!(patience.left(at(999_999)), ms(1000));
        patience.debit(300_000);
        assert_eq!(patience.left(at(999_999)), ms(900));
    }
}
