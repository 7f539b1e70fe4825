//! The text form of a module.
//!
//! The grammar stands in the crate's documentation (`README.md`). How a file is read: `scan` cuts it into items, `notation`
//! and `items` read those that are not plain CLIF, `function` hands each function to Cranelift's reader and verifier, many at
//! once if the file is large (`functions`), `symbols` numbers what they define and use, `comments` decides what comments belong to, and `locate` finds the column of what Cranelift reports by line or entity.
//!
//! Invariants:
//! - Items are slices of the source. Text is copied for Cranelift's reader only, one function at a time.
//! - Functions are read and verified independently of one another and of the symbol table; only then symbols are numbered.
//! - Whatever the text, the result is a module or diagnostics. Nothing here panics.

pub(crate) mod bounds;
mod comments;
mod cursor;
mod function;
mod functions;
mod items;
mod locate;
mod notation;
mod scan;
pub(crate) mod symbols;

pub(crate) use self::cursor::{FREE_DATA, MAX_DATA};
use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;

use cranelift_codegen::ir::entities::AnyEntity;
use cranelift_codegen::isa::CallConv;
use target_lexicon::Endianness;

use self::comments::Owner;
use self::cursor::Cursor;
use self::function::Read;
use self::functions::{Draft, Options};
use self::items::{CodeItem, Target as RelocTarget};
use self::locate::Locator;
use self::notation::Datum;
use self::scan::{Defaults, Item};
use self::symbols::{Meaning, Symbols};
use crate::binary::Unverified;
use crate::body::Body;
use crate::data::{DataAddress, DataObject};
use crate::diagnostic::{self, Diagnostic, DiagnosticKind};
use crate::function::{Code, CodeReloc, CodeTarget, Function, MachineCode};
use crate::location::Location;
use crate::module::Module;
use crate::names::{external_name, function_name, written};
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
/// assert_eq!(module.functions[0].run_lines().next().unwrap().text, "run: %answer() == 42");
///
/// let wrong = Arc::new(Source::new("wrong.clif", "function %f() {\nblock0:\n  retrun\n}"));
/// let faults = parse(wrong, &Target::host()).unwrap_err();
/// assert_eq!((faults[0].location.line, faults[0].location.column), (3, 3));
/// ```
///
/// Functions of large files are read on the threads of the current rayon pool; the result does not depend on how many there
/// are.
pub fn parse(source: Arc<Source>, target: &Target) -> Result<Module, Vec<Diagnostic>> {
    read(source, target, true)
}

/// Reads a file as [`parse`] does, but for verifying its functions: the counterpart of [`Modules`](crate::Modules) for text.
///
/// # Errors
///
/// As of [`parse`], without what the verifier finds.
///
/// ```
/// use std::sync::Arc;
/// use kiln_ir::{Source, Target, parse_unverified};
///
/// let text = "function %f() -> i32 {\nblock0:\n  v0 = iconst.i64 42\n  return v0\n}";
/// let module = parse_unverified(Arc::new(Source::new("f.clif", text)), &Target::host()).unwrap();
/// assert!(module.verify(&Target::host()).is_err());
/// ```
pub fn parse_unverified(source: Arc<Source>, target: &Target) -> Result<Unverified, Vec<Diagnostic>> {
    read(source, target, false).map(Unverified)
}

