//! The numbers of a build, as `--stats` writes them.

use std::path::Path;
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use kiln::cache::Tally;
use kiln::image::link::Lean;
use serde::Serialize;

use crate::output::{bytes, count, peak_rss, time};

/// The numbers of a build. The JSON document has these fields, in this order.
#[derive(Serialize)]
pub(super) struct Stats {
    modules: usize,
    functions: usize,
    compiled_functions: usize,
    farmed_functions: usize,
    farmed_modules: usize,
    reused_functions: usize,
    reused_modules: usize,
    lazy_modules: usize,
    /// Calls that were inlined into the modules that were read.
    inlined_calls: usize,
    cache: CacheStats,
    dropped_functions: usize,
    dropped_data: usize,
    folded_functions: usize,
    text_bytes: u64,
    /// The bytes of the image, or of the object.
    image_bytes: u64,
    /// The slots that a loader fills, or for an object its client.
    slots: usize,
    threads: usize,
    peak_rss_bytes: u64,
    seconds: Seconds,
}

/// How often each event of the cache was reported, and where modules came from.
#[derive(Default, Serialize)]
pub(super) struct CacheStats {
    hits: u64,
    misses: u64,
    corrupt: u64,
    healed: u64,
    evicted: u64,
    quarantined: u64,
    verified: u64,
    failed_verifications: u64,
    failed_writes: u64,
    dropped_writes: u64,
    /// Modules that were found, by the place where they were.
    places: IndexMap<&'static str, Place>,
    /// The exchange with a server, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    remote: Option<Exchange>,
    /// The shards that a farm was given, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    farm: Option<FarmStats>,
}

/// The shards that a farm was given, and what it answered.
#[derive(Default, Serialize)]
pub(super) struct FarmStats {
    pub(super) shards: u64,
    pub(super) answered: u64,
    pub(super) cached: u64,
    pub(super) failed: u64,
    pub(super) withdrawn: u64,
    pub(super) sent_bytes: u64,
    pub(super) received_bytes: u64,
    pub(super) faults: u64,
}

/// The modules that came from one place.
#[derive(Clone, Copy, Default, Serialize)]
pub(super) struct Place {
    pub(super) modules: u64,
    pub(super) bytes: u64,
    /// The time for which threads waited for them, of all threads together.
    pub(super) seconds: f64,
}

/// The exchange with a server.
#[derive(Default, Serialize)]
pub(super) struct Exchange {
    pub(super) lookups: u64,
    pub(super) received: u64,
    pub(super) received_bytes: u64,
    pub(super) sent: u64,
    pub(super) sent_bytes: u64,
    pub(super) unsent: u64,
    pub(super) refused: u64,
    pub(super) faults: u64,
    /// The time after the build until everything was sent, or given up.
    pub(super) waited_seconds: f64,
}

impl CacheStats {
    pub(super) fn new(
        tally: Tally,
        places: IndexMap<&'static str, Place>,
        remote: Option<Exchange>,
        farm: Option<FarmStats>,
    ) -> Self {
        Self {
            places,
            remote,
            farm,
            hits: tally.hits,
            misses: tally.misses,
            corrupt: tally.corrupt,
            healed: tally.healed,
            evicted: tally.evicted,
            quarantined: tally.quarantined,
            verified: tally.verified,
            failed_verifications: tally.failed_verifications,
            failed_writes: tally.failed_writes,
            dropped_writes: tally.dropped_writes,
        }
    }
}

/// The seconds that each part of a build took. Some modules are read while others are compiled, so
/// `compile` includes the time for reading.
#[derive(Serialize)]
struct Seconds {
    compile: f64,
    link: f64,
    write: f64,
    total: f64,
}

/// The times at which the build started and at which each part of it ended.
pub(super) struct Times {
    pub(super) started: Instant,
    pub(super) compiled: Instant,
    pub(super) linked: Instant,
    pub(super) written: Instant,
}

impl Stats {
    pub(super) fn new(
        (modules, lean): (usize, &Lean),
        compiled: &kiln::Stats,
        cache: CacheStats,
        (output_bytes, slots): (usize, usize),
        threads: usize,
        times: &Times,
    ) -> Self {
        let artifacts = &lean.artifacts;
        let seconds = |from: Instant, to: Instant| (to - from).as_secs_f64();
        Self {
            modules,
            functions: artifacts.iter().map(|artifact| artifact.functions().len()).sum(),
            compiled_functions: compiled.compiled_functions,
            farmed_functions: compiled.farmed_functions,
            farmed_modules: compiled.farmed_modules,
            reused_functions: compiled.reused_functions,
            reused_modules: compiled.reused_modules,
            lazy_modules: compiled.lazy_modules,
            inlined_calls: compiled.inlined_calls,
            cache,
            dropped_functions: lean.dropped_functions.0,
            dropped_data: lean.dropped_data.0,
            folded_functions: lean.folded_functions.0,
            text_bytes: artifacts.iter().map(|artifact| artifact.text().len() as u64).sum(),
            image_bytes: output_bytes as u64,
            slots,
            threads,
            peak_rss_bytes: peak_rss(),
            seconds: Seconds {
                compile: seconds(times.started, times.compiled),
                link: seconds(times.compiled, times.linked),
                write: seconds(times.linked, times.written),
                total: seconds(times.started, times.written),
            },
        }
    }

    /// Returns the summary of a build: a line for people.
    pub(super) fn summary(&self, output: &Path) -> String {
        let farmed = match self.farmed_functions {
            0 => String::new(),
            farmed => format!("{farmed} by the farm, "),
        };
        format!(
            "{}: {} of {} ({} compiled, {farmed}{} reused) in {}, {} of code, {}, in {}",
            output.display(),
            bytes(self.image_bytes),
            count(self.functions, "function"),
            self.compiled_functions,
            self.reused_functions,
            count(self.modules, "module"),
            bytes(self.text_bytes),
            count(self.slots, "slot"),
            time(Duration::from_secs_f64(self.seconds.total)),
        )
    }
}
