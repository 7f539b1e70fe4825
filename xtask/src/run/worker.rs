//! The worker: parses all files, then executes them one after the other, reporting every step on standard output.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kiln::globals::{GlobalTable, SlotKey};
use kiln::ir::{Diagnostic, DiagnosticKind, Module, ModuleSettings, Target};
use kiln::{Session, image};
use kiln_oracle::interpret::{Error, Process, Program};

use super::invocation::{self, Stop};
use super::objects::{Objects, SIZE};
use super::program::Definitions;
use super::{Args, Event, Verdict, Via, ending};
use crate::input;
use crate::output::{Failure, Outcome};

/// Executes `files` from number `first` on.
pub(super) fn work(args: &Args, files: &[PathBuf], first: usize) -> Outcome {
    let target = Target::host();
    let parsed = input::modules(files, &target, false)?;
    let mut modules = Vec::with_capacity(files.len());
    let mut errors: Vec<Vec<Diagnostic>> = Vec::with_capacity(files.len());
    for file in parsed {
        match file {
            Ok(module) => {
                modules.push(Some(module));
                errors.push(Vec::new());
            }
            Err(diagnostics) => {
                modules.push(None);
                errors.push(diagnostics);
            }
        }
    }
    let definitions = Definitions::new(&modules);
    for index in first..files.len() {
        Event::File(index).send();
        let verdict = match &modules[index] {
            None => not_a_module(&errors[index]),
            Some(root) if !has_run_lines(root) => file(args, &target, &files[index], root, &[]),
            Some(root) => match definitions.program(index) {
                Err(reason) => Verdict::Failed { reason },
                Ok(program) => {
                    let others: Vec<_> = program.iter().filter(|&&other| other != index).collect();
                    let others: Vec<_> =
                        others.into_iter().filter_map(|&other| modules[other].as_ref()).collect();
                    file(args, &target, &files[index], root, &others)
                }
            },
        };
        Event::Done(verdict).send();
    }
    Ok(())
}

fn not_a_module(diagnostics: &[Diagnostic]) -> Verdict {
    match diagnostics {
        [only] if only.kind == DiagnosticKind::OtherTarget => {
            Verdict::Skipped { reason: only.message.to_string() }
        }
        _ => Verdict::Failed { reason: text(diagnostics) },
    }
}

fn text(diagnostics: &[Diagnostic]) -> String {
    let mut text = String::from("\n");
    diagnostics.iter().for_each(|diagnostic| text.push_str(&format!("{diagnostic}\n")));
    text
}

