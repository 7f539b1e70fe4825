//! The text form of a module.
//!
//! The grammar stands in the crate's documentation (`README.md`). How a file is read: `scan` cuts it into items, `notation`
//! reads those that are not plain CLIF, `function` hands each function to Cranelift's reader and verifier, `symbols`
//! numbers what they define and use, and `locate` finds the column of what Cranelift reports by line or entity.
//!
//! Invariants:
//! - No text is copied: items are slices of the source.
//! - Functions are read and verified independently of one another and of the symbol table, so that it could be done in
//!   parallel; only then symbols are numbered, in the order of the text.
//! - Whatever the text, the result is a module or diagnostics. Nothing here panics.

mod cursor;
mod function;
mod locate;
mod notation;
mod scan;
pub(crate) mod symbols;

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;

use cranelift_codegen::ir::entities::AnyEntity;
use cranelift_codegen::ir::{self, ExternalName, GlobalValueData, UserFuncName};
use cranelift_codegen::isa::CallConv;
use target_lexicon::Endianness;

use self::cursor::Cursor;
use self::function::{Read, Use};
use self::locate::Locator;
use self::notation::Datum;
use self::scan::Item;
use self::symbols::Symbols;
use crate::diagnostic::{self, Diagnostic, DiagnosticKind, Place};
use crate::module::{Data, DataAddress, Function, Module, SymbolId};
use crate::settings::{ModuleSettings, Target, TargetError};
use crate::source::Source;

/// How many faults of a file are reported before reading stops. Each costs a pass over the text.
const MAX_FAULTS: usize = 1000;

/// Reads and verifies a file.
///
/// A file without `target` line is for every target. All functions are read and verified whatever is wrong with others.
///
/// # Errors
///
/// Everything that is wrong with the file (or the first thousand faults), ordered by place, and at least one thing. If its `target` lines are all for
/// other architectures, that is a single diagnostic of kind [`DiagnosticKind::OtherTarget`], and nothing else was looked at.
///
/// ```
/// use std::sync::Arc;
/// use kiln_ir::{Source, Target, parse};
///
/// let text = "function %answer() -> i64 {\nblock0:\n  v0 = iconst.i64 42\n  return v0\n}\n; run: %answer() == 42";
/// let module = parse(Arc::new(Source::new("answer.clif", text)), &Target::host()).unwrap();
/// assert_eq!(&*module.symbols[0].name, "answer");
/// assert_eq!(&*module.functions[0].run_lines[0].text, "run: %answer() == 42");
///
/// let wrong = Arc::new(Source::new("wrong.clif", "function %f() {\nblock0:\n  retrun\n}"));
/// let faults = parse(wrong, &Target::host()).unwrap_err();
/// assert_eq!((faults[0].place.line, faults[0].place.column), (3, 3));
/// ```
pub fn parse(source: Arc<Source>, target: &Target) -> Result<Module, Vec<Diagnostic>> {
    let mut faults = Vec::new();
    if u32::try_from(source.text.len()).is_err() {
        let place = Place::whole(source);
        return Err(vec![Diagnostic::new(DiagnosticKind::Unsupported, "the file has more than 4 GB", place)]);
    }
    let big_endian = target.triple().endianness() == Ok(Endianness::Big);
    let file = scan::scan(&mut Cursor::new(&source), big_endian, &mut faults);
    let isa = match target.isa(&file.settings) {
        Ok(isa) => Some(isa),
        Err(error) => {
            let fault = target_fault(&source, &file.settings, &error);
            if fault.kind != DiagnosticKind::Setting {
                return Err(vec![fault]);
            }
            faults.push(fault);
            None
        }
    };

    let call_conv = CallConv::triple_default(target.triple());
    let mut functions: Vec<Option<Read>> = Vec::with_capacity(file.items.len());
    for item in &file.items {
        functions.push(match item {
            Item::Function(item) if faults.len() < MAX_FAULTS => {
                let locator = Locator { source: &source, item };
                function::read(locator, call_conv, isa.as_deref(), &mut faults)
            }
            _ => None,
        });
    }

    let mut symbols = Symbols::new(&source);
    define(&file.items, &functions, &source, &mut symbols, &mut faults);
    let mut module = Module {
        name: source.name.clone(),
        source: None,
        settings: file.settings,
        symbols: Vec::new(),
        functions: Vec::new(),
        data: Vec::new(),
    };
    for (item, read) in file.items.into_iter().zip(&mut functions) {
        if faults.len() >= MAX_FAULTS {
            break;
        }
        match (item, read.take()) {
            (Item::Function(item), Some(read)) => {
                let locator = Locator { source: &source, item: &item };
                module.functions.push(resolve(read, locator, &mut symbols, &mut faults));
            }
            (Item::Datum(datum), _) => module.data.push(place_datum(datum, &source, &mut symbols)),
            (Item::Function(_), None) | (Item::Global(_), _) => {}
        }
    }
    if !faults.is_empty() {
        diagnostic::sort(&mut faults);
        return Err(faults);
    }
    module.symbols = symbols.finish();
    module.source = Some(source);
    Ok(module)
}

