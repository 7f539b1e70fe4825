//! Unwind rows are right at every instruction.
//!
//! Programs run instruction by instruction. At each function's first instruction, the truth is
//! recorded: where the caller's frame is, where the function returns to, and what the registers hold
//! that it preserves. At every later instruction, rows must say the same (`truth`), by an evaluator
//! that is independent of what wrote them (`rows`), for all frames of the program. `emulated` does so
//! for each architecture in an emulator, `native` on this machine, where the system's unwinder must
//! agree. `planted` shows that every wrong row would be found.
//!
//! A test that needs a tool that is not installed is reported as ignored, with the name of the tool.
//! If the environment variable `CI` is set, it fails.

mod emulated;
mod native;
mod planted;
mod programs;
mod rows;
mod truth;

use libtest_mimic::{Arguments, Failed, Trial};

use emulated::{MACHINES, Machine};
use programs::{Program, by_hand, random};
use truth::Checker;

/// A test of one machine.
type Way = fn(&Machine) -> Result<(), Failed>;

/// The number of instructions of a program after which it ends early.
const LIMIT: usize = 60_000;

/// Settings of the hand-written program.
const SETTINGS: [(&str, &str); 2] =
    [("by hand", ""), ("probes in line", "set enable_probestack=true\nset probestack_strategy=inline")];

fn main() {
    let in_ci = std::env::var_os("CI").is_some();
    let mut trials = Vec::new();
    for machine in &MACHINES {
        let missing = machine.missing();
        let ways: [(&str, Way); 2] = [("by_hand", hand), ("random", randomly)];
        for (name, way) in ways {
            let name = format!("{}::{name}", machine.name);
            trials.push(match missing.clone() {
                None => Trial::test(name, move || way(machine)),
                Some(missing) => {
                    let needs = format!("needs {missing}");
                    let kind = needs.clone();
                    Trial::test(name, move || Err(needs.into())).with_kind(kind).with_ignored_flag(!in_ci)
                }
            });
        }
    }
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        trials.push(Trial::test("native::by_hand", native_by_hand));
        trials.push(Trial::test("native::random", native_random));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn native_by_hand() -> Result<(), Failed> {
    for (name, settings) in SETTINGS {
        let program = by_hand(name, &kiln::ir::Target::host(), settings)?;
        let checker = native::check(&program)?;
        verdict(&program, &checker)?;
        if settings.is_empty() {
            planted::all_are_found(&program, &checker)?;
        }
    }
    Ok(())
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn native_random() -> Result<(), Failed> {
    for seed in 0..40 {
        let program = random(seed, &kiln::ir::Target::host())?;
        verdict(&program, &native::check(&program)?)?;
    }
    Ok(())
}

/// Fails if rows were wrong anywhere.
fn verdict(program: &Program, checker: &Checker) -> Result<(), Failed> {
    println!("{}: {} instructions", program.name, checker.seen.len());
    match checker.faults.is_empty() {
        true => Ok(()),
        false => Err(format!("{}:\n{}", program.name, checker.faults.join("\n")).into()),
    }
}

fn hand(machine: &Machine) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let host = machine.host(folder.path())?;
    let program = by_hand("by hand", &machine.target(), "")?;
    let checker = machine.check(&host, &program, LIMIT)?;
    verdict(&program, &checker)?;
    Ok(planted::all_are_found(&program, &checker)?)
}

fn randomly(machine: &Machine) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let host = machine.host(folder.path())?;
    for seed in 0..10 {
        let program = random(seed, &machine.target())?;
        verdict(&program, &machine.check(&host, &program, LIMIT)?)?;
    }
    Ok(())
}
