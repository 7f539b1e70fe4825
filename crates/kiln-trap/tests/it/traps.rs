//! Each kind of trap comes back as an error, with function, source and backtrace.

use kiln_trap::{Caught, Trap, TrapCode, call};

use crate::program::{Options, Program};

pub(crate) const TRAPS: &str = "
function %ill(i64) -> i64 {
block0(v0: i64):
@1234    trapz v0, user7
    return v0
}
function %div(i32, i32) -> i32 {
block0(v0: i32, v1: i32):
@0017    v2 = udiv v0, v1
    return v2
}
function %load(i64) -> i64 {
block0(v0: i64):
@0020    v1 = load.i64 v0
    return v1
}
function %outer(i64) -> i64 {
    fn0 = %ill(i64) -> i64
block0(v0: i64):
@00aa    v1 = call fn0(v0)
    v102 = iconst.i64 1
    v2 = iadd v1, v102
    return v2
}
function %floats(f64, i64, f32) -> f64 {
block0(v0: f64, v1: i64, v2: f32):
    v3 = fcvt_from_sint.f64 v1
    v4 = fadd v0, v3
    v5 = fpromote.f64 v2
    v6 = fsub v4, v5
    return v6
}
";

/// Returns the trap of a call that must have trapped.
pub(crate) fn trap<T: std::fmt::Debug>(result: Result<T, Caught>) -> Trap {
    match result {
        Err(Caught::Trap(trap)) => *trap,
        other => panic!("no trap, but {other:?}"),
    }
}

#[test]
fn each_kind_of_trap_is_an_error() {
    let program = Program::new(TRAPS, &Options::default());
    // SAFETY: the functions have these signatures.
    unsafe {
        let ill: extern "C" fn(i64) -> i64 = program.function("ill");
        let div: extern "C" fn(u32, u32) -> u32 = program.function("div");
        let load: extern "C" fn(usize) -> u64 = program.function("load");
        assert_eq!(call(ill, (5,)).unwrap(), 5);
        let one = trap(call(ill, (0,)));
        assert_eq!((one.code().to_string(), one.signal()), ("user7".into(), libc::SIGILL));
        assert_eq!(one.frame().unwrap().function, "ill");
        assert_eq!(one.frame().unwrap().module, "example");
        assert_eq!(one.frame().unwrap().source.as_ref().unwrap().location, 0x1234);
        assert_eq!(one.address(), None);

        assert_eq!(call(div, (7, 2)).unwrap(), 3);
        let one = trap(call(div, (7, 0)));
        assert_eq!((one.code(), one.signal()), (TrapCode::INTEGER_DIVISION_BY_ZERO, libc::SIGFPE));
        assert_eq!(one.frame().unwrap().source.as_ref().unwrap().location, 0x17);

        let word = 99u64;
        assert_eq!(call(load, (&raw const word as usize,)).unwrap(), 99);
        let one = trap(call(load, (64,)));
        assert_eq!((one.code(), one.signal()), (TrapCode::HEAP_OUT_OF_BOUNDS, libc::SIGSEGV));
        assert_eq!(one.address(), Some(64));
        // An address that no memory can have; the processor does not tell it.
        let one = trap(call(load, (0x8000_0000_0000_0000,)));
        assert_eq!(one.address(), Some(0));
    }
}

#[test]
fn arguments_and_results_are_those_of_a_plain_call() {
    let program = Program::new(TRAPS, &Options::default());
    // SAFETY: the function has this signature.
    unsafe {
        let floats: extern "C" fn(f64, i64, f32) -> f64 = program.function("floats");
        assert_eq!(call(floats, (0.5, -3, 0.25)).unwrap(), floats(0.5, -3, 0.25));
        assert_eq!(call(floats, (0.5, -3, 0.25)).unwrap(), -2.75);
    }
}

#[test]
fn the_backtrace_goes_from_the_trap_to_the_call() {
    let program = Program::new(TRAPS, &Options::default());
    // SAFETY: the function has this signature.
    let one = trap(unsafe { call(program.function::<extern "C" fn(i64) -> i64>("outer"), (0,)) });
    let backtrace = one.backtrace();
    let names: Vec<_> = backtrace.frames().iter().map(|frame| frame.code().unwrap()).collect();
    assert_eq!(names.iter().map(|frame| &*frame.function).collect::<Vec<_>>(), ["ill", "outer"]);
    assert_eq!(names[1].source.as_ref().unwrap().location, 0xaa);
    assert!(one.to_string().starts_with("trap user7 in ill+0x"), "{one}");
}
