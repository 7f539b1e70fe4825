//! Exceptions reach the handlers of `try_call`, through frames of code and host.

use std::cell::{Cell, RefCell};

use kiln_trap::{
    Caught, Exception, HandlerInfo, HandlerTag, TableFunction, ThrowError, call, call_and_catch, throw,
    throw_from_code, throw_to,
};

use crate::program::{Options, Program};

/// `%by_tag` has a handler for tag 1, `%by_default` for all, `%in_context` for tag 1 in a context.
const HANDLERS: &str = "
function %by_tag(i64) -> i64 {
    sig0 = (i64) -> i64 tail
    fn0 = %middle(i64) -> i64 tail
block0(v0: i64):
    v109 = iconst.i64 1000
    v9 = iadd v0, v109
    try_call fn0(v0), sig0, block1(ret0), [ tag1: block2(exn0, exn1) ]
block1(v1: i64):
    return v1
block2(v2: i64, v3: i64):
    v4 = isub v3, v2
    v5 = iadd v4, v9
    return v5
}
function %by_default(i64) -> i64 {
    sig0 = (i64) -> i64 tail
    fn0 = %middle(i64) -> i64 tail
block0(v0: i64):
    try_call fn0(v0), sig0, block1(ret0), [ tag7: block3(exn0, exn1), default: block2(exn0, exn1) ]
block1(v1: i64):
    return v1
block2(v2: i64, v3: i64):
    v4 = iadd v2, v3
    return v4
block3(v5: i64, v6: i64):
    return v5
}
function %in_context(i64, i64) -> i64 {
    sig0 = (i64) -> i64 tail
    fn0 = %middle(i64) -> i64 tail
block0(v0: i64, v1: i64):
    try_call fn0(v0), sig0, block1(ret0), [ tag1: block2(exn0, exn1), context v1, tag1: block3(exn0, exn1) ]
block1(v2: i64):
    return v2
block2(v3: i64, v4: i64):
    v5 = iconst.i64 -1
    return v5
block3(v6: i64, v7: i64):
    v8 = iadd v6, v1
    return v8
}
function %system_v(i64, i64, i64, i64) -> i64 {
    sig0 = (i64) -> i64 system_v
    fn0 = %busy(i64) -> i64 system_v
block0(v0: i64, v1: i64, v2: i64, v3: i64):
    try_call fn0(v0), sig0, block1(ret0), [ context v3, tag1: block2(exn0, exn1) ]
block1(v4: i64):
    return v4
block2(v5: i64, v6: i64):
    v7 = iadd v1, v2
    v8 = imul v7, v3
    v9 = iadd v8, v5
    return v9
}
function %busy(i64) -> i64 system_v {
    fn0 = %host(i64) -> i64
block0(v0: i64):
    v101 = iconst.i64 1
    v1 = iadd v0, v101
    v102 = iconst.i64 3
    v2 = imul v0, v102
    v103 = iconst.i64 5
    v3 = iadd v0, v103
    v104 = iconst.i64 7
    v4 = imul v0, v104
    v5 = call fn0(v0)
    v6 = iadd v1, v2
    v7 = iadd v3, v4
    v8 = iadd v6, v7
    v10 = iadd v8, v5
    return v10
}
function %middle(i64) -> i64 tail {
    fn0 = %host(i64) -> i64
block0(v0: i64):
    v1 = call fn0(v0)
    v102 = iconst.i64 1
    v2 = iadd v1, v102
    return v2
}
function %from_code(i64) -> i64 {
    sig0 = (i32, i64, i64) -> i32
    fn0 = %throw(i32, i64, i64) -> i32
block0(v0: i64):
    v1 = iconst.i32 1
    v2 = iconst.i64 42
    v3 = iconst.i64 100
    v4 = call fn0(v1, v2, v3)
    v5 = uextend.i64 v4
    return v5
}
";

type Action = Box<dyn Fn(i64) -> i64>;

thread_local! {
    static ACTION: RefCell<Option<Action>> = const { RefCell::new(None) };
    static DROPPED: Cell<u32> = const { Cell::new(0) };
    static ERROR: Cell<Option<ThrowError>> = const { Cell::new(None) };
}

struct Counted;

