//! Entries that count calls: what they pass on, when they tell the host, and what they cost.
#![cfg(target_arch = "x86_64")]

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use kiln::ir::{Module, Target};
use kiln::jit::{CountedEntries, JitOptions, LinkOptions, Memory, MemoryOptions, Unit};
use kiln::{Compiler, Session};

use crate::common::module;

thread_local! {
    /// The counters that the hook got, and whether it panics.
    static TOLD: RefCell<(Vec<u64>, bool)> = const { RefCell::new((Vec::new(), false)) };
}

/// Notes the counter, and leaves something else in all registers that it may change.
extern "C-unwind" fn hook(counter: u64) {
    let panics = TOLD.with_borrow_mut(|(told, panics)| {
        told.push(counter);
        *panics
    });
    assert!(!panics, "the hook panics");
    // SAFETY: it only changes registers, and says so.
    unsafe {
        std::arch::asm!(
            "mov rax, -1",
            "mov rcx, rax",
            "mov rdx, rax",
            "mov rsi, rax",
            "mov rdi, rax",
            "mov r8, rax",
            "mov r9, rax",
            "mov r10, rax",
            "mov r11, rax",
            "pcmpeqd xmm0, xmm0",
            "movaps xmm1, xmm0",
            "movaps xmm2, xmm0",
            "movaps xmm3, xmm0",
            "movaps xmm4, xmm0",
            "movaps xmm5, xmm0",
            "movaps xmm6, xmm0",
            "movaps xmm7, xmm0",
            "movaps xmm8, xmm0",
            "movaps xmm9, xmm0",
            "movaps xmm10, xmm0",
            "movaps xmm11, xmm0",
            "movaps xmm12, xmm0",
            "movaps xmm13, xmm0",
            "movaps xmm14, xmm0",
            "movaps xmm15, xmm0",
            out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
            out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
            out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
            out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
        );
    }
}

fn told() -> usize {
    TOLD.with_borrow(|(told, _)| told.len())
}

/// Links modules with entries that tell after `limit` calls.
fn link(session: &Session, limit: u64, modules: &[Module]) -> Unit {
    let artifacts = Compiler::new(Target::host()).compile(modules).unwrap().artifacts;
    let counted_entries = CountedEntries::new(limit, hook);
    let options = LinkOptions { counted_entries, ..LinkOptions::default() };
    let none = |_: &kiln::globals::SlotKey| None;
    session.jit().link_with(options, &artifacts, &none).unwrap()
}

/// A replaceable function of 14 integers, 12 numbers and 2 vectors, which returns the sum of all,
/// each times its position, and a function `run` that calls it with the argument plus the position.
fn sums(call_conv: &str) -> [Module; 2] {
    let types: Vec<&str> = [("i64", 14), ("f64", 12), ("i64x2", 2)]
        .into_iter()
        .flat_map(|(name, count)| std::iter::repeat_n(name, count))
        .collect();
    let params: Vec<String> = types.iter().enumerate().map(|(n, ty)| format!("v{n}: {ty}")).collect();
    let mut body = String::new();
    let mut value = types.len();
    let mut new = |body: &mut String, text: String| {
        body.push_str(&format!("v{value} = {text}\n"));
        value += 1;
        value - 1
    };
    let mut sum = new(&mut body, "iconst.i64 0".into());
    for (position, ty) in types.iter().enumerate() {
        let number = match *ty {
            "f64" => new(&mut body, format!("fcvt_to_sint.i64 v{position}")),
            "i64x2" => {
                let low = new(&mut body, format!("extractlane v{position}, 0"));
                let high = new(&mut body, format!("extractlane v{position}, 1"));
                new(&mut body, format!("isub v{high}, v{low}"))
            }
            _ => position,
        };
        let factor = new(&mut body, format!("iconst.i64 {}", position + 1));
        let product = new(&mut body, format!("imul v{number}, v{factor}"));
        sum = new(&mut body, format!("iadd v{sum}, v{product}"));
    }
    let (list, joined) = (types.join(", "), params.join(", "));
    let callee = format!(
        "replaceable function %sums({list}) -> i64 {call_conv} {{ block0({joined}): {body} return v{sum} }}"
    );

    let mut body = String::new();
    let mut value = 1;
    let mut new = |body: &mut String, text: String| {
        body.push_str(&format!("v{value} = {text}\n"));
        value += 1;
        value - 1
    };
    let mut arguments = Vec::new();
    for (position, ty) in types.iter().enumerate() {
        let distance = new(&mut body, format!("iconst.i64 {}", position + 1));
        let number = new(&mut body, format!("iadd v0, v{distance}"));
        let argument = match *ty {
            "f64" => new(&mut body, format!("fcvt_from_sint.f64 v{number}")),
            "i64x2" => {
                let zero = new(&mut body, "iconst.i64 0".into());
                let vector = new(&mut body, format!("splat.i64x2 v{zero}"));
                new(&mut body, format!("insertlane v{vector}, v{number}, 1"))
            }
            _ => number,
        };
        arguments.push(format!("v{argument}"));
    }
    let call = new(&mut body, format!("call fn0({})", arguments.join(", ")));
    let caller = format!(
        "function %run(i64) -> i64 system_v {{
            fn0 = %sums({list}) -> i64 {call_conv}
            block0(v0: i64): {body} return v{call}
        }}"
    );
    [module("sums", &callee), module("run", &caller)]
}

