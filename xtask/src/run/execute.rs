//! The ways to execute the modules of one file: compiled in memory, compiled to an image, or
//! interpreted.

use std::path::Path;
use std::process::{Command, Stdio};

use kiln::globals::{GlobalTable, SlotKey};
use kiln::ir::{Diagnostic, Module, Target};
use kiln::{Session, image};
use kiln_oracle::interpret::{InterpretError, LinkedProgram, Process};

use super::args::{RunArgs, Via};
use super::invocation::{self, Stop};
use super::objects::{Objects, SIZE};
use super::report::{Event, Verdict, ending};
use super::thunks::Thunks;
use crate::output::{Failure, chain};

/// Compiles and executes the modules `roots` of a file, each for the `target` line whose number is
/// in `numbers`.
pub(super) fn compiled(
    args: &RunArgs,
    target: &Target,
    path: &Path,
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
        return linked(target, &modules);
    }
    let provided = |name: &str| kiln::jit::libcalls::process(&SlotKey::Symbol(name.into())).is_some();
    let missing = kiln::ir::undefined(&modules.iter().collect::<Vec<_>>(), &provided);
    if !missing.is_empty() {
        return failed(text(&missing));
    }
    let objects = Objects::default();
    let session = Session::new(target.clone()).and_then(|mut session| {
        for key in modules.iter().flat_map(Module::globals) {
            session.bind_global(key, objects.address(key));
        }
        session.add(&modules)?;
        Ok(session)
    });
    let session = match session {
        Ok(session) => session,
        Err(kiln::SessionError::Check(diagnostics)) => return failed(text(&diagnostics)),
        Err(error) => return failed(chain(&error)),
    };
    match (args.via, args.image_codegen) {
        (Via::Image, _) => in_another_process(&session, path, numbers),
        (_, true) => {
            // With new objects: the session's copy of the program may have written to the others.
            let objects = Objects::default();
            let image = session.image().map_err(|error| chain(&error));
            match image.and_then(|bytes| super::image::load_bytes(&bytes, &objects)) {
                Ok(loaded) => super::image::execute(&loaded, roots, target, &mut Event::send),
                Err(reason) => failed(reason),
            }
        }
        (_, false) => {
            let mut thunks = Thunks::of_each(target, roots);
            let mut execute =
                |number: usize, function: &kiln::ir::Function, signature: &_, arguments: &[_]| {
                    let name = &roots[number].symbol(function.symbol).name;
                    let callee =
                        session.function(name).ok_or_else(|| Stop::Failed("the function is local".into()))?;
                    thunks[number].call(callee.address(), signature, arguments)
                };
            invocation::all(roots, &mut execute, &mut Event::send)
        }
    }
}

/// Whether any of the modules has a run line.
pub(super) fn have_run_lines(modules: &[Module]) -> bool {
    let mut functions = modules.iter().flat_map(|module| &module.functions);
    functions.any(|function| function.run_lines().next().is_some())
}

/// Compiles and links a file without run lines by itself. Its imports need no definition, since
/// nothing is called.
fn linked(target: &Target, modules: &[Module]) -> Verdict {
    let faults = kiln::ir::check_program(&modules.iter().collect::<Vec<_>>());
    if !faults.is_empty() {
        return Verdict::Failed { reason: text(&faults) };
    }
    let compiled = match kiln::Compiler::new(target.clone()).compile(modules) {
        Ok(compiled) => compiled,
        Err(error) => return Verdict::Failed { reason: chain(&error) },
    };
    match image::write_image(&compiled.artifacts, &GlobalTable::new(), &image::ImageOptions::default()) {
        Ok(_) => Verdict::Passed { invocations: 0, interpreted: false },
        Err(errors) => {
            let errors: Vec<_> = errors.iter().map(|error| chain(error)).collect();
            Verdict::Failed { reason: errors.join("\n") }
        }
    }
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

/// Saves the session as an image, and starts another process that loads it and executes the file's
/// run lines.
fn in_another_process(session: &Session, path: &Path, variants: &[usize]) -> Verdict {
    let attempt = || -> Result<Verdict, Failure> {
        let folder = tempfile::tempdir().map_err(Failure::of)?;
        let image = folder.path().join("program.so");
        session.save_image(&image).map_err(Failure::of)?;
        let variants = variants.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let output = Command::new(std::env::current_exe().map_err(Failure::of)?)
            .arg("run-image")
            .args([&image, path])
            .arg(format!("--variants={variants}"))
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .map_err(Failure::of)?;
        let (mut last, mut done) = (None, None);
        for line in output.stdout.split_inclusive(|&byte| byte == b'\n') {
            let (own, event) = Event::receive(line.strip_suffix(b"\n").unwrap_or(line));
            if let Some(own) = own {
                println!("{own}");
            }
            match event {
                Some(Event::Done(verdict)) => done = Some(verdict),
                Some(Event::Invoke(place)) => last = Some(place),
                Some(event) => event.send(),
                None => {}
            }
        }
        if let (Some(verdict), true) = (done, output.status.success()) {
            return Ok(verdict);
        }
        let place = last.as_deref().unwrap_or("while it was loaded");
        Ok(Verdict::Failed { reason: format!("{}, {place}", ending(output.status)) })
    };
    attempt().unwrap_or_else(|failure| match failure {
        Failure::Message(reason) => Verdict::Failed { reason },
        Failure::Reported => Verdict::Failed { reason: String::new() },
    })
}

/// The diagnostics as text, which begins on a new line.
pub(super) fn text(diagnostics: &[Diagnostic]) -> String {
    let mut text = String::from("\n");
    diagnostics.iter().for_each(|diagnostic| text.push_str(&format!("{diagnostic}\n")));
    text
}