fn read(source: Arc<Source>, target: &Target, verify: bool) -> Result<Module, Vec<Diagnostic>> {
    let mut faults = Vec::new();
    if u32::try_from(source.text.len()).is_err() {
        let place = Location::whole(source);
        return Err(vec![Diagnostic::new(DiagnosticKind::Unsupported, "the file has more than 4 GB", place)]);
    }
    let call_conv = CallConv::triple_default(target.triple());
    let big_endian = target.triple().endianness() == Ok(Endianness::Big);
    let mut cursor = Cursor::new(&source);
    let file = scan::scan(&mut cursor, Defaults { big_endian, call_conv }, &mut faults);
    let outside = std::mem::take(&mut cursor.comments);
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

    let mut symbols = Symbols::new(&source);
    aliases(&file.items, &mut symbols, &mut faults);
    let isa = isa.as_deref().filter(|_| verify);
    let options = Options { source: &source, call_conv, isa };
    let mut drafts = if file.items.iter().any(|item| matches!(item, Item::Debug(_))) {
        // What such items say goes into the form.
        let mut functions = functions::read(&file.items, options, |read| read, &mut faults);
        apply_debug(&file.items, &mut functions, &source, &mut faults);
        functions.into_iter().map(|read| read.map(|read| functions::draft(read, &symbols))).collect()
    } else {
        functions::read(&file.items, options, |read| functions::draft(read, &symbols), &mut faults)
    };

    define(&file.items, &drafts, &source, &mut symbols, &mut faults);
    let mut module = Module {
        name: source.name.clone(),
        source: None,
        settings: file.settings,
        symbols: Vec::new(),
        functions: Vec::new(),
        data: Vec::new(),
        comments: Vec::new(),
    };
    let mut owners = vec![Owner::Nothing; file.items.len()];
    for ((item, draft), owner) in file.items.iter().zip(&mut drafts).zip(&mut owners) {
        if faults.len() >= MAX_FAULTS {
            break;
        }
        let number = module.functions.len();
        match (item, draft.take()) {
            (Item::Function(item), Some(draft)) => {
                let locator = Locator { source: &source, item };
                module.functions.extend(resolve(draft, locator, &mut symbols, &mut faults));
            }
            (Item::Code(item), _) => module.functions.push(place_code(item, &mut symbols)),
            _ => continue,
        }
        *owner = Owner::Function(number);
    }
    for (item, owner) in file.items.iter().zip(&mut owners) {
        if let Item::Datum(datum) = item {
            let data = place_datum(datum, &mut symbols);
            *owner = Owner::Symbol(data.symbol);
            module.data.push(data);
        }
    }
    if !faults.is_empty() {
        diagnostic::sort(&mut faults);
        return Err(faults);
    }
    if !outside.is_empty() {
        for (item, owner) in file.items.iter().zip(&mut owners) {
            match item {
                Item::Global(global) => {
                    let symbol = symbols.defined_at(&global.name, global.line);
                    *owner = symbol.map_or(Owner::Nothing, Owner::Symbol);
                }
                Item::Import(import) => {
                    let symbol = symbols.defined_at(&import.name, import.line);
                    *owner = symbol.map_or(Owner::Nothing, Owner::Import);
                }
                Item::Function(_) | Item::Code(_) | Item::Datum(_) | Item::Alias(_) | Item::Debug(_) => {}
            }
        }
    }
    module.symbols = symbols.finish();
    if !outside.is_empty() {
        let items: Vec<_> = file.extents.into_iter().zip(owners).collect();
        comments::outside(&source, &outside, file.header, &items, &mut module);
    }
    module.source = Some(source);
    Ok(module)
}

