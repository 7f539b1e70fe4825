//! Results as a table for people and as JSON for programs.

use serde_json::{Value, json};

use crate::measure::{Series, Spread, spread};

/// Everything that was measured.
#[derive(Default)]
pub(crate) struct Report {
    comparisons: Vec<Comparison>,
}

/// The times of several contenders on one workload, and their ratios.
pub(crate) struct Comparison {
    workload: String,
    title: &'static str,
    series: Vec<Series>,
    ratios: Vec<Ratio>,
    /// Remarks about the numbers, and the peers that are missing.
    notes: Vec<String>,
    /// The checks that the results passed.
    checks: Vec<String>,
    curves: Vec<Curve>,
}

/// How numbers depend on a size, to be drawn.
pub(crate) struct Curve {
    name: String,
    unit: &'static str,
    /// The name of the size.
    along: &'static str,
    /// Each with its name and its points, as size and number.
    lines: Vec<(String, Vec<(f64, f64)>)>,
}

impl Curve {
    pub(crate) fn new(name: &str, unit: &'static str, along: &'static str) -> Self {
        Self { name: name.into(), unit, along, lines: Vec::new() }
    }

    pub(crate) fn line(&mut self, name: &str, points: Vec<(f64, f64)>) {
        self.lines.push((name.into(), points));
    }

    fn json(&self) -> Value {
        let line = |(name, points): &(String, Vec<(f64, f64)>)| json!({ "name": name, "points": points });
        json!({
            "name": self.name, "unit": self.unit, "along": self.along,
            "lines": self.lines.iter().map(line).collect::<Vec<_>>(),
        })
    }
}

/// The value that a ratio should have.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// No goal: the ratio is only reported.
    None,
}

struct Ratio {
    name: String,
    /// The ratios of the two times of each round, or a single number.
    value: Spread,
    goal: Goal,
}

impl Comparison {
    pub(crate) fn new(workload: &str, title: &'static str) -> Self {
        let (series, ratios, notes, checks, curves) = Default::default();
        Self { workload: workload.into(), title, series, ratios, notes, checks, curves }
    }

    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    pub(crate) fn check(&mut self, text: impl Into<String>) {
        self.checks.push(text.into());
    }

    pub(crate) fn curve(&mut self, curve: Curve) {
        self.curves.push(curve);
    }

    pub(crate) fn add(&mut self, series: Vec<Series>) {
        self.series.extend(series);
    }

    /// Returns the total of the contender `name`.
    fn total(&self, name: &str) -> Option<&Series> {
        self.series.iter().find(|series| series.name == name && series.part.is_empty())
    }

    /// Adds the ratio of two totals, `above / below`, computed round by round, and returns its
    /// median.
    pub(crate) fn ratio(&mut self, above: &str, below: &str, goal: Goal) -> f64 {
        self.named_ratio(format!("{above} / {below}"), above, below, goal)
    }

    /// Adds a ratio like [`ratio`](Self::ratio), under a name of its own.
    pub(crate) fn named_ratio(
        &mut self,
        name: impl Into<String>,
        above: &str,
        below: &str,
        goal: Goal,
    ) -> f64 {
        let (Some(a), Some(b)) = (self.total(above), self.total(below)) else {
            panic!("no measurement of {above:?} and {below:?} in {:?}", self.title);
        };
        let each: Vec<f64> = a.seconds.iter().zip(&b.seconds).map(|(a, b)| a / b).collect();
        let value = spread(&each);
        self.ratios.push(Ratio { name: name.into(), value, goal });
        value.median
    }

    /// Adds a total as a number of nanoseconds.
    pub(crate) fn nanoseconds(&mut self, name: &str, goal: Goal) {
        let Some(series) = self.total(name) else {
            panic!("no measurement of {name:?} in {:?}", self.title);
        };
        let values: Vec<f64> = series.seconds.iter().map(|seconds| seconds * 1e9).collect();
        self.values(format!("{name}, ns"), &values, goal);
    }

    /// Adds the speed of a total that handles `bytes` bytes, in GB/s.
    pub(crate) fn speed(&mut self, name: &str, bytes: usize, goal: Goal) {
        let Some(series) = self.total(name) else {
            panic!("no measurement of {name:?} in {:?}", self.title);
        };
        let values: Vec<f64> = series.seconds.iter().map(|seconds| bytes as f64 / 1e9 / seconds).collect();
        self.values(format!("{name}, GB/s"), &values, goal);
    }

    /// Adds a number that is measured in rounds of its own.
    pub(crate) fn values(&mut self, name: impl Into<String>, values: &[f64], goal: Goal) {
        self.ratios.push(Ratio { name: name.into(), value: spread(values), goal });
    }

    /// Adds a number that is not measured in rounds.
    pub(crate) fn value(&mut self, name: impl Into<String>, value: f64, goal: Goal) {
        self.values(name, &[value], goal);
    }

