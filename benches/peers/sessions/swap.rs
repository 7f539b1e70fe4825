//! The time from the call that replaces a function until other threads call the new one.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cranelift_codegen::Context;
use cranelift_module::{Linkage, Module as _};
use kiln::ir::{Linkage as KilnLinkage, Module};
use kiln::jit::Unit;

use super::function::{Peer, Small};
use super::one::{free, session};
use super::scale::Scale;
use crate::measure::spread;
use crate::report::{Comparison, Goal};
use crate::setup::{Failure, Setup};

type Call = extern "C" fn(i64, i64) -> i64;

/// Measures swaps of a function that another thread calls all the time. `cranelift-jit` has no
/// replaceable functions, so its client keeps the address in an atomic variable.
pub(super) fn replace(
    peer: &Peer,
    _: &Setup,
    scale: Scale,
    comparison: &mut Comparison,
) -> Result<(), Failure> {
    let functions = peer.functions(1, scale.repeats());
    let (name, first) = ("swapped", &functions[0]);
    let session = session(&peer.compiler)?;
    let modules: Vec<Module> =
        functions.iter().map(|function| replaceable(peer, function, name)).collect::<Result<_, _>>()?;
    let compiled = peer.compiler.compile(&modules)?.artifacts;
    session.add_artifacts(&compiled[..1])?;
    // SAFETY: the function has this type, and its address stays while it is replaced.
    let caller: Call = unsafe { std::mem::transmute(session.address(name).ok_or("no function")?) };
    let half = functions.len() / 2;
    let mut units: Vec<Unit> = Vec::new();
    let whole = swaps(
        first,
        &functions[1..half],
        || caller,
        |number| Ok(&compiled[number + 1]),
        |artifact| {
            units.push(session.replace_artifacts(std::slice::from_ref(artifact))?);
            Ok(())
        },
    )?;
    let ready = swaps(
        &functions[half - 1],
        &functions[half..],
        || caller,
        |number| Ok(session.ready_to_replace(std::slice::from_ref(&compiled[half + number]))?),
        |ready| {
            units.push(ready.publish());
            Ok(())
        },
    )?;

    let mut living = peer.module();
    let code = peer.bytes(&functions)?;
    let current = AtomicUsize::new(0);
    let mut define = |function: &Small, code: &[u8]| -> Result<(), Failure> {
        let id = living.declare_function(&function.name, Linkage::Export, &function.ir.signature)?;
        living.define_function_bytes(id, 16, code, &[])?;
        living.finalize_definitions()?;
        current.store(living.get_finalized_function(id) as usize, Ordering::Release);
        Ok(())
    };
    define(first, &code[0])?;
    // SAFETY: the address is that of a finalized function of this type, which stays in memory.
    let caller = || unsafe { std::mem::transmute::<usize, Call>(current.load(Ordering::Acquire)) };
    let cranelift = swaps(first, &functions[1..half], caller, Ok, |number| {
        define(&functions[number + 1], &code[number + 1])
    })?;
    free(living);

    let micros = |times: &[Duration]| times.iter().map(|time| time.as_secs_f64() * 1e6).collect::<Vec<_>>();
    comparison.values(
        "us from the call of `Ready::publish` until a caller has the new code",
        &micros(&ready),
        Goal::AtMost(1.0),
    );
    comparison.values(
        "us from the call of `replace`, which links, until a caller has the new code",
        &micros(&whole),
        Goal::None,
    );
    comparison.values(
        "the same with cranelift-jit and a pointer of its client",
        &micros(&cranelift),
        Goal::None,
    );
    let ratio = spread(&micros(&whole)).median / spread(&micros(&cranelift)).median;
    comparison.value("swap, kiln / cranelift-jit", ratio, Goal::AtMost(1.0));
    comparison
        .note(format!("swap: {} swaps of compiled code of each kind, called by one other thread", half - 1));
    Ok(())
}

/// Builds a module whose only function is replaceable and has this name.
fn replaceable(peer: &Peer, function: &Small, name: &str) -> Result<Module, Failure> {
    let mut module = function.module(&peer.target, &mut Context::new())?;
    let symbol = module.symbols.iter_mut().find(|symbol| *symbol.name == *function.name);
    let symbol = symbol.ok_or("the function is not in its module")?;
    (symbol.name, symbol.linkage) = (name.into(), KilnLinkage::Replaceable);
    Ok(module)
}

/// Returns the time of each swap: from its begin until the other thread has called the new code.
/// What `prepare` does is not in the time. `caller` returns what that thread calls.
fn swaps<R>(
    first: &Small,
    next: &[Small],
    caller: impl Fn() -> Call + Sync,
    mut prepare: impl FnMut(usize) -> Result<R, Failure>,
    mut swap: impl FnMut(R) -> Result<(), Failure>,
) -> Result<Vec<Duration>, Failure> {
    let (start, begin) = (Instant::now(), Barrier::new(2));
    let (end, seen, seen_at) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let call = || caller()(3, 4) as u64;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            begin.wait();
            let mut last = first.result() as u64;
            while !end.load(Ordering::Relaxed) {
                let value = call();
                if value != last {
                    let now = start.elapsed().as_nanos() as u64;
                    seen_at.store(now, Ordering::Relaxed);
                    seen.store(value, Ordering::Release);
                    last = value;
                }
            }
        });
        begin.wait();
        let mut measure = || -> Result<Vec<Duration>, Failure> {
            let mut times = Vec::with_capacity(next.len());
            for (number, function) in next.iter().enumerate() {
                let expected = function.result() as u64;
                let ready = prepare(number)?;
                let before = start.elapsed().as_nanos() as u64;
                swap(ready)?;
                let limit = Instant::now();
                while seen.load(Ordering::Acquire) != expected {
                    if limit.elapsed() > Duration::from_secs(10) {
                        return Err("a caller does not see the new code".into());
                    }
                    std::hint::spin_loop();
                }
                times.push(Duration::from_nanos(seen_at.load(Ordering::Relaxed).saturating_sub(before)));
            }
            Ok(times)
        };
        let times = measure();
        end.store(true, Ordering::Relaxed);
        times
    })
}