/// Adds to functions what `debug` items say about them.
fn apply_debug(
    items: &[Item<'_>],
    functions: &mut [Option<Read>],
    source: &Arc<Source>,
    faults: &mut Vec<Diagnostic>,
) {
    if !items.iter().any(|item| matches!(item, Item::Debug(_))) {
        return;
    }
    let mut by_name: HashMap<String, usize> = HashMap::new();
    for (number, read) in functions.iter().enumerate() {
        if let Some(read) = read {
            by_name.insert(function_name(&read.ir.name).into_owned(), number);
        }
    }
    let broken =
        items.iter().zip(&*functions).any(|(item, read)| matches!((item, read), (Item::Function(_), None)));
    for item in items {
        let Item::Debug(debug) = item else { continue };
        let shown = written(&debug.name);
        let fault = |at, message| {
            Diagnostic::new(DiagnosticKind::Undefined, message, Location::at(source, at, shown.len()))
        };
        match by_name.get(&*debug.name).and_then(|number| functions[*number].as_mut()) {
            Some(read) => {
                if let Err(at) = debug.apply(&mut read.ir) {
                    faults.push(fault(at, format!("`{shown}` has no such value, or it has another label")));
                }
            }
            // The function may be one that could not be read.
            None if broken => {}
            None => faults.push(fault(debug.at, format!("there is no function `{shown}` in this file"))),
        }
    }
}

/// Enters names that stand for something else.
fn aliases(items: &[Item<'_>], symbols: &mut Symbols<'_>, faults: &mut Vec<Diagnostic>) {
    for item in items {
        if faults.len() >= MAX_FAULTS {
            return;
        }
        let entered = match item {
            Item::Global(global) => {
                let at = (global.at, written(&global.name).len());
                symbols.alias(&global.name, Meaning::Global(global.key.clone()), global.line, at)
            }
            Item::Alias(alias) => {
                let at = (alias.at, written(&alias.name).len());
                let meaning = alias.of.clone().map_or(Meaning::Anonymous, Meaning::Name);
                symbols.alias(&alias.name, meaning, alias.line, at)
            }
            _ => Ok(()),
        };
        faults.extend(entered.err());
    }
}

/// Enters what the items define.
fn define(
    items: &[Item<'_>],
    functions: &[Option<Draft>],
    source: &Arc<Source>,
    symbols: &mut Symbols<'_>,
    faults: &mut Vec<Diagnostic>,
) {
    for (item, draft) in items.iter().zip(functions) {
        if faults.len() >= MAX_FAULTS {
            return;
        }
        let entered = match (item, draft) {
            (Item::Function(item), Some(draft)) => {
                let at = Locator { source, item }.header();
                let signature = Some(&draft.signature);
                let name = function_name(&draft.name);
                if name.is_empty() {
                    let place = Location::at(source, at.0, at.1);
                    faults.push(Diagnostic::new(DiagnosticKind::Syntax, "a function needs a name", place));
                }
                symbols.define(&name, item.linkage, signature, item.line, at)
            }
            (Item::Function(_), None) => Ok(()),
            (Item::Datum(datum), _) => {
                let at = (datum.at, written(&datum.name).len());
                symbols.define(&datum.name, datum.linkage, None, datum.line, at)
            }
            (Item::Code(code), _) => {
                let at = (code.at, written(&code.name).len());
                symbols.define(&code.name, code.linkage, Some(&code.signature), code.line, at)
            }
            (Item::Import(import), _) => {
                let at = (import.at, written(&import.name).len());
                symbols.import(&import.name, import.kind, import.signature.clone(), import.line, at)
            }
            (Item::Global(_) | Item::Alias(_) | Item::Debug(_), _) => Ok(()),
        };
        faults.extend(entered.err());
    }
    // What could not be read may be what is missing.
    if faults.is_empty() {
        let checked = items.iter().filter_map(|item| match item {
            Item::Alias(alias) => symbols.check_anonymous(&alias.name).err(),
            _ => None,
        });
        faults.extend(checked);
    }
}

/// Numbers the symbols of a function.
fn resolve(
    draft: Draft,
    locator: Locator<'_>,
    symbols: &mut Symbols<'_>,
    faults: &mut Vec<Diagnostic>,
) -> Option<Function> {
    let symbol = symbols.address(&function_name(&draft.name), || locator.item.line);
    // Where the function declares what it names; looked for once, when it is first asked.
    let declarations = OnceCell::new();
    let declaration = |entity: AnyEntity| {
        let all = declarations.get_or_init(|| locator.declarations());
        all.get(&entity.to_string())
    };
    let line = |entity: AnyEntity| declaration(entity).map_or(locator.item.line, |(_, line)| line);
    let mut targets = draft.encoded.as_ref().map_or(&[][..], |encoded| &encoded.targets).iter().peekable();
    let mut references = Vec::with_capacity(targets.len());
    for &(site, number) in &draft.uses {
        let (entity, name, signature) = draft.used(site);
        let name = external_name(draft.params(), name);
        if name.is_empty() {
            let place = |(at, _)| Location::at(locator.source, at, entity.to_string().len());
            let place = declaration(entity).map_or_else(|| locator.function(), place);
            faults.push(Diagnostic::new(DiagnosticKind::Syntax, "a symbol needs a name", place));
        }
        let used = match signature {
            Some(signature) => symbols.function(&name, signature, || line(entity)),
            None => Ok(symbols.address(&name, || line(entity))),
        };
        // Behind a fault any number will do, for there will be no module.
        let used = used.unwrap_or_else(|fault| {
            faults.push(fault);
            symbol
        });
        // Targets stand in order of first use.
        if targets.next_if_eq(&&number).is_some() {
            references.push(used);
        }
    }
    match draft.encoded {
        Ok(encoded) => {
            let code = Code::Ir(Body::of(encoded, references));
            Some(Function { symbol, code, line: locator.item.line, comments: draft.comments })
        }
        // Only of a function that was not verified.
        Err(entity) => {
            let message = format!("{entity} is used and not defined");
            faults.push(Diagnostic::new(DiagnosticKind::Verifier, message, locator.function()));
            None
        }
    }
}

/// Numbers the symbols of a datum.
fn place_datum(datum: &Datum<'_>, symbols: &mut Symbols<'_>) -> DataObject {
    let symbol = symbols.address(&datum.name, || datum.line);
    let addresses = datum.addresses.iter().map(|address| DataAddress {
        offset: address.offset,
        symbol: symbols.address(&address.name, || address.line),
        addend: address.addend,
    });
    DataObject {
        symbol,
        writable: datum.writable,
        align: datum.align,
        addresses: addresses.collect(),
        section: datum.section.as_deref().map(Into::into),
        init: datum.init.clone(),
        line: datum.line,
    }
}

/// Numbers the symbols of machine code.
fn place_code(item: &CodeItem<'_>, symbols: &mut Symbols<'_>) -> Function {
    let symbol = symbols.address(&item.name, || item.line);
    let relocs = item.relocs.iter().map(|reloc| CodeReloc {
        offset: reloc.offset,
        kind: reloc.kind,
        target: match &reloc.target {
            RelocTarget::Name(name, line) => CodeTarget::Symbol(symbols.address(name, || *line)),
            RelocTarget::Routine(call) => CodeTarget::LibCall(*call),
            RelocTarget::Here(place) => CodeTarget::Here(*place),
        },
        addend: reloc.addend,
    });
    let relocs = relocs.collect();
    let code = MachineCode { bytes: item.bytes.as_slice().into(), align: item.align, relocs };
    Function { symbol, code: Code::Machine(code), line: item.line, comments: crate::Comments::new() }
}

/// What to say when there is no code generator for a file.
fn target_fault(source: &Arc<Source>, settings: &ModuleSettings, error: &TargetError) -> Diagnostic {
    let unknown = settings.targets.iter().find(|line| line.triple.parse::<target_lexicon::Triple>().is_err());
    let (kind, place, message) = match (error, unknown) {
        (TargetError::OtherArchitecture { .. }, Some(line)) => {
            let place = Location::word(source, line.line, &line.triple);
            (DiagnosticKind::Setting, place, format!("`{}` is not a target", line.triple))
        }
        (TargetError::OtherArchitecture { line, .. }, None) => {
            (DiagnosticKind::OtherTarget, Location::line(source, *line), error.to_string())
        }
        (TargetError::Setting { setting, .. }, _) if setting.line != 0 => (
            DiagnosticKind::Setting,
            Location::word(source, setting.line, &setting.to_string()),
            error.to_string(),
        ),
        _ => (DiagnosticKind::Target, Location::line(source, error.line()), error.to_string()),
    };
    Diagnostic::new(kind, message, place)
}
