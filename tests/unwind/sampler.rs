//! A sampling profiler, whose signal handler calls `backtrace` while compiled code runs.
//!
//! Each sample in compiled code must reach the frames that called it. `KILN_SECONDS` says for how
//! long each program is sampled.

use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kiln::ir::Target;

use crate::programs::by_hand;
use crate::sessions::InSession;

/// The most frames of a sample.
const FRAMES: usize = 128;
/// The time from one sample to the next, in microseconds of processor time.
const PERIOD: libc::suseconds_t = 500;
/// The shortest time of sampling, in seconds.
const SECONDS: u64 = 3;
/// The fewest samples in compiled code that a second must give.
const LEAST: u64 = 20;

unsafe extern "C" {
    // The C library's.
    fn backtrace(frames: *mut *mut c_void, count: c_int) -> c_int;
}

/// The range of the compiled code, and the return addresses of the frames that call it.
struct Sampled {
    code: Range<u64>,
    callers: Vec<usize>,
}

/// The code and the callers that are sampled now.
static SAMPLED: AtomicPtr<Sampled> = AtomicPtr::new(std::ptr::null_mut());
/// The number of samples in compiled code, and the number of those that did not reach the callers.
static SAMPLES: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
/// The place of a sample that did not reach the callers.
static FAULT: AtomicUsize = AtomicUsize::new(0);

extern "C" fn sample(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes the interrupted context. What is sampled lives until the timer has
    // stopped.
    let (registers, sampled) = unsafe {
        (&(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs, SAMPLED.load(Ordering::Relaxed).as_ref())
    };
    let pc = registers[libc::REG_RIP as usize] as u64;
    let Some(sampled) = sampled.filter(|sampled| sampled.code.contains(&pc)) else { return };
    let mut frames = [std::ptr::null_mut(); FRAMES];
    // SAFETY: there is room for as many frames as that.
    let count = unsafe { backtrace(frames.as_mut_ptr(), FRAMES as c_int) };
    let found = frames[..count as usize].iter().map(|frame| *frame as usize);
    SAMPLES[0].fetch_add(1, Ordering::Relaxed);
    if count as usize == FRAMES
        || found.rev().zip(sampled.callers.iter().rev()).any(|(found, caller)| found != *caller)
    {
        SAMPLES[1].fetch_add(1, Ordering::Relaxed);
        FAULT.store(pc as usize, Ordering::Relaxed);
    }
}

/// Calls `call` over and over, and samples.
#[inline(never)]
fn run(code: Range<u64>, mut call: impl FnMut()) -> Result<(), String> {
    let mut frames = [std::ptr::null_mut(); FRAMES];
    kiln::jit::prepare_for_signals();
    // The first call loads the unwinder, which a signal handler must not do.
    // SAFETY: there is room for as many frames as that.
    let count = unsafe { backtrace(frames.as_mut_ptr(), FRAMES as c_int) } as usize;
    // The caller of this function, and so on.
    let callers = frames[..count].iter().skip(1).map(|frame| *frame as usize).collect();
    let mut sampled = Sampled { code, callers };
    SAMPLED.store(&mut sampled, Ordering::Relaxed);
    SAMPLES.iter().for_each(|count| count.store(0, Ordering::Relaxed));
    // SAFETY: the handler has the type that `SA_SIGINFO` requires.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = sample as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        libc::sigaction(libc::SIGPROF, &action, std::ptr::null_mut());
    }
    let seconds = std::env::var("KILN_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let (start, period) = (Instant::now(), libc::timeval { tv_sec: 0, tv_usec: PERIOD });
    timer(period);
    while start.elapsed() < Duration::from_secs(seconds) {
        (0..100).for_each(|_| call());
    }
    timer(libc::timeval { tv_sec: 0, tv_usec: 0 });
    let [samples, wrong] = SAMPLES.each_ref().map(|count| count.load(Ordering::Relaxed));
    println!("{samples} samples in compiled code");
    if wrong > 0 {
        let place = FAULT.load(Ordering::Relaxed) as u64 - sampled.code.start;
        return Err(format!("{wrong} of {samples} samples do not reach the caller, one at {place:#x}"));
    }
    if samples < LEAST * seconds {
        return Err(format!("only {samples} samples in {seconds} seconds"));
    }
    Ok(())
}

fn timer(period: libc::timeval) {
    let timer = libc::itimerval { it_interval: period, it_value: period };
    // SAFETY: the timer's signal has a handler.
    unsafe { libc::setitimer(libc::ITIMER_PROF, &timer, std::ptr::null_mut()) };
}

/// Samples the hand-written program in a session.
pub(crate) fn in_memory() -> Result<(), String> {
    let mut program = InSession::new(&by_hand("sampled", &Target::host(), "")?)?;
    run(program.code.clone(), || program.call())
}
