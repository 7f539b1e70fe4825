//! Modules that are compiled again when they are hot.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln::cache::MemoryStore;
use kiln::globals::Bindings;
use kiln::image::Image;
use kiln::ir::{Module, Target};
use kiln::jit::{JitOptions, Role};
use kiln::{Compiler, Session, SessionError, TierPolicy};

use crate::common::module;

type Sum = extern "C" fn(i64) -> i64;

/// The sum of the numbers below the argument, and a function that calls it through a private one.
const TEXT: &str = "function %sum(i64) -> i64 system_v {
    block0(v0: i64):
        v1 = iconst.i64 0
        jump block1(v1, v1)
    block1(v2: i64, v3: i64):
        v4 = icmp ult v2, v0
        brif v4, block2, block3
    block2:
        v5 = iadd v3, v2
        v6 = iconst.i64 1
        v7 = iadd v2, v6
        jump block1(v7, v5)
    block3:
        return v3
    }
    local function %private(i64) -> i64 system_v {
        fn0 = %sum(i64) -> i64 system_v
    block0(v0: i64):
        v1 = call fn0(v0)
        return v1
    }
    function %twice(i64) -> i64 system_v {
        fn0 = %private(i64) -> i64 system_v
    block0(v0: i64):
        v1 = call fn0(v0)
        v2 = iadd v1, v1
        return v2
    }";

fn sums() -> Module {
    module("sums", TEXT)
}

fn function(session: &Session, name: &str) -> Sum {
    // SAFETY: the IR is sound; callers hold a guard where code may be replaced.
    unsafe { session.function(name).unwrap().typed::<Sum>() }.unwrap()
}

/// Waits until a module was compiled again, for at most a minute.
fn wait(tiered: &kiln::Tiered) {
    let start = Instant::now();
    while tiered.optimized().is_none() {
        assert!(start.elapsed() < Duration::from_secs(60), "the module was not compiled again");
        std::thread::sleep(Duration::from_millis(1));
    }
    tiered.optimized().unwrap().unwrap();
}

#[test]
fn a_module_that_is_called_often_is_compiled_again() {
    let session = Session::new(Target::host()).unwrap();
    let policy = TierPolicy { calls: Some(100), loops: false };
    let tiered = session.add_tiered(&[sums()], policy).unwrap().remove(0);
    let first = tiered.first();
    assert_eq!(first.role(), Role::Tier);
    let guard = session.guard();
    let (sum, twice) = (function(&session, "sum"), function(&session, "twice"));
    // `sum` is called once more by `twice`; none of its calls is the hundredth.
    for _ in 0..49 {
        assert_eq!((sum(10), twice(10)), (45, 90));
    }
    assert!(tiered.optimized().is_none() && session.jit().contains(&first));
    for _ in 0..100 {
        assert_eq!((sum(10), twice(10)), (45, 90));
    }
    wait(&tiered);
    assert_eq!((sum(10), twice(10)), (45, 90));
    drop(guard);
    assert!(session.jit().collect());
    assert!(!session.jit().contains(&first));
    assert_eq!(session.jit().units(), [tiered.optimize().unwrap()]);
    assert_eq!((function(&session, "sum")(10), function(&session, "twice")(10)), (45, 90));
}

#[test]
fn rounds_of_a_loop_make_the_next_call_hot() {
    let session = Session::new(Target::host()).unwrap();
    let policy = TierPolicy { loops: true, ..TierPolicy::default() };
    let tiered = session.add_tiered(&[sums()], policy).unwrap().remove(0);
    let _guard = session.guard();
    let sum = function(&session, "sum");
    assert_eq!(sum(100_000), 4_999_950_000);
    assert_eq!(sum(3), 3);
    wait(&tiered);
    assert_eq!(sum(5), 10);
}

#[test]
fn without_a_number_of_calls_the_client_decides() {
    let session = Session::new(Target::host()).unwrap();
    let policy = TierPolicy { calls: None, loops: false };
    let other = module("other", "function %other(i64) -> i64 system_v { block0(v0: i64): return v0 }");
    let tiered = session.add_tiered(&[sums(), other], policy).unwrap();
    let sum = function(&session, "sum");
    for _ in 0..3000 {
        assert_eq!(sum(4), 6);
    }
    assert!(tiered.iter().all(|module| module.optimized().is_none()));
    let optimized = tiered[0].optimize().unwrap();
    assert_eq!(function(&session, "sum")(4), 6);
    assert_eq!(session.jit().unit_of("sum"), Some(optimized));
    // The first tier has the other module still.
    assert!(session.jit().contains(&tiered[0].first()));
    tiered[1].optimize().unwrap();
    assert!(!session.jit().contains(&tiered[0].first()));
}

