//! `check`: finds the errors in the modules of a build and between them, without compiling
//! anything.

use std::collections::BTreeSet;
use std::path::PathBuf;

use kiln::ir::{Diagnostic, Module, check_program, undefined};
use serde_json::json;

use crate::input;
use crate::output::{Failure, Format, Outcome, Shown, count, print_json};

/// Read and verify modules, and check that they fit together, without compiling anything.
///
/// Errors are reported with their places: syntax and verifier errors, names that two modules
/// define, imports whose signature differs from the definition's, and imports that no module
/// defines, unless `--provide` names them.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask check examples/clif
  cargo xtask check main.clif library.clif --provide malloc --provide free")]
pub(crate) struct CheckArgs {
    /// `.clif` and `.kir` files, with all their modules, folders that are searched for them, and
    /// `-`, which is standard input
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// A function or data object that the host provides; may be repeated
    #[arg(long, value_name = "NAME")]
    provide: Vec<String>,
    /// Architecture or triple to check for: x86_64, aarch64, riscv64, s390x [default: this machine]
    #[arg(long, value_name = "T")]
    target: Option<String>,
    /// How to print the errors
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(crate) fn main(args: &CheckArgs) -> Outcome {
    let target = input::target(args.target.as_deref())?;
    let files = input::files(&args.paths)?;
    let mut modules = Vec::with_capacity(files.len());
    let mut functions = 0;
    let mut faults = Vec::new();
    let outline = |module: Module| (module.functions.len(), input::outline(module));
    for parsed in input::modules(&files, &target, true, outline)?.into_iter().flatten() {
        match parsed {
            Ok((count, module)) => {
                functions += count;
                modules.push(module);
            }
            Err(diagnostics) => faults.extend(diagnostics),
        }
    }
    // If a file cannot be read, its definitions are unknown, so undefined imports are not reported.
    let complete = faults.is_empty();
    let all: Vec<_> = modules.iter().collect();
    faults.extend(check_program(&all));
    if complete {
        let provided: BTreeSet<&str> = args.provide.iter().map(String::as_str).collect();
        faults.extend(undefined(&all, &|name| provided.contains(name)));
    }
    match args.format {
        Format::Json => {
            print_json(&document(&faults));
            if faults.is_empty() { Ok(()) } else { Err(Failure::Reported) }
        }
        Format::Text if faults.is_empty() => {
            let (modules, functions) = (count(modules.len(), "module"), count(functions, "function"));
            println!("{modules} with {functions} fit together");
            Ok(())
        }
        Format::Text => {
            let mut shown = Shown::default();
            shown.print(&faults);
            Err(shown.failure("error", "found"))
        }
    }
}

fn document(faults: &[Diagnostic]) -> serde_json::Value {
    let place = |place: &kiln::ir::Location| json!({ "file": place.source.name, "line": place.line, "column": place.column, "length": place.length });
    let faults = faults.iter().map(|fault| {
        let related = fault
            .related
            .iter()
            .map(|other| json!({ "label": other.label, "place": place(&other.location) }));
        json!({
            "kind": format!("{:?}", fault.kind),
            "message": fault.message,
            "place": place(&fault.location),
            "related": related.collect::<Vec<_>>(),
        })
    });
    json!({ "faults": faults.collect::<Vec<_>>() })
}
