//! Times contenders, which take turns, so that noise affects all of them equally.

use std::time::{Duration, Instant};

use crate::setup::Failure;

/// A piece of work that is timed in turn with others.
pub(crate) struct Contender<'a> {
    pub(crate) name: String,
    /// The names of the parts of a turn. If there are several, their total is reported too.
    parts: &'static [&'static str],
    turn: Box<Turn<'a>>,
}

/// A turn, which returns the time of every part.
type Turn<'a> = dyn FnMut() -> Result<Vec<Duration>, Failure> + 'a;

/// The times of a contender: one for each round, in order.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// The name of the part; empty for the total.
    pub(crate) part: &'static str,
    pub(crate) seconds: Vec<f64>,
}

/// A median and the range around it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl<'a> Contender<'a> {
    /// Makes a contender whose whole turn is timed. The result of a turn is dropped after its time
    /// was taken.
    pub(crate) fn new<T>(name: impl Into<String>, mut work: impl FnMut() -> Result<T, Failure> + 'a) -> Self {
        let turn = move || {
            let start = Instant::now();
            let result = work()?;
            let time = start.elapsed();
            drop(std::hint::black_box(result));
            Ok(vec![time])
        };
        Self { name: name.into(), parts: &[""], turn: Box::new(turn) }
    }

    /// Makes a contender that takes the time of every part itself.
    pub(crate) fn in_parts(
        name: impl Into<String>,
        parts: &'static [&'static str],
        turn: impl FnMut() -> Result<Vec<Duration>, Failure> + 'a,
    ) -> Self {
        Self { name: name.into(), parts, turn: Box::new(turn) }
    }
}

/// Runs every contender once without measuring, then in `rounds` rounds.
///
/// Every other round runs backwards, so that no contender always follows the same contender. The
/// result has the total of every contender in order, each followed by its parts.
pub(crate) fn interleave(rounds: u32, mut contenders: Vec<Contender<'_>>) -> Result<Vec<Series>, Failure> {
    let mut times: Vec<Vec<Vec<Duration>>> = vec![Vec::new(); contenders.len()];
    for round in 0..=rounds {
        let mut order: Vec<usize> = (0..contenders.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let contender = &mut contenders[index];
            let parts = (contender.turn)().map_err(|error| format!("{}: {error}", contender.name))?;
            if round > 0 {
                times[index].push(parts);
            }
        }
    }
    let mut series = Vec::new();
    for (contender, turns) in contenders.iter().zip(&times) {
        let sum = |turn: &Vec<Duration>| turn.iter().sum::<Duration>().as_secs_f64();
        let name = contender.name.clone();
        series.push(Series { name, part: "", seconds: turns.iter().map(sum).collect() });
        if contender.parts.len() > 1 {
            series.extend(contender.parts.iter().enumerate().map(|(at, part)| Series {
                name: contender.name.clone(),
                part,
                seconds: turns.iter().map(|turn| turn[at].as_secs_f64()).collect(),
            }));
        }
    }
    Ok(series)
}

/// Returns the median of many times.
pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Runs `work`, and returns the time and the result. The time does not include dropping the result.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed(), result)
}

/// Returns the median, the least and the greatest of `values`, or NaN if there are none.
pub(crate) fn spread(values: &[f64]) -> Spread {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (Some(&min), Some(&max)) = (sorted.first(), sorted.last()) else {
        return Spread { median: f64::NAN, min: f64::NAN, max: f64::NAN };
    };
    let middle = sorted.len() / 2;
    let median =
        if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
    Spread { median, min, max }
}
