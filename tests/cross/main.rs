//! Images for every architecture, loaded by the C library of that architecture: under qemu-user, or
//! natively if it is the host's.
//!
//! `program` calls everything in `program.clif` and `library.clif` from `host.c`; `unoptimized` and
//! `newer_cpu` do so with other settings. `corpus` executes the run lines of `tests/clif` through
//! entry thunks that are part of the image. `far` executes the veneers of a module that is larger
//! than a call reaches. `object` does the first and the third with relocatable objects, which each
//! linker makes a shared library of, and an executable. `lean` does them with leaner programs.
//! `threads` uses thread-local data from many threads at once, and unloads it.
//!
//! A test that needs a tool that is not installed is reported as ignored, with the name of the
//! tool. If the environment variable `CI` is set, it fails, unless `.ci/run` cannot install the
//! tool: Debian has no wild, and an lld that does not know s390x yet.

mod corpus;
mod machine;
mod object;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln::Compiler;
use kiln::artifact::Artifact;
use kiln::globals::{GlobalAccess, GlobalTable};
use kiln::image::link::{LeanOptions, Roots, lean};
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
        let ways: [(&str, Way); 8] = [
            ("program", |machine| program(machine, machine.target().opt_level(OptLevel::Speed), false)),
            ("unoptimized", |machine| program(machine, machine.target().opt_level(OptLevel::None), false)),
            ("newer_cpu", |machine| program(machine, machine.newer_target(), true)),
            ("corpus", |machine| corpus::run(machine, GlobalAccess::Slots, &image_of, false)),
            ("lean", lean_programs),
            ("direct", direct),
            ("threads", threads),
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
    for (machine, linker) in
        MACHINES.iter().flat_map(|machine| object::LINKERS.iter().map(move |l| (machine, l)))
    {
        let name = format!("{}::object_{}", machine.name, linker.name);
        let missing = machine.missing().map(|missing| (missing, !in_ci));
        let may_be_missing = !in_ci || linker.is_optional(machine);
        trials.push(match missing.or_else(|| Some((linker.missing(machine)?, may_be_missing))) {
            None => Trial::test(name, move || object::run(machine, linker)),
            Some((missing, ignored)) => {
                let needs = format!("needs {missing}");
                let kind = needs.clone();
                Trial::test(name, move || Err(needs.into())).with_kind(kind).with_ignored_flag(ignored)
            }
        });
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// The module in `text`, for `target`.
fn module(name: &str, text: &str, target: &Target) -> Result<Module, Failed> {
    parse(Arc::new(Source::new(name, text)), target)
        .map_err(|faults| faults.iter().map(|fault| format!("{fault}\n")).collect::<String>().into())
}

/// Modules that are compiled, and the globals that they use in the order of their slots.
struct Program {
    artifacts: Vec<Artifact>,
    globals: GlobalTable,
}

/// Compiles modules that fit together.
fn compile(modules: &[Module], target: Target) -> Result<Program, Failed> {
    let faults = check_program(&modules.iter().collect::<Vec<_>>());
    if !faults.is_empty() {
        return Err(faults.iter().map(|fault| format!("{fault}\n")).collect::<String>().into());
    }
    let mut globals = GlobalTable::new();
    for key in modules.iter().flat_map(Module::globals) {
        globals.intern(key);
    }
    let artifacts = Compiler::new(target).compile(modules)?.artifacts;
    Ok(Program { artifacts, globals })
}

/// A C program and its argument, which it takes for the image of a program. `None` if the program
/// cannot have that form.
type Hosted = Option<(PathBuf, PathBuf)>;

/// Makes the image of a program, and the C program `host` that loads it, in `folder`.
fn image_of(machine: &Machine, program: &Program, host: &str, folder: &Path) -> Result<Hosted, Failed> {
    let image = write_image(&program.artifacts, &program.globals, &ImageOptions::default())
        .map_err(|errors| errors.iter().map(|error| format!("{error}\n")).collect::<String>())?;
    let path = folder.join("program.so");
    kiln::image::save(&path, &image)?;
    Ok(Some((machine.compile(&source(host), folder, &[])?, path)))
}

/// Thread-local data of an image, in many threads at once.
fn threads(machine: &Machine) -> Result<(), Failed> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clif/thread_local.clif");
    let target = machine.target();
    let program = compile(&[module("thread_local.clif", &std::fs::read_to_string(path)?, &target)?], target)?;
    let folder = tempfile::tempdir()?;
    let hosted = image_of(machine, &program, "threads.c", folder.path())?;
    let (host, image) = hosted.ok_or("an image can have any program")?;
    let output = machine.command(&host, false).arg(image).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.success() { Ok(()) } else { Err(text.into_owned().into()) }
}

/// A way from a program to a C program that executes it.
type Form<'f> = &'f dyn Fn(&Machine, &Program, &str, &Path) -> Result<Hosted, Failed>;

/// The same as `program` and `corpus`, with leaner programs.
fn lean_programs(machine: &Machine) -> Result<(), Failed> {
    let form = |machine: &Machine, program: &Program, host: &str, folder: &Path| {
        image_of(machine, &leaner(program)?, host, folder)
    };
    execute(machine, "host.c", &known_program(machine.target())?, false, &form)?;
    corpus::run(machine, GlobalAccess::Slots, &form, false)
}

/// The same as `program` and `corpus`, with code that contains addresses, which the C library
/// relocates. Globals are symbols of the host.
fn direct(machine: &Machine) -> Result<(), Failed> {
    let target = machine.target().globals(GlobalAccess::Direct);
    execute(machine, "host.c", &known_program(target)?, false, &image_of)?;
    corpus::run(machine, GlobalAccess::Direct, &direct_image_of, false)
}

/// The same as `image_of`, with a host that has the program's globals.
fn direct_image_of(
    machine: &Machine,
    program: &Program,
    host: &str,
    folder: &Path,
) -> Result<Hosted, Failed> {
    let Some((_, path)) = image_of(machine, program, host, folder)? else { return Ok(None) };
    let globals = object::globals_file(program, folder).into_os_string();
    Ok(Some((machine.compile(&source(host), folder, &[globals])?, path)))
}

/// Folds equal functions of a program, and puts nearly all functions in another order, so that most
/// of them are in a part of a module of their own.
fn leaner(program: &Program) -> Result<Program, Failed> {
    let symbols = program.artifacts.iter().rev().flat_map(|artifact| {
        let named = artifact.symbols().iter().rev().map(|symbol| artifact.name(symbol).into());
        named.collect::<Vec<Box<str>>>()
    });
    // Every fifth function stays with the data of its module.
    let order = symbols.enumerate().filter(|(number, _)| number % 5 != 0).map(|(_, name)| name);
    let options = LeanOptions { roots: Some(Roots::Exports), fold: true, order: order.collect() };
    let lean = lean(&program.artifacts, &options)
        .map_err(|errors| errors.iter().map(|error| format!("{error}\n")).collect::<String>())?;
    Ok(Program { artifacts: lean.artifacts, globals: program.globals.clone() })
}

/// Compiles the program that `host.c` knows for `target`.
fn known_program(target: Target) -> Result<Program, Failed> {
    let modules = [
        module("program.clif", include_str!("program.clif"), &target)?,
        module("library.clif", include_str!("library.clif"), &target)?,
    ];
    let program = compile(&modules, target)?;
    // `host.c` fills the slots in this order.
    assert_eq!(program.globals.keys().collect::<Vec<_>>(), ["host:counter", "host:table"]);
    Ok(program)
}

/// The program that `host.c` knows, compiled for `target`, as an image.
fn program(machine: &Machine, target: Target, newer: bool) -> Result<(), Failed> {
    execute(machine, "host.c", &known_program(target)?, newer, &image_of)
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
    execute(machine, "far.c", &compile(&[module], machine.target())?, false, &image_of)
}

/// Runs the C program `host` with `program`.
fn execute(
    machine: &Machine,
    host: &str,
    program: &Program,
    newer: bool,
    form: Form<'_>,
) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let (host, image) = form(machine, program, host, folder.path())?.ok_or("it has no such form")?;
    let output = machine.command(&host, newer).arg(image).output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Err(format!("{}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cross").join(name)
}
