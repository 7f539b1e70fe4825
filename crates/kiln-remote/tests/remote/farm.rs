//! A farm behind a server of Bazel's remote execution API: what it does, and what it survives.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kiln::ir::{Module, Source, Target, parse};
use kiln::{Compiled, Compiler};
use kiln_cache::{Event, Events};
use kiln_remote::{Endpoint, FarmOptions, RemoteFarm};
use tonic::Code;

use kiln::farm::{Answer, Answers, Farm, Run};

use crate::execute::IN_PROCESS;
use crate::proxy::{Cut, Proxy};
use crate::scenario::Log;
use crate::server::{Fault, TestServer};

/// A build may take this much longer because of a farm.
const LONGER: Duration = Duration::from_millis(2000);

/// A farm, and how many of its shards have no answer: local threads let it go first.
struct Watched {
    farm: RemoteFarm,
    submitted: Arc<AtomicUsize>,
    answered: Arc<AtomicUsize>,
}

struct WatchedRun(Box<dyn Run>, Arc<AtomicUsize>);

impl Run for WatchedRun {
    fn submit(&self, number: usize, shard: Vec<u8>) -> bool {
        let is_taken = self.0.submit(number, shard);
        self.1.fetch_add(usize::from(is_taken), SeqCst);
        is_taken
    }

    fn withdraw(&self, number: usize) {
        self.0.withdraw(number);
    }

    fn close(&self) {
        self.0.close();
    }
}

impl Farm for Watched {
    fn shard_time(&self) -> Duration {
        self.farm.shard_time()
    }

    fn begin(&self, answers: Answers) -> Box<dyn Run> {
        let answered = Arc::clone(&self.answered);
        let run = self.farm.begin(Arc::new(move |shard, answer| {
            answers(shard, answer);
            answered.fetch_add(1, SeqCst);
        }));
        Box::new(WatchedRun(run, Arc::clone(&self.submitted)))
    }
}

/// Modules with functions that call each other, data and a global; long enough for the pool.
fn modules(count: usize) -> Vec<Module> {
    let text = |n: usize| {
        let sums: String = (1..150).map(|v| format!(" v{} = iadd v{v}, v0\n", v + 1)).collect();
        format!(
            "global %heap = \"runtime:heap\"\ndata %text{n} align=8 {{ bytes \"one\", addr %text{n} }}\n\
             function %next{n}(i64) -> i64 {{\n gv0 = symbol %heap\nblock0(v0: i64):\n \
             v1 = iconst.i64 {n}\n{sums} v200 = symbol_value.i64 gv0\n v201 = iadd v150, v200\n \
             return v201\n}}\n\
             function %own{n}(i64) -> i64 {{\n fn0 = %next{n}(i64) -> i64\nblock0(v0: i64):\n \
             v1 = call fn0(v0)\n{sums} return v150\n}}\n"
        )
    };
    let read = |n| parse(Source::new(format!("m{n}.clif"), text(n)).into(), &Target::host()).unwrap();
    (0..count).map(read).collect()
}

struct Build {
    compiled: Compiled,
    time: Duration,
    log: Arc<Log>,
    farm: Arc<Watched>,
}

impl Build {
    fn bytes(&self) -> Vec<&[u8]> {
        self.compiled.artifacts.iter().map(|artifact| artifact.as_bytes()).collect()
    }

    fn farmed(&self) -> usize {
        self.compiled.stats.farmed_modules
    }
}

fn options(log: &Arc<Log>) -> FarmOptions {
    let mut options = FarmOptions::new(IN_PROCESS);
    options.shard_time = Duration::from_nanos(1);
    options.events = Some(log.clone());
    options
}

/// Compiles with a farm that has as much time as it needs.
fn build(url: &str, modules: &[Module], options: impl FnOnce(&mut FarmOptions)) -> Build {
    build_within(Duration::from_secs(20), url, modules, options)
}

