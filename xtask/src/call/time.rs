//! Measures the time of a call. The function is called in groups that are long enough for the clock
//! to measure.

use std::time::{Duration, Instant};

use kiln::Thunk;
use kiln::jit::Cell;
use serde_json::json;

use crate::output::time;
use crate::run::call_uncaught;

/// The shortest time of a group that the clock measures precisely enough.
const GROUP: Duration = Duration::from_micros(10);

/// The times of calls, in nanoseconds per call.
pub(super) struct CallTimes {
    calls: u64,
    least: f64,
    median: f64,
}

/// Calls `callee` `calls` times with the arguments in `cells`, which are not changed.
pub(super) fn measure(thunk: &Thunk, callee: *const u8, cells: &[Cell], calls: u64) -> CallTimes {
    let mut scratch = cells.to_vec();
    let mut group = |calls: u64| {
        let start = Instant::now();
        for _ in 0..calls {
            scratch.copy_from_slice(cells);
            call_uncaught(thunk, callee, &mut scratch);
        }
        start.elapsed()
    };
    let mut size = 1;
    let mut done = 0;
    let mut times = Vec::new();
    while done < calls {
        let now = size.min(calls - done);
        let elapsed = group(now);
        done += now;
        // A group that is too short counts only if there is no other.
        if elapsed < GROUP && done < calls {
            size *= 2;
        } else if now == size || times.is_empty() {
            times.push(elapsed.as_secs_f64() * 1e9 / now as f64);
        }
    }
    times.sort_by(f64::total_cmp);
    CallTimes { calls, least: times[0], median: times[times.len() / 2] }
}

impl CallTimes {
    /// Returns text like `1000 calls, median 2.1 ns, least 2.0 ns`.
    pub(super) fn text(&self) -> String {
        let shown = |nanoseconds: f64| {
            if nanoseconds < 1e4 {
                format!("{nanoseconds:.1} ns")
            } else {
                time(Duration::from_secs_f64(nanoseconds / 1e9))
            }
        };
        format!("{} calls, median {}, least {}", self.calls, shown(self.median), shown(self.least))
    }

    pub(super) fn json(&self) -> serde_json::Value {
        json!({ "calls": self.calls, "median_ns": self.median, "least_ns": self.least })
    }
}