impl Drop for Counted {
    fn drop(&mut self) {
        DROPPED.set(DROPPED.get() + 1);
    }
}

/// Called by the code: does what the test wants.
extern "C-unwind" fn host(value: i64) -> i64 {
    let _counted = Counted;
    let action = ACTION.with_borrow(|action| std::ptr::from_ref(&**action.as_ref().unwrap()));
    // SAFETY: the action is replaced between calls only.
    unsafe { (*action)(value) }
}

fn throws(tag: u32) -> impl Fn(i64) -> i64 {
    move |value| {
        let _counted = Counted;
        // SAFETY: the handlers of these programs take any payload.
        let error = unsafe { throw(Exception { tag, payload: [42, 100 + value as usize] }) };
        ERROR.set(Some(error));
        -7
    }
}

fn act(action: impl Fn(i64) -> i64 + 'static) {
    ACTION.set(Some(Box::new(action)));
    DROPPED.set(0);
    ERROR.set(None);
}

fn program(rows: bool, change: &dyn Fn(&mut Vec<TableFunction>)) -> Program {
    let host = [("host", host as *const u8), ("throw", throw_from_code as *const u8)];
    Program::new(HANDLERS, &Options { host: &host, rows, change, ..Options::default() })
}

type Unary = extern "C-unwind" fn(i64) -> i64;

#[test]
fn handlers_match_by_tag_and_default_and_destructors_run() {
    for rows in [true, false] {
        let program = program(rows, &|_| {});
        // SAFETY: the functions have these signatures.
        let (by_tag, by_default): (Unary, Unary) =
            unsafe { (program.function("by_tag"), program.function("by_default")) };
        act(|value| value);
        assert_eq!((by_tag(5), by_default(5)), (6, 6));
        act(throws(1));
        assert_eq!(by_tag(5), 105 - 42 + 1005, "rows: {rows}");
        assert_eq!(DROPPED.get(), 2);
        assert_eq!(by_default(5), 147);
        act(throws(7));
        assert_eq!(by_default(5), 42);
        // The same through caught calls, which have a frame of the host of their own.
        act(throws(1));
        // SAFETY: as above.
        assert_eq!(unsafe { call(by_tag, (5,)) }.unwrap(), 105 - 42 + 1005);
    }
}

