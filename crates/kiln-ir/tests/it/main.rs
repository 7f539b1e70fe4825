//! Tests of the front end through its public interface: one binary, a module for each subject.

mod builder;
mod diagnostics;
mod form;
mod hostile;
mod leaks;
mod lines;
mod many_faults;
mod notation;
mod parts;
mod print;
mod program;
mod symbols;
mod target;
mod threads;
mod wrong;
mod wrong_kind;

use std::fmt::Write as _;
use std::sync::Arc;

use kiln_ir::{Diagnostic, Init, Module, Source, Target, parse};

/// x86-64 Linux, so that expected texts do not depend on the machine that runs the tests.
fn target() -> Target {
    Target::parse("x86_64").expect("a target of every build")
}

fn read(text: &str) -> Result<Module, Vec<Diagnostic>> {
    parse(Arc::new(Source::new("test.clif", text)), &target())
}

#[track_caller]
fn module(text: &str) -> Module {
    read(text).unwrap_or_else(|faults| panic!("{}", show(&faults)))
}

fn show(faults: &[Diagnostic]) -> String {
    faults.iter().map(|fault| format!("{:?}: {fault}\n\n", fault.kind)).collect()
}

/// Describes symbols, data and functions of a module, for expected texts.
fn describe(module: &Module) -> String {
    let mut out = String::new();
    for (number, symbol) in module.symbols.iter().enumerate() {
        let signature = symbol.signature.as_ref().map(ToString::to_string).unwrap_or_default();
        let (linkage, kind, name, line) = (symbol.linkage, symbol.kind, &symbol.name, symbol.line);
        writeln!(out, "{number}: {linkage:?} {kind:?} {name:?} {signature} line {line}").unwrap();
    }
    for data in &module.data {
        let (number, align, line) = (data.symbol.as_u32(), data.align, data.line);
        let writable = if data.writable { " writable" } else { "" };
        let init = match &data.init {
            Init::Zeros(len) => format!("zeros {len}"),
            Init::Bytes(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        write!(out, "data {number}{writable} align {align} line {line}: {init}").unwrap();
        for address in &data.addresses {
            write!(out, ", {} at {} + {}", address.symbol.as_u32(), address.offset, address.addend).unwrap();
        }
        out.push('\n');
    }
    for function in &module.functions {
        writeln!(out, "function {} line {}", function.symbol.as_u32(), function.line).unwrap();
        for run in function.run_lines() {
            writeln!(out, "  line {}: {}", run.line, run.text).unwrap();
        }
        writeln!(out, "{}", function.ir().unwrap().display()).unwrap();
    }
    out
}
