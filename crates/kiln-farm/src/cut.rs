//! Cuts a list of modules into shards.
//!
//! The same modules make the same shards on every machine, so their actions are equal, and a farm
//! that has compiled a shard once has its results. Cuts depend on keys, not on positions: if a
//! module is new, changed or found in a cache, then the shards after the next cut stay the same.
//! Content-defined chunking does this for files (Muthitacharoen, Chen, Mazieres, A Low-bandwidth
//! Network File System, 2001).

use std::ops::Range;
use std::time::Duration;

use kiln_cache::Key;

/// One module in this many ends a shard that is long enough.
const ONE_IN: u32 = 4;

/// Cuts modules into shards, whose ranges are returned in order. For each module, its estimated
/// time of compiling and its key are given. A shard takes about 1 to 2 times `target`; it is longer
/// only if its last module is, and only the last shard may be shorter.
pub fn cut(modules: &[(Duration, Key)], target: Duration) -> Vec<Range<usize>> {
    let mut shards = Vec::new();
    let (mut start, mut time) = (0, Duration::ZERO);
    for (index, (own, key)) in modules.iter().enumerate() {
        if time >= target && time + *own > 2 * target {
            shards.push(start..index);
            (start, time) = (index, Duration::ZERO);
        }
        time += *own;
        if time >= target && key.sampled(ONE_IN) {
            shards.push(start..index + 1);
            (start, time) = (index + 1, Duration::ZERO);
        }
    }
    if start < modules.len() {
        shards.push(start..modules.len());
    }
    shards
}
