//! Comparison T: calls that catch traps, and unwinding through compiled frames.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use kiln::Session;
use kiln::ir::{Source, Target, parse};
use kiln_trap::call;

use crate::measure::{Contender, interleave};
use crate::open::{Library, dlsym};
use crate::report::{Comparison, Goal};
use crate::setup::{Failure, Setup};

/// Calls in each turn.
const CALLS: i64 = 200_000;
/// Frames that are unwound, and how often in each turn.
const DEPTH: i64 = 1000;
const WALKS: u32 = 20;

const TEXT: &str = "
function %same(i64) -> i64 {
block0(v0: i64):
    return v0
}
function %deep(i64, i64) -> i64 {
    sig0 = ()
    fn0 = %deep(i64, i64) -> i64
block0(v0: i64, v1: i64):
    brif v0, block1, block2
block1:
    v2 = iconst.i64 1
    v3 = isub v0, v2
    v4 = call fn0(v3, v1)
    v5 = iadd v4, v2
    return v5
block2:
    call_indirect sig0, v1()
    return v0
}
";

/// The same as `%deep`. Without the empty statement the compiler makes a loop of it.
const C_TEXT: &str = "
__attribute__((noinline, noclone)) long deep(long n, void (*f)(void)) {
    if (n == 0) { f(); return 0; }
    long rest = deep(n - 1, f);
    __asm__ volatile (\"\" ::: \"memory\");
    return rest + 1;
}
";

type Same = extern "C" fn(i64) -> i64;
type Deep = extern "C-unwind" fn(i64, extern "C-unwind" fn()) -> i64;

unsafe extern "C" {
    fn _Unwind_Backtrace(visit: extern "C" fn(*mut c_void, *mut c_void) -> c_int, data: *mut c_void)
    -> c_int;
}

thread_local! {
    static WALKED: Cell<(Duration, u64)> = const { Cell::new((Duration::ZERO, 0)) };
}

/// Unwinds the stack, and notes the time and the number of frames.
extern "C-unwind" fn walk() {
    extern "C" fn count(_: *mut c_void, frames: *mut c_void) -> c_int {
        // SAFETY: it is the number below.
        unsafe { *frames.cast::<u64>() += 1 };
        0
    }
    let mut frames = 0u64;
    let start = Instant::now();
    for _ in 0..WALKS {
        // SAFETY: the callback gets the number, and everything on the stack has unwind rows.
        unsafe { _Unwind_Backtrace(count, (&raw mut frames).cast()) };
    }
    WALKED.set((start.elapsed(), frames / u64::from(WALKS)));
}

/// Unwinds through `DEPTH` frames of `deep`.
fn unwind(deep: Deep) -> Result<Vec<Duration>, Failure> {
    let result = deep(DEPTH, walk);
    let (time, frames) = WALKED.get();
    if result != DEPTH || frames < DEPTH as u64 || frames > DEPTH as u64 + 200 {
        return Err(format!("{frames} frames of {DEPTH} were unwound").into());
    }
    Ok(vec![time])
}

/// Compiles [`C_TEXT`], and returns its function. The library stays loaded.
fn c_code(folder: &Path) -> Result<Deep, Failure> {
    let library = Library::of_gcc(folder, "deep", C_TEXT)?;
    // SAFETY: the library is open, and the function has this type.
    unsafe {
        let address = dlsym(library.handle(), c"deep".as_ptr());
        if address.is_null() {
            return Err("the library of gcc has no function".into());
        }
        std::mem::forget(library);
        Ok(std::mem::transmute::<*mut c_void, Deep>(address))
    }
}

/// Measures calls and unwinding.
pub(crate) fn compare(setup: &Setup, folder: &Path) -> Result<Comparison, Failure> {
    let title = "T. catching traps (200,000 calls), and unwinding (20 times through 1,000 frames)";
    let mut comparison = Comparison::new("two functions", title);
    let target = Target::host();
    let module = parse(Source::new("traps", TEXT.to_owned()).into(), &target).expect("the text is right");
    let session = Session::new(target)?;
    session.add(&[module])?;
    let address = |name: &str| session.function(name).expect("it was added").address();
    // SAFETY: the functions have these types, and the session outlives the calls.
    let (same, deep) = unsafe {
        (
            std::mem::transmute::<*const u8, Same>(address("same")),
            std::mem::transmute::<*const u8, Deep>(address("deep")),
        )
    };
    let sum = |one: &dyn Fn(i64) -> i64| match (0..CALLS).map(|number| one(black_box(number))).sum::<i64>() {
        sum if sum == CALLS * (CALLS - 1) / 2 => Ok(()),
        sum => Err(Failure::from(format!("the sum is {sum}"))),
    };
    let (caught, plain) = ("kiln_trap::call", "a plain call");
    // SAFETY: the function has this type.
    let by_call = |number| unsafe { call(same, (number,)) }.expect("it does not trap");
    let mut contenders = vec![
        Contender::new(caught, || sum(&by_call)),
        Contender::new(plain, || sum(&|number| same(number))),
        Contender::in_parts("unwinding compiled frames", &[""], || unwind(deep)),
    ];
    let peer = c_code(folder);
    match &peer {
        Ok(c) => {
            let c = *c;
            contenders.push(Contender::in_parts("unwinding frames of gcc", &[""], move || unwind(c)));
        }
        Err(reason) => comparison.note(format!("gcc is left out: {reason}")),
    }
    let has_peer = peer.is_ok();
    let series = interleave(setup.rounds, contenders)?;
    let seconds = |name: &str| {
        let found = series.iter().find(|one| one.name == name);
        found.map(|one| one.seconds.clone()).unwrap_or_default()
    };
    let more = seconds(caught).into_iter().zip(seconds(plain));
    let more: Vec<_> = more.map(|(caught, plain)| (caught - plain) * 1e9 / CALLS as f64).collect();
    comparison.add(series);
    comparison.values("ns that a caught call costs more", &more, Goal::AtMost(10.0));
    if has_peer {
        let (ours, theirs) = ("unwinding compiled frames", "unwinding frames of gcc");
        comparison.ratio(ours, theirs, Goal::AtMost(1.5));
    }
    Ok(comparison)
}
