//! The programs that are run in tools: sessions with code.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use kiln::globals::{Bindings, GlobalTable};
use kiln::image::{Debugger, Image, ImageOptions, write_image};
use kiln::ir::{Linkage, Module, Source, Target, parse};
use kiln::jit::{JitOptions, Profiler};
use kiln::{Compiler, Session, TierPolicy};

/// A text that calls a function of the host, and is debugged as it is.
const CHAIN: &str = "function %inner(i64) -> i64 system_v {
    fn0 = %host(i64) -> i64 system_v
block0(v0: i64):
    v1 = iconst.i64 1
    v2 = iadd v0, v1
    v3 = call fn0(v2)
    return v3
}

function %outer(i64) -> i64 system_v {
    fn0 = %inner(i64) -> i64 system_v
block0(v0: i64):
    v1 = call fn0(v0)
    v2 = iconst.i64 1
    v3 = iadd v1, v2
    return v3
}
";

type Unary = extern "C" fn(i64) -> i64;

pub(super) fn run(name: &str) {
    match name {
        "chain" => chain(),
        "ticks" => ticks(),
        "spin" => spin(),
        "spin_file" => spin_image(None),
        "spin_map" => spin_image(Some(Profiler::Map)),
        "spin_dump" => spin_image(Some(Profiler::Dump)),
        "map" => rounds(Profiler::Map),
        "dump" => rounds(Profiler::Dump),
        "stubs" => stubs(None),
        "stubs_map" => stubs(Some(Profiler::Map)),
        "linked_stubs" => linked_stubs(false, None),
        "linked_stubs_of_image" => linked_stubs(true, None),
        "linked_stubs_map" => linked_stubs(false, Some(Profiler::Map)),
        "linked_stubs_of_image_map" => linked_stubs(true, Some(Profiler::Map)),
        "late_stubs" => late_stubs(),
        "reuse" => reuse(),
        "sampler" => sampler(false),
        "sampler_of_image" => sampler(true),
        "life" => life(),
        other => panic!("there is no program {other}"),
    }
}

#[inline(never)]
extern "C" fn host(number: i64) -> i64 {
    std::hint::black_box(number)
}

/// A place for a breakpoint.
#[inline(never)]
fn stop(session: &Session) {
    std::hint::black_box(session);
}

/// A place for a breakpoint.
#[inline(never)]
fn tick(number: usize) {
    std::hint::black_box(number);
}

fn module(source: Source) -> Module {
    parse(Arc::new(source), &Target::host()).unwrap_or_else(|errors| panic!("{}", errors[0]))
}

/// A function that returns its argument plus a number.
fn adds(name: &str, number: usize) -> Module {
    let text = format!(
        "function %{name}(i64) -> i64 system_v {{ block0(v0: i64): v1 = iconst.i64 {number} v2 = iadd v0, v1 return v2 }}"
    );
    module(Source::new(name, text))
}

/// A function that counts its argument down.
fn counts(name: &str) -> Module {
    let text = format!(
        "function %{name}(i64) -> i64 system_v {{
        block0(v0: i64):
            jump block1(v0)
        block1(v1: i64):
            v2 = iconst.i64 -1
            v3 = iadd v1, v2
            brif v3, block1(v3), block2
        block2:
            return v3
        }}"
    );
    module(Source::new(name, text))
}

fn session(options: JitOptions) -> Session {
    let session = Session::with_compiler(Compiler::new(Target::host()), options).expect("a session");
    session.bind_function("host", host as extern "C" fn(i64) -> i64).expect("a fresh name");
    session
}

fn call(session: &Session, name: &str, argument: i64) -> i64 {
    let _guard = session.guard();
    let function = session.function(name).unwrap_or_else(|| panic!("no `{name}`"));
    // SAFETY: the functions are sound, and the guard keeps them.
    unsafe { function.typed::<Unary>() }.expect("its type")(argument)
}

