//! Work on every module of a link: by many threads, or by the calling thread if there is little.

use std::sync::{Mutex, PoisonError};
use std::thread::Builder;

use kiln_artifact::Artifact;
use rayon::prelude::*;

use super::lists::PerModule;

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

/// Whether there are so many things to do, which take some nanoseconds each, that threads do them
/// faster. `counts` are summed up as far as that takes.
pub(super) fn are_many(counts: impl Iterator<Item = usize>) -> bool {
    const MANY: usize = 10_000;
    let mut sum = 0;
    counts.into_iter().any(|count| {
        sum += count;
        sum >= MANY
    })
}

/// Applies `work` to the numbers below `count`, and returns the results in order.
pub(super) fn map<T: Send>(
    parallel: bool,
    count: usize,
    work: impl Fn(usize) -> T + Sync + Send,
) -> PerModule<T> {
    if !parallel {
        return (0..count).map(work).collect();
    }
    // Eight parts for each thread, so that all end at nearly the same time.
    let part = count.div_ceil(8 * threads()).max(1);
    let parts = (0..count).step_by(part).map(|start| start..count.min(start + part));
    let parts = map_owned(true, parts.collect(), |_, range| range.map(&work).collect::<Vec<T>>());
    parts.into_iter().flatten().collect()
}

/// Applies `work` to `items` and their positions, and returns the results in order.
///
/// A thread of rayon's pools works with the others of its pool. Any other thread works with threads
/// that end afterwards: a thread of a pool may start a task of the client while it waits, and that
/// task may wait for the link.
pub(super) fn map_owned<I: Send, T: Send>(
    parallel: bool,
    items: PerModule<I>,
    work: impl Fn(usize, I) -> T + Sync + Send,
) -> PerModule<T> {
    if !parallel {
        let mut results = PerModule::with_capacity(items.len());
        items.into_iter().enumerate().for_each(|(number, item)| results.push(work(number, item)));
        return results;
    }
    if rayon::current_thread_index().is_some() {
        let results = items.into_vec().into_par_iter().enumerate().map(|(number, item)| work(number, item));
        return results.collect::<Vec<T>>().into();
    }
    let queue = Mutex::new(items.into_iter().enumerate());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let some = || {
        let mut results = Vec::new();
        while let Some((number, item)) = next() {
            results.push((number, work(number, item)));
        }
        results
    };
    let mut results = std::thread::scope(|scope| {
        // If there is no other thread, this one does everything.
        let start = |_| Builder::new().name("kiln-link".into()).spawn_scoped(scope, some).ok();
        let others: Vec<_> = (1..threads()).filter_map(start).collect();
        let mut results = some();
        for thread in others {
            match thread.join() {
                Ok(more) => results.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    });
    results.sort_unstable_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Returns the number of threads of a link.
fn threads() -> usize {
    // More would wait for memory.
    std::thread::available_parallelism().map_or(1, usize::from).min(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_whoever_works() {
        let expected: Vec<usize> = (0..1000).map(|number| number * number).collect();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        for parallel in [false, true] {
            let all = || map(parallel, 1000, |number| number * number);
            assert_eq!(
                [all().into_vec(), pool.install(all).into_vec()],
                [expected.clone(), expected.clone()]
            );
        }
        assert!(map(true, 0, |number| number).is_empty());
    }
}
