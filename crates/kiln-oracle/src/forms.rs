//! Checks that the text form and the binary form of a module keep everything in it.
//!
//! The checks do not panic: they return the difference as text, so that a test can add the name of
//! the case that failed.
//!
//! Invariant: structs are destructured exhaustively, so that a new field does not compile until it
//! is compared.

use std::fmt::Write as _;
use std::sync::Arc;

use kiln_ir::{
    Body, Code, Comment, DataObject, Function, InlineHint, Module, ModuleComment, Modules, Setting, Source,
    Symbol, Target, parse, print,
};

/// Returns everything in a module except its name, source and lines, as text.
pub fn content(module: &Module) -> String {
    let Module { name: _, source: _, settings, symbols, functions, data, lines, comments, ids: _ } = module;
    let mut out = String::new();
    let shown = |list: &[Setting]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let _ = writeln!(out, "{:?} {:?}", settings.directives, shown(&settings.shared));
    for target in &settings.targets {
        let _ = writeln!(out, "{} {:?}", target.triple, shown(&target.settings));
    }
    for Symbol { name, kind, linkage, signature, line: _ } in symbols {
        let _ = writeln!(out, "{name:?} {kind:?} {linkage:?} {signature:?}");
    }
    for Function { symbol, code, inline, line: _, variables, comments } in functions {
        let _ = match code {
            Code::Ir(body) => writeln!(out, "{symbol:?} {body:?} {:?}", body.as_bytes()),
            Code::Machine(code) => writeln!(out, "{symbol:?} {code:?}"),
        };
        if *inline != InlineHint::BySize {
            let _ = writeln!(out, "{inline:?}");
        }
        if !variables.is_empty() {
            let _ = writeln!(out, "{variables:?}");
        }
        for Comment { anchor, trailing, line: _, text } in comments {
            let _ = writeln!(out, "{anchor:?} {trailing} {text:?}");
        }
    }
    for DataObject { symbol, writable, align, init, section, addresses, line: _ } in data {
        let _ = writeln!(out, "{symbol:?} {writable} {align} {init:?} {section:?} {addresses:?}");
    }
    if lines.files().len() > 0 {
        let _ = writeln!(out, "{lines:?}");
    }
    for ModuleComment { anchor, line: _, text } in comments {
        let _ = writeln!(out, "{anchor:?} {text:?}");
    }
    out
}

/// Compares two modules, except for name, source and lines.
///
/// # Errors
///
/// The first line of [`content`] that differs.
pub fn same(expected: &Module, actual: &Module) -> Result<(), String> {
    let (expected, actual) = (content(expected), content(actual));
    if expected == actual {
        return Ok(());
    }
    let mut lines = expected.lines().zip(actual.lines());
    let (one, other) = lines.find(|(one, other)| one != other).unwrap_or(("the shorter one", "ends early"));
    Err(format!("it was\n{one}\nand is\n{other}"))
}

/// Reads a module from text.
///
/// # Errors
///
/// The reader's diagnostics.
pub fn read(text: &str, target: &Target) -> Result<Module, String> {
    parse(Arc::new(Source::new("text.clif", text)), target)
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

/// Prints the module and reads the text again. Checks that the result is the same module, and that
/// it prints as the same text.
///
/// # Errors
///
/// The difference.
pub fn through_text(module: &Module, target: &Target) -> Result<Module, String> {
    let text = print(module).map_err(|error| error.to_string())?;
    let again = read(&text, target).map_err(|faults| format!("{faults}\n--- in\n{text}"))?;
    same(module, &again).map_err(|difference| format!("printed and read, {difference}\n--- in\n{text}"))?;
    let second = print(&again).map_err(|error| error.to_string())?;
    if text != second {
        return Err(format!("no fixed point:\n{text}\n--- and then\n{second}"));
    }
    Ok(again)
}

/// Replaces the source locations that text cannot express. Cranelift stores locations relative to
/// the first location in the function, and a location that is one less than the first reads as
/// "none"; `print` refuses a module with such a location.
pub fn only_printable_locations(module: &mut Module) {
    for function in &mut module.functions {
        let Some(mut ir) = function.ir() else { continue };
        let insts: Vec<_> = ir.layout.blocks().flat_map(|block| ir.layout.block_insts(block)).collect();
        let Some(first) = insts.iter().map(|inst| ir.srcloc(*inst)).find(|at| !at.is_default()) else {
            continue;
        };
        let lost = insts.into_iter().filter(|inst| ir.srcloc(*inst).bits().wrapping_add(1) == first.bits());
        let lost: Vec<_> = lost.collect();
        if !lost.is_empty() {
            lost.into_iter().for_each(|inst| ir.set_srcloc(inst, first));
            function.code = Code::Ir(Body::new(&ir).expect("as it was before"));
        }
    }
}

/// Writes the module as bytes and reads them again. Checks that the result is the same module, and
/// that it has the same bytes.
///
/// # Errors
///
/// The difference.
pub fn through_bytes(module: &Module, target: &Target) -> Result<Module, String> {
    let bytes = module.to_bytes();
    let mut modules = Modules::new(&bytes[..]);
    let read = modules.next().ok_or("no module in its bytes")?.map_err(|error| error.to_string())?;
    if modules.next().is_some() {
        return Err("more than one module in its bytes".into());
    }
    if read.fingerprint() != module.fingerprint() {
        return Err("another fingerprint after being read from bytes".into());
    }
    let read = read.verify(target).map_err(|error| error.to_string())?;
    same(module, &read).map_err(|difference| format!("written and read as bytes, {difference}"))?;
    if read.to_bytes() != bytes {
        return Err("other bytes after being read from bytes".into());
    }
    Ok(read)
}

/// Decodes the code of every function and encodes it again. Checks that the result is the same
/// code.
///
/// # Errors
///
/// The first function that is different.
pub fn through_ir(module: &Module) -> Result<Module, String> {
    let mut again = module.clone();
    for function in &mut again.functions {
        let Some((ir, body)) = function.ir().zip(function.body()) else { continue };
        let encoded = Body::new(&ir).map_err(|error| error.to_string())?;
        if encoded != *body {
            return Err(format!("{:?} decoded and encoded is another body\n{ir}", function.symbol));
        }
        function.code = Code::Ir(encoded);
    }
    Ok(again)
}