#[test]
fn every_argument_survives_in_every_calling_convention() {
    for call_conv in ["system_v", "tail", "fast"] {
        let session = Session::new(Target::host()).unwrap();
        let unit = link(&session, 3, &sums(call_conv));
        let counters: Vec<_> = unit.counters().collect();
        let [(0, symbol, counter)] = counters[..] else { panic!("{counters:?}") };
        assert_eq!(unit.symbol(0, symbol).unwrap().name, "sums");
        // SAFETY: the function has this type.
        let run = unsafe { session.function("run").unwrap().typed::<extern "C" fn(i64) -> i64>() }.unwrap();
        let before = told();
        for argument in -50..50_i64 {
            let expected: i64 = (1..=28).map(|position| position * (argument + position)).sum();
            assert_eq!(run(argument), expected, "{call_conv} {argument}");
            assert_eq!(told() - before, ((argument + 51) / 3) as usize);
        }
        TOLD.with_borrow(|(told, _)| assert!(told[before..].iter().all(|known| *known == counter)));
    }
}

#[test]
fn a_panic_of_the_hook_passes_through() {
    let session = Session::new(Target::host()).unwrap();
    link(&session, 1, &sums("system_v"));
    // SAFETY: the function has this type.
    let run =
        unsafe { session.function("run").unwrap().typed::<extern "C-unwind" fn(i64) -> i64>() }.unwrap();
    let expected = run(0);
    TOLD.with_borrow_mut(|(_, panics)| *panics = true);
    let caught = catch_unwind(AssertUnwindSafe(|| run(0))).unwrap_err();
    TOLD.with_borrow_mut(|(_, panics)| *panics = false);
    assert_eq!(caught.downcast_ref::<&str>(), Some(&"the hook panics"));
    assert_eq!(run(0), expected);
}

#[test]
fn entries_go_with_their_unit_and_stop_to_count_when_it_is_replaced() {
    let memory = Some(Memory::reserve(MemoryOptions::with_size(1 << 20)).unwrap());
    let options = JitOptions { memory, ..JitOptions::default() };
    let session = Session::with_compiler(Compiler::new(Target::host()), options).unwrap();
    let used = |session: &Session| {
        let usage = session.jit().memory().usage();
        (usage.code.used, usage.data.used)
    };
    let text = |value: i64| {
        format!("replaceable function %f() -> i64 system_v {{ block0: v0 = iconst.i64 {value} return v0 }}")
    };
    let first = link(&session, 2, &[module("m", &text(1))]);
    // SAFETY: the function has this type, and its stub stays.
    let f = unsafe { session.function("f").unwrap().typed::<extern "C" fn() -> i64>() }.unwrap();
    let (counted, before) = (used(&session), told());
    assert_eq!([f(), f(), f(), f()], [1; 4]);
    assert_eq!(told() - before, 2);
    session.replace(&[module("m", &text(2))]).unwrap();
    assert_eq!([f(), f(), f(), f()], [2; 4]);
    assert_eq!(told() - before, 2);
    assert!(session.jit().collect() && first.is_freed());
    // The entry and its record are free; the code of both is as long.
    let now = used(&session);
    assert_eq!((counted.0 - now.0, counted.1 - now.1), (64, 40));
}

#[test]
fn a_function_that_preserves_all_registers_is_not_counted() {
    let session = Session::new(Target::host()).unwrap();
    let text = "replaceable function %quiet(i64) preserve_all { block0(v0: i64): return }
        function %run(i64) -> i64 system_v {
            fn0 = %quiet(i64) preserve_all
        block0(v0: i64):
            call fn0(v0)
            return v0
        }";
    let unit = link(&session, 1, &[module("m", text)]);
    assert_eq!(unit.counters().count(), 0);
    // SAFETY: the function has this type.
    let run = unsafe { session.function("run").unwrap().typed::<extern "C" fn(i64) -> i64>() }.unwrap();
    assert_eq!(run(5), 5);
}