/// Compiles with a farm that may not answer.
fn build_soon(url: &str, modules: &[Module]) -> Build {
    build_within(Duration::from_millis(500), url, modules, |_| {})
}

/// Compiles with a farm that has this much time.
fn build_within(
    patience: Duration,
    url: &str,
    modules: &[Module],
    options: impl FnOnce(&mut FarmOptions),
) -> Build {
    let log = Arc::new(Log::default());
    let mut own = self::options(&log);
    options(&mut own);
    let farm = RemoteFarm::open(&Endpoint::with_variables(url, |_| None).unwrap(), own).unwrap();
    let farm = Arc::new(Watched { farm, submitted: Arc::default(), answered: Arc::default() });
    let (submitted, answered) = (Arc::clone(&farm.submitted), Arc::clone(&farm.answered));
    let gate = AtomicBool::new(false);
    // The pool lets the farm go first, until everything has an answer.
    let wait = move || {
        let start = Instant::now();
        let mut quiet = 0;
        while !gate.load(SeqCst) {
            let is_done = submitted.load(SeqCst) > 0 && submitted.load(SeqCst) == answered.load(SeqCst);
            quiet = if is_done { quiet + 1 } else { 0 };
            if quiet > 5 || start.elapsed() > patience {
                gate.store(true, SeqCst);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap());
    let compiler = Compiler::new(Target::host()).pool(pool).events(log.clone()).progress(wait);
    let start = Instant::now();
    let compiled = compiler.farm(farm.clone()).compile(modules).unwrap();
    Build { compiled, time: start.elapsed(), log, farm }
}

/// Compiles without a farm.
fn alone(modules: &[Module]) -> Vec<Vec<u8>> {
    let compiled = Compiler::new(Target::host()).compile(modules).unwrap();
    compiled.artifacts.iter().map(|artifact| artifact.as_bytes().to_vec()).collect()
}

#[test]
fn a_farm_compiles_what_this_machine_would() {
    let server = TestServer::start();
    let modules = modules(6);
    let expected = alone(&modules);
    let first = build(&server.url(), &modules, |_| {});
    assert!(first.bytes() == expected);
    // The pool has compiled the last one, and waited.
    let log = first.log.0.lock().unwrap().join("\n");
    assert!(first.farmed() >= 5, "{:?}\n{log}", first.farm.farm.traffic());
    assert_eq!(first.compiled.stats.farmed_functions, 2 * first.farmed());
    assert_eq!(first.compiled.stats.compiled_functions, 2 * (6 - first.farmed()));
    assert!(log.contains("cached: false"), "{log}");
    let traffic = first.farm.farm.traffic();
    assert_eq!((traffic.shards, traffic.failed, traffic.faults), (6, 0, 0), "{traffic:?}");
    let executed = server.inside.lock().unwrap().machines.executed;
    assert_eq!(executed, 6);
    // Another build makes equal actions: two calls for each, and nothing is compiled or sent.
    server.fail(0..0, Fault::Hang);
    let second = build(&server.url(), &modules, |_| {});
    assert!(second.bytes() == expected && second.farmed() >= 5);
    let traffic = second.farm.farm.traffic();
    assert_eq!((traffic.cached, traffic.sent_bytes), (traffic.answered, 0), "{traffic:?}");
    let inside = server.inside.lock().unwrap();
    assert_eq!(inside.machines.executed, 6);
    let calls = |name| inside.log.iter().filter(|call| **call == name).count();
    assert_eq!((calls("capabilities"), calls("execute"), calls("find missing")), (1, 6, 7));
    assert_eq!(inside.log.len(), 14, "{:?}", inside.log);
}

#[test]
fn another_worker_makes_other_actions() {
    let server = TestServer::start();
    let modules = modules(3);
    build(&server.url(), &modules, |_| {});
    let other = [IN_PROCESS, b" of another version"].concat();
    let build = build(&server.url(), &modules, |options| options.worker = other.into());
    // Nothing of the other worker is taken. This one is no program, so its machine fails.
    assert_eq!((build.farmed(), build.farm.farm.traffic().cached), (0, 0));
    assert!(build.bytes() == alone(&modules));
    assert!(build.log.has("NotFarmed"));
}

#[test]
fn a_farm_that_fails_at_any_call_makes_nothing_wrong() {
    let modules = modules(3);
    let expected = alone(&modules);
    let calls = {
        let server = TestServer::start();
        build(&server.url(), &modules, |_| {});
        server.inside.lock().unwrap().calls
    };
    assert!(calls >= 12, "{calls}");
    let faults = [
        Fault::Die,
        Fault::Error(Code::Unavailable),
        Fault::Error(Code::PermissionDenied),
        Fault::Error(Code::FailedPrecondition),
        Fault::Error(Code::Unimplemented),
        Fault::Error(Code::ResourceExhausted),
        Fault::Alter,
        Fault::Truncate,
        Fault::Swap,
        Fault::Cut,
        Fault::NoOutput,
        Fault::Exit(1),
        Fault::Forget,
        Fault::Hang,
    ];
    let farmed_all = AtomicUsize::new(0);
    let survive = &|fault: Fault| {
        for n in 0..calls {
            for end in [n + 1, usize::MAX] {
                // A farm that hangs costs the half second for which the test waits.
                if matches!(fault, Fault::Hang | Fault::Die) && n % 4 != 0 {
                    continue;
                }
                let server = TestServer::start();
                server.fail(n..end, fault);
                let build = build_soon(&server.url(), &modules);
                assert!(build.bytes() == expected, "{fault:?} from call {n} to {end}");
                assert!(build.time < LONGER, "{fault:?} from call {n}: {:?}", build.time);
                farmed_all.fetch_add(usize::from(build.farmed() >= 2), SeqCst);
                let traffic = build.farm.farm.traffic();
                let ended = traffic.answered + traffic.failed + traffic.withdrawn;
                assert_eq!(traffic.shards, ended, "{fault:?} from call {n} to {end}: {traffic:?}");
                // What the pool had compiled before the fault was seen is not said.
                if build.farmed() == 0 && traffic.withdrawn == 0 {
                    let said = build.log.has("Unavailable") || build.log.has("NotFarmed");
                    assert!(said, "{fault:?} from call {n} to {end}: {traffic:?}");
                }
                if fault == Fault::Die {
                    continue;
                }
                // A build that comes later is not harmed, and takes nothing that is wrong.
                server.fail(0..0, Fault::Hang);
                let later = self::build(&server.url(), &modules, |_| {});
                assert!(later.bytes() == expected && later.farmed() >= 2, "after {fault:?} from {n}");
            }
        }
    };
    std::thread::scope(|scope| {
        faults
            .map(|fault| scope.spawn(move || survive(fault)))
            .into_iter()
            .for_each(|done| done.join().unwrap())
    });
    // Most single faults are survived without any loss.
    let farmed_all = farmed_all.load(SeqCst);
    assert!(farmed_all > 3 * calls, "{farmed_all}");
}

#[test]
fn a_stream_that_is_cut_is_taken_up_again() {
    let server = TestServer::start();
    server.inside.lock().unwrap().machines.delay = Duration::from_millis(100);
    let modules = modules(3);
    // Every stream of `execute` is cut, and those of `wait` are not.
    let calls = 1 + 1 + 1 + 3;
    server.fail(0..calls + 6, Fault::Cut);
    let build = build(&server.url(), &modules, |_| {});
    assert!(build.farmed() >= 2, "{:?}", build.farm.farm.traffic());
    let inside = server.inside.lock().unwrap();
    assert!(inside.log.contains(&"wait"), "{:?}", inside.log);
    assert_eq!(inside.machines.executed, 3);
}

#[test]
fn a_server_that_takes_few_calls_is_offered_a_shard_again() {
    let server = TestServer::start();
    let modules = modules(3);
    // All three shards are refused, more often than a fault is forgiven.
    server.fail(3..15, Fault::Error(Code::ResourceExhausted));
    let build = build(&server.url(), &modules, |_| {});
    assert!(build.farmed() >= 2, "{:?} {:?}", build.farm.farm.traffic(), build.log.0);
    assert!(build.bytes() == alone(&modules) && !build.log.has("Unavailable"), "{:?}", build.log.0);
    assert_eq!(build.farm.farm.traffic().faults, 12);
}

#[test]
fn a_result_that_is_wrong_is_asked_for_again() {
    let modules = modules(3);
    for fault in [Fault::Alter, Fault::Truncate, Fault::NoOutput] {
        let server = TestServer::start();
        build(&server.url(), &modules, |_| {});
        let first = server.inside.lock().unwrap().log.iter().position(|call| *call == "execute");
        // What the server knows is of no use, so the action is executed again.
        let other = TestServer::start();
        other.fail(first.unwrap()..first.unwrap() + 1, fault);
        let build = build(&other.url(), &modules, |_| {});
        assert!(build.farmed() >= 2 && !build.log.has("NotFarmed"), "{fault:?}: {:?}", build.log.0);
        assert_eq!(build.farm.farm.traffic().faults, 1, "{fault:?}");
        assert!(build.bytes() == alone(&modules));
    }
}

#[test]
fn a_shard_that_a_server_has_lost_is_sent_again() {
    let server = TestServer::start();
    let modules = modules(3);
    build(&server.url(), &modules, |_| {});
    for shard in shards_of(&modules) {
        server.inside.lock().unwrap().forget(&shard);
    }
    let build = build(&server.url(), &modules, |_| {});
    assert!(build.farmed() >= 2 && build.bytes() == alone(&modules));
    assert!(build.farm.farm.traffic().sent_bytes > 0);
    assert_eq!(server.inside.lock().unwrap().machines.executed, 6);
}

#[test]
fn equal_shards_are_compiled_once() {
    let server = TestServer::start();
    server.inside.lock().unwrap().machines.delay = Duration::from_millis(300);
    let modules = modules(3);
    // Two processes, and in each two builds at once.
    let log = Arc::new(Log::default());
    let endpoint = Endpoint::with_variables(&server.url(), |_| None).unwrap();
    let farms = [(); 2].map(|()| RemoteFarm::open(&endpoint, options(&log)).unwrap());
    let shards = shards_of(&modules);
    let got = Arc::new(Mutex::new(Vec::new()));
    let runs: Vec<Box<dyn Run>> = [&farms[0], &farms[0], &farms[1], &farms[1]]
        .map(|farm| {
            let got = Arc::clone(&got);
            farm.begin(Arc::new(move |shard, answer| {
                let Answer::Results { bytes, .. } = answer else { panic!("{answer:?}") };
                got.lock().unwrap().push((shard, bytes));
            }))
        })
        .into();
    for (number, shard) in shards.iter().enumerate() {
        assert!(runs.iter().all(|run| run.submit(number, shard.clone())));
    }
    let start = Instant::now();
    while got.lock().unwrap().len() < 12 && start.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut got = got.lock().unwrap().clone();
    assert_eq!(got.len(), 12);
    got.sort();
    assert!(got.chunks(4).all(|same| same.iter().all(|one| *one == same[0])));
    let inside = server.inside.lock().unwrap();
    assert_eq!(inside.machines.executed, 3);
    // One process asks once.
    assert_eq!(inside.log.iter().filter(|call| **call == "execute").count(), 6);
}

/// Returns each module as a shard.
fn shards_of(modules: &[Module]) -> Vec<Vec<u8>> {
    let compiler = Compiler::new(Target::host());
    let shard = |module: &Module| {
        let (recipe, _) = compiler.keys(module).unwrap();
        let bytes = module.to_bytes();
        kiln::farm::write_shard(&[kiln::farm::Item { recipe: &recipe, module: &bytes }])
    };
    modules.iter().map(shard).collect()
}

#[test]
fn what_is_withdrawn_gives_its_place_back() {
    let server = TestServer::start();
    // No machine ever answers.
    server.inside.lock().unwrap().machines.slots = Arc::new(tokio::sync::Semaphore::new(0));
    let log = Arc::new(Log::default());
    let mut options = options(&log);
    options.jobs = 2;
    let endpoint = Endpoint::with_variables(&server.url(), |_| None).unwrap();
    let farm = RemoteFarm::open(&endpoint, options).unwrap();
    let shards = shards_of(&modules(4));
    let run = farm.begin(Arc::new(|_, answer| panic!("{answer:?}")));
    assert!(run.submit(0, shards[0].clone()) && run.submit(1, shards[1].clone()));
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            send.send(run.submit(2, shards[2].clone())).unwrap();
            send.send(run.submit(3, shards[3].clone())).unwrap();
        });
        assert!(receive.recv_timeout(Duration::from_millis(100)).is_err());
        run.withdraw(0);
        assert_eq!(receive.recv_timeout(Duration::from_secs(5)), Ok(true));
        assert!(receive.recv_timeout(Duration::from_millis(100)).is_err());
        run.close();
        assert_eq!(receive.recv_timeout(Duration::from_secs(5)), Ok(false));
    });
    drop(run);
    assert_eq!((farm.traffic().shards, farm.traffic().withdrawn), (3, 3));
}

