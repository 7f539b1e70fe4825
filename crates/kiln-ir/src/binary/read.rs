//! Reads a module from bytes, and checks every byte.
//!
//! Invariant: the module has the invariants of [`Module`] (see `module`), whatever the bytes are.
//! Only the verifier can tell whether its functions are valid IR.

use std::collections::HashSet;

use super::content::{ContentReader, skip_settings};
use super::notes::{comments, module_comment, module_settings};
use super::write::code_settings;
use crate::body::wire::{ByteReader, ByteWriter, DecodeResult};
use crate::data::DataObject;
use crate::function::{Code, CodeTarget, Function, InlineHint};
use crate::ids::ClientIds;
use crate::module::Module;
use crate::symbol::{Linkage, SymbolId, SymbolKind};

/// Reads the module in `content` and `notes`.
pub(super) fn module(mut content: ByteReader<'_>, mut notes: ByteReader<'_>) -> DecodeResult<Module> {
    let mut reading = ContentReader::default();
    // The notes repeat the settings that affect code, among all header lines. Both are compared
    // below.
    let settings_start = content.clone();
    skip_settings(&mut content)?;
    let settings_len = settings_start.left() - content.left();
    reading.symbols(&mut content)?;
    let count = content.count()?;
    let mut functions = Vec::with_capacity(count.min(reading.symbols.len()));
    for _ in 0..count {
        functions.push(reading.function(&mut content)?);
    }
    let mut data = Vec::new();
    for _ in 0..content.count()? {
        data.push(reading.data(&mut content)?);
    }
    let lines = content.lines()?;
    let mut named = 0;
    for _ in 0..content.count()? {
        let number = content.index(functions.len(), "no such function")?;
        let variables = content.variables()?;
        if number < named || variables.is_empty() {
            return Err(content.error("functions without variables, or out of order"));
        }
        named = number + 1;
        functions[number].variables = variables;
    }
    check_numbers(reading.symbols.len(), &functions, &data, &content)?;
    for (symbol, defined) in reading.symbols.iter().zip(&reading.defined) {
        if (symbol.linkage != Linkage::Import) != *defined {
            return Err(content.error("a symbol is defined and imported, or neither"));
        }
    }
    content.end()?;

    let name = notes.str()?.into();
    let settings = module_settings(&mut notes)?;
    let mut of_code = ByteWriter::default();
    code_settings(&mut of_code, &settings);
    if settings_start.clone().raw(settings_len)? != of_code.0 {
        return Err(notes.error("settings that differ from those of the code"));
    }
    let mut names = HashSet::with_capacity(reading.symbols.len());
    for symbol in &mut reading.symbols {
        if symbol.linkage == Linkage::Local {
            symbol.name = notes.str()?.into();
        }
        symbol.line = notes.u32()?;
        let text = &*symbol.name;
        // A name belongs to one symbol. Keys of globals are separate from names, and may be any
        // text. Only a local symbol may have no name.
        let global = symbol.kind == SymbolKind::Global;
        let anonymous = symbol.linkage == Linkage::Local && text.is_empty();
        let fits = global || anonymous || !text.is_empty() && !text.contains('\0');
        if !fits || !anonymous && !names.insert((text, global)) {
            return Err(notes.error("a name that cannot be linked, or that another symbol has"));
        }
    }
    drop(names);
    for function in &mut functions {
        function.inline = match notes.byte()? {
            0 => InlineHint::BySize,
            // Machine code is never inlined, and the text has no hint for it.
            1 if function.body().is_some() => InlineHint::Inline,
            2 if function.body().is_some() => InlineHint::Never,
            _ => return Err(notes.error("not a hint for inlining")),
        };
        function.line = notes.u32()?;
        function.comments = comments(&mut notes, function.line)?;
    }
    for object in &mut data {
        object.line = notes.u32()?;
    }
    let mut outside = Vec::new();
    for _ in 0..notes.count()? {
        outside.push(module_comment(&mut notes, reading.symbols.len())?);
    }
    notes.end()?;
    let (symbols, ids) = (reading.symbols, ClientIds::default());
    Ok(Module { name, source: None, settings, symbols, functions, data, lines, comments: outside, ids })
}

/// Checks the numbers of symbols: first functions in order, then data objects, each followed by the
/// symbols that it is the first to refer to.
fn check_numbers(
    symbols: usize,
    functions: &[Function],
    data: &[DataObject],
    content: &ByteReader<'_>,
) -> DecodeResult<()> {
    let mut next = 0;
    let mut meet = |symbol: SymbolId| {
        next += usize::from(symbol.index() == next);
        symbol.index() < next
    };
    let mut ordered = true;
    for function in functions {
        ordered &= meet(function.symbol);
        match &function.code {
            Code::Ir(body) => ordered &= body.references().iter().all(|symbol| meet(*symbol)),
            Code::Machine(code) => {
                for reloc in &code.relocs {
                    if let CodeTarget::Symbol(symbol) = reloc.target {
                        ordered &= meet(symbol);
                    }
                }
            }
        }
    }
    for object in data {
        ordered &= meet(object.symbol);
        ordered &= object.addresses.iter().all(|address| meet(address.symbol));
    }
    if ordered && next == symbols {
        Ok(())
    } else {
        Err(content.error("symbols that are not numbered in order of use"))
    }
}
