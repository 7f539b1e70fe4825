//! Backtraces and roots.

use kiln_trap::{Backtrace, RootsError, TableFunction, call, roots};

use crate::program::{Options, Program};

const WALKS: &str = "
function %outer(i64) -> i64 {
    ss0 = explicit_slot 16
    fn0 = %inner(i64) -> i64
block0(v0: i64):
    v9 = stack_addr.i64 ss0
    store notrap aligned v0, v9+8
@0010    v1 = call fn0(v0), stack_map=[i64 @ ss0+8]
    v2 = load.i64 notrap aligned v9+8
    v3 = iadd v1, v2
    return v3
}
function %inner(i64) -> i64 {
    ss0 = explicit_slot 8
    ss1 = explicit_slot 400
    fn0 = %host(i64) -> i64
block0(v0: i64):
    v9 = stack_addr.i64 ss0
    v1 = iconst.i64 1000
    v2 = iadd v0, v1
    store notrap aligned v2, v9
@0020    v3 = call fn0(v0), stack_map=[i64 @ ss0+0]
    v4 = load.i64 notrap aligned v9
    return v4
}
";

type Unary = extern "C-unwind" fn(i64) -> i64;

fn program(
    host: extern "C-unwind" fn(i64) -> i64,
    rows: bool,
    change: &dyn Fn(&mut Vec<TableFunction>),
) -> Program {
    let host = [("host", host as *const u8)];
    Program::new(WALKS, &Options { host: &host, rows, change, ..Options::default() })
}

/// Adds 1 to every root, and returns how many there are, or minus 1.
extern "C-unwind" fn moves(_: i64) -> i64 {
    let mut count = 0;
    let result = roots(&mut |root| {
        assert_eq!(root.size, 8);
        // SAFETY: it is a place on this stack, with a number of 8 bytes.
        unsafe { *root.address.cast::<i64>() += 1 };
        count += 1;
    });
    LAST.set(Some(result.map(|()| count)));
    count
}

thread_local! {
    static LAST: std::cell::Cell<Option<Result<i64, RootsError>>> = const { std::cell::Cell::new(None) };
}

#[test]
fn roots_are_found_and_can_be_changed() {
    let program = program(moves, true, &|_| {});
    // SAFETY: the function has this signature.
    let outer: Unary = unsafe { program.function("outer") };
    assert_eq!(outer(5), 1006 + 6);
    assert_eq!(LAST.get(), Some(Ok(2)));
    // SAFETY: as above.
    assert_eq!(unsafe { call(outer, (5,)) }.unwrap(), 1006 + 6);
    assert_eq!(LAST.get(), Some(Ok(2)));
}

#[test]
fn roots_that_may_be_missing_are_an_error() {
    let without_rows = program(moves, false, &|_| {});
    // SAFETY: the function has this signature.
    unsafe { without_rows.function::<Unary>("outer")(5) };
    assert!(matches!(LAST.get(), Some(Err(RootsError::NoRows { .. }))), "{:?}", LAST.get());
}

#[test]
fn a_fault_in_a_stack_map_is_seen() {
    let shifted = program(moves, true, &|functions| {
        let calls = functions.iter_mut().flat_map(|function| &mut function.calls);
        calls.filter_map(|call| call.stack_map.as_mut()).for_each(|map| map.span += 16);
    });
    // SAFETY: the function has this signature. The wrong places are in its slots of 400 bytes, or
    // in those of `%outer`.
    let result = unsafe { shifted.function::<Unary>("inner")(5) };
    assert_ne!(result, 1006);
}

thread_local! {
    static BACKTRACE: std::cell::RefCell<Backtrace> = std::cell::RefCell::default();
}

extern "C-unwind" fn captures(_: i64) -> i64 {
    BACKTRACE.set(Backtrace::capture());
    0
}

#[test]
fn a_backtrace_names_compiled_frames_among_the_hosts() {
    for rows in [true, false] {
        let program = program(captures, rows, &|_| {});
        // SAFETY: the function has this signature.
        unsafe { call(program.function::<Unary>("outer"), (5,)) }.unwrap();
        let backtrace = BACKTRACE.take();
        let frames = backtrace.frames();
        let first = frames.iter().position(|frame| frame.code().is_some()).unwrap();
        let code = |number: usize| frames[first + number].code().unwrap();
        assert!((1..4).contains(&first), "{first} frames of the host are first");
        assert_eq!((&*code(0).function, &*code(1).function), ("inner", "outer"));
        assert_eq!(code(0).source.as_ref().unwrap().location, 0x20);
        assert_eq!(code(1).source.as_ref().unwrap().location, 0x10);
        // With rows, the callers of the code follow: this function and the test runner.
        assert_eq!(frames.len() > first + 5, rows);
        assert!(frames[first + 2..].iter().all(|frame| frame.code().is_none()));
        let text = backtrace.to_string();
        let host = text.contains("a_backtrace_names_compiled_frames_among_the_hosts");
        assert_eq!(host, rows && cfg!(feature = "symbols"), "{text}");
        assert!(text.contains(": inner+0x") && text.contains(" (example) at @20"), "{text}");
    }
}