#[test]
fn a_farm_that_is_absent_or_of_no_use_is_told() {
    let modules = modules(4);
    let expected = alone(&modules);
    let absent = build("grpc://127.0.0.1:1/main", &modules, |_| {});
    assert!(absent.bytes() == expected && absent.farmed() == 0 && absent.time < LONGER);
    assert!(absent.log.has("Unavailable"), "{:?}", absent.log.0);
    // A cache that executes nothing.
    let server = TestServer::start();
    server.inside.lock().unwrap().machines.is_there = false;
    let cache = build(&server.url(), &modules, |_| {});
    assert!(cache.bytes() == expected && cache.farmed() == 0);
    assert!(cache.log.has("the server executes nothing"), "{:?}", cache.log.0);
    assert!(server.inside.lock().unwrap().blobs.is_empty());
    // Other protocols are no farms.
    let wrong = Endpoint::with_variables("redis://host", |_| None).unwrap();
    let error = RemoteFarm::open(&wrong, FarmOptions::new(IN_PROCESS)).unwrap_err();
    assert!(error.to_string().contains("a farm has an address with grpc://"), "{error}");
    let error = FarmOptions::with_worker_file("Cargo.toml".as_ref()).unwrap_err();
    assert!(error.to_string().contains("not an executable"), "{error}");
}

