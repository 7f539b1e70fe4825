//! The worker: parses all files, then executes them one after the other, reporting every step on standard output.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kiln::globals::{GlobalTable, SlotKey};
use kiln::ir::{Diagnostic, DiagnosticKind, Module, ModuleSettings, Target};
use kiln::{Session, image};
use kiln_oracle::interpret::{InterpretError, LinkedProgram, Process};

use super::invocation::{self, Stop};
use super::objects::{Objects, SIZE};
use super::program::Definitions;
use super::{Args, Event, Verdict, Via, ending};
use crate::input::{self, Parsed};
use crate::output::{Failure, Outcome, chain};

/// Executes `files` from number `first` on.
pub(super) fn work(args: &Args, files: &[PathBuf], first: usize) -> Outcome {
    let target = Target::host();
    let parsed = input::modules(files, &target, false, |module| module)?;
    let parsed: Vec<_> = parsed.into_iter().map(together).collect();
    let definitions = Definitions::new(files, &parsed);
    for index in first..files.len() {
        Event::File(index).send();
        let verdict = match &parsed[index] {
            Err(diagnostics) => not_modules(diagnostics),
            Ok(roots) if !have_run_lines(roots) => file(args, &target, &files[index], roots, &[]),
            Ok(roots) => match definitions.program(index) {
                Err(reason) => Verdict::Failed { reason },
                Ok(program) => {
                    let others = program.iter().filter(|&&other| other != index);
                    let others: Vec<_> = others.flat_map(|&other| parsed[other].iter().flatten()).collect();
                    file(args, &target, &files[index], roots, &others)
                }
            },
        };
        Event::Done(verdict).send();
    }
    Ok(())
}

/// All modules of a file, or all that is wrong with them.
fn together(parsed: Vec<Parsed>) -> Parsed<Vec<Module>> {
    let mut modules = Vec::with_capacity(parsed.len());
    let mut faults = Vec::new();
    for one in parsed {
        match one {
            Ok(module) => modules.push(module),
            Err(diagnostics) => faults.extend(diagnostics),
        }
    }
    if faults.is_empty() { Ok(modules) } else { Err(faults) }
}

fn not_modules(diagnostics: &[Diagnostic]) -> Verdict {
    let fault = |diagnostic: &&Diagnostic| diagnostic.kind != DiagnosticKind::OtherTarget;
    match (diagnostics.first(), diagnostics.iter().find(fault)) {
        (Some(first), None) => Verdict::Skipped { reason: first.message.to_string() },
        _ => Verdict::Failed { reason: text(diagnostics) },
    }
}

fn text(diagnostics: &[Diagnostic]) -> String {
    let mut text = String::from("\n");
    diagnostics.iter().for_each(|diagnostic| text.push_str(&format!("{diagnostic}\n")));
    text
}

/// Executes one file, its modules together, once for each of the `target` lines that this machine can run.
fn file(args: &Args, target: &Target, path: &Path, roots: &[Module], others: &[&Module]) -> Verdict {
    let tests: Vec<&str> = roots.iter().flat_map(|root| root.settings.tests()).collect();
    if args.via == Via::Interpreter {
        if !tests.is_empty() && !tests.contains(&"interpret") {
            return Verdict::Skipped { reason: "its `test` lines do not ask for the interpreter".into() };
        }
        return interpreted(roots, others);
    }
    if tests.contains(&"interpret") && !tests.contains(&"run") {
        return match interpreted(roots, others) {
            Verdict::Passed { invocations, .. } => Verdict::Passed { invocations, interpreted: true },
            other => other,
        };
    }
    let variants = |root: &Module| variants(target, &root.settings, &image::host_has_feature);
    let variants: Vec<_> = match roots.iter().map(variants).collect() {
        Ok(variants) => variants,
        Err(verdict) => return verdict,
    };
    let mut invocations = 0;
    for time in 0..variants.iter().map(Vec::len).max().unwrap_or(0) {
        // A module with fewer lines than another of the file stays with its last one.
        let chosen = variants.iter().map(|lines| &lines[time.min(lines.len() - 1)]);
        let numbers: Vec<usize> = chosen.clone().map(|(number, _)| *number).collect();
        let roots = roots.iter().zip(chosen);
        let roots: Vec<_> = roots
            .map(|(root, (_, settings))| Module { settings: settings.clone(), ..root.clone() })
            .collect();
        match variant(args, target, path, &numbers, &roots, others) {
            Verdict::Passed { invocations: more, .. } => invocations += more,
            other => return other,
        }
    }
    Verdict::Passed { invocations, interpreted: false }
}

