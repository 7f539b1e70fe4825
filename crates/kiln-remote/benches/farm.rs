//! The cost of a farm, on the loopback: the overhead of a shard beside that of the server's empty
//! action, throughput with more and more machines, and the processor time of the client.
//!
//! The server is that of the tests; its machines are simulated: an action takes a given time, and
//! as many run at once. Beside each number stands its peer of the same run. A real
//! farm is measured as well if `KILN_TEST_FARM` names one.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use kiln::Compiler;
use kiln::farm::{Answer, Farm, Item, write_shard};
use kiln::ir::{Source, Target, parse};
use kiln_remote::{Endpoint, FarmOptions, RemoteFarm};

use crate::execute::IN_PROCESS;
use crate::server::TestServer;

#[path = "../../kiln-cache/tests/store/common.rs"]
#[expect(dead_code, reason = "the tests of stores use the rest")]
mod common;
#[path = "../tests/remote/execute.rs"]
mod execute;
#[path = "../tests/remote/server.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod server;

/// The time that is added to each action, to simulate a machine.
const DELAY: Duration = Duration::from_millis(200);
/// Shards of the measurement of throughput: the same number for each machine.
const SHARDS: usize = 32;
/// Measurements of which the median counts.
const ROUNDS: usize = 31;
/// The overhead of a shard, by that of an empty action, at most.
const OVERHEAD: f64 = 1.3;
/// The part of their number by which machines multiply the throughput, at least.
const GROWTH: f64 = 0.85;

/// Says whether a goal is met.
fn word(met: bool) -> &'static str {
    if met { "met" } else { "NOT met" }
}

fn open(url: &str, worker: impl Into<Arc<[u8]>>) -> RemoteFarm {
    RemoteFarm::open(&Endpoint::with_variables(url, |_| None).unwrap(), FarmOptions::new(worker)).unwrap()
}

/// Has shards compiled, and returns the time until all of them are here, and how many were not.
fn compile(farm: &RemoteFarm, shards: &[Vec<u8>]) -> (Duration, usize) {
    let left = Arc::new((Mutex::new((shards.len(), 0)), Condvar::new()));
    let own = Arc::clone(&left);
    let start = Instant::now();
    let run = farm.begin(Arc::new(move |_, answer| {
        let mut left = own.0.lock().unwrap();
        left.0 -= 1;
        left.1 += usize::from(!matches!(answer, Answer::Results { .. }));
        own.1.notify_all();
    }));
    for (number, shard) in shards.iter().enumerate() {
        assert!(run.submit(number, shard.clone()));
    }
    let limit = Duration::from_secs(120);
    let (left, _) = left.1.wait_timeout_while(left.0.lock().unwrap(), limit, |left| left.0 > 0).unwrap();
    assert_eq!(left.0, 0, "the farm does not answer");
    (start.elapsed(), left.1)
}

/// Returns a shard of `modules` modules with `functions` functions each.
fn shard(first: usize, modules: usize, functions: usize) -> Vec<u8> {
    let text = |module: usize| -> String {
        let function = |n: usize| {
            let sums: String = (0..40)
                .map(|v| {
                    let (a, b, c) = (2 * v + 1, 2 * v + 2, 2 * v + 3);
                    format!("  v{b} = iadd v{a}, v0\n  v{c} = imul v{b}, v{a}\n")
                })
                .collect();
            format!(
                "function %f{module}_{n}(i64) -> i64 {{\nblock0(v0: i64):\n  v1 = iconst.i64 {n}\n{sums}  return v81\n}}\n"
            )
        };
        (0..functions).map(function).collect()
    };
    let compiler = Compiler::new(Target::host());
    let made: Vec<_> = (first..first + modules)
        .map(|n| {
            let module = parse(Source::new(format!("m{n}"), text(n)).into(), &Target::host()).unwrap();
            (compiler.keys(&module).unwrap().0, module.to_bytes())
        })
        .collect();
    let items = made.iter().map(|(recipe, module)| Item { recipe, module });
    write_shard(&items.collect::<Vec<_>>())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The overhead of a shard, and of an action that does nothing.
fn overhead() {
    let server = TestServer::start();
    let farm = open(&server.url(), IN_PROCESS);
    let without = |shard: Vec<u8>| {
        let (time, failed) = compile(&farm, &[shard]);
        assert_eq!(failed, 0);
        // The time of compiling is that of the machine itself.
        time.saturating_sub(server.inside.lock().unwrap().machines.busy)
    };
    without(shard(0, 1, 1));
    let (mut empty, mut full) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // The server has forgotten it, so it is sent and executed each time.
        server.inside.lock().unwrap().forget(&write_shard(&[]));
        empty.push(without(write_shard(&[])));
        full.push(without(shard(1000 * (round + 1), 8, 10)));
    }
    let (empty, full) = (median(empty), median(full));
    println!("overhead of a shard       {:8.2} ms", ms(full));
    println!("of an empty action        {:8.2} ms", ms(empty));
    let ratio = full.as_secs_f64() / empty.as_secs_f64();
    println!("ratio                     {ratio:8.2} (at most {OVERHEAD}: {})", word(ratio <= OVERHEAD));
}