#[test]
fn an_image_has_the_last_tier_and_both_tiers_are_stored() {
    let store = Arc::new(MemoryStore::new());
    let mut images = Vec::new();
    for (compiled, reused) in [(6, 0), (0, 6)] {
        let compiler = Compiler::new(Target::host()).store(store.clone());
        let session = Session::with_compiler(compiler, JitOptions::default()).unwrap();
        session.add_tiered(&[sums()], TierPolicy::default()).unwrap();
        let image = session.image().unwrap();
        let loaded = Image::from_bytes(&image).unwrap().bind(&Bindings::new()).unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { loaded.function("twice").unwrap().typed::<Sum>() }.unwrap()(10), 90);
        let stats = session.stats();
        assert_eq!((stats.compiled_functions, stats.reused_functions), (compiled, reused));
        images.push(image);
    }
    assert_eq!(images[0], images[1]);
}

#[test]
fn data_that_both_tiers_would_have_is_refused() {
    let session = Session::new(Target::host()).unwrap();
    for data in
        ["local data %d writable { i64 1 }", "data %d { i64 1 }", "local data %d section = \"s\" { i64 1 }"]
    {
        let user = format!(
            "{data} function %f() -> i64 system_v {{ gv0 = symbol colocated %d block0: v0 = symbol_value.i64 gv0 return v0 }}"
        );
        let error = session.add_tiered(&[module("m", &user)], TierPolicy::default()).unwrap_err();
        assert!(matches!(error, SessionError::TieredData { .. }), "{data}: {error}");
    }
    let constant = "local data %d { i64 9 }
        function %f(i64) -> i64 system_v {
            gv0 = symbol colocated %d
        block0(v0: i64):
            v1 = symbol_value.i64 gv0
            v2 = load.i64 v1
            v3 = iadd v0, v2
            return v3
        }";
    let tiered = session.add_tiered(&[module("m", constant)], TierPolicy::default()).unwrap();
    assert_eq!(function(&session, "f")(1), 10);
    tiered[0].optimize().unwrap();
    assert_eq!(function(&session, "f")(1), 10);
}

#[test]
fn threads_call_while_modules_become_hot() {
    let session = Session::new(Target::host()).unwrap();
    let policy = TierPolicy { calls: Some(20), loops: true };
    let tiered = session.add_tiered(&[sums()], policy).unwrap().remove(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let _guard = session.guard();
                    assert_eq!(function(&session, "twice")(7), 42);
                }
            });
        }
    });
    wait(&tiered);
    session.jit().collect();
    assert_eq!(session.jit().units().len(), 1);
}

#[test]
fn one_who_asks_and_the_only_thread_of_the_pool_do_not_wait_for_each_other() {
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap());
        let compiler = Compiler::new(Target::host()).pool(pool.clone());
        let session = Session::with_compiler(compiler, JitOptions::default()).unwrap();
        // So many functions are compiled by the pool.
        let number = |i| TEXT.replace("sum", &format!("sum{i}")).replace("twice", &format!("twice{i}"));
        let text: String = (0..100).map(|i| number(i).replace("private", &format!("private{i}"))).collect();
        let policy = TierPolicy { calls: Some(1), loops: false };
        let tiered = session.add_tiered(&[module("many", &text)], policy).unwrap().remove(0);
        // The thread is busy until the job of the tier waits behind it.
        let (start, started) = std::sync::mpsc::channel();
        pool.spawn_fifo(move || started.recv().unwrap());
        let guard = session.guard();
        for _ in 0..3 {
            function(&session, "sum7")(1);
        }
        drop(guard);
        let starter = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            start.send(()).unwrap();
        });
        tiered.optimize().unwrap();
        starter.join().unwrap();
        done.send(function(&session, "twice99")(10)).unwrap();
    });
    // Far more than it takes; without an answer, the two wait for each other.
    assert_eq!(is_done.recv_timeout(Duration::from_secs(120)), Ok(90));
}
