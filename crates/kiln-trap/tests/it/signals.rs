//! A signal that is not ours goes to the handler that was there before, as the kernel would have
//! done it.

use std::mem::zeroed;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use kiln_trap::{Caught, CodeTable, TableFunction, TrapCode, call};

use crate::child::{self, Ended};
use crate::program::{Options, Program};
use crate::traps::{TRAPS, trap};

type Unary = extern "C" fn(i64) -> i64;

const BY_INFO: i32 = 41;
const BY_NUMBER: i32 = 42;

/// The signals that are blocked in the foreign handler, as bits.
fn blocked() -> u64 {
    // SAFETY: the mask is filled in by the first call.
    unsafe {
        let mut mask: libc::sigset_t = zeroed();
        libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &raw mut mask);
        (1..32).filter(|&signal| libc::sigismember(&raw const mask, signal) == 1).map(|s| 1 << s).sum()
    }
}

extern "C" fn by_info(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: these are the arguments of a handler.
    let right =
        unsafe { !context.is_null() && (*info).si_signo == signal && (*info).si_addr().addr() == 0x40 };
    let blocked = blocked();
    let wanted = 1 << libc::SIGUSR1 | 1 << signal;
    // SAFETY: the process ends at once.
    unsafe { libc::_exit(if right && blocked == wanted { BY_INFO } else { 1 }) }
}

extern "C" fn by_number(_signal: i32) {
    // SAFETY: the process ends at once.
    unsafe { libc::_exit(BY_NUMBER) }
}

static COUNTED: AtomicUsize = AtomicUsize::new(0);

/// Counts the signals that were sent.
extern "C" fn count(_signal: i32) {
    COUNTED.fetch_add(1, Ordering::Relaxed);
}

fn set(signal: i32, handler: *const (), flags: i32) -> libc::sigaction {
    // SAFETY: the actions are local, and the handler has the type that the flags say.
    unsafe {
        let (mut action, mut old): (libc::sigaction, libc::sigaction) = (zeroed(), zeroed());
        action.sa_sigaction = handler as usize;
        action.sa_flags = flags;
        libc::sigaddset(&raw mut action.sa_mask, libc::SIGUSR1);
        assert_eq!(libc::sigaction(signal, &raw const action, &raw mut old), 0);
        old
    }
}

/// Checks that a trap is caught.
fn caught(program: &Program) {
    // SAFETY: the function has this signature.
    let one = trap(unsafe { call(program.function::<Unary>("load"), (0x40,)) });
    assert_eq!(one.code(), TrapCode::HEAP_OUT_OF_BOUNDS);
}

/// A bad access of the host.
fn fault() {
    // SAFETY: it is not: this is what the test is about.
    unsafe { ptr::with_exposed_provenance::<u64>(0x40).read_volatile() };
}

#[track_caller]
fn ended(ended: &Ended, code: Option<i32>, signal: Option<i32>) {
    if !child::is_child() {
        assert_eq!((ended.code, ended.signal), (code, signal), "{}", ended.stderr);
    }
}

#[test]
fn a_handler_from_before_gets_what_is_not_ours() {
    let part = |name: &str, handler: *const (), flags: i32| {
        child::run("signals::a_handler_from_before_gets_what_is_not_ours", name, || {
            set(libc::SIGSEGV, handler, flags);
            let program = Program::new(TRAPS, &Options::default());
            caught(&program);
            fault();
        })
    };
    let info = libc::SA_SIGINFO;
    ended(&part("info", by_info as *const (), info), Some(BY_INFO), None);
    ended(&part("stack", by_info as *const (), info | libc::SA_ONSTACK), Some(BY_INFO), None);
    ended(&part("number", by_number as *const (), 0), Some(BY_NUMBER), None);
    ended(&part("default", libc::SIG_DFL as *const (), 0), None, Some(libc::SIGSEGV));
    // The kernel does not let a process ignore its own faults.
    ended(&part("ignore", libc::SIG_IGN as *const (), 0), None, Some(libc::SIGSEGV));
}

