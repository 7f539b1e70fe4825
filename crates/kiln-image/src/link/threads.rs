//! Work on every module of a link: by many threads, or by the calling thread if there is little.

use kiln_artifact::Artifact;
use rayon::prelude::*;

/// The size of all artifacts, in bytes, from which on a link is done in parallel. A thread links
/// about a byte in a nanosecond, and to hand work to threads that sleep takes 10 to 50 us, so below
/// this size there is little to gain.
const LARGE: usize = 256 << 10;

/// Whether these modules are linked on the calling thread, without a thread pool, because there is
/// only one, or few small ones.
pub fn is_small(artifacts: &[Artifact]) -> bool {
    let mut size = 0;
    artifacts.len() <= 1
        || artifacts.iter().all(|artifact| {
            size += artifact.as_bytes().len();
            size < LARGE
        })
}

/// Applies `work` to the numbers below `count`, and returns the results in order.
pub(super) fn map<T: Send>(parallel: bool, count: usize, work: impl Fn(usize) -> T + Sync + Send) -> Vec<T> {
    match parallel {
        true => (0..count).into_par_iter().map(work).collect(),
        false => (0..count).map(work).collect(),
    }
}