#[test]
fn a_connection_that_ends_anywhere_makes_nothing_wrong() {
    let modules = modules(3);
    let expected = alone(&modules);
    let server = TestServer::start();
    for bytes in [0, 1, 50, 200, 500, 1000, 2000, 4000, 6000, 8000, 12_000] {
        for cut in [Cut::AfterBytes(bytes), Cut::StallAfterBytes(bytes)] {
            let proxy = Proxy::start(&server.address.to_string(), cut);
            let build = build_soon(&format!("grpc://{}/main", proxy.address()), &modules);
            assert!(build.bytes() == expected, "{cut:?}");
            assert!(build.time < LONGER, "{cut:?}: {:?}", build.time);
        }
    }
    let later = build(&server.url(), &modules, |_| {});
    assert!(later.bytes() == expected && later.farmed() >= 2);
}

/// Returns the worker, which cargo makes.
fn worker() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let folder = own.parent().and_then(std::path::Path::parent).unwrap();
    let path = folder.join("kiln-worker");
    if !path.is_file() {
        let release = folder.ends_with("release").then_some("--release");
        let mut command = std::process::Command::new(env!("CARGO"));
        let status = command.args(["build", "--quiet", "-p", "kiln-worker"]).args(release).status();
        assert!(status.unwrap().success());
    }
    path
}

