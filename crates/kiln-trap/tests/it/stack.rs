//! Stack overflows, nested calls, and threads.

use std::cell::Cell;

use kiln_trap::{Trap, TrapCode, call};

use crate::child;
use crate::program::{Options, Program};
use crate::traps::{TRAPS, trap};

const RECURSION: &str = "
function %endless(i64) -> i64 {
    ss0 = explicit_slot 40
    fn0 = %endless(i64) -> i64
block0(v0: i64):
    v9 = stack_addr.i64 ss0
    store notrap aligned v0, v9
    v1 = call fn0(v0)
    v2 = load.i64 notrap aligned v9
    v3 = iadd v1, v2
    return v3
}
function %large(i64) -> i64 {
    ss0 = explicit_slot 40000
    fn0 = %large(i64) -> i64
block0(v0: i64):
    v9 = stack_addr.i64 ss0
    store notrap aligned v0, v9
    v1 = call fn0(v0)
    v2 = load.i64 notrap aligned v9
    v3 = iadd v1, v2
    return v3
}
function %through(i64) -> i64 {
    fn0 = %host(i64) -> i64
block0(v0: i64):
    v1 = call fn0(v0)
    trapz v1, user9
    return v1
}
";

type Unary = extern "C" fn(i64) -> i64;

fn overflow(function: Unary, name: &str) -> Trap {
    // SAFETY: the functions have this signature.
    let one = trap(unsafe { call(function, (1,)) });
    assert_eq!((one.code(), one.signal()), (TrapCode::STACK_OVERFLOW, libc::SIGSEGV));
    assert_eq!(one.frame().unwrap().function, name);
    let backtrace = one.backtrace();
    assert!(backtrace.frames().iter().all(|frame| frame.code().unwrap().function == name));
    one
}

#[test]
fn a_full_stack_is_a_trap() {
    extern "C" fn host(_: i64) -> i64 {
        0
    }
    let host = [("host", host as *const u8)];
    let plain = Program::new(RECURSION, &Options { host: &host, ..Options::default() });
    let probes = [("enable_probestack", "true"), ("probestack_strategy", "inline")];
    let probes = Program::new(RECURSION, &Options { host: &host, settings: &probes, ..Options::default() });
    // SAFETY: the functions have this signature.
    let [endless, probed, large]: [Unary; 3] =
        unsafe { [plain.function("endless"), probes.function("endless"), probes.function("large")] };
    // Again and again on one thread, and on new ones.
    let twice = || {
        for _ in 0..2 {
            let one = overflow(endless, "endless");
            let missing = one.backtrace().missing();
            assert!(missing > 1000, "{missing}");
            assert_eq!(one.backtrace().frames().len(), 97);
            overflow(probed, "endless");
            // Frames of 40 KB would jump over the guard without probes.
            overflow(large, "large");
        }
    };
    twice();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(twice);
        }
    });
}

thread_local! {
    static INNER: Cell<Option<Unary>> = const { Cell::new(None) };
}

/// Calls the code again and swallows its trap.
extern "C-unwind" fn nested(value: i64) -> i64 {
    if value == 0 {
        return 0;
    }
    // SAFETY: the function has this signature.
    let inner = unsafe { call(INNER.get().unwrap(), (value - 1,)) };
    match inner {
        Ok(value) => value + 10,
        Err(_) => 100,
    }
}

#[test]
fn a_nested_call_catches_its_own_traps() {
    let host = [("host", nested as *const u8)];
    let program = Program::new(RECURSION, &Options { host: &host, ..Options::default() });
    // SAFETY: the function has this signature.
    unsafe {
        let through: Unary = program.function("through");
        INNER.set(Some(through));
        let one = trap(call(through, (0,)));
        assert_eq!(one.code().to_string(), "user9");
        assert_eq!(call(through, (1,)).unwrap(), 100);
        assert_eq!(call(through, (3,)).unwrap(), 120);
    }
}

#[test]
fn threads_trap_at_once() {
    extern "C" fn zero(_: i64) -> i64 {
        std::thread::yield_now();
        0
    }
    let host = [("host", zero as *const u8)];
    let program = Program::new(RECURSION, &Options { host: &host, ..Options::default() });
    // SAFETY: the function has this signature.
    let through: Unary = unsafe { program.function("through") };
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..500 {
                    // SAFETY: as above.
                    let one = trap(unsafe { call(through, (1,)) });
                    assert_eq!(one.code().to_string(), "user9");
                }
            });
        }
    });
}

#[test]
fn an_alternate_stack_ends_with_its_thread() {
    // In a process of its own, since other tests have threads, too.
    let ended = child::run("stack::an_alternate_stack_ends_with_its_thread", "count", || {
        let mappings = || std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
        let program = Program::new(TRAPS, &Options::default());
        // SAFETY: the function has this signature.
        let ill: Unary = unsafe { program.function("ill") };
        let one = || {
            // SAFETY: as above.
            std::thread::spawn(move || drop(trap(unsafe { call(ill, (0,)) }))).join().unwrap();
        };
        (0..20).for_each(|_| one());
        let before = mappings();
        (0..200).for_each(|_| one());
        let after = mappings();
        assert!(after < before + 10, "{before} mappings before, {after} after");
    });
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}