/// The header lines of a file with one `target` line each, by its number, as far as a machine can run them whose features `host_has`
/// knows.
fn variants(
    target: &Target,
    settings: &ModuleSettings,
    host_has: &dyn Fn(&str) -> Option<bool>,
) -> Result<Vec<(usize, ModuleSettings)>, Verdict> {
    if settings.targets.is_empty() {
        return Ok(vec![(0, settings.clone())]);
    }
    let mut variants = Vec::new();
    let mut missing = String::new();
    for (number, line) in settings.targets.iter().enumerate() {
        let one = variant_settings(settings, number);
        if !one.allows(target.triple()) {
            continue;
        }
        let isa = target
            .isa(&one)
            .map_err(|error| Verdict::Failed { reason: format!("line {}: {}", line.line, chain(&error)) })?;
        let wanted = isa.isa_flags().into_iter().filter(|flag| flag.name.starts_with("has_"));
        let wanted = wanted.filter(|flag| flag.as_bool() == Some(true)).map(|flag| flag.name);
        match wanted.into_iter().find(|name| host_has(name) != Some(true)) {
            None => variants.push((number, one)),
            Some(name) => missing = format!("this CPU lacks {name}"),
        }
    }
    if variants.is_empty() { Err(Verdict::Skipped { reason: missing }) } else { Ok(variants) }
}

/// `settings` with only its `target` line `number`, or as they are if they have none.
pub(super) fn variant_settings(settings: &ModuleSettings, number: usize) -> ModuleSettings {
    let targets = settings.targets.get(number).cloned().into_iter().collect();
    ModuleSettings { targets, ..settings.clone() }
}

/// Executes a file with `roots` as its modules, compiled for those of their `target` lines that have these numbers.
fn variant(
    args: &Args,
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
            None => return failed("a definition without a name cannot stand in a module of its own".into()),
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
            // Objects of its own: the program must not see what the session's copy left behind.
            let objects = Objects::default();
            let image = session.image().map_err(|error| chain(&error));
            match image.and_then(|bytes| super::image::load_bytes(&bytes, &objects)) {
                Ok(loaded) => super::image::execute(&loaded, roots, target, &mut Event::send),
                Err(reason) => failed(reason),
            }
        }
        (_, false) => {
            let mut thunks = super::image::Thunks::of_each(target, roots);
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

fn have_run_lines(modules: &[Module]) -> bool {
    let mut functions = modules.iter().flat_map(|module| &module.functions);
    functions.any(|function| function.run_lines().next().is_some())
}

/// A file without run lines is compiled and linked by itself; nobody has to provide what it imports, since nothing is called.
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

fn interpreted(roots: &[Module], others: &[&Module]) -> Verdict {
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

/// Saves the session as an image, and lets another process load it and execute the file's run lines.
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

#[cfg(test)]
mod tests {
    use kiln::ir::TargetLine;

    use super::*;

    fn settings(lines: &[&[&str]]) -> ModuleSettings {
        let triple = Target::host().triple().architecture.to_string();
        let setting = |name: &&str| kiln::ir::Setting::new(name, "true");
        let line = |names: &&[&str]| TargetLine {
            triple: triple.clone().into(),
            settings: names.iter().map(setting).collect(),
            line: 1,
        };
        ModuleSettings { targets: lines.iter().map(line).collect(), ..ModuleSettings::default() }
    }

    /// The names of all features that the host's architecture may have.
    fn features() -> Vec<&'static str> {
        let isa = Target::host().isa(&ModuleSettings::default()).unwrap();
        isa.isa_flags().into_iter().map(|flag| flag.name).filter(|name| name.starts_with("has_")).collect()
    }

    #[test]
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn every_feature_of_the_code_generator_can_be_detected() {
        let unknown: Vec<_> =
            features().into_iter().filter(|name| image::host_has_feature(name).is_none()).collect();
        assert_eq!(unknown, Vec::<&str>::new());
    }

    #[test]
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn a_file_is_skipped_only_if_no_line_fits_the_cpu() {
        let feature = features()[0];
        let (has, lacks) = (|_: &str| Some(true), |name: &str| Some(name != feature));
        let numbers = |lines: &[&[&str]], host_has: &dyn Fn(&str) -> Option<bool>| {
            let variants = variants(&Target::host(), &settings(lines), host_has)?;
            Ok(variants.into_iter().map(|(number, _)| number).collect::<Vec<_>>())
        };
        let skipped = || Verdict::Skipped { reason: format!("this CPU lacks {feature}") };
        assert_eq!(numbers(&[&[feature]], &has), Ok(vec![0]));
        assert_eq!(numbers(&[&[feature]], &lacks), Err(skipped()));
        assert_eq!(numbers(&[&[feature], &[]], &lacks), Ok(vec![1]));
        assert_eq!(numbers(&[&[], &[feature]], &|_| None), Ok(vec![0]));
        assert_eq!(numbers(&[&[feature]], &|_| None), Err(skipped()));
        assert_eq!(numbers(&[], &lacks), Ok(vec![0]));
    }
}