#[test]
fn the_worker_is_a_process() {
    let server = TestServer::start();
    let modules = modules(4);
    let worker: Arc<[u8]> = FarmOptions::with_worker_file(&worker()).unwrap().worker;
    let build = build(&server.url(), &modules, |options| options.worker = worker.clone());
    assert!(build.bytes() == alone(&modules));
    assert!(build.farmed() >= 3, "{:?}", build.log.0);
    // A program that is no worker.
    let other: Arc<[u8]> = std::fs::read("/bin/false").unwrap().into();
    let build = self::build(&server.url(), &modules, |options| options.worker = other);
    assert!(build.bytes() == alone(&modules) && build.farmed() == 0);
    assert!(build.log.has("the worker ended with exit code 1"), "{:?}", build.log.0);
}

#[test]
fn events_tell_where_modules_came_from() {
    struct Farmed(AtomicUsize);
    impl Events for Farmed {
        fn report(&self, event: &Event<'_>) {
            if let Event::Farmed { bytes, time, module, .. } = event {
                assert!(*bytes > 100 && !time.is_zero() && module.ends_with(".clif"));
                self.0.fetch_add(1, SeqCst);
            }
        }
    }
    let server = TestServer::start();
    let log = Arc::new(Log::default());
    let endpoint = Endpoint::with_variables(&server.url(), |_| None).unwrap();
    let farm = Arc::new(RemoteFarm::open(&endpoint, options(&log)).unwrap());
    let events = Arc::new(Farmed(AtomicUsize::new(0)));
    let slow = || std::thread::sleep(Duration::from_millis(100));
    let compiler = Compiler::new(Target::host()).events(events.clone()).progress(slow).farm(farm);
    let compiled = compiler.compile(&modules(8)).unwrap();
    assert!(compiled.stats.farmed_modules > 0);
    assert_eq!(events.0.load(SeqCst), compiled.stats.farmed_modules);
}

