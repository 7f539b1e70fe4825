//! Checks what the unwinder does with rows that come and go.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kiln_debug::unwind::{Registration, Rows, prepare_for_signals};
use libtest_mimic::Failed;

use super::tool::{expect_in_order, in_tool, output, program};

pub(super) fn valgrind_has_no_complaints() -> Result<(), Failed> {
    let options = ["--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite"];
    let folder = tempfile::tempdir()?;
    let mut command = in_tool("valgrind", &options, "plain", &["3", "--gdb", "--dump"]);
    let text = output(command.env("JITDUMPDIR", folder.path()), None)?;
    expect_in_order(&text, &["ERROR SUMMARY: 0 errors"])
}

pub(super) fn a_profiler_samples_meanwhile() -> Result<(), Failed> {
    let seconds = std::env::var("KILN_SECONDS").unwrap_or_else(|_| "3".into());
    let text = output(&mut program("sampler", &[&seconds]), None)?;
    expect_in_order(&text, &["samples saw the code"])
}

unsafe extern "C" {
    fn backtrace(frames: *mut *mut libc::c_void, count: libc::c_int) -> libc::c_int;
}

/// The number of samples in compiled code, and of those that did not reach the host's frames above.
static SAMPLES: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
static CODE: AtomicU64 = AtomicU64::new(0);

const UNITS: usize = 400;
const UNIT: usize = 64;

extern "C" fn sample(_signal: libc::c_int) {
    let mut frames = [std::ptr::null_mut(); 64];
    // SAFETY: it fills the array.
    let count = unsafe { backtrace(frames.as_mut_ptr(), 64) } as usize;
    let start = CODE.load(Ordering::Relaxed);
    let code = start..start + (UNITS * UNIT) as u64;
    let Some(inside) = frames[..count].iter().position(|&frame| code.contains(&(frame as u64))) else {
        return;
    };
    SAMPLES[0].fetch_add(1, Ordering::Relaxed);
    if inside + 3 >= count {
        SAMPLES[1].fetch_add(1, Ordering::Relaxed);
    }
}

/// Has the time of the processor sampled at each period of so many microseconds, or no more.
#[cfg(target_arch = "x86_64")]
fn timer(tv_usec: libc::suseconds_t) {
    let period = libc::timeval { tv_sec: 0, tv_usec };
    let timer = libc::itimerval { it_interval: period, it_value: period };
    // SAFETY: it reads the timer.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_PROF, &timer, std::ptr::null_mut()) }, 0);
}

/// A function that counts its argument down, without a frame, and its rows at `at`.
#[cfg(target_arch = "x86_64")]
fn unit(code: usize, at: usize) -> ([u8; 8], Vec<u8>) {
    // dec rdi; jnz -5; ret
    let bytes = [0x48, 0xff, 0xcf, 0x75, 0xfb, 0xc3, 0xcc, 0xcc];
    let mut rows = Vec::new();
    rows.extend(20u32.to_ne_bytes());
    rows.extend(0u32.to_ne_bytes());
    rows.extend([1, b'z', b'R', 0, 1, 0x78, 16, 1, 0x1b, 0x0c, 7, 8, 0x90, 1, 0, 0]);
    rows.extend(16u32.to_ne_bytes());
    rows.extend(28u32.to_ne_bytes());
    rows.extend((code.wrapping_sub(at + 32) as i32).to_ne_bytes());
    rows.extend((UNIT as u32).to_ne_bytes());
    rows.extend([0; 8]);
    (bytes, rows)
}

/// Registers and takes back rows at random, while two threads run code whose rows stay, are sampled
/// by a timer, and unwind.
#[cfg(target_arch = "x86_64")]
pub(super) fn sampler() {
    let seconds: u64 = std::env::args().nth(2).and_then(|n| n.parse().ok()).expect("a number of seconds");
    let len = 2 * UNITS * UNIT;
    let (access, kind) =
        (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: new memory.
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), len, access, kind, -1, 0) };
    assert_ne!(memory, libc::MAP_FAILED);
    let start = memory as usize;
    let rows_at = |number: usize| start + (UNITS + number) * UNIT;
    for number in 0..UNITS {
        let (code, rows) = unit(start + number * UNIT, rows_at(number));
        // SAFETY: inside of the memory.
        unsafe {
            std::ptr::copy_nonoverlapping(code.as_ptr(), (start + number * UNIT) as *mut u8, code.len());
            std::ptr::copy_nonoverlapping(rows.as_ptr(), rows_at(number) as *mut u8, rows.len());
        }
    }
    CODE.store(start as u64, Ordering::Relaxed);
    let region = start..start + UNITS * UNIT;
    let register = |number: usize| {
        let code = start + number * UNIT..start + (number + 1) * UNIT;
        // SAFETY: the rows are right, and stay.
        unsafe {
            Registration::new(Rows { section: rows_at(number) as *const u8, code, region: region.clone() })
        }
    };
    // Loads what `backtrace` needs, which must not happen in a handler.
    sample(0);
    let mut all: Vec<Option<Registration>> = (0..UNITS).map(|number| Some(register(number))).collect();
    prepare_for_signals();
    let handler = sample as extern "C" fn(libc::c_int);
    // SAFETY: the handler only unwinds and counts.
    unsafe { libc::signal(libc::SIGPROF, handler as libc::sighandler_t) };
    // While threads start and end they allocate, where a handler must not unwind (see
    // `prepare_for_signals`).
    let (stop, started) = (AtomicBool::new(false), Barrier::new(3));
    let mut changes = 0u64;
    std::thread::scope(|scope| {
        for number in [0, UNITS - 1] {
            let (stop, started) = (&stop, &started);
            scope.spawn(move || {
                started.wait();
                // SAFETY: the code is a function of this type.
                let run: extern "C" fn(u64) = unsafe { std::mem::transmute(start + number * UNIT) };
                while !stop.load(Ordering::Relaxed) {
                    run(1_000_000);
                }
            });
        }
        started.wait();
        timer(1000);
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut random = 1u64;
        while Instant::now() < end {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // The first and the last stay, since threads are in them.
            let number = 1 + (random % (UNITS as u64 - 2)) as usize;
            all[number] = match all[number].take() {
                Some(registration) => {
                    drop(registration);
                    None
                }
                None => Some(register(number)),
            };
            changes += 1;
        }
        timer(0);
        stop.store(true, Ordering::Relaxed);
    });
    let [samples, wrong] = SAMPLES.each_ref().map(|count| count.load(Ordering::Relaxed));
    assert_eq!(wrong, 0, "of {samples} samples in the code, so many did not see its callers");
    // The timer counts the time of the processor, of which a loaded machine gives little.
    assert!(samples > 20, "only {samples} samples saw the code");
    println!("{samples} samples saw the code; {changes} changes");
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn sampler() {
    panic!("the code of this test is for x86-64");
}
