//! Executes the modules of one file in one of three ways: compiled in memory, compiled to an image,
//! or interpreted.

use std::io::Write as _;
use std::process::Command;
use std::sync::Arc;

use clap::ValueEnum as _;
use kiln::globals::{GlobalTable, SlotKey};
use kiln::image::link::LinkError;
use kiln::image::{ImageOptions, write_image};
use kiln::ir::{Diagnostic, Module, Target};
use kiln::jit::{JitError, JitOptions, Mapping, Memory, MemoryOptions};
use kiln::{Compiler, CompilerError, Session, SessionError};
use kiln_oracle::interpret::{InterpretError, LinkedProgram, Process};

use super::args::{RunArgs, Via};
use super::host::{self, Host};
use super::invocation::{self, Stop};
use super::list::of_this_process;
use super::objects::{Objects, SIZE};
use super::report::{Event, Verdict};
use super::supervise::watch;
use super::thunks::Thunks;
use crate::input::InputFile;
use crate::output::{chain, compiler_lines, first_lines, link_line, name, print_bytes, shown};

/// Compiles and executes the modules `roots` of a file, each for the `target` line whose number is
/// in `numbers`.
pub(super) fn compiled(
    args: &RunArgs,
    target: &Target,
    path: &InputFile,
    numbers: &[usize],
    roots: &[Module],
    others: &[&Module],
) -> Verdict {
    let failed = |reason: String| Verdict::Failed { reason };
    let modules: Vec<Module> = roots.iter().chain(others.iter().copied()).cloned().collect();
    let modules = if args.split_modules {
        match modules
            .iter()
            .enumerate()
            .map(|(number, module)| module.split(number))
            .collect::<Option<Vec<_>>>()
        {
            Some(pieces) => pieces.concat(),
            None => return failed("a definition without a name cannot be in a module of its own".into()),
        }
    } else {
        modules
    };
    if !have_run_lines(roots) {
        // The file is linked by itself. Its imports need no definition, since nothing is called.
        return match image_of(args, target, &modules) {
            Ok(_) => Verdict::Compiled,
            Err(reason) => failed(reason),
        };
    }
    let provided = |name: &str| host::symbol(&SlotKey::Symbol(name.into())).is_some();
    let missing = kiln::ir::undefined(&modules.iter().collect::<Vec<_>>(), &provided);
    if !missing.is_empty() {
        return failed(text(&missing));
    }
    match (args.via, args.image_codegen) {
        (Via::Image, _) => match image_of(args, target, &modules) {
            Ok(image) => in_another_process(args, &image, path, numbers),
            Err(reason) => failed(reason),
        },
        (_, true) => {
            let objects = Objects::default();
            let image = image_of(args, target, &modules);
            match image.and_then(|bytes| super::image::load_bytes(&bytes, &objects, args.profiler)) {
                Ok(loaded) => super::image::execute(&loaded, roots, target, &mut Event::send),
                Err(reason) => failed(reason),
            }
        }
        (_, false) => in_memory(args, target, roots, &modules),
    }
}

/// Returns a session. With `--debug`, debuggers can set breakpoints in its code.
fn session(args: &RunArgs, target: &Target) -> Result<Session, SessionError> {
    let profiler = args.profiler.map(Into::into);
    let memory = if args.debug {
        // A debugger cannot write into code that is mapped twice.
        let options = MemoryOptions { mapping: Mapping::Protect, ..MemoryOptions::default() };
        Some(Memory::reserve(options).map_err(JitError::from)?)
    } else {
        None
    };
    let options = JitOptions { memory, profiler, ..JitOptions::default() };
    Session::with_compiler(args.inline.apply(Compiler::new(target.clone())), options)
}

/// Executes the run lines of `roots` in this process.
fn in_memory(args: &RunArgs, target: &Target, roots: &[Module], modules: &[Module]) -> Verdict {
    let objects = Objects::default();
    let session = session(args, target).and_then(|session| {
        for key in modules.iter().flat_map(Module::globals) {
            session.bind_global(key, objects.address(key)).unwrap();
        }
        session.set_resolver(Arc::new(Host));
        session.add(modules)?;
        Ok(session)
    });
    let session = match session {
        Ok(session) => match session.catch_traps() {
            Ok(()) => session,
            Err(error) => return Verdict::Failed { reason: chain(&error) },
        },
        Err(error) => return Verdict::Failed { reason: session_error(&error, modules) },
    };
    let mut thunks = Thunks::of_each(target, roots);
    let mut execute = |number: usize, function: &kiln::ir::Function, signature: &_, arguments: &[_]| {
        let name = &roots[number].symbol(function.symbol).name;
        let callee = session.function(name).ok_or_else(|| Stop::Failed("the function is local".into()))?;
        thunks[number].call(callee.address(), signature, arguments)
    };
    invocation::all(roots, &mut execute, &mut Event::send)
}

