//! The worker: it parses all files, executes one after the other, and reports every step on
//! standard output.

use kiln::image;
use kiln::ir::{Anchor, Comment, Diagnostic, DiagnosticKind, Module, ModuleComment, Target};

use super::args::{RunArgs, Via};
use super::execute::{compiled, have_run_lines, interpreted, text};
use super::program::Definitions;
use super::report::{Event, Verdict};
use super::variants::variants;
use crate::input::{self, InputFile, Parsed};
use crate::output::{Outcome, name};

/// Executes `files` from number `first` on.
pub(super) fn work(args: &RunArgs, files: &[InputFile], first: usize) -> Outcome {
    let target = Target::host().globals(args.globals.into());
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
        Event::Done(executed(verdict, &parsed[index])).send();
    }
    Ok(())
}

/// Returns `verdict`, but changes it to a failure or a skip if the file would pass although one of
/// its run lines was not executed, or although it has none to execute.
fn executed(verdict: Verdict, modules: &Parsed<Vec<Module>>) -> Verdict {
    let Ok(modules) = modules else { return verdict };
    let lost = |comment: &ModuleComment| {
        let comment =
            Comment { anchor: Anchor::End, trailing: false, line: comment.line, text: &comment.text };
        comment
            .run_line()
            .map(|line| format!("line {}: `{}` follows no function", line.line, name(line.text)))
    };
    let lost = modules.iter().flat_map(|module| &module.comments).find_map(lost);
    match (verdict, lost) {
        (Verdict::Passed { .. } | Verdict::Compiled, Some(reason)) => Verdict::Failed { reason },
        (Verdict::Passed { invocations: 0, .. }, None) if have_run_lines(modules) => {
            Verdict::Failed { reason: "no run line was executed".into() }
        }
        (Verdict::Passed { invocations: 0, .. }, None) => {
            Verdict::Skipped { reason: "it has no run line to interpret".into() }
        }
        (verdict, _) => verdict,
    }
}

/// Returns all modules of a file, or all errors in them.
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

/// The verdict on a file that could not be read.
fn not_modules(diagnostics: &[Diagnostic]) -> Verdict {
    let fault = |diagnostic: &&Diagnostic| diagnostic.kind != DiagnosticKind::OtherTarget;
    match (diagnostics.first(), diagnostics.iter().find(fault)) {
        (Some(first), None) => Verdict::Skipped { reason: first.message.to_string() },
        _ => Verdict::Failed { reason: text(diagnostics) },
    }
}

/// Executes all modules of one file together, once for each of the `target` lines that this machine
/// can run.
fn file(args: &RunArgs, target: &Target, path: &InputFile, roots: &[Module], others: &[&Module]) -> Verdict {
    let tests: Vec<&str> = roots.iter().flat_map(|root| root.settings.tests()).collect();
    if args.via == Via::Interpreter {
        if !tests.is_empty() && !tests.contains(&"interpret") {
            return Verdict::Skipped { reason: "its `test` lines do not name the interpreter".into() };
        }
        return interpreted(roots, others);
    }
    if tests.contains(&"interpret") && !tests.contains(&"run") && have_run_lines(roots) {
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
    let (mut invocations, mut compiled_only) = (0, false);
    for time in 0..variants.iter().map(Vec::len).max().unwrap_or(0) {
        // A module with fewer `target` lines than another module of the file is executed with its
        // last line again.
        let chosen = variants.iter().map(|lines| &lines[time.min(lines.len() - 1)]);
        let numbers: Vec<usize> = chosen.clone().map(|(number, _)| *number).collect();
        let roots = roots.iter().zip(chosen);
        let roots: Vec<_> = roots
            .map(|(root, (_, settings))| Module { settings: settings.clone(), ..root.clone() })
            .collect();
        match compiled(args, target, path, &numbers, &roots, others) {
            Verdict::Passed { invocations: more, .. } => invocations += more,
            Verdict::Compiled => compiled_only = true,
            other => return other,
        }
    }
    if compiled_only { Verdict::Compiled } else { Verdict::Passed { invocations, interpreted: false } }
}