#[test]
fn signals_that_are_sent_are_not_ours() {
    let part = |name: &str, handler: *const (), flags: i32, last: fn()| {
        child::run("signals::signals_that_are_sent_are_not_ours", name, || {
            set(libc::SIGFPE, handler, flags);
            let program = Program::new(TRAPS, &Options::default());
            caught(&program);
            // SAFETY: the signal is sent to this thread.
            unsafe { libc::raise(libc::SIGFPE) };
            last();
        })
    };
    let nothing = || {};
    ended(&part("ignore", libc::SIG_IGN as *const (), 0, nothing), Some(0), None);
    ended(&part("default", libc::SIG_DFL as *const (), 0, nothing), None, Some(libc::SIGFPE));
    let counted = || {
        assert_eq!(COUNTED.load(Ordering::Relaxed), 1);
        // SAFETY: the signal is sent to this thread.
        unsafe { libc::raise(libc::SIGFPE) };
        assert_eq!(COUNTED.load(Ordering::Relaxed), 2);
    };
    ended(&part("count", count as *const (), 0, counted), Some(0), None);
    // A handler that wants one signal only: the second one ends the process.
    let once = part("once", count as *const (), libc::SA_RESETHAND, counted);
    ended(&once, None, Some(libc::SIGFPE));
}

#[test]
fn a_handler_from_after_passes_on() {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    static SEEN: AtomicI32 = AtomicI32::new(0);
    extern "C" fn first(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        SEEN.fetch_add(1, Ordering::Relaxed);
        type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);
        // SAFETY: our handler takes these arguments.
        let next = unsafe { std::mem::transmute::<usize, Handler>(NEXT.load(Ordering::Relaxed)) };
        next(signal, info, context);
    }
    let result = child::run("signals::a_handler_from_after_passes_on", "after", || {
        set(libc::SIGSEGV, by_info as *const (), libc::SA_SIGINFO);
        kiln_trap::install();
        let flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // A signal in between would find 0, but there is none.
        let old = set(libc::SIGSEGV, first as *const (), flags);
        NEXT.store(old.sa_sigaction, Ordering::Relaxed);
        // Its mask blocks signals while it runs; here only ours is to be seen.
        let program = Program::new(TRAPS, &Options::default());
        caught(&program);
        caught(&program);
        assert_eq!(SEEN.load(Ordering::Relaxed), 2);
        fault();
    });
    ended(&result, Some(BY_INFO), None);
}

#[test]
fn a_trap_without_a_record_is_not_ours() {
    let part = |name: &str, rows: bool| {
        child::run("signals::a_trap_without_a_record_is_not_ours", name, || {
            set(libc::SIGSEGV, by_info as *const (), libc::SA_SIGINFO);
            let change = &|functions: &mut Vec<TableFunction>| {
                functions.iter_mut().for_each(|function| function.traps.clear());
            };
            let program = Program::new(TRAPS, &Options { change, rows, ..Options::default() });
            // SAFETY: the function has this signature.
            let result = unsafe { call(program.function::<Unary>("load"), (0x40,)) };
            panic!("{result:?}");
        })
    };
    ended(&part("rows", true), Some(BY_INFO), None);
    ended(&part("no rows", false), Some(BY_INFO), None);
    // Code that was called without `call`.
    let direct = child::run("signals::a_trap_without_a_record_is_not_ours", "direct", || {
        set(libc::SIGSEGV, by_info as *const (), libc::SA_SIGINFO);
        let program = Program::new(TRAPS, &Options::default());
        caught(&program);
        // SAFETY: the function has this signature.
        let load: Unary = unsafe { program.function("load") };
        panic!("{}", load(0x40));
    });
    ended(&direct, Some(BY_INFO), None);
    // Code whose range was taken back.
    let gone = child::run("signals::a_trap_without_a_record_is_not_ours", "gone", || {
        set(libc::SIGSEGV, by_info as *const (), libc::SA_SIGINFO);
        let mut program = Program::new(TRAPS, &Options::default());
        caught(&program);
        program.registrations.clear();
        // SAFETY: the function has this signature.
        let result = unsafe { call(program.function::<Unary>("load"), (0x40,)) };
        panic!("{result:?}");
    });
    ended(&gone, Some(BY_INFO), None);
}

/// `push rbp`, `mov rbp, rsp`, `nop`, `int3`, `pop rbp`, `ret`.
const BREAKPOINT: [u8; 8] = [0x55, 0x48, 0x89, 0xe5, 0x90, 0xcc, 0x5d, 0xc3];
/// The offset of `int3`, behind which the processor is when it traps.
const INT3: u32 = 5;