    /// Returns the name of the contender with the least median. Only names that `among` accepts
    /// count.
    pub(crate) fn fastest(&self, among: impl Fn(&str) -> bool) -> Option<String> {
        let totals = self.series.iter().filter(|series| series.part.is_empty() && among(&series.name));
        let median = |series: &&Series| spread(&series.seconds).median;
        totals.min_by(|a, b| median(a).total_cmp(&median(b))).map(|series| series.name.clone())
    }

    fn print(&self) {
        println!("\n{}: {}", self.workload, self.title);
        let label = |series: &Series| match series.part {
            "" => series.name.clone(),
            part => format!("  {part}"),
        };
        let width = self.series.iter().map(|series| label(series).chars().count()).max().unwrap_or(0).max(40);
        if !self.series.is_empty() {
            println!("  {:width$}  {:>10}  {:>23}", "time", "median", "min .. max");
        }
        for series in &self.series {
            let Spread { median, min, max } = spread(&series.seconds);
            let range = format!("{} .. {}", seconds(min), seconds(max));
            println!("  {:width$}  {:>10}  {range:>23}", label(series), seconds(median));
        }
        let width = self.ratios.iter().map(|ratio| ratio.name.chars().count()).max().unwrap_or(0).max(40);
        for Ratio { name, value: Spread { median, min, max }, goal } in &self.ratios {
            let range = format!("{} .. {}", number(*min), number(*max));
            println!("  {name:width$}  {:>10}  {range:>23}  {}", number(*median), goal.verdict(*median));
        }
        for note in &self.notes {
            println!("  note: {note}");
        }
        for check in &self.checks {
            println!("  checked: {check}");
        }
    }

    fn json(&self) -> Value {
        let spread_json = |Spread { median, min, max }| json!({ "median": median, "min": min, "max": max });
        let series = self.series.iter().map(|series| {
            json!({
                "name": series.name, "part": series.part, "seconds": series.seconds,
                "spread": spread_json(spread(&series.seconds)),
            })
        });
        let ratios = self.ratios.iter().map(|ratio| {
            let (bound, limit) = match ratio.goal {
                Goal::AtMost(limit) => ("at most", Some(limit)),
                Goal::AtLeast(limit) => ("at least", Some(limit)),
                Goal::None => ("none", None),
            };
            json!({
                "name": ratio.name, "value": spread_json(ratio.value),
                "target": { "bound": bound, "limit": limit }, "met": ratio.goal.met(ratio.value.median),
            })
        });
        json!({
            "workload": self.workload, "title": self.title, "series": series.collect::<Vec<_>>(),
            "ratios": ratios.collect::<Vec<_>>(), "notes": self.notes, "checks": self.checks,
            "curves": self.curves.iter().map(Curve::json).collect::<Vec<_>>(),
        })
    }
}

impl Goal {
    fn met(self, value: f64) -> Option<bool> {
        match self {
            Self::AtMost(limit) => Some(value <= limit),
            Self::AtLeast(limit) => Some(value >= limit),
            Self::None => None,
        }
    }

    fn verdict(self, value: f64) -> String {
        let target = match self {
            Self::AtMost(limit) => format!("target <= {limit:.2}"),
            Self::AtLeast(limit) => format!("target >= {limit:.2}"),
            Self::None => return String::new(),
        };
        format!("{target}: {}", if self.met(value) == Some(true) { "met" } else { "NOT met" })
    }
}

impl Report {
    /// Prints a comparison and keeps it.
    pub(crate) fn add(&mut self, comparison: Comparison) {
        comparison.print();
        self.comparisons.push(comparison);
    }

    pub(crate) fn json(&self, run: Value) -> Value {
        json!({ "run": run, "sections": self.comparisons.iter().map(Comparison::json).collect::<Vec<_>>() })
    }

    /// Returns the number of goals that are met, and the number of all goals.
    pub(crate) fn met(&self) -> (usize, usize) {
        let verdicts = self.comparisons.iter().flat_map(|comparison| &comparison.ratios);
        let verdicts: Vec<bool> = verdicts.filter_map(|ratio| ratio.goal.met(ratio.value.median)).collect();
        (verdicts.iter().filter(|met| **met).count(), verdicts.len())
    }
}

/// Formats a number with two decimal places, or with four if it is small.
fn number(value: f64) -> String {
    if value < 0.1 { format!("{value:.4}") } else { format!("{value:.2}") }
}

/// Formats a time with three digits and its unit.
fn seconds(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s >= 1.0 => (s, "s"),
        s if s >= 1e-3 => (s * 1e3, "ms"),
        s if s >= 1e-6 => (s * 1e6, "us"),
        s => (s * 1e9, "ns"),
    };
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$} {unit}")
}