/// Calls the chain, then adds a function, calls and removes it.
fn chain() {
    let session = session(JitOptions::default());
    session.add(&[module(Source::new("chain.clif", CHAIN).debugged("/nowhere"))]).expect("a sound module");
    stop(&session);
    assert_eq!(call(&session, "outer", 5), 7);
    let unit = session.add(&[adds("late", 3)]).expect("a sound module");
    stop(&session);
    assert_eq!(call(&session, "late", 4), 7);
    session.remove(&[unit]).expect("nobody uses it");
    stop(&session);
}

/// Adds a function and removes one of those from before, again and again.
fn ticks() {
    let session = session(JitOptions::default());
    let names = (0..1000).map(|number| format!("early_{number}"));
    let early: Vec<_> = names.map(|name| session.add(&[adds(&name, 1)]).expect("a sound module")).collect();
    println!("{}", std::process::id());
    for (number, unit) in early.into_iter().enumerate().take(900) {
        std::thread::sleep(Duration::from_millis(100));
        session.add(&[adds(&format!("tick_{number}"), 1)]).expect("a sound module");
        session.remove(&[unit]).expect("nobody uses it");
        tick(number);
    }
}

/// Runs a function for some time.
fn spin() {
    let options = JitOptions { profiler: Some(Profiler::Map), ..JitOptions::default() };
    let session = session(options);
    session.add(&[counts("hot_spot")]).expect("a sound module");
    (0..10).for_each(|_| assert_eq!(call(&session, "hot_spot", 100_000_000), 0));
}

/// Runs a function of a loaded image for some time: of a file in the current folder, or of one in
/// memory, for which a profiler's file is written.
fn spin_image(profiler: Option<Profiler>) {
    let session = session(JitOptions::default());
    session.add(&[counts("hot_spot")]).expect("a sound module");
    let image = match profiler {
        None => {
            session.save_image("spin.so".as_ref()).expect("a sound program");
            Image::open("spin.so")
        }
        Some(_) => Image::from_bytes(&session.image().expect("a sound program")),
    };
    let image = image.expect("a sound image").profiler(profiler);
    let loaded = image.bind(&Bindings::new()).expect("it needs nothing");
    let function = loaded.function("hot_spot").expect("it was added");
    // SAFETY: the function is sound, and the image lives.
    let function = unsafe { function.typed::<Unary>() }.expect("its type");
    (0..10).for_each(|_| assert_eq!(function(100_000_000), 0));
}

/// Calls a replaceable function, and one whose calls are counted before its code. Prints the
/// addresses of both, which are those of stubs.
fn stubs(profiler: Option<Profiler>) {
    let session = session(JitOptions { profiler, ..JitOptions::default() });
    let mut swapped = adds("swapped", 2);
    swapped.symbols.iter_mut().for_each(|symbol| symbol.linkage = Linkage::Replaceable);
    session.add(&[swapped]).expect("a sound module");
    session.add_tiered(&[adds("warm", 3)], TierPolicy::default()).expect("a sound module");
    println!("process {}", std::process::id());
    for name in ["swapped", "warm"] {
        println!("{name} {:x}", session.address(name).expect("it was added").addr());
    }
    stop(&session);
    assert_eq!((call(&session, "swapped", 4), call(&session, "warm", 4)), (6, 7));
}

/// A function that calls one of the host through a stub, because that is too far away, and one that
/// is replaceable.
fn linking() -> Module {
    let text = "
        replaceable function %swapped(i64) -> i64 system_v {
        block0(v0: i64):
            v1 = iconst.i64 2
            v2 = iadd v0, v1
            return v2
        }
        function %far(i64) -> i64 system_v {
            fn0 = colocated %host(i64) -> i64 system_v
            sig7 = (i64) -> i64 system_v
            fn1 = %swapped(i64) -> i64 system_v
        block0(v0: i64):
            v1 = call fn0(v0)
            v2 = func_addr.i64 fn1
            v3 = call_indirect sig7, v2(v1)
            return v3
        }";
    module(Source::new("linking", text))
}