#[test]
fn buildbox_compiles_what_this_machine_would() {
    real("KILN_TEST_FARM");
}

#[test]
fn buildgrid_compiles_what_this_machine_would() {
    real("KILN_TEST_BUILDGRID_FARM");
}

/// It joins nothing that runs, but finds a result when it is an action's turn. So there are at most
/// as many executions as it has jobs.
#[test]
fn buildbox_executes_equal_actions_at_most_twice() {
    eight_are_joined("KILN_TEST_FARM", 2);
}

#[test]
fn buildgrid_joins_equal_actions() {
    eight_are_joined("KILN_TEST_BUILDGRID_FARM", 1);
}

/// Asserts what every real farm must do.
fn real(variable: &str) {
    use crate::servers::server;
    let (Some(url), Some(worker)) = (server(variable), server("KILN_TEST_WORKER")) else { return };
    let worker: Arc<[u8]> = FarmOptions::with_worker_file(worker.as_ref()).unwrap().worker;
    let modules = modules(5);
    let expected = alone(&modules);
    for _ in 0..2 {
        let build = build(&url, &modules, |options| options.worker = worker.clone());
        assert!(build.bytes() == expected);
        assert!(build.farmed() >= 4, "{:?} {:?}", build.log.0, build.farm.farm.traffic());
    }
    // A program that is none of this farm's machines.
    let other = build(&url, &modules, |options| options.worker = IN_PROCESS.into());
    assert!(other.bytes() == expected && other.farmed() == 0);
    // The connection is cut after more and more bytes, in both directions.
    let address = url.strip_prefix("grpc://").unwrap();
    let (address, instance) = address.split_once('/').unwrap_or((address, ""));
    for bytes in [0, 1, 20, 100, 300, 1000, 3000, 9000, 30_000, 100_000] {
        for cut in [Cut::AfterBytes(bytes), Cut::StallAfterBytes(bytes)] {
            let proxy = Proxy::start(address, cut);
            let url = format!("grpc://{}/{instance}", proxy.address());
            let soon = Duration::from_millis(500);
            let own = |options: &mut FarmOptions| options.worker = worker.clone();
            let build = build_within(soon, &url, &modules, own);
            assert!(build.bytes() == expected, "{cut:?}");
            assert!(build.time < LONGER, "{cut:?}: {:?}", build.time);
        }
    }
}