/// Executes one file, once for each of its `target` lines that this machine can run.
fn file(args: &Args, target: &Target, path: &Path, root: &Module, others: &[&Module]) -> Verdict {
    let asks = |command: &str| root.settings.tests().any(|test| test == command);
    if args.via == Via::Interpreter {
        if root.settings.tests().next().is_some() && !asks("interpret") {
            return Verdict::Skipped { reason: "its `test` lines do not ask for the interpreter".into() };
        }
        return interpreted(root, others);
    }
    if asks("interpret") && !asks("run") {
        return match interpreted(root, others) {
            Verdict::Passed { invocations, .. } => Verdict::Passed { invocations, interpreted: true },
            other => other,
        };
    }
    let variants = match variants(target, &root.settings, &image::host_has_feature) {
        Ok(variants) => variants,
        Err(verdict) => return verdict,
    };
    let mut invocations = 0;
    for (number, settings) in variants {
        let mut modules = Vec::with_capacity(1 + others.len());
        modules.push(Module { settings, ..root.clone() });
        modules.extend(others.iter().map(|&module| module.clone()));
        match variant(args, target, path, number, modules) {
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
            .map_err(|error| Verdict::Failed { reason: format!("line {}: {error}", line.line) })?;
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

fn variant(args: &Args, target: &Target, path: &Path, number: usize, modules: Vec<Module>) -> Verdict {
    let failed = |reason: String| Verdict::Failed { reason };
    let root = modules[0].clone();
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
    if !has_run_lines(&root) {
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
        Err(error) => return failed(error.to_string()),
    };
    match (args.via, args.image_codegen) {
        (Via::Image, _) => in_another_process(&session, path, number),
        (_, true) => {
            // Objects of its own: the program must not see what the session's copy left behind.
            let objects = Objects::default();
            let image = session.image().map_err(|error| error.to_string());
            match image.and_then(|bytes| super::image::load_bytes(&bytes, &objects)) {
                Ok(loaded) => super::image::execute(&loaded, &root, target, &mut Event::send),
                Err(reason) => failed(reason),
            }
        }
        (_, false) => {
            let mut thunks = super::image::Thunks::new(target, &root.settings);
            let mut execute = |function: &kiln::ir::Function, signature: &_, arguments: &[_]| {
                let name = &root.symbol(function.symbol).name;
                let callee =
                    session.function(name).ok_or_else(|| Stop::Failed("the function is local".into()))?;
                thunks.call(callee.address(), signature, arguments)
            };
            invocation::all(&root, &mut execute, &mut Event::send)
        }
    }
}

fn has_run_lines(module: &Module) -> bool {
    module.functions.iter().any(|function| function.run_lines().next().is_some())
}

/// A file without run lines is compiled and linked by itself; nobody has to provide what it imports, since nothing is called.
fn linked(target: &Target, modules: &[Module]) -> Verdict {
    let faults = kiln::ir::check_program(&modules.iter().collect::<Vec<_>>());
    if !faults.is_empty() {
        return Verdict::Failed { reason: text(&faults) };
    }
    let compiled = match kiln::Compiler::new(target.clone()).compile(modules) {
        Ok(compiled) => compiled,
        Err(error) => return Verdict::Failed { reason: error.to_string() },
    };
    match image::write_image(&compiled.artifacts, &GlobalTable::new(), &image::ImageOptions::default()) {
        Ok(_) => Verdict::Passed { invocations: 0, interpreted: false },
        Err(errors) => {
            let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
            Verdict::Failed { reason: errors.join("\n") }
        }
    }
}

fn interpreted(root: &Module, others: &[&Module]) -> Verdict {
    let modules: Vec<&Module> = [root].into_iter().chain(others.iter().copied()).collect();
    let program = Program::new(&modules);
    let mut process = Process::new(&program, &mut |_| vec![0; SIZE]);
    let mut execute = |function: &kiln::ir::Function, _: &_, arguments: &[_]| {
        process.call_symbol(0, function.symbol, arguments).map_err(|error| match error {
            Error::Unsupported(what) => Stop::Skipped(format!("the interpreter cannot execute it: {what}")),
            Error::Trapped(trap) => Stop::Failed(format!("trapped: {trap}")),
            error => Stop::Failed(error.to_string()),
        })
    };
    invocation::all(root, &mut execute, &mut Event::send)
}

/// Saves the session as an image, and lets another process load it and execute the file's run lines.
fn in_another_process(session: &Session, path: &Path, variant: usize) -> Verdict {
    let attempt = || -> Result<Verdict, Failure> {
        let folder = tempfile::tempdir().map_err(Failure::new)?;
        let image = folder.path().join("program.so");
        session.save_image(&image).map_err(Failure::new)?;
        let output = Command::new(std::env::current_exe().map_err(Failure::new)?)
            .arg("run-image")
            .args([&image, path])
            .arg(format!("--variant={variant}"))
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .map_err(Failure::new)?;
        let (mut last, mut done) = (None, None);
        for line in output.stdout.split_inclusive(|&byte| byte == b'\n') {
            let (own, event) = Event::receive(line.strip_suffix(b"\n").unwrap_or(line));
            if let Some(own) = own {
                println!("{own}");
            }
            match event {
                Some(Event::Done(verdict)) => done = Some(verdict),
                Some(Event::Invoke(line, text)) => last = Some((line, text)),
                Some(event) => event.send(),
                None => {}
            }
        }
        if let (Some(verdict), true) = (done, output.status.success()) {
            return Ok(verdict);
        }
        let place =
            last.map_or("while it was loaded".into(), |(line, text)| format!("line {line}: `{text}`"));
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