/// Calls code that has stubs of the linker, in memory or in an image without symbols, and prints
/// where they are.
fn linked_stubs(in_image: bool, profiler: Option<Profiler>) {
    let session = session(JitOptions { profiler: profiler.filter(|_| !in_image), ..JitOptions::default() });
    println!("process {}", std::process::id());
    if !in_image {
        session.add(&[linking()]).expect("a sound module");
        stop(&session);
        assert_eq!(call(&session, "far", 4), 6);
        return;
    }
    let compiled = Compiler::new(Target::host()).compile(&[linking()]).expect("a sound module");
    let options = ImageOptions { strip: true, ..ImageOptions::default() };
    let image = write_image(&compiled.artifacts, &GlobalTable::new(), &options).expect("a sound program");
    let mut bindings = Bindings::new();
    bindings.bind_symbol("host", host as *const () as usize);
    let image = Image::from_bytes(&image).expect("a sound image").profiler(profiler);
    let loaded = image.bind(&bindings).expect("all is bound");
    stop(&session);
    // SAFETY: the function is sound, and the image lives.
    let far = unsafe { loaded.function("far").expect("it is exported").typed::<Unary>() };
    assert_eq!(far.expect("its type")(4), 6);
}

/// Prints its number, and calls code with stubs until it is ended.
fn late_stubs() {
    let session = session(JitOptions::default());
    session.add(&[linking()]).expect("a sound module");
    println!("{}", std::process::id());
    for number in 0..900 {
        std::thread::sleep(Duration::from_millis(100));
        // What is published tells a debugger about the rest.
        session.add(&[adds(&format!("tick_{number}"), 1)]).expect("a sound module");
        tick(number);
        assert_eq!(call(&session, "far", 4), 6);
    }
}

/// Adds and removes functions while a profiler's file is written, and prints their addresses.
fn rounds(profiler: Profiler) {
    let session = session(JitOptions { profiler: Some(profiler), ..JitOptions::default() });
    for number in 0..100 {
        let unit = session.add(&[adds(&format!("f{number}"), 1)]).expect("a sound module");
        println!("{:?}", session.address(&format!("f{number}")).expect("it was added"));
        session.remove(&[unit]).expect("nobody uses it");
    }
    let _ = std::fs::remove_file(format!("/tmp/perf-{}.map", std::process::id()));
}

/// Runs two functions that have one address, one after the other, while a dump is written.
fn reuse() {
    let session = session(JitOptions { profiler: Some(Profiler::Dump), ..JitOptions::default() });
    for name in ["first_spot", "second_spot"] {
        let unit = session.add(&[counts(name)]).expect("a sound module");
        println!("{:?}", session.address(name).expect("it was added"));
        (0..5).for_each(|_| assert_eq!(call(&session, name, 100_000_000), 0));
        session.remove(&[unit]).expect("nobody uses it");
    }
}

/// Adds, calls and removes, also as an image, which everybody is told about.
fn life() {
    let session = session(JitOptions::default());
    for round in 0..20 {
        let unit = session.add(&[adds("once", round)]).expect("a sound module");
        assert_eq!(call(&session, "once", 1), 1 + round as i64);
        let image = Image::from_bytes(&session.image().expect("a sound program")).expect("a sound image");
        let image = image.debugger(Debugger::Any).profiler(Some(Profiler::Map));
        let loaded = image.bind(&Bindings::new()).expect("it needs nothing");
        // SAFETY: the function is sound, and the image lives.
        let once = unsafe { loaded.function("once").expect("it was added").typed::<Unary>() };
        assert_eq!(once.expect("its type")(1), 1 + round as i64);
        drop(loaded);
        session.remove(&[unit]).expect("nobody uses it");
    }
    let _ = std::fs::remove_file(format!("/tmp/perf-{}.map", std::process::id()));
}

unsafe extern "C" {
    fn backtrace(frames: *mut *mut libc::c_void, count: libc::c_int) -> libc::c_int;
}

