//! Random programs give the same results in every way to execute them: interpreted, compiled into
//! memory, loaded from an image, both with slots and with addresses in code, and with
//! `cranelift-jit`.
//!
//! The programs survive writing and reading in every form (`forms`). Fingerprints change exactly
//! with what they cover (`fingerprint`). Readers survive bytes that are nearly right (`readers`). A
//! session and an image accept the same programs (`batches`), also when units are replaced and
//! removed (`life`). Programs that were made leaner do the same (`lean`), and those whose calls are
//! inlined (`inline`).
//! `KILN_CASES` and `KILN_SEED` choose the cases: see `cases`.

mod batches;
mod cases;
mod edits;
mod engines;
mod fingerprint;
mod forms;
mod growth;
mod inline;
mod lean;
mod life;
mod modules;
mod readers;
mod rewrite;

use cranelift_codegen::data_value::DisplayDataValues;
use kiln::Compiler;
use kiln::globals::{GlobalAccess, GlobalTable};
use kiln::image::{ImageOptions, write_image};
use kiln::ir::{Module, ModuleSettings, Setting, Target};
use kiln_oracle::generate::{Draft, ProgramOptions, RandomProgram, program, program_for};
use rayon::prelude::*;

use self::cases::{alone, options, run};
use self::engines::{Outcome, Thunks};

/// Programs that are tried by default.
const CASES: u64 = 200;

#[test]
fn all_ways_agree() {
    if let Some(seed) = alone() {
        if let Err(difference) = case(seed) {
            print(&program(seed, &options(seed)));
            panic!("seed {seed}: {difference}");
        }
        return;
    }
    run("all_ways_agree", CASES, case);
}

/// Compiles programs for the machines that this one is not: every operation of a program has code
/// on every machine. Needs the feature `all-arch`.
#[test]
fn other_machines_have_code_for_it() {
    let machines = [("aarch64", true), ("riscv64", false), ("s390x", true)];
    let all = machines.into_iter().flat_map(|machine| GlobalAccess::ALL.map(|access| (machine, access)));
    for ((name, vectors), access) in all {
        let target = Target::parse(name).expect("a known architecture").globals(access);
        if target.isa(&ModuleSettings::default()).is_err() {
            println!("{name}: skipped, needs the feature `all-arch`");
            continue;
        }
        let failed = (0..CASES).into_par_iter().find_map_first(|seed| {
            let options = ProgramOptions { vectors, overflow: vectors, ..options(seed) };
            let random = program_for(seed, &options, &target);
            let image = || -> Result<(), String> {
                let mut globals = GlobalTable::new();
                random.modules.iter().flat_map(Module::globals).for_each(|key| {
                    globals.intern(key);
                });
                let compiled = Compiler::new(target.clone()).compile(&random.modules);
                let artifacts = compiled.map_err(|error| error.to_string())?.artifacts;
                write_image(&artifacts, &globals, &ImageOptions::default())
                    .map_err(|errors| errors.iter().map(ToString::to_string).collect::<String>())?;
                Ok(())
            };
            image().err().map(|error| format!("{name}, seed {seed}: {error}"))
        });
        assert_eq!(failed, None);
    }
}

/// Executes the program of `seed` in all ways.
fn case(seed: u64) -> Result<(), String> {
    let options = options(seed);
    let random = program(seed, &options);
    let mut modules = random.modules.clone();
    for (number, module) in modules.iter_mut().enumerate() {
        // Some modules are compiled with other settings.
        if (seed / 8 + number as u64).is_multiple_of(4) {
            module.settings.shared.push(Setting::new("opt_level", "none"));
        }
    }
    if !options.anonymous {
        // Every definition gets a module of its own.
        let pieces = modules.iter().enumerate().map(|(number, module)| module.split(number));
        modules = pieces.collect::<Option<Vec<_>>>().ok_or("a definition has no name")?.concat();
    }
    let expected = engines::interpreted(&random).map_err(|error| format!("interpreter: {error}"))?;
    let mut thunks = Thunks::new(Target::host());
    for access in GlobalAccess::ALL {
        let name = access.name();
        thunks = Thunks::new(Target::host().globals(access));
        let (actual, image) = engines::session(&random, &modules, &mut thunks, seed.is_multiple_of(2))
            .map_err(|error| format!("session, {name}: {error}"))?;
        compare(&random, &expected, &actual, &format!("in memory, {name}"))?;
        let actual = engines::image(&random, &image, &mut thunks)
            .map_err(|error| format!("image, {name}: {error}"))?;
        compare(&random, &expected, &actual, &format!("in the image, {name}"))?;
    }
    let actual = engines::peer(&Draft::new(seed, &options), &mut thunks)
        .map_err(|error| format!("cranelift-jit: {error}"))?;
    compare(&random, &expected, &actual, "with cranelift-jit")
}

/// Returns the first difference, if there is one.
fn compare(program: &RandomProgram, expected: &Outcome, actual: &Outcome, place: &str) -> Result<(), String> {
    for (number, (entry, (expected, actual))) in
        program.entries.iter().zip(expected.results.iter().zip(&actual.results)).enumerate()
    {
        let same =
            expected.len() == actual.len() && expected.iter().zip(actual).all(|(a, b)| a.bitwise_eq(b));
        if !same {
            return Err(format!(
                "entry {number}, {}({}), gives {} interpreted, {} {place}",
                entry.name,
                DisplayDataValues(&entry.arguments),
                DisplayDataValues(expected),
                DisplayDataValues(actual)
            ));
        }
    }
    for ((key, _), (expected, actual)) in
        program.globals.iter().zip(expected.globals.iter().zip(&actual.globals))
    {
        if let Some(at) = (0..expected.len()).find(|&at| expected[at] != actual[at]) {
            return Err(format!(
                "byte {at} of global {key:?} is {:#x} interpreted, {:#x} {place}",
                expected[at], actual[at]
            ));
        }
    }
    Ok(())
}

/// Prints the parts of a program.
fn print(program: &RandomProgram) {
    for module in &program.modules {
        eprintln!("; module {}", module.name);
        for (number, symbol) in module.symbols.iter().enumerate() {
            eprintln!("; u0:{number} = {:?} {:?} {:?}", symbol.name, symbol.kind, symbol.linkage);
        }
        for data in &module.data {
            let symbol = data.symbol.as_u32();
            eprintln!("; data u0:{symbol} align={} {:?} {:?}", data.align, data.init, data.addresses);
        }
        for function in &module.functions {
            function.ir().iter().for_each(|ir| eprintln!("{ir}"));
        }
    }
}
