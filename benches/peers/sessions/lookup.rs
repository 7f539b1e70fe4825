//! Finding functions by name on two threads at once.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use super::function::{Peer, Small};
use super::one::{artifacts, session};
use super::scale::Scale;
use crate::measure::{Contender, interleave};
use crate::report::{Comparison, Goal};
use crate::setup::{Failure, Setup};

const THREADS: usize = 2;

/// Looks up every function of a session, on two threads that begin together.
pub(super) fn two_threads(
    peer: &Peer,
    setup: &Setup,
    scale: Scale,
    comparison: &mut Comparison,
) -> Result<(), Failure> {
    let functions = peer.functions(0, scale.group());
    let session = session(&peer.compiler)?;
    session.add_artifacts(&artifacts(peer, &functions)?)?;
    let session = &session;
    let times = scale.repeats();
    // The time of a lookup by one thread.
    let look_up = |functions: &[Small]| -> Result<Duration, Failure> {
        let start = Instant::now();
        for _ in 0..times {
            for function in functions {
                let found = session.function(&function.name);
                std::hint::black_box(found.ok_or_else(|| format!("{} is not found", function.name))?);
            }
        }
        Ok(start.elapsed() / (times * functions.len()) as u32)
    };
    let name = format!("look up one of {} functions, {THREADS} threads at once", functions.len());
    let contender = Contender::in_parts(&name, &[""], || {
        let barrier = Barrier::new(THREADS);
        let times: Vec<Result<Duration, Failure>> = std::thread::scope(|scope| {
            let work = || {
                barrier.wait();
                look_up(&functions)
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        let times = times.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(vec![times.into_iter().max().unwrap_or_default()])
    });
    let series = interleave(setup.rounds, vec![contender])?;
    let nanoseconds = crate::measure::spread(&series[0].seconds).median * 1e9;
    comparison.add(series);
    comparison.value("ns of a lookup by name, 2 threads at once", nanoseconds, Goal::AtMost(100.0));
    Ok(())
}
