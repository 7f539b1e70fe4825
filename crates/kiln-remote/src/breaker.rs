//! A circuit breaker: after some faults in a row, a server is not called for a while.

use std::time::{Duration, Instant};

/// Faults in a row after which the server is given up.
const FAULTS: u32 = 3;
/// The time for which a server is given up at first. Each time it doubles, up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(300);

/// Counts faults. The clock is a parameter, so that tests need not wait.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    faults: u32,
    times: u32,
    until: Option<Instant>,
}

impl Breaker {
    /// Returns whether the server may be called. After the time is over, it may be called again,
    /// and one fault is enough to give it up.
    pub(crate) fn is_closed(&mut self, now: Instant) -> bool {
        if self.until.is_some_and(|until| now >= until) {
            self.until = None;
            self.faults = FAULTS - 1;
        }
        self.until.is_none()
    }

    /// A call succeeded.
    pub(crate) fn succeeded(&mut self) {
        if self.until.is_none() {
            (self.faults, self.times) = (0, 0);
        }
    }

    /// A call failed. Returns whether the server is given up now, and was not before.
    pub(crate) fn failed(&mut self, temporary: bool, now: Instant) -> bool {
        self.faults += 1;
        if temporary && self.faults < FAULTS {
            return false;
        }
        self.open(now)
    }

    /// Gives the server up. Returns whether it was not given up before.
    pub(crate) fn open(&mut self, now: Instant) -> bool {
        if self.until.is_some() {
            return false;
        }
        self.until = Some(now + FIRST.saturating_mul(1 << self.times.min(4)).min(LONGEST));
        self.times += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_in_a_row_open_it_and_time_closes_it() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut breaker = Breaker::default();
        assert!(!breaker.failed(true, start) && !breaker.failed(true, start));
        breaker.succeeded();
        assert!(!breaker.failed(true, start) && !breaker.failed(true, start) && breaker.is_closed(start));
        assert!(breaker.failed(true, start) && !breaker.is_closed(start));
        // Calls that were on their way change nothing.
        breaker.succeeded();
        assert!(!breaker.failed(true, start) && !breaker.is_closed(at(29)));
        assert!(breaker.is_closed(at(30)));
        assert!(breaker.failed(true, at(30)) && !breaker.is_closed(at(89)) && breaker.is_closed(at(90)));
        breaker.succeeded();
        assert!(breaker.failed(false, at(100)) && !breaker.is_closed(at(129)) && breaker.is_closed(at(130)));
    }
}
