//! Printed modules are read back as they were, and what is printed is a fixed point.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::ir::immediates::{Ieee16, Ieee32, Ieee64, Offset32};
use cranelift_codegen::ir::{
    self, AbiParam, AliasRegionData, ArgumentPurpose, ConstantData, DebugTag, InstBuilder, LibCall,
    MemFlagsData, RelSourceLoc, SourceLoc, StackSlotData, StackSlotKey, StackSlotKind, TrapCode,
    UserStackMapEntry, ValueLabel, ValueLabelAssignments, ValueLabelStart, types,
};
use cranelift_codegen::isa::CallConv;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::{DataDescription, FuncId, Linkage, Module as _, ModuleReloc, ModuleRelocTarget};
use kiln_ir::{DiagnosticKind, Module, ModuleBuilder, Source, Target, parse, print};

use crate::{module, show, target};

/// All that a module is, but for its name, source and lines.
fn content(module: &Module) -> String {
    use std::fmt::Write as _;
    let Module { name: _, source: _, settings, symbols, functions, data, comments } = module;
    let mut out = String::new();
    let shown = |list: &[kiln_ir::Setting]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    writeln!(out, "{:?} {:?}", settings.tests, shown(&settings.shared)).unwrap();
    for target in &settings.targets {
        writeln!(out, "{} {:?}", target.triple, shown(&target.settings)).unwrap();
    }
    for kiln_ir::Symbol { name, kind, linkage, signature, line: _ } in symbols {
        writeln!(out, "{name:?} {kind:?} {linkage:?} {signature:?}").unwrap();
    }
    for kiln_ir::Function { symbol, code, line: _, comments } in functions {
        match code {
            kiln_ir::Code::Ir(body) => {
                writeln!(out, "{symbol:?} {body:?} {:?}", body.as_bytes()).unwrap();
            }
            kiln_ir::Code::Machine(code) => writeln!(out, "{symbol:?} {code:?}").unwrap(),
        }
        for kiln_ir::Comment { at, trailing, line: _, text } in comments {
            writeln!(out, "{at:?} {trailing} {text:?}").unwrap();
        }
    }
    for kiln_ir::Data { symbol, writable, align, init, section, addresses, line: _ } in data {
        writeln!(out, "{symbol:?} {writable} {align} {init:?} {section:?} {addresses:?}").unwrap();
    }
    for kiln_ir::ModuleComment { at, line: _, text } in comments {
        writeln!(out, "{at:?} {text:?}").unwrap();
    }
    out
}

fn read_for(text: &str, target: &Target) -> Module {
    parse(Arc::new(Source::new("printed.clif", text)), target)
        .unwrap_or_else(|faults| panic!("{text}\n{}", show(&faults)))
}

/// The module's text, which is read back as the same module and printed in the same way.
#[track_caller]
pub(crate) fn assert_round_trips_for(module: &Module, target: &Target) -> String {
    let text = print(module).unwrap();
    let again = read_for(&text, target);
    let (before, after) = (content(module), content(&again));
    assert!(before == after, "--- module\n{before}\n--- printed\n{text}\n--- read\n{after}");
    let second = print(&again).unwrap();
    assert!(text == second, "--- once\n{text}\n--- twice\n{second}");
    text
}

/// The same for modules of the tests' target.
#[track_caller]
pub(crate) fn assert_round_trips(module: &Module) -> String {
    assert_round_trips_for(module, &target())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "clif") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn check_files(folder: &Path) -> usize {
    let targets = ["x86_64", "aarch64", "riscv64", "s390x"].map(|name| Target::parse(name).unwrap());
    let files = files(folder);
    for path in &files {
        let Ok(text) = std::fs::read_to_string(path) else { continue };
        for target in &targets {
            let source = Arc::new(Source::new(path.display().to_string(), text.as_str()));
            match parse(source, target) {
                Ok(module) => {
                    assert_round_trips_for(&module, target);
                }
                Err(faults) => {
                    let kind = faults[0].kind;
                    let foreign = matches!(kind, DiagnosticKind::OtherTarget | DiagnosticKind::Target);
                    assert!(foreign || std::env::var_os("KILN_PRINT_FILES").is_some(), "{}", show(&faults));
                }
            }
        }
    }
    files.len()
}

#[test]
fn every_program() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clif");
    assert!(check_files(&folder) > 10);
}

/// Files from elsewhere, which may hold what Kiln refuses: `KILN_PRINT_FILES=folder cargo test -p kiln-ir`.
#[test]
fn files_of_a_folder() {
    match std::env::var_os("KILN_PRINT_FILES") {
        Some(folder) => assert!(check_files(Path::new(&folder)) > 0),
        None => println!("KILN_PRINT_FILES names no folder"),
    }
}