/// Enters what the items define.
fn define(
    items: &[Item<'_>],
    functions: &[Option<Read>],
    source: &Arc<Source>,
    symbols: &mut Symbols<'_>,
    faults: &mut Vec<Diagnostic>,
) {
    for (item, read) in items.iter().zip(functions) {
        if faults.len() >= MAX_FAULTS {
            return;
        }
        let entered = match (item, read) {
            (Item::Function(item), Some(read)) => {
                let at = Locator { source, item }.header();
                let signature = Some(&read.ir.signature);
                if function_name(&read.ir).is_empty() {
                    let place = Place::at(source, at.0, at.1);
                    faults.push(Diagnostic::new(DiagnosticKind::Syntax, "a function needs a name", place));
                }
                symbols.define(&function_name(&read.ir), item.linkage, signature, item.line, at)
            }
            (Item::Function(_), None) => Ok(()),
            (Item::Datum(datum), _) => {
                let at = (datum.at, symbols::written(&datum.name).len());
                symbols.define(&datum.name, datum.linkage, None, datum.line, at)
            }
            (Item::Global(global), _) => {
                let at = (global.at, symbols::written(&global.name).len());
                symbols.define_global(&global.name, &global.key, global.line, at)
            }
        };
        faults.extend(entered.err());
    }
}

/// Numbers the symbols of a function, and makes it refer to them.
fn resolve(
    read: Read,
    locator: Locator<'_>,
    symbols: &mut Symbols<'_>,
    faults: &mut Vec<Diagnostic>,
) -> Function {
    let Read { mut ir, run_lines, used, order } = read;
    let symbol = symbols.address(&function_name(&ir), || locator.item.line);
    let mut functions: Vec<Option<SymbolId>> = vec![None; used.functions.len()];
    let mut globals: Vec<Option<SymbolId>> = vec![None; used.globals.len()];
    // Declarations come in order, so each is looked for behind the one before.
    let from = Cell::new(0);
    let line = |entity: String| {
        let found = locator.declaration(&entity, from.get()).or_else(|| locator.declaration(&entity, 0));
        found.map_or(locator.item.line, |(at, line)| {
            from.set(at - locator.item.at);
            line
        })
    };
    let nameless = |entity: AnyEntity, name: &str| {
        let place = |(at, _)| Place::at(locator.source, at, entity.to_string().len());
        let place = || locator.declaration(&entity.to_string(), 0).map_or_else(|| locator.function(), place);
        name.is_empty().then(|| Diagnostic::new(DiagnosticKind::Syntax, "a symbol needs a name", place()))
    };
    for what in order {
        match what {
            Use::Function(at) => {
                let entity = used.functions[at];
                let data = &ir.dfg.ext_funcs[entity];
                let Some(name) = external_name(&ir, &data.name) else { continue };
                faults.extend(nameless(entity.into(), &name));
                let signature = &ir.dfg.signatures[data.signature];
                match symbols.function(&name, signature, || line(entity.to_string())) {
                    Ok(id) => functions[at] = Some(id),
                    Err(fault) => faults.push(fault),
                }
            }
            Use::Global(at) => {
                let entity = used.globals[at];
                let GlobalValueData::Symbol { name, .. } = &ir.global_values[entity] else { continue };
                let Some(name) = external_name(&ir, name) else { continue };
                faults.extend(nameless(entity.into(), &name));
                globals[at] = Some(symbols.address(&name, || line(entity.to_string())));
            }
        }
    }
    crate::names::rename(&mut ir, symbol, &used, &functions, &globals);
    Function { symbol, ir, line: locator.item.line, run_lines }
}

/// Numbers the symbols of a datum.
fn place_datum(datum: Datum<'_>, source: &Arc<Source>, symbols: &mut Symbols<'_>) -> Data {
    let symbol = symbols.address(&datum.name, || datum.line);
    let addresses = datum.addresses.iter().map(|address| DataAddress {
        offset: address.offset,
        symbol: symbols.address(&address.name, || Place::at(source, address.at, 1).line),
        addend: address.addend,
    });
    Data {
        symbol,
        writable: datum.writable,
        align: datum.align,
        addresses: addresses.collect(),
        init: datum.init,
        line: datum.line,
    }
}

/// The name of a function that was read: `f` for `%f`, `u0:1` for `u0:1`.
fn function_name(function: &ir::Function) -> Cow<'_, str> {
    match &function.name {
        UserFuncName::User(name) => name.to_string().into(),
        UserFuncName::Testcase(name) => String::from_utf8_lossy(name.raw()),
    }
}

/// The name that an import goes by, unless it is one that Cranelift itself knows.
fn external_name<'f>(function: &'f ir::Function, name: &'f ExternalName) -> Option<Cow<'f, str>> {
    match name {
        ExternalName::User(number) => Some(function.params.user_named_funcs()[*number].to_string().into()),
        ExternalName::TestCase(name) => Some(String::from_utf8_lossy(name.raw())),
        ExternalName::LibCall(_) | ExternalName::KnownSymbol(_) => None,
    }
}

/// What to say when there is no code generator for a file.
fn target_fault(source: &Arc<Source>, settings: &ModuleSettings, error: &TargetError) -> Diagnostic {
    let unknown = settings.targets.iter().find(|line| line.triple.parse::<target_lexicon::Triple>().is_err());
    let (kind, place, message) = match (error, unknown) {
        (TargetError::OtherArchitecture { .. }, Some(line)) => {
            let place = Place::word(source, line.line, &line.triple);
            (DiagnosticKind::Setting, place, format!("`{}` is not a target", line.triple))
        }
        (TargetError::OtherArchitecture { line, .. }, None) => {
            (DiagnosticKind::OtherTarget, Place::line(source, *line), error.to_string())
        }
        (TargetError::Setting { setting, .. }, _) if setting.line != 0 => (
            DiagnosticKind::Setting,
            Place::word(source, setting.line, &setting.to_string()),
            error.to_string(),
        ),
        _ => (DiagnosticKind::Target, Place::line(source, error.line()), error.to_string()),
    };
    Diagnostic::new(kind, message, place)
}
