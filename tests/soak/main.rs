//! Sessions that many threads use for long: at random they add, look up, call, replace, remove and
//! save, against a model. At the end, memory and mappings are as at the start.
//!
//! `KILN_CASES=n` sets the number of rounds. `KILN_SECONDS=n` lets the random test end after this
//! time instead. It is a binary of its own, so that no other test makes
//! mappings or uses memory meanwhile; its tests take turns.

mod life;
mod locate;
mod pool;
mod rounds;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kiln::ir::{Module, Source, Target, parse};
use kiln::jit::{JitOptions, Memory, MemoryOptions};
use kiln::{Compiler, Session};

/// One test at a time.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the number of rounds.
fn rounds(default: usize) -> usize {
    match std::env::var("KILN_CASES") {
        Ok(text) => text.parse().unwrap_or_else(|error| panic!("KILN_CASES={text}: {error}")),
        Err(_) => default,
    }
}

/// The end of a test: after a number of rounds, or after some time.
struct End {
    rounds: usize,
    time: Option<(Instant, Duration)>,
}

impl End {
    /// Returns the end that the environment says, or the one after `default` rounds.
    fn new(default: usize) -> Self {
        let time = std::env::var("KILN_SECONDS").ok().map(|text| {
            let seconds = text.parse().unwrap_or_else(|error| panic!("KILN_SECONDS={text}: {error}"));
            (Instant::now(), Duration::from_secs(seconds))
        });
        Self { rounds: rounds(default), time }
    }

    /// Returns the part of the test, of ten, that begins with this round or before it. `None` if
    /// the test is over.
    fn part(&self, round: usize) -> Option<usize> {
        let part = match self.time {
            Some((start, length)) => start.elapsed().as_millis() * 10 / length.as_millis().max(1),
            None => (round * 10 / self.rounds.max(1)) as u128,
        };
        (part < 10).then_some(part as usize)
    }
}

fn module(text: &str) -> Module {
    match parse(Arc::new(Source::new("module", text)), &Target::host()) {
        Ok(module) => module,
        Err(faults) => panic!("{}", faults.iter().map(ToString::to_string).collect::<String>()),
    }
}

/// A function that returns a number.
fn constant(linkage: &str, name: &str, value: i64) -> Module {
    module(&format!(
        "{linkage} function %{name}() -> i64 system_v {{ block0: v0 = iconst.i64 {value} return v0 }}"
    ))
}

/// A session with memory of its own.
fn session() -> Session {
    let memory = Memory::reserve(MemoryOptions::with_size(64 << 20)).expect("address space");
    let options = JitOptions { memory: Some(memory), ..JitOptions::default() };
    Session::with_compiler(Compiler::new(Target::host()), options).expect("a session")
}

/// Returns the number of bytes that are used and retired.
fn in_use(session: &Session) -> [usize; 2] {
    let usage = session.jit().memory().usage();
    let regions = [usage.code, usage.read_only, usage.data];
    [regions.iter().map(|region| region.used).sum(), regions.iter().map(|region| region.retired).sum()]
}

/// Returns the number of mappings of code.
fn mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("a list of mappings");
    maps.lines().filter(|line| line.contains("/memfd:kiln")).count()
}

/// Returns the memory of this process, in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or_default()
}
