//! The programs of comparison I: functions that use globals, functions of the host and functions of
//! other modules.

use std::fmt::Write as _;

use kiln::Compiler;
use kiln::artifact::Artifact;
use kiln::globals::{GlobalAccess, GlobalTable};
use kiln::image::{ImageOptions, write_image};
use kiln::ir::{Module, Source, Target, parse};

use crate::setup::{Failure, Setup};

/// Functions of a module, each with a global of its own.
const FUNCTIONS: usize = 50;
/// Globals that a call of `touch` reads. None of the addresses stays in a register between calls.
pub(crate) const TOUCHED: usize = 32;
/// Calls in the loops over functions.
pub(crate) const CALLS: usize = 8;

/// A program that is compiled in one of the two ways.
pub(crate) struct Program {
    pub(crate) access: GlobalAccess,
    pub(crate) artifacts: Vec<Artifact>,
    pub(crate) globals: GlobalTable,
}

/// Returns the key of a global, which is also the name of a symbol.
pub(crate) fn key(number: usize) -> String {
    format!("object_{number}")
}

fn module(name: &str, text: String) -> Result<Module, Failure> {
    Ok(parse(Source::new(name, text).into(), &Target::host()).map_err(|faults| faults[0].to_string())?)
}

/// Returns modules whose functions use so many globals, each once, and the modules of the loops.
fn modules(globals: usize) -> Result<Vec<Module>, Failure> {
    let mut modules = Vec::new();
    let mut text = String::new();
    for number in 0..globals {
        let leaf = number % CALLS;
        writeln!(text, "global %g{number} = \"{}\"", key(number))?;
        writeln!(
            text,
            "function %f{number}() -> i64 system_v {{
                gv0 = symbol %g{number}
                fn0 = %host_step{leaf}(i64) -> i64 system_v
                fn1 = %leaf{leaf}(i64) -> i64 system_v
            block0:
                v0 = symbol_value.i64 gv0
                v1 = load.i64 v0
                v2 = call fn0(v1)
                v3 = call fn1(v2)
                v4 = iadd v1, v3
                return v4
            }}"
        )?;
        if (number + 1) % FUNCTIONS == 0 || number + 1 == globals {
            let name = format!("user{}", modules.len());
            modules.push(module(&name, std::mem::take(&mut text))?);
        }
    }
    modules.push(module("leaves", leaves(globals)?)?);
    modules.push(module("loops", loops()?)?);
    Ok(modules)
}

/// Functions that the loops call: `leaf` adds a number, `touch` reads globals.
fn leaves(globals: usize) -> Result<String, Failure> {
    let mut text = String::new();
    for number in 0..CALLS {
        writeln!(
            text,
            "function %leaf{number}(i64) -> i64 system_v {{
            block0(v0: i64):
                v1 = iconst.i64 {}
                v2 = iadd v0, v1
                return v2
            }}",
            number + 1
        )?;
    }
    let touched = TOUCHED.min(globals);
    for number in 0..touched {
        writeln!(text, "global %g{number} = \"{}\"", key(number))?;
    }
    writeln!(text, "function %touch(i64) -> i64 system_v {{")?;
    for number in 0..touched {
        writeln!(text, "gv{number} = symbol %g{number}")?;
    }
    writeln!(text, "block0(v0: i64):")?;
    for number in 0..touched {
        let (address, value, sum) = (3 * number + 1, 3 * number + 2, 3 * number + 3);
        let before = if number == 0 { 0 } else { sum - 3 };
        writeln!(text, "v{address} = symbol_value.i64 gv{number}")?;
        writeln!(text, "v{value} = load.i64 v{address}\nv{sum} = iadd v{before}, v{value}")?;
    }
    writeln!(text, "return v{}\n}}", 3 * touched)?;
    Ok(text)
}

/// Loops that call `touch`, functions of the host, and functions of another module.
fn loops() -> Result<String, Failure> {
    let mut text = String::new();
    for (name, callee, calls) in
        [("globals", "touch", 1), ("host", "host_step", CALLS), ("modules", "leaf", CALLS)]
    {
        writeln!(text, "function %loop_{name}(i64) -> i64 system_v {{")?;
        for number in 0..calls {
            let suffix = if calls == 1 { String::new() } else { number.to_string() };
            writeln!(text, "fn{number} = %{callee}{suffix}(i64) -> i64 system_v")?;
        }
        writeln!(
            text,
            "block0(v0: i64):\nv1 = iconst.i64 0\njump block1(v0, v1)\nblock1(v2: i64, v3: i64):"
        )?;
        for number in 0..calls {
            let before = if number == 0 { 3 } else { 9 + number };
            writeln!(text, "v{} = call fn{number}(v{before})", 10 + number)?;
        }
        writeln!(
            text,
            "v100 = iconst.i64 -1\nv101 = iadd v2, v100\nbrif v101, block1(v101, v{0}), block2(v{0})
            block2(v102: i64):\nreturn v102\n}}",
            9 + calls
        )?;
    }
    Ok(text)
}

/// Compiles the program with so many globals in both ways.
pub(crate) fn compile(globals: usize, setup: &Setup) -> Result<[Program; 2], Failure> {
    let modules = modules(globals)?;
    let one = |access| -> Result<Program, Failure> {
        let compiler = Compiler::new(Target::host().globals(access)).pool(setup.pool.clone());
        let artifacts = compiler.compile(&modules)?.artifacts;
        let mut globals = GlobalTable::new();
        modules.iter().flat_map(Module::globals).for_each(|key| {
            globals.intern(key);
        });
        Ok(Program { access, artifacts, globals })
    };
    let [slots, direct] = GlobalAccess::ALL.map(one);
    Ok([slots?, direct?])
}

/// Returns the image of a library that defines the globals and the functions of the host as
/// symbols, for `dlopen`.
pub(crate) fn library(globals: usize) -> Result<Vec<u8>, Failure> {
    let mut text = String::new();
    for number in 0..globals {
        writeln!(text, "data %{} writable {{ i64 {} }}", key(number), number)?;
    }
    for number in 0..CALLS {
        writeln!(text, "function %host_step{number}(i64) -> i64 system_v {{ block0(v0: i64): return v0 }}")?;
    }
    let compiled = Compiler::new(Target::host()).compile(&[module("library", text)?])?;
    let written = write_image(&compiled.artifacts, &GlobalTable::new(), &ImageOptions::default());
    Ok(written.map_err(|errors| errors[0].to_string())?)
}
