//! Unwind rows are right at every instruction.
//!
//! Programs run instruction by instruction. At each function's first instruction, the truth is
//! recorded: where the caller's frame is, where the function returns to, and what the registers
//! hold that it preserves. At every later instruction, rows must say the same (`truth`), by an
//! evaluator that is independent of what wrote them (`rows`), for all frames of the program.
//! `emulated` does so for each architecture in an emulator, `native` on this machine, where the
//! system's unwinder must agree, also for code in a session (`sessions`). `planted` shows that
//! every wrong row would be found. `sampler` is a profiler.
//!
//! A test that needs a tool that is not installed is reported as ignored, with the name of the
//! tool. If the environment variable `CI` is set, it fails.

mod emulated;
mod native;
mod planted;
mod programs;
mod rows;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod sampler;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod sessions;
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
        let ways: [(&str, Way); 3] = [("by_hand", hand), ("variant", variant), ("random", randomly)];
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
        trials.push(Trial::test("native::in_a_session", in_a_session));
        trials.push(Trial::test("native::through_stubs", through_stubs));
        trials.push(Trial::test("native::taken_back", taken_back));
        trials.push(Trial::test("native::sampled", || Ok(sampler::in_memory()?)));
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

/// In memory, and with stack probes of both kinds.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn in_a_session() -> Result<(), Failed> {
    for strategy in ["inline", "outline"] {
        let settings = format!("set enable_probestack=true\nset probestack_strategy={strategy}");
        let program = by_hand(strategy, &kiln::ir::Target::host(), &settings)?;
        let mut loaded = sessions::InSession::new(&program)?;
        let checker = native::check_call(loaded.code.clone(), loaded.functions.clone(), || loaded.call());
        verdict(&program, &checker)?;
    }
    Ok(())
}

/// When the memory of code is free, the unwinder knows nothing about it, and before, everything.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn taken_back() -> Result<(), Failed> {
    let program = by_hand("taken back", &kiln::ir::Target::host(), "")?;
    Ok(sessions::rows_come_and_go(&program)?)
}

/// Through the stubs of replaceable functions, and through entries that count their calls, some of
/// which tell the host.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn through_stubs() -> Result<(), Failed> {
    let program = by_hand("through stubs", &kiln::ir::Target::host(), "")?;
    let mut loaded = sessions::InSession::replaceable(&program)?;
    let checker = native::check_call(loaded.code.clone(), loaded.functions.clone(), || {
        (0..3).for_each(|_| loaded.call());
    });
    verdict(&program, &checker)?;
    let stubs = checker.seen.keys().filter(|&&pc| checker.place(pc).starts_with("a stub")).count();
    // Of each function a jump, and of nearly each three instructions of an entry, or four.
    let functions = loaded.functions.len();
    if stubs < 3 * functions {
        return Err(format!("{stubs} instructions of stubs of {functions} functions").into());
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
        false => {
            Err(format!("{}:\n{}", program.name, checker.faults[..checker.faults.len().min(20)].join("\n"))
                .into())
        }
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

/// With stack probes, and with other instructions than those that every CPU has.
fn variant(machine: &Machine) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let host = machine.host(folder.path())?;
    let target = machine.newer.iter().fold(machine.target(), |target, name| target.isa_setting(name, "true"));
    let settings = SETTINGS[1].1;
    let program = by_hand("other instructions, and probes in line", &target, settings)?;
    let mut checker = machine.check(&host, &program, LIMIT)?;
    // On s390x, no rule can say where the frame is in a loop of probes. Rows must say that.
    if machine.name == "s390x" {
        let before = checker.faults.len();
        checker.faults.retain(|fault| !(fault.starts_with("slot70000") && fault.ends_with(rows::UNKNOWN)));
        if checker.faults.len() == before {
            return Err("no loop of probes was executed".into());
        }
    }
    verdict(&program, &checker)
}

fn randomly(machine: &Machine) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let host = machine.host(folder.path())?;
    for seed in 0..6 {
        let program = random(seed, &machine.target())?;
        verdict(&program, &machine.check(&host, &program, LIMIT)?)?;
    }
    Ok(())
}
