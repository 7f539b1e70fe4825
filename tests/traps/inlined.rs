//! Traps, exceptions and roots in bodies that were inlined from other modules.

use kiln::Compiler;
use kiln::ir::{Inlining, Module, Source, Target, parse};
use kiln::trap::{Caught, Exception, TrapCode, call, call_and_catch};

use crate::heap::Heap;
use crate::{ROUND, Unary, both_with, capacities, trap};

fn module(name: &str, text: &str) -> Module {
    parse(Source::new(name, text.to_owned()).debugged("/src").into(), &Target::host()).unwrap()
}

/// A compiler that inlines, and the number of calls that it inlines between `modules`.
fn compiler(modules: &[Module]) -> (Compiler, usize) {
    let compiler = Compiler::new(Target::host()).inline(Inlining::of_size(100));
    let calls = compiler.compile(modules).unwrap().stats.inlined_calls;
    (compiler, calls)
}

#[test]
fn a_trap_in_an_inlined_body_is_one_at_the_call() {
    let divide = "function %divide(i64, i64) -> i64 {
block0(v0: i64, v1: i64):
    v2 = udiv v0, v1
    return v2
}
function %between(i64) -> i64 {
    fn0 = %divide(i64, i64) -> i64
block0(v0: i64):
    v1 = call fn0(v0, v0)
    return v1
}";
    let outer = "function %outer(i64) -> i64 {
    fn0 = %between(i64) -> i64
block0(v0: i64):
      v1 = call fn0(v0)
    return v1
}
function %second(i64) -> i64 {
    fn0 = %outer(i64) -> i64
    fn1 = %divide(i64, i64) -> i64
block0(v0: i64):
    v1 = call fn0(v0)
    v2 = call fn1(v1, v0)
    return v2
}";
    let modules = [module("divide.clif", divide), module("outer.clif", outer)];
    let (compiler, calls) = compiler(&modules);
    // Into `between` 1, into `outer` 2, into `second` 3 and 1.
    assert_eq!(calls, 7);
    both_with(&compiler, &modules, |code| {
        let outer: Unary = code.function("outer");
        let second: Unary = code.function("second");
        // SAFETY: the functions have these signatures.
        unsafe {
            assert_eq!(call(outer, (3,)).unwrap(), 1);
            let one = trap(call(outer, (0,)));
            assert_eq!(one.code(), TrapCode::INTEGER_DIVISION_BY_ZERO);
            let text = one.to_string();
            assert!(text.starts_with("trap int_divz in outer+0x"), "{text}");
            assert!(text.ends_with(" at outer.clif:4:7"), "{text}");
            assert_eq!(call(second, (1,)).unwrap(), 1);
            let text = trap(call(second, (0,))).to_string();
            assert!(text.ends_with(" at outer.clif:11:5"), "{text}");
        }
    });
}

#[test]
fn exceptions_go_through_inlined_bodies_to_their_handlers() {
    // `throws` is inlined into `passes`, and `handles`, with its handler, into `outer`. The call
    // with the handler stays, because it may be interrupted anywhere in its callee.
    let throws = "function %throws(i64) -> i64 {
    fn0 = %host(i64) -> i64
block0(v0: i64):
    v1 = call fn0(v0)
    return v1
}
function %passes(i64) -> i64 tail {
    fn0 = %throws(i64) -> i64
block0(v0: i64):
    v1 = call fn0(v0)
    v2 = call fn0(v0)
    v3 = isub v1, v2
    v4 = iadd v3, v0
    return v4
}";
    let handles = "function %handles(i64) -> i64 {
    sig0 = (i64) -> i64 tail
    fn0 = %passes(i64) -> i64 tail
block0(v0: i64):
    try_call fn0(v0), sig0, block1(ret0), [ tag1: block2(exn0, exn1) ]
block1(v1: i64):
    return v1
block2(v2: i64, v3: i64):
    v4 = iadd v2, v3
    return v4
}";
    let outer = "function %outer(i64) -> i64 {
    fn0 = %handles(i64) -> i64
block0(v0: i64):
    v1 = call fn0(v0)
    v2 = iconst.i64 1000
    v3 = imul v1, v2
    v4 = call fn0(v0)
    v5 = iadd v3, v4
    return v5
}";
    let modules = [("throws", throws), ("handles", handles), ("outer", outer)];
    let modules = modules.map(|(name, text)| module(name, text));
    let (compiler, calls) = compiler(&modules);
    assert_eq!(calls, 4);
    both_with(&compiler, &modules, |code| {
        let outer: Unary = code.function("outer");
        // SAFETY: the function has this signature.
        unsafe {
            assert_eq!(call(outer, (5,)).unwrap(), 5005);
            assert_eq!(call(outer, (1,)).unwrap(), 42_042);
            match call_and_catch(outer, (2,)) {
                Err(Caught::Exception(Exception { tag: 2, payload: [30, 12] })) => {}
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn a_collector_finds_the_roots_of_inlined_bodies() {
    let text = include_str!("../../examples/collector/program.clif");
    let modules = module("program.clif", text).split(0).expect("all definitions have names");
    let (compiler, calls) = compiler(&modules);
    assert!(calls >= 4, "{calls}");
    both_with(&compiler, &modules, |code| {
        let program: Unary = code.function("program");
        for capacity in capacities() {
            Heap::install(capacity);
            // SAFETY: the function has this signature.
            assert_eq!(unsafe { call(program, (100,)) }.unwrap(), 100 * ROUND);
            let Heap { collections, moved, .. } = Heap::install(0);
            assert!(collections > 25 && moved > 15_000, "{collections} collections moved {moved}");
        }
    });
}
