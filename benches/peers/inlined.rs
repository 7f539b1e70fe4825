//! Comparison J: calls of small functions of other modules, inlined and not.

use kiln::ir::{Inlining, Module, Source, Target, parse};
use kiln::jit::JitOptions;
use kiln::{Compiler, Session};

use crate::measure::{Contender, interleave};
use crate::report::{Comparison, Goal};
use crate::setup::{Failure, Setup};
use crate::workload::Workload;

/// Accessors of an array, as a run-time library has them.
const ARRAY: &str = "
function %get(i64, i64) -> i64 {
block0(v0: i64, v1: i64):
    v2 = iconst.i64 3
    v3 = ishl v1, v2
    v4 = iadd v0, v3
    v5 = load.i64 notrap v4
    return v5
}
function %set(i64, i64, i64) {
    fn0 = %clamp(i64) -> i64
block0(v0: i64, v1: i64, v2: i64):
    v3 = iconst.i64 3
    v4 = ishl v1, v3
    v5 = iadd v0, v4
    v6 = call fn0(v2)
    store notrap v6, v5
    return
}";

const NUMBERS: &str = "
function %clamp(i64) -> i64 {
block0(v0: i64):
    v1 = iconst.i64 1000
    v2 = smin v0, v1
    v3 = iconst.i64 -1000
    v4 = smax v2, v3
    return v4
}
function %mix(i64, i64) -> i64 {
block0(v0: i64, v1: i64):
    v2 = iconst.i64 31
    v3 = imul v0, v2
    v4 = bxor v3, v1
    return v4
}";

/// Goes over an array of this length, and mixes its elements.
const PROGRAM: &str = "
function %go(i64, i64) -> i64 {
    fn0 = %get(i64, i64) -> i64
    fn1 = %set(i64, i64, i64)
    fn2 = %mix(i64, i64) -> i64
block0(v0: i64, v1: i64):
    v2 = iconst.i64 0
    jump block1(v2, v2)
block1(v3: i64, v4: i64):
    v5 = call fn0(v0, v3)
    v6 = call fn2(v4, v5)
    v7 = iadd v5, v3
    call fn1(v0, v3, v7)
    v8 = iconst.i64 1
    v9 = iadd v3, v8
    v10 = icmp ult v9, v1
    brif v10, block1(v9, v6), block2
block2:
    return v6
}";

/// The length of the array, and the number of rounds over it in a turn.
const LENGTH: usize = 1000;
const ROUNDS: usize = 300;

/// Does what the program does.
fn expected() -> i64 {
    let mut array = vec![1_i64; LENGTH];
    let mut mixed = 0_i64;
    for _ in 0..ROUNDS {
        let mut own = 0_i64;
        for (at, element) in array.iter_mut().enumerate() {
            own = own.wrapping_mul(31) ^ *element;
            *element = (*element + at as i64).clamp(-1000, 1000);
        }
        mixed = mixed.wrapping_add(own);
    }
    mixed
}

fn turn(session: &Session) -> Result<i64, Failure> {
    let go = session.function("go").ok_or("no function")?;
    // SAFETY: the code was just compiled, and writes as many numbers as it is told.
    let go = unsafe { go.typed::<extern "C" fn(i64, i64) -> i64>() }?;
    let mut array = vec![1_i64; LENGTH];
    let (mut mixed, address) = (0_i64, array.as_mut_ptr() as i64);
    for _ in 0..ROUNDS {
        mixed = mixed.wrapping_add(go(address, LENGTH as i64));
    }
    Ok(mixed)
}

/// Compares a loop that calls small functions of other modules with the same loop, inlined.
pub(crate) fn compare(setup: &Setup) -> Result<Comparison, Failure> {
    let mut comparison = Comparison::new("a loop of calls", "J. small functions of other modules, inlined");
    let target = Target::host();
    let module = |(name, text): (&str, &str)| {
        parse(Source::new(name, text.to_owned()).into(), &target).map_err(|faults| faults[0].to_string())
    };
    let modules = [("array", ARRAY), ("numbers", NUMBERS), ("program", PROGRAM)];
    let modules: Vec<Module> = modules.into_iter().map(module).collect::<Result<_, _>>()?;
    let session = |compiler: Compiler| -> Result<Session, Failure> {
        let session = Session::with_compiler(compiler, JitOptions::default())?;
        session.add(&modules)?;
        Ok(session)
    };
    let compiler = Compiler::new(target.clone()).pool(setup.pool.clone());
    let (off, on) = (session(compiler.clone())?, session(compiler.inline(Inlining::default()))?);
    // `clamp` into `set`, and all of them into the program.
    let calls = on.stats().inlined_calls;
    if calls != 5 {
        return Err(format!("{calls} calls are inlined").into());
    }
    let right = expected();
    let check = |result: i64| if result == right { Ok(()) } else { Err(Failure::from("a wrong result")) };
    let (called, inlined) = ("a loop with calls", "the loop, inlined");
    comparison.add(interleave(
        setup.rounds,
        vec![Contender::new(called, || check(turn(&off)?)), Contender::new(inlined, || check(turn(&on)?))],
    )?);
    comparison.ratio(called, inlined, Goal::AtLeast(1.2));
    comparison.check(format!("{ROUNDS} rounds over {LENGTH} numbers give the right result"));
    Ok(comparison)
}

/// Compares the times of compiling a program with inlining and without.
pub(crate) fn compiling(workload: &Workload, setup: &Setup) -> Result<Comparison, Failure> {
    let mut comparison = Comparison::new(&workload.name, "J. small functions of other modules, inlined");
    let off = Compiler::new(workload.target.clone()).pool(setup.pool.clone());
    // Its functions are larger than those that are worth inlining.
    let on = off.clone().inline(Inlining::of_size(100));
    let stats = on.compile(&workload.modules)?.stats;
    let (plain, inlining) = ("compile", "inline and compile");
    let compile = |compiler: &Compiler| compiler.compile(&workload.modules).map(drop).map_err(Failure::from);
    comparison.add(interleave(
        setup.rounds,
        vec![Contender::new(plain, || compile(&off)), Contender::new(inlining, || compile(&on))],
    )?);
    comparison.ratio(inlining, plain, Goal::None);
    comparison.note(format!("{} calls are inlined", stats.inlined_calls));
    Ok(comparison)
}
