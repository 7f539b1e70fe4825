//! Modules with tiers: how soon they run, and how fast in the end.

use std::time::{Duration, Instant};

use cranelift_codegen::Context;
use kiln::ir::{Module, OptLevel, Source, Target, parse};
use kiln::jit::JitOptions;
use kiln::{Compiler, Session, TierPolicy};

use super::function::Peer;
use super::scale::Scale;
use crate::measure::{Contender, interleave};
use crate::report::{Comparison, Goal};
use crate::setup::{Failure, Setup};

type Sum = extern "C" fn(i64) -> i64;

/// A function with a loop that a better compiler makes faster: `sum` of `i * i / 8` and so on.
const TEXT: &str = "function %sum(i64) -> i64 system_v {
    ss0 = explicit_slot 8
block0(v0: i64):
    v1 = iconst.i64 0
    jump block1(v0, v1)
block1(v2: i64, v3: i64):
    v4 = iconst.i64 5
    v5 = imul v0, v4
    v6 = iconst.i64 3
    v7 = bxor v5, v6
    v8 = iconst.i64 8
    v9 = udiv v2, v8
    v10 = iadd v9, v7
    v16 = stack_addr.i64 ss0
    store v10, v16
    v11 = load.i64 v16
    v12 = iadd v3, v11
    v13 = iconst.i64 1
    v14 = isub v2, v13
    brif v14, block1(v14, v12), block2(v12)
block2(v15: i64):
    return v15
}";

fn sum(n: i64) -> i64 {
    (1..=n).map(|i| i / 8 + ((n * 5) ^ 3)).sum()
}

fn session(level: OptLevel) -> Result<Session, Failure> {
    let compiler = Compiler::new(Target::host().opt_level(level));
    Ok(Session::with_compiler(compiler, JitOptions::default())?)
}

fn module(level: OptLevel) -> Result<Module, Failure> {
    let source = std::sync::Arc::new(Source::new("sum", TEXT));
    parse(source, &Target::host().opt_level(level))
        .map_err(|faults| faults.first().map_or_else(String::new, ToString::to_string).into())
}

/// Returns the function of a session.
fn function(session: &Session) -> Result<Sum, Failure> {
    let function = session.function("sum").ok_or("no function")?;
    // SAFETY: the function has this type; the session outlives its use, and what is replaced is not
    // called.
    Ok(unsafe { function.typed::<Sum>() }?)
}

/// Compares the first call with `none`, and the calls at the end with `speed`.
pub(super) fn compare(
    peer: &Peer,
    setup: &Setup,
    scale: Scale,
    comparison: &mut Comparison,
) -> Result<(), Failure> {
    first_call(peer, setup, scale, comparison)?;
    steady_state(setup, scale, comparison)
}

/// Runs `add`, and the first call; each in a new session.
fn first_call(peer: &Peer, setup: &Setup, scale: Scale, comparison: &mut Comparison) -> Result<(), Failure> {
    let (none, tiered) = (module(OptLevel::None)?, module(OptLevel::None)?);
    let (at_none, in_tiers) = ("add at none and first call, kiln", "add_tiered and first call, kiln");
    let theirs = "define at none, finalize and first call, cranelift-jit";
    let repeats = scale.repeats();
    let turn = |add: &dyn Fn(&Session) -> Result<(), Failure>| -> Result<Vec<Duration>, Failure> {
        let mut time = Duration::ZERO;
        for _ in 0..repeats {
            let session = session(OptLevel::None)?;
            let start = Instant::now();
            add(&session)?;
            let result = function(&session)?(8);
            time += start.elapsed();
            if result != sum(8) {
                return Err(format!("sum returned {result}").into());
            }
        }
        Ok(vec![time / repeats as u32])
    };
    let ir = none.functions[0].ir().ok_or("no IR")?;
    let mut context = Context::new();
    let contenders = vec![
        Contender::in_parts(at_none, &[""], || {
            turn(&|session| {
                session.add(std::slice::from_ref(&none))?;
                Ok(())
            })
        }),
        Contender::in_parts(in_tiers, &[""], || {
            turn(&|session| {
                session.add_tiered(std::slice::from_ref(&tiered), TierPolicy::default())?;
                Ok(())
            })
        }),
        Contender::in_parts(theirs, &[""], || {
            let mut time = Duration::ZERO;
            for _ in 0..repeats {
                let mut module = peer.module();
                let start = Instant::now();
                let address = peer.define_alone(&mut module, "sum", &ir, &mut context)?;
                // SAFETY: the function has this type, and the module is not freed.
                let result = unsafe { std::mem::transmute::<*const u8, Sum>(address) }(8);
                time += start.elapsed();
                if result != sum(8) {
                    return Err(format!("sum returned {result}").into());
                }
                super::one::free(module);
            }
            Ok(vec![time / repeats as u32])
        }),
    ];
    comparison.add(interleave(setup.rounds, contenders)?);
    comparison.ratio(in_tiers, at_none, Goal::AtMost(1.1));
    comparison.ratio(in_tiers, theirs, Goal::None);
    Ok(())
}

/// Runs calls once the last tier is there.
fn steady_state(setup: &Setup, scale: Scale, comparison: &mut Comparison) -> Result<(), Failure> {
    let speed = session(OptLevel::Speed)?;
    speed.add(&[module(OptLevel::Speed)?])?;
    let tiered = session(OptLevel::None)?;
    let handles = tiered.add_tiered(&[module(OptLevel::None)?], TierPolicy::default())?;
    handles[0].optimize()?;
    let repeats = scale.repeats() * 10;
    let turn = |sum_of: Sum, n: i64| -> Result<Vec<Duration>, Failure> {
        let start = Instant::now();
        for _ in 0..repeats {
            let result = std::hint::black_box(sum_of)(std::hint::black_box(n));
            if result != sum_of_checked(n) {
                return Err(format!("sum returned {result}").into());
            }
        }
        Ok(vec![start.elapsed() / repeats as u32])
    };
    let (fast, slow) = (function(&speed)?, function(&tiered)?);
    for (length, goal) in [(1000, Goal::AtMost(1.02)), (1, Goal::None)] {
        let at_speed = format!("a call with a loop of {length} at speed, kiln");
        let in_tiers = format!("a call with a loop of {length} in the last tier, kiln");
        let contenders = vec![
            Contender::in_parts(&at_speed, &[""], || turn(fast, length)),
            Contender::in_parts(&in_tiers, &[""], || turn(slow, length)),
        ];
        comparison.add(interleave(setup.rounds, contenders)?);
        comparison.ratio(&in_tiers, &at_speed, goal);
    }
    comparison.note("tiers: the last tier is called through its stub, which a loop of 1 shows");
    Ok(())
}

/// Returns the result for the lengths that are measured, without a loop in the time.
fn sum_of_checked(n: i64) -> i64 {
    static KNOWN: std::sync::OnceLock<[(i64, i64); 2]> = std::sync::OnceLock::new();
    let known = KNOWN.get_or_init(|| [1000, 1].map(|n| (n, sum(n))));
    known.iter().find(|(length, _)| *length == n).map_or_else(|| sum(n), |(_, sum)| *sum)
}