/// Formats the errors of a session, with the names of modules.
fn session_error(error: &SessionError, modules: &[Module]) -> String {
    match error {
        SessionError::Check(diagnostics) => text(diagnostics),
        SessionError::Compile(error) => not_compiled(error),
        SessionError::Jit(JitError::Link { errors, .. }) => not_linked(errors, modules),
        error => chain(error),
    }
}

/// Formats the errors of a compiler, which name modules. The text begins on a new line.
fn not_compiled(error: &CompilerError) -> String {
    let lines = compiler_lines(error, &|module| name(module).into_owned());
    format!("\n{}", first_lines(lines.into_iter()))
}

/// Formats the errors of a linker, with the names of modules. The text begins on a new line.
fn not_linked(errors: &[LinkError], modules: &[Module]) -> String {
    let title =
        |number: usize| modules.get(number).map_or("".into(), |module| name(&module.name).into_owned());
    format!("\n{}", first_lines(errors.iter().map(|error| link_line(error, &title))))
}

/// Links modules to an image, without linking them in memory.
fn image_of(args: &RunArgs, target: &Target, modules: &[Module]) -> Result<Vec<u8>, String> {
    let faults = kiln::ir::check_program(&modules.iter().collect::<Vec<_>>());
    if !faults.is_empty() {
        return Err(text(&faults));
    }
    let compiled = args.inline.apply(Compiler::new(target.clone())).compile(modules);
    let artifacts = compiled.map_err(|error| not_compiled(&error))?.artifacts;
    let mut globals = GlobalTable::new();
    for key in modules.iter().flat_map(Module::globals) {
        globals.intern(key);
    }
    write_image(&artifacts, &globals, &ImageOptions::default()).map_err(|errors| not_linked(&errors, modules))
}

/// Whether any of the modules has a run line.
pub(super) fn have_run_lines(modules: &[Module]) -> bool {
    let mut functions = modules.iter().flat_map(|module| &module.functions);
    functions.any(|function| function.run_lines().next().is_some())
}

/// Interprets the modules `roots` of a file together with the other modules of its program.
pub(super) fn interpreted(roots: &[Module], others: &[&Module]) -> Verdict {
    let modules: Vec<&Module> = roots.iter().chain(others.iter().copied()).collect();
    let program = LinkedProgram::new(&modules);
    let mut process = Process::new(&program, &mut |_| vec![0; SIZE]);
    let mut execute = |number: usize, function: &kiln::ir::Function, _: &_, arguments: &[_]| {
        process.call_symbol(number, function.symbol, arguments).map_err(|error| match error {
            InterpretError::Unsupported(what) => {
                Stop::Skipped(format!("the interpreter cannot execute it: {what}"))
            }
            InterpretError::Trapped(trap) => Stop::Failed(format!("trapped: {trap}")),
            error => Stop::Failed(chain(&error)),
        })
    };
    invocation::all(roots, &mut execute, &mut Event::send)
}

/// Writes the image to a file, and starts another process that loads it and executes the file's
/// run lines.
fn in_another_process(args: &RunArgs, image: &[u8], input: &InputFile, variants: &[usize]) -> Verdict {
    let attempt = || -> std::io::Result<Verdict> {
        // The file has no name, so nothing is left of it, however this process ends.
        let mut file = tempfile::tempfile()?;
        file.write_all(image)?;
        let variants = variants.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("run-image").arg(format!("--variants={variants}"));
        if let Some(profiler) = args.profiler.and_then(|profiler| profiler.to_possible_value()) {
            command.arg(format!("--profiler={}", profiler.get_name()));
        }
        command.arg("--").args([&of_this_process(&file), &input.name, &input.path]);
        let (mut last, mut done) = (None, None);
        let ending = watch(&mut command, args.limit(), &mut |own, event| {
            if let Some(own) = own {
                print_bytes(format!("{own}\n").as_bytes());
            }
            match event {
                Some(Event::Done(verdict)) => done = Some(verdict),
                // This process watches the time limit of the invocation.
                Some(Event::Invoke(place)) => last = Some(place),
                Some(event) => event.send(),
                None => {}
            }
        })?;
        if let (Some(verdict), true) = (done, ending.is_success()) {
            return Ok(verdict);
        }
        let place = last.as_deref().map_or("while it was loaded".into(), name);
        Ok(Verdict::Failed { reason: format!("{}, {place}", ending.reason()) })
    };
    attempt().unwrap_or_else(|error| Verdict::Failed {
        reason: format!("cannot execute its image: {}", chain(&error)),
    })
}

/// Formats the first diagnostics as text that begins on a new line.
pub(super) fn text(diagnostics: &[Diagnostic]) -> String {
    format!("\n{}\n", first_lines(diagnostics.iter().map(shown)))
}
