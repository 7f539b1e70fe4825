//! Relocatable objects, linked by every linker that is installed: into a shared library that a C
//! program loads, and into that program itself.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln::globals::GlobalAccess;
use kiln::image::link::LinkError;
use kiln::image::{GlobalSymbols, ObjectOptions, write_object};
use libtest_mimic::Failed;

use crate::machine::{self, Machine};
use crate::{Hosted, Program, corpus, execute, known_program, leaner};

/// A linker.
pub(crate) struct Linker {
    pub(crate) name: &'static str,
    /// Its program; empty for the compiler's own.
    program: &'static str,
}

pub(crate) const LINKERS: [Linker; 4] = [
    Linker { name: "bfd", program: "" },
    Linker { name: "lld", program: "ld.lld" },
    Linker { name: "mold", program: "mold" },
    Linker { name: "wild", program: "wild" },
];

impl Linker {
    /// Makes the folder in which the compiler finds the linker, and returns the option that names
    /// the folder.
    fn option(&self, folder: &Path) -> Result<Option<String>, Failed> {
        if self.program.is_empty() {
            return Ok(None);
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found =
            std::env::split_paths(&path).map(|path| path.join(self.program)).find(|path| path.exists());
        let linker = found.ok_or_else(|| format!("there is no {}", self.program))?;
        let place = folder.join(self.name);
        if !place.exists() {
            std::fs::create_dir(&place)?;
            // The compiler calls `ld`. lld must find its own name, so it is called by a script.
            let ld = place.join("ld");
            std::fs::write(&ld, format!("#!/bin/sh\nexec {} \"$@\"\n", linker.display()))?;
            std::fs::set_permissions(&ld, std::fs::Permissions::from_mode(0o755))?;
        }
        Ok(Some(format!("-B{}", place.display())))
    }

    /// Whether the linker need not be there: see `main.rs`.
    pub(crate) fn is_optional(&self, machine: &Machine) -> bool {
        self.name == "wild" || (self.name == "lld" && machine.name == "s390x")
    }

    /// Returns the linker and the machine if it cannot link for it.
    pub(crate) fn missing(&self, machine: &Machine) -> Option<String> {
        let probe = self.probe(machine, &["-shared", "-fPIC"]);
        probe.err().map(|_| format!("{} for {}", self.name, machine.name))
    }

    /// Links a C program that does nothing.
    fn probe(&self, machine: &Machine, options: &[&str]) -> Result<(), Failed> {
        let folder = tempfile::tempdir()?;
        let source = folder.path().join("probe.c");
        std::fs::write(&source, "int main(void) { return 0; }")?;
        let mut command = Command::new(machine.compiler());
        command.args(options).args(self.option(folder.path())?);
        machine::run(command.arg("-o").arg(folder.path().join("probe")).arg(source))
    }
}

/// Whether an error says that no object can be made of a program yet.
fn cannot_be(error: &LinkError) -> bool {
    matches!(error, LinkError::RoutineConflict { .. } | LinkError::ThreadLocalInObject { .. })
}

/// Makes the object of a program in `folder`, and the arguments with which it is linked. If it has
/// the addresses of globals in data, its globals are symbols, which a C file defines. `None` if it
/// defines a routine of the C library that it needs, or has thread-local data.
fn object(program: &Program, folder: &Path) -> Result<Option<Vec<PathBuf>>, Failed> {
    let make = |globals: GlobalSymbols| {
        let options = ObjectOptions { globals, ..ObjectOptions::default() };
        write_object(&program.artifacts, &program.globals, &options)
    };
    let mut files = Vec::new();
    let is_global = |error: &LinkError| matches!(error, LinkError::GlobalInData { .. });
    let made = make(GlobalSymbols::default()).or_else(|errors| match errors.iter().all(is_global) {
        true => {
            files.push(globals_file(program, folder));
            make(GlobalSymbols::Named)
        }
        false => Err(errors),
    });
    let object = match made {
        Ok(object) => object,
        Err(errors) if errors.iter().all(cannot_be) => return Ok(None),
        Err(errors) => {
            return Err(errors.iter().map(|error| format!("{error}\n")).collect::<String>().into());
        }
    };
    let path = folder.join("program.o");
    std::fs::write(&path, object)?;
    files.push(path);
    Ok(Some(files))
}

/// Writes a C file that defines the globals of a program as symbols of their keys.
pub(crate) fn globals_file(program: &Program, folder: &Path) -> PathBuf {
    let globals = program.globals.keys().enumerate().map(|(number, key)| {
        format!(
            "char global_{number}[4096] __attribute__((aligned(16)));\n\
             __asm__(\".globl \\\"{key}\\\"\\n.set \\\"{key}\\\", global_{number}\");\n"
        )
    });
    let path = folder.join("globals.c");
    std::fs::write(&path, globals.collect::<String>()).expect("a file in a new folder");
    path
}

/// Makes a shared library of a program, and the C program `host` that loads it.
fn shared(
    machine: &Machine,
    linker: &Linker,
    program: &Program,
    host: &str,
    folder: &Path,
) -> Result<Hosted, Failed> {
    let Some(files) = object(program, folder)? else { return Ok(None) };
    let library = folder.join("program.so");
    let mut command = Command::new(machine.compiler());
    // A text relocation is an error.
    command
        .args(["-shared", "-fPIC", "-nostartfiles", "-Wl,-z,text", "-Wl,--fatal-warnings", "-o"])
        .arg(&library);
    machine::run(command.args(files).args(linker.option(folder)?).arg("-lm"))?;
    Ok(Some((machine.compile(&crate::source(host), folder, &[])?, library)))
}

/// Makes a C program of a program and `host`.
fn executable(
    machine: &Machine,
    linker: &Linker,
    program: &Program,
    host: &str,
    folder: &Path,
) -> Result<Hosted, Failed> {
    let Some(files) = object(program, folder)? else { return Ok(None) };
    let more = files.into_iter().map(OsString::from).chain(linker.option(folder)?.map(OsString::from));
    let host = machine.compile(&crate::source(host), folder, &more.collect::<Vec<_>>())?;
    Ok(Some((host, "-".into())))
}

/// A way to link an object.
type MakeHost = fn(&Machine, &Linker, &Program, &str, &Path) -> Result<Hosted, Failed>;

/// Executes the program that `host.c` knows, and the run lines of `tests/clif`.
pub(crate) fn run(machine: &Machine, linker: &Linker) -> Result<(), Failed> {
    let forms: [(MakeHost, &[&str]); 2] = [(shared, &["-shared", "-fPIC"]), (executable, &[])];
    for (make, options) in forms {
        // Old linkers cannot link the C library's start of a program for every machine.
        if linker.probe(machine, options).is_err() {
            continue;
        }
        let form = |machine: &Machine, program: &Program, host: &str, folder: &Path| {
            make(machine, linker, program, host, folder)
        };
        execute(machine, "host.c", &known_program(machine.target())?, false, &form)?;
        corpus::run(machine, GlobalAccess::Slots, &form, true)?;
        let leaner = |machine: &Machine, program: &Program, host: &str, folder: &Path| {
            make(machine, linker, &leaner(program)?, host, folder)
        };
        execute(machine, "host.c", &known_program(machine.target())?, false, &leaner)?;
    }
    Ok(())
}