#[test]
fn without_a_handler_nothing_is_unwound() {
    let program = program(true, &|_| {});
    // SAFETY: the function has this signature.
    let by_tag: Unary = unsafe { program.function("by_tag") };
    act(throws(2));
    assert_eq!(by_tag(5), -6);
    assert_eq!(ERROR.get(), Some(ThrowError::NoHandler));
    // SAFETY: as above.
    unsafe {
        let from_code: Unary = program.function("from_code");
        assert_eq!(from_code(0), 1);
        match call_and_catch(from_code, (0,)) {
            Err(Caught::Exception(Exception { tag: 1, payload: [42, 100] })) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_exception_passes_inner_calls() {
    for rows in [true, false] {
        let program = program(rows, &|_| {});
        // SAFETY: the functions have these signatures.
        unsafe {
            let (by_tag, by_default): (Unary, Unary) =
                (program.function("by_tag"), program.function("by_default"));
            // The inner call has a handler for all tags.
            act(move |value| match value {
                5 => call(by_default, (6,)).unwrap(),
                value => throws(1)(value),
            });
            assert_eq!(by_tag(5), 42 + 106 + 1);
            // The inner code has none, so the outer code's is taken, if the unwinder can go there.
            let from_code: Unary = program.function("from_code");
            act(move |_| call(from_code, (6,)).unwrap());
            assert_eq!(by_tag(5), if rows { 100 - 42 + 1005 } else { 2 });
            assert_eq!(DROPPED.get(), 1);
            // A call that catches exceptions is in between.
            act(move |_| i64::from(matches!(call_and_catch(from_code, (6,)), Err(Caught::Exception(_)))));
            assert_eq!(by_tag(5), 2);
        }
    }
}

#[test]
fn a_context_decides_about_tags() {
    let program = program(true, &|_| {});
    // SAFETY: the functions have these signatures.
    unsafe {
        let in_context: extern "C-unwind" fn(i64, i64) -> i64 = program.function("in_context");
        let system_v: extern "C-unwind" fn(i64, i64, i64, i64) -> i64 = program.function("system_v");
        let for_context = |context: usize| {
            move |_| {
                let matches = &mut |handler: HandlerTag| handler.tag == 1 && handler.context == Some(context);
                let error = throw_to(1, [42, 0], matches);
                ERROR.set(Some(error));
                -7
            }
        };
        act(for_context(77));
        assert_eq!(in_context(1, 77), 42 + 77);
        assert_eq!(in_context(1, 78), -6);
        assert_eq!(ERROR.get(), Some(ThrowError::NoHandler));
        // In this convention the handler expects the registers that a callee saves, and `%busy`
        // uses them. The context is in one of them.
        act(for_context(5));
        assert_eq!(system_v(9, 2, 3, 5), (2 + 3) * 5 + 42);
        act(for_context(6));
        assert_eq!(ERROR.get(), None);
        assert_eq!(system_v(1, 2, 3, 5), 2 + 3 + 6 + 7 - 7);
    }
}

#[test]
fn a_function_that_catches_panics_is_an_error() {
    let program = program(true, &|_| {});
    // SAFETY: the function has this signature.
    let by_tag: Unary = unsafe { program.function("by_tag") };
    act(|value| std::panic::catch_unwind(|| throws(1)(value)).unwrap());
    assert_eq!(by_tag(5), -6);
    assert!(matches!(ERROR.get(), Some(ThrowError::Blocked { .. })), "{:?}", ERROR.get());
    // The pair of a handler that is not there.
    let error = ERROR.take();
    act(|value| std::panic::catch_unwind(|| throws(2)(value)).unwrap());
    assert_eq!((by_tag(5), ERROR.get()), (-6, Some(ThrowError::NoHandler)), "{error:?}");
}

#[test]
fn a_panic_passes_through_compiled_frames() {
    let program = program(true, &|_| {});
    // SAFETY: the function has this signature.
    let by_default: Unary = unsafe { program.function("by_default") };
    act(|_| std::panic::resume_unwind(Box::new("a panic")));
    // SAFETY: as above.
    let result = std::panic::catch_unwind(|| unsafe { call(by_default, (5,)) }.unwrap());
    assert_eq!(*result.unwrap_err().downcast::<&str>().unwrap(), "a panic");
    assert_eq!(DROPPED.get(), 1);
}

#[test]
fn a_destructor_may_throw_and_catch() {
    struct Throws(Unary);
    impl Drop for Throws {
        fn drop(&mut self) {
            assert_eq!(self.0(5), 42 + 105);
            DROPPED.set(DROPPED.get() + 10);
        }
    }
    let program = program(true, &|_| {});
    // SAFETY: the functions have these signatures.
    let (by_tag, by_default): (Unary, Unary) =
        unsafe { (program.function("by_tag"), program.function("by_default")) };
    act(move |value| {
        let _throws = (value == 6).then(|| Throws(by_default));
        throws(1)(value)
    });
    assert_eq!(by_tag(6), 106 - 42 + 1006);
    // Two functions of each throw, and the destructor.
    assert_eq!(DROPPED.get(), 14);
}

#[test]
fn a_fault_in_a_table_is_seen() {
    let result = |change: &dyn Fn(&mut HandlerInfo)| {
        let program = program(true, &|functions| {
            let calls = functions.iter_mut().filter(|function| function.name == "by_tag");
            calls
                .flat_map(|function| &mut function.calls)
                .flat_map(|call| &mut call.handlers)
                .for_each(change);
        });
        // SAFETY: the function has this signature.
        let by_tag: Unary = unsafe { program.function("by_tag") };
        act(throws(1));
        by_tag(5)
    };
    let right = 105 - 42 + 1005;
    assert_eq!(result(&|_| {}), right);
    assert_ne!(result(&|handler| *handler = HandlerInfo::Tag { tag: 2, target: target(handler) }), right);
    assert_ne!(result(&|handler| *handler = HandlerInfo::ContextOnStack(0)), right);
}

fn target(handler: &HandlerInfo) -> usize {
    match *handler {
        HandlerInfo::Tag { target, .. } | HandlerInfo::Default { target } => target,
        _ => 0,
    }
}
