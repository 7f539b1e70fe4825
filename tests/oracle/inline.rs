//! Programs whose calls are inlined do what they do without: in memory and from an image. What is
//! made of them does not depend on the order of modules.

use std::sync::atomic::{AtomicUsize, Ordering};

use kiln::Compiler;
use kiln::ir::{Inlining, Module, Target};
use kiln_oracle::forms::same;
use kiln_oracle::generate::{ProgramOptions, program};

use crate::cases::{options, run};
use crate::compare;
use crate::engines::{self, Thunks};

/// Programs that are tried by default.
const CASES: u64 = 200;

#[test]
fn inlined_programs_agree() {
    let calls = AtomicUsize::new(0);
    let cases = run("inlined_programs_agree", CASES, |seed| case(seed, &calls));
    let calls = calls.into_inner();
    println!("{calls} calls were inlined");
    assert!(cases < CASES || calls > 100, "{calls} calls are few");
}

fn case(seed: u64, calls: &AtomicUsize) -> Result<(), String> {
    // Every second program has small functions.
    let options = match seed % 2 {
        0 => ProgramOptions { statements: 15, functions: 8, steps: 60_000, ..options(seed) },
        _ => options(seed),
    };
    let random = program(seed, &options);
    let mut modules = random.modules.clone();
    if !options.anonymous {
        let pieces = modules.iter().enumerate().map(|(number, module)| module.split(number));
        modules = pieces.collect::<Option<Vec<_>>>().ok_or("a definition has no name")?.concat();
    }
    // Small limits leave calls in what is inlined, large ones inline nearly everything.
    let inlining = Inlining::of_size([100, 400, 1500][seed as usize % 3]);
    let compiler = Compiler::new(Target::host()).inline(inlining);
    let compiled = compiler.compile(&modules).map_err(|error| error.to_string())?;
    calls.fetch_add(compiled.stats.inlined_calls, Ordering::Relaxed);
    let turned: Vec<Module> = modules.iter().rev().cloned().collect();
    let other = compiler.compile(&turned).map_err(|error| error.to_string())?;
    if other.artifacts.iter().rev().ne(&compiled.artifacts) {
        return Err("artifacts depend on the order of modules".into());
    }
    check_modules(&modules, inlining)?;

    let expected = engines::interpreted(&random).map_err(|error| format!("interpreter: {error}"))?;
    let mut thunks = Thunks::new(Target::host());
    let (actual, image) = engines::session_with(compiler, &random, &modules, &mut thunks, false)
        .map_err(|error| format!("session: {error}"))?;
    compare(&random, &expected, &actual, "in memory")?;
    let actual = engines::image(&random, &image, &mut thunks).map_err(|error| format!("image: {error}"))?;
    compare(&random, &expected, &actual, "in the image")
}

/// Checks that modules into which calls were inlined have the invariants of a module: the binary
/// form, which a farm gets, is read and verified.
fn check_modules(modules: &[Module], inlining: Inlining) -> Result<(), String> {
    let target = Target::host();
    let isas: Vec<_> = modules.iter().map(|module| target.isa(&module.settings).unwrap()).collect();
    let isas: Vec<_> = isas.iter().map(|isa| &**isa).collect();
    for inlined in kiln::ir::inline(modules, &isas, inlining, false).into_iter().flatten() {
        let bytes = inlined.module.to_bytes();
        let read = kiln::ir::Modules::new(&*bytes).next().ok_or("no module")?;
        let read = read.map_err(|error| error.to_string())?.verify(&target);
        same(&inlined.module, &read.map_err(|error| error.to_string())?)?;
    }
    Ok(())
}