/// The number of samples in compiled code, and of those that did not reach the host's frames above.
static SAMPLES: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
static START: AtomicU64 = AtomicU64::new(0);

extern "C" fn sample(_signal: libc::c_int) {
    let mut frames = [std::ptr::null_mut(); 64];
    // SAFETY: it fills the array.
    let count = unsafe { backtrace(frames.as_mut_ptr(), 64) } as usize;
    let start = START.load(Ordering::Relaxed);
    let Some(inside) =
        frames[..count].iter().position(|&frame| (start..start + 64).contains(&(frame as u64)))
    else {
        return;
    };
    SAMPLES[0].fetch_add(1, Ordering::Relaxed);
    if inside + 3 >= count {
        SAMPLES[1].fetch_add(1, Ordering::Relaxed);
    }
}

/// Has the time of the processor sampled at each period of so many microseconds, or no more.
fn timer(tv_usec: libc::suseconds_t) {
    let period = libc::timeval { tv_sec: 0, tv_usec };
    let timer = libc::itimerval { it_interval: period, it_value: period };
    // SAFETY: it reads the timer.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_PROF, &timer, std::ptr::null_mut()) }, 0);
}

/// Adds and removes functions, while two threads run code, are sampled by a timer, and unwind. If
/// `of_image`, they run the code of an image, and images come and go.
fn sampler(of_image: bool) {
    let seconds: u64 = std::env::args().nth(2).and_then(|n| n.parse().ok()).expect("a number of seconds");
    let session = session(JitOptions::default());
    session.add(&[counts("busy")]).expect("a sound module");
    let image = session.image().expect("a sound program");
    let bind = || Image::from_bytes(&image).expect("a sound image").bind(&Bindings::new());
    let loaded = bind().expect("it needs nothing");
    let busy = if of_image { loaded.address("busy") } else { session.address("busy") };
    let busy = busy.expect("it was added");
    START.store(busy as u64, Ordering::Relaxed);
    // SAFETY: the function is sound; image and session live.
    let busy: Unary = unsafe { std::mem::transmute(busy) };
    kiln::jit::prepare_for_signals();
    // Loads what `backtrace` needs, which must not happen in a handler.
    sample(0);
    let handler = sample as extern "C" fn(libc::c_int);
    // SAFETY: the handler only unwinds and counts.
    unsafe { libc::signal(libc::SIGPROF, handler as libc::sighandler_t) };
    // While threads start and end they allocate, where a handler must not unwind (see
    // `prepare_for_signals`).
    let (stop, started) = (AtomicBool::new(false), Barrier::new(3));
    let mut rounds = 0u64;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                started.wait();
                while !stop.load(Ordering::Relaxed) {
                    busy(1_000_000);
                }
            });
        }
        started.wait();
        timer(1000);
        let end = Instant::now() + Duration::from_secs(seconds);
        let (mut units, mut images) = (VecDeque::new(), VecDeque::new());
        while Instant::now() < end {
            if of_image {
                let loaded = bind().expect("it needs nothing");
                // Whoever asks for an address makes the unwinder know the rows.
                assert!(loaded.address("busy").is_some());
                images.push_back(loaded);
                images.drain(..images.len().saturating_sub(10));
            }
            let name = format!("f{rounds}");
            units.push_back(session.add(&[adds(&name, 1)]).expect("a sound module"));
            call(&session, &name, 1);
            if units.len() > 50 {
                let unit = units.pop_front().expect("there are some");
                session.remove(&[unit]).expect("nobody uses it");
            }
            rounds += 1;
        }
        timer(0);
        stop.store(true, Ordering::Relaxed);
    });
    let [samples, wrong] = SAMPLES.each_ref().map(|count| count.load(Ordering::Relaxed));
    assert_eq!(wrong, 0, "of {samples} samples in the code, so many did not see its callers");
    // The timer counts the time of the processor, of which a loaded machine gives little.
    assert!(samples > 20, "only {samples} samples saw the code");
    println!("{samples} samples saw the code; {rounds} rounds");
}
