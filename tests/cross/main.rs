//! Images for every architecture, loaded by the C library of that architecture: under qemu-user, or
//! natively if it is the host's.
//!
//! `program` calls everything in `program.clif` and `library.clif` from `host.c`; `unoptimized` and
//! `newer_cpu` do so with other settings. `corpus` executes the run lines of `tests/clif` through
//! entry thunks that are part of the image. `far` executes the veneers of a module that is larger
//! than a call reaches.
//!
//! A test that needs a tool that is not installed is reported as ignored, with the name of the
//! tool. If the environment variable `CI` is set, it fails.

mod corpus;
mod machine;

use std::path::Path;
use std::sync::Arc;

use kiln::Compiler;
use kiln::globals::GlobalTable;
use kiln::image::{ImageOptions, write_image};
use kiln::ir::{Code, Module, OptLevel, Source, Target, check_program, parse};
use libtest_mimic::{Arguments, Failed, Trial};

use machine::{MACHINES, Machine};

/// A test of one machine.
type Way = fn(&Machine) -> Result<(), Failed>;

fn main() {
    let in_ci = std::env::var_os("CI").is_some();
    let mut trials = Vec::new();
    for machine in &MACHINES {
        let missing = machine.missing();
        let ways: [(&str, Way); 5] = [
            ("program", |machine| program(machine, machine.target().opt_level(OptLevel::Speed), false)),
            ("unoptimized", |machine| program(machine, machine.target().opt_level(OptLevel::None), false)),
            ("newer_cpu", |machine| program(machine, machine.newer_target(), true)),
            ("corpus", corpus::run),
            ("far", far),
        ];
        for (name, way) in ways {
            // A call of the other machines reaches every program.
            let is_far = name == "far" && machine.name != "aarch64";
            if is_far || (name == "newer_cpu" && machine.newer.is_empty()) {
                continue;
            }
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
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// The module in `text`, for `target`.
fn module(name: &str, text: &str, target: &Target) -> Result<Module, Failed> {
    parse(Arc::new(Source::new(name, text)), target)
        .map_err(|faults| faults.iter().map(|fault| format!("{fault}\n")).collect::<String>().into())
}

/// The image of `modules`, and the keys of its globals in the order of their slots.
fn image(modules: &[Module], target: Target) -> Result<(Vec<u8>, GlobalTable), Failed> {
    let faults = check_program(&modules.iter().collect::<Vec<_>>());
    if !faults.is_empty() {
        return Err(faults.iter().map(|fault| format!("{fault}\n")).collect::<String>().into());
    }
    let mut globals = GlobalTable::new();
    for key in modules.iter().flat_map(Module::globals) {
        globals.intern(key);
    }
    let compiled = Compiler::new(target).compile(modules)?;
    let image = write_image(&compiled.artifacts, &globals, &ImageOptions::default())
        .map_err(|errors| errors.iter().map(|error| format!("{error}\n")).collect::<String>())?;
    Ok((image, globals))
}

/// The program that `host.c` knows, compiled for `target`.
fn program(machine: &Machine, target: Target, newer: bool) -> Result<(), Failed> {
    let modules = [
        module("program.clif", include_str!("program.clif"), &target)?,
        module("library.clif", include_str!("library.clif"), &target)?,
    ];
    let (image, globals) = image(&modules, target)?;
    // `host.c` fills the slots in this order.
    assert_eq!(globals.keys().collect::<Vec<_>>(), ["host:counter", "host:table"]);
    execute(machine, "host.c", &image, newer)
}

/// A module of more code than a call reaches, which has veneers.
fn far(machine: &Machine) -> Result<(), Failed> {
    let mut module = module("far.clif", include_str!("far.clif"), &machine.target())?;
    for function in &mut module.functions {
        if let Code::Machine(code) = &mut function.code {
            // Neither end of the module reaches the other, and the middle does not reach both.
            code.bytes = vec![0; 90_000_000].into();
        }
    }
    let (image, _) = image(&[module], machine.target())?;
    execute(machine, "far.c", &image, false)
}

/// Runs the C program `host` with `image`.
fn execute(machine: &Machine, host: &str, image: &[u8], newer: bool) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("program.so");
    kiln::image::save(&path, image)?;
    let host = machine.compile(&source(host), folder.path())?;
    let output = machine.command(&host, newer).arg(&path).output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Err(format!("{}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}

fn source(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cross").join(name)
}
