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

mod code;
mod comments;
mod cursor;
mod data;
mod debug;
mod draft;
mod function;
mod item;
mod items;
mod large_numbers;
mod locate;
mod parallel;
mod resolve;
mod scan;
mod shorten;
mod signature;
mod symbols;
mod tokens;

use std::sync::Arc;

use cranelift_codegen::isa::CallConv;
use target_lexicon::Endianness;

use self::comments::Owner;
use self::cursor::Cursor;
use self::draft::draft;
use self::item::Item;
use self::locate::Locator;
use self::parallel::ReadOptions;
use self::resolve::{aliases, define, place_code, place_datum, resolve};
use self::scan::TargetDefaults;
use self::symbols::SymbolTable;
use crate::diagnostic::{self, Diagnostic, DiagnosticKind};
use crate::limits::MAX_FAULTS;
use crate::location::Location;
use crate::module::Module;
use crate::settings::ModuleSettings;
use crate::source::Source;
use crate::target::{Target, TargetError};
use crate::unverified::Unverified;

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
    let file = scan::scan(&mut cursor, TargetDefaults { big_endian, call_conv }, &mut faults);
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

    let mut symbols = SymbolTable::new(&source);
    aliases(&file.items, &mut symbols, &mut faults);
    let isa = isa.as_deref().filter(|_| verify);
    let options = ReadOptions { source: &source, call_conv, isa };
    let mut drafts = if file.items.iter().any(|item| matches!(item, Item::Debug(_))) {
        // What such items say goes into the form.
        let mut functions = parallel::read(&file.items, options, |read| read, &mut faults);
        debug::apply_debug(&file.items, &mut functions, &source, &mut faults);
        functions.into_iter().map(|read| read.map(|read| draft(read, &symbols))).collect()
    } else {
        parallel::read(&file.items, options, |read| draft(read, &symbols), &mut faults)
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
        if let Item::Data(datum) = item {
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
                Item::Function(_) | Item::Code(_) | Item::Data(_) | Item::Alias(_) | Item::Debug(_) => {}
            }
        }
    }
    module.symbols = symbols.finish();
    if !outside.is_empty() {
        let items: Vec<_> = file.ranges.into_iter().zip(owners).collect();
        comments::outside(&source, &outside, file.header, &items, &mut module);
    }
    module.source = Some(source);
    Ok(module)
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