/// Calls [`BREAKPOINT`], in which the instruction at an offset has a record.
fn call_breakpoint(record: u32) -> (usize, Result<(), Caught>) {
    let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: the memory is new, and long enough for the code; it is never unmapped.
    let start = unsafe {
        let start = libc::mmap(ptr::null_mut(), 4096, protection, flags, -1, 0).cast::<u8>();
        assert_ne!(start.cast(), libc::MAP_FAILED);
        start.copy_from(BREAKPOINT.as_ptr(), BREAKPOINT.len());
        start
    };
    let function = TableFunction {
        name: "breakpoint".into(),
        start: start.addr(),
        len: BREAKPOINT.len(),
        traps: vec![(record, 7)],
        ..TableFunction::default()
    };
    let table = CodeTable::new(vec![function]);
    let range = start.addr()..start.addr() + BREAKPOINT.len();
    // SAFETY: the table describes the code, and outlives the registration. The code has this type.
    unsafe {
        let _registration = kiln_trap::register(range, &raw const table).unwrap();
        let code = std::mem::transmute::<*mut u8, extern "C" fn()>(start);
        (start.addr(), call(code, ()))
    }
}

#[test]
fn a_breakpoint_is_a_trap_if_it_has_a_record() {
    // A record of the instruction behind it is another one's. This is first, so that a child sets
    // its handler before ours is there.
    let part = |name: &str, handler: *const ()| {
        child::run("signals::a_breakpoint_is_a_trap_if_it_has_a_record", name, || {
            set(libc::SIGTRAP, handler, 0);
            panic!("{:?}", call_breakpoint(INT3 + 1).1);
        })
    };
    ended(&part("number", by_number as *const ()), Some(BY_NUMBER), None);
    ended(&part("default", libc::SIG_DFL as *const ()), None, Some(libc::SIGTRAP));
    let (start, result) = call_breakpoint(INT3);
    let one = trap(result);
    assert_eq!((one.code(), one.signal()), (TrapCode::from_raw(7), libc::SIGTRAP));
    assert_eq!((one.pc(), one.address()), (start + INT3 as usize, None));
    assert_eq!(one.frame().map(|frame| frame.offset), Some(INT3 as usize));
}

#[test]
fn a_host_between_code_and_call_is_not_left() {
    // A frame of the host must not be left without its destructors.
    extern "C" fn host(value: i64) -> i64 {
        // SAFETY: the function has this signature.
        let inner = unsafe { std::mem::transmute::<usize, Unary>(INNER.load(Ordering::Relaxed)) };
        inner(value)
    }
    static INNER: AtomicUsize = AtomicUsize::new(0);
    let result = child::run("signals::a_host_between_code_and_call_is_not_left", "host", || {
        set(libc::SIGSEGV, by_info as *const (), libc::SA_SIGINFO);
        let text = format!(
            "{TRAPS} function %through(i64) -> i64 {{ fn0 = %host(i64) -> i64
            block0(v0: i64): v1 = call fn0(v0) return v1 }}"
        );
        let host = [("host", host as *const u8)];
        let program = Program::new(&text, &Options { host: &host, ..Options::default() });
        // SAFETY: the functions have this signature.
        unsafe {
            INNER.store(program.function::<usize>("load"), Ordering::Relaxed);
            let result = call(program.function::<Unary>("through"), (0x40,));
            panic!("{result:?}");
        }
    });
    ended(&result, Some(BY_INFO), None);
}

#[test]
fn a_stack_overflow_of_the_host_is_reported_by_the_standard_library() {
    fn deep(depth: u64) -> u64 {
        if std::hint::black_box(depth) == u64::MAX { 0 } else { deep(depth + 1) + std::hint::black_box(1) }
    }
    let test = "signals::a_stack_overflow_of_the_host_is_reported_by_the_standard_library";
    let result = child::run(test, "deep", || {
        let program = Program::new(TRAPS, &Options::default());
        caught(&program);
        println!("{}", deep(0));
    });
    ended(&result, None, Some(libc::SIGABRT));
    if !child::is_child() {
        assert!(result.stderr.contains("has overflowed its stack"), "{}", result.stderr);
    }
}