/// Throughput with more and more machines.
fn throughput() {
    let mut one = 0.0;
    for machines in [1, 2, 4, 8] {
        let server = TestServer::start();
        {
            let mut inside = server.inside.lock().unwrap();
            inside.machines.slots = Arc::new(tokio::sync::Semaphore::new(machines));
            inside.machines.delay = DELAY;
        }
        let farm = open(&server.url(), IN_PROCESS);
        // The worker is there.
        compile(&farm, &[write_shard(&[])]);
        let shards: Vec<Vec<u8>> = (0..SHARDS).map(|n| shard(1000 + 10 * n, 1, 4)).collect();
        let (time, failed) = compile(&farm, &shards);
        assert_eq!(failed, 0);
        let throughput = SHARDS as f64 / time.as_secs_f64();
        if machines == 1 {
            one = throughput;
        }
        let (times, least) = (throughput / one, GROWTH * machines as f64);
        println!(
            "{machines:2} machines             {throughput:8.2} shards/s, {times:5.2} times one (at least \
             {least:.2}: {})",
            word(times >= least)
        );
    }
}

/// The processor time of the client for each shard, which limits how many machines it feeds.
fn client() {
    let server = TestServer::start();
    server.inside.lock().unwrap().machines.slots = Arc::new(tokio::sync::Semaphore::new(64));
    let farm = open(&server.url(), IN_PROCESS);
    let shards: Vec<Vec<u8>> = (0..SHARDS).map(|n| shard(1000 + 100 * n, 20, 40)).collect();
    let bytes: usize = shards.iter().map(Vec::len).sum();
    let before = processor_time();
    compile(&farm, &shards);
    let time = processor_time() - before;
    println!(
        "client                    {:8.2} ms of one thread for each shard of {} kB: {:.0} MB/s",
        ms(time) / SHARDS as f64,
        bytes / SHARDS / 1000,
        bytes as f64 / time.as_secs_f64() / 1e6
    );
}

/// Returns the processor time of the threads that speak to servers.
fn processor_time() -> Duration {
    let mut ticks = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
        let Some((name, fields)) = stat.rsplit_once(')') else { continue };
        if name.ends_with("(kiln-farm") {
            let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
            ticks += fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        }
    }
    // The kernel counts in hundredths of a second for every program.
    Duration::from_millis(10 * ticks)
}

/// A real farm, and the worker by itself.
fn real() {
    let (Ok(url), Ok(worker)) = (std::env::var("KILN_TEST_FARM"), std::env::var("KILN_TEST_WORKER")) else {
        println!("no farm in KILN_TEST_FARM: run `cargo xtask servers -- cargo bench ..`");
        return;
    };
    let farm = open(&url, std::fs::read(Path::new(&worker)).unwrap());
    compile(&farm, &[shard(0, 1, 1)]);
    let folder = tempfile::tempdir().unwrap();
    let (mut empty, mut full, mut alone) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..9 {
        let salt = std::process::id() as usize * 100 + round;
        let shards = [shard(100 * salt, 1, 1), shard(100 * salt + 1, 20, 40)];
        let [nothing, some] = shards.map(|shard| {
            let file = folder.path().join("shard");
            std::fs::write(&file, &shard).unwrap();
            let start = Instant::now();
            let mut command = std::process::Command::new(&worker);
            let status = command.arg(&file).arg(folder.path().join("results")).status();
            assert!(status.unwrap().success());
            let own = start.elapsed();
            let (time, failed) = compile(&farm, &[shard]);
            assert_eq!(failed, 0);
            (time, own)
        });
        empty.push(nothing.0.saturating_sub(nothing.1));
        full.push(some.0.saturating_sub(some.1));
        alone.push(some.1);
    }
    let (empty, full, alone) = (median(empty), median(full), median(alone));
    println!("a real farm: a shard that takes {:.0} ms here", ms(alone));
    println!("overhead of a shard       {:8.2} ms", ms(full));
    println!("of an action of 1 function{:8.2} ms", ms(empty));
    let ratio = full.as_secs_f64() / empty.as_secs_f64();
    println!("ratio                     {ratio:8.2} (at most {OVERHEAD}: {})", word(ratio <= OVERHEAD));
}

/// How long compiling takes for each byte of IR: what the size of shards is estimated with. The
/// variable `KILN_BENCH_CORPUS` names a folder of `.clif` files.
fn corpus() {
    let Some(folder) = std::env::var_os("KILN_BENCH_CORPUS") else { return };
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "clif"));
    files.sort();
    for level in [kiln::ir::OptLevel::None, kiln::ir::OptLevel::Speed] {
        let (mut bytes, mut time) = (0, Duration::ZERO);
        for path in files.iter().take(12) {
            let target = Target::host().opt_level(level);
            let text = std::fs::read_to_string(path).unwrap();
            let Ok(module) = parse(Source::new("m", text).into(), &target) else { continue };
            let (recipe, module) = (Compiler::new(target).keys(&module).unwrap().0, module.to_bytes());
            bytes += module.len();
            let shard = write_shard(&[Item { recipe: &recipe, module: &module }]);
            let start = Instant::now();
            kiln_worker::compile_shard(&shard).unwrap();
            time += start.elapsed();
        }
        let nanos = time.as_nanos() as usize / bytes.max(1);
        println!("compiling at {:<13}{nanos:8} ns for each byte of IR, of {} kB", level.name(), bytes / 1000);
    }
}

fn main() {
    corpus();
    overhead();
    throughput();
    client();
    real();
}