/// Asserts that equal actions are joined: an action that two builds of a process submit at once is
/// executed once, and at most `most` times if seven more machines submit it while it runs. The
/// program that compiles it is one that writes what time it is, so equal results are those of one
/// execution.
fn eight_are_joined(variable: &str, most: usize) {
    let Some(url) = crate::servers::server(variable) else { return };
    let folder = tempfile::tempdir().unwrap();
    let source = "#include <stdio.h>\n#include <time.h>\n#include <unistd.h>\n\
        int main(int count, char **args) {\n\
          struct timespec now; sleep(4); clock_gettime(CLOCK_REALTIME, &now);\n\
          FILE *file = fopen(args[count - 1], \"w\");\n\
          return fprintf(file, \"%lld.%09ld\", (long long)now.tv_sec, now.tv_nsec) < 0 || fclose(file);\n}\n";
    std::fs::write(folder.path().join("clock.c"), source).unwrap();
    let mut cc = std::process::Command::new("cc");
    let made = cc.args(["-static", "clock.c", "-o", "clock"]).current_dir(folder.path()).status();
    if !made.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CI").is_none(), "cc cannot link statically");
        return crate::servers::skipped("cc cannot link statically");
    }
    let clock: Arc<[u8]> = std::fs::read(folder.path().join("clock")).unwrap().into();
    let endpoint = Endpoint::with_variables(&url, |_| None).unwrap();
    let log = Arc::new(Log::default());
    let farms = [(); 8].map(|()| {
        let mut options = options(&log);
        options.worker = Arc::clone(&clock);
        RemoteFarm::open(&endpoint, options).unwrap()
    });
    // Others than those of earlier runs.
    let salt = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let shards = [0, 1].map(|n| format!("{salt:?} of {}: {n}", std::process::id()).into_bytes());
    let (send, receive) = std::sync::mpsc::channel();
    let begin = |number: usize| {
        let send = send.clone();
        farms[number % 8].begin(Arc::new(move |_, answer| send.send((number, answer)).unwrap()))
    };
    // The last one is of the same process as the first.
    let runs: Vec<Box<dyn Run>> = (0..9).map(begin).collect();
    let results = |count: usize| {
        let answers = (0..count).map(|_| match receive.recv_timeout(Duration::from_secs(120)) {
            Ok((number, Answer::Results { bytes, .. })) => (number, String::from_utf8(bytes).unwrap()),
            other => panic!("{other:?} {:?}", log.0),
        });
        let answers: std::collections::BTreeMap<_, _> = answers.collect();
        assert!(answers.len() == count && answers.values().all(|time| time.contains('.')), "{answers:?}");
        let different = answers.values().collect::<std::collections::BTreeSet<_>>().len();
        (answers, different)
    };
    assert!(runs[0].submit(0, shards[0].clone()) && runs[8].submit(0, shards[0].clone()));
    // It runs when the others come.
    std::thread::sleep(Duration::from_secs(2));
    assert!(runs[1..8].iter().all(|run| run.submit(0, shards[0].clone())));
    let (answers, executed) = results(9);
    assert!(answers[&0] == answers[&8] && executed <= most, "{answers:?}");
    // Real servers look for an equal action first, and note theirs later. So some of those that
    // come at once are executed more than once, and all are answered.
    assert!(runs[..8].iter().all(|run| run.submit(1, shards[1].clone())));
    println!("{variable}: of 8 equal actions at once, {} were executed", results(8).1);
}
