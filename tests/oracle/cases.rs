//! The number and the seeds of the cases that every test of this binary tries.
//!
//! `KILN_CASES=100000` tries that many cases; by default there are few. `KILN_SEED=n` tries one
//! case alone. With both, that many cases are tried from seed `n` on. A case that crashes the test
//! leaves a file with its seed in the folder for temporary files of tests.

use std::path::{Path, PathBuf};
use std::time::Instant;

use kiln_oracle::generate::ProgramOptions;
use rayon::prelude::*;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

/// The case that is tried alone, if there is one.
pub(crate) fn alone() -> Option<u64> {
    number("KILN_SEED").filter(|_| number("KILN_CASES").is_none())
}

/// Tries cases of the test `name`, `default` of them unless the environment says otherwise. It
/// panics with the first case that fails, and returns the number of cases.
pub(crate) fn run(name: &str, default: u64, case: impl Fn(u64) -> Result<(), String> + Sync) -> u64 {
    let (seed, cases) = (number("KILN_SEED"), number("KILN_CASES"));
    let first = seed.unwrap_or(0);
    let cases = cases.unwrap_or(if seed.is_some() { 1 } else { default });
    let start = Instant::now();
    let failed = (first..first.saturating_add(cases)).into_par_iter().find_map_first(|seed| {
        let running = Running::new(name, seed);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(seed)));
        let result = caught.unwrap_or_else(|_| Err("a panic, see above".into()));
        drop(running);
        result.err().map(|difference| (seed, difference))
    });
    if let Some((seed, difference)) = failed {
        panic!("seed {seed}: {difference}\nrerun with KILN_SEED={seed} cargo test --test oracle {name}");
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{name}: {cases} cases in {seconds:.1} s, {:.0} a second", cases as f64 / seconds);
    cases
}

/// A file that exists while a case is tried.
struct Running(PathBuf);

impl Running {
    fn new(name: &str, seed: u64) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("oracle-crashed-{name}-{seed}"));
        // Without the file only the message about a crash is less exact.
        let _ = std::fs::write(&path, "");
        Self(path)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The size of a program that is executed: mostly small ones, since they are executed faster and
/// understood sooner.
pub(crate) fn options(seed: u64) -> ProgramOptions {
    let default = ProgramOptions::default();
    match seed % 8 {
        0 => ProgramOptions { statements: 120, functions: 8, steps: 60_000, ..default },
        1 => ProgramOptions { vectors: false, ..default },
        2 => ProgramOptions { modules: 2, functions: 2, statements: 15, data: 2, ..default },
        4 => ProgramOptions { anonymous: false, ..default },
        3 => ProgramOptions { vectors: false, floats: false, statements: 60, ..default },
        _ => default,
    }
}
