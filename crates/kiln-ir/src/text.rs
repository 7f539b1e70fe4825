//! The text form of a module. Its grammar is in the crate's documentation (`README.md`).
//!
//! A file is read in these steps:
//!
//! 1. `scan` cuts the text into the items of `item`.
//! 2. `data`, `code`, `debug`, `lines` and `items` read the items that are not functions. They use
//!    `cursor`, `tokens` and `signature`.
//! 3. `shorten` and `large_numbers` prepare the text of each function, and `function` passes it to
//!    Cranelift's reader and verifier. Most functions get only their declarations from that reader:
//!    `blocks` reads the rest. `parallel` uses several threads for this if the file is large.
//! 4. `draft` brings each function to canonical form.
//! 5. `resolve` enters definitions into the table of `symbols`, then numbers symbols.
//! 6. `comments` determines which item each comment belongs to.
//!
//! If the text itself is to be debugged, `own_lines` makes its lines the source locations.
//!
//! `locate` finds the column of errors that Cranelift reports by line or entity.
//!
//! Invariants:
//! - Items are slices of the source. Text is copied only for Cranelift's reader, one function at a
//!   time.
//! - Functions are read and verified independently of one another and of the symbol table. Symbols
//!   are numbered after that.
//! - Whatever the text is, the result is a module or diagnostics. Nothing here panics.

mod blocks;
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
mod lines;
mod locate;
mod own_lines;
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

use self::cursor::Cursor;
use self::draft::draft;
use self::item::Item;
use self::parallel::ReadOptions;
use self::resolve::{aliases, define, number_definitions, own_names};
use self::scan::TargetDefaults;
use self::symbols::SymbolTable;
use crate::diagnostic::{self, Diagnostic, DiagnosticKind};
use crate::ids::ClientIds;
use crate::location::Location;
use crate::module::Module;
use crate::settings::ModuleSettings;
use crate::source::Source;
use crate::target::{Target, TargetError};
use crate::unverified::Unverified;
use crate::wrong_kind;

/// Reads and verifies a file.
///
/// A file without a `target` line is for every target. Every function is read and verified, even if
/// others have errors.
///
/// # Errors
///
/// The errors of all items, ordered by location: at least one diagnostic. Reading a function stops
/// at its first syntax error. If all `target` lines are for other architectures, the only
/// diagnostic is of kind [`DiagnosticKind::OtherTarget`], and nothing else was checked.
///
/// ```
/// use std::sync::Arc;
/// use kiln_ir::{Source, Target, parse};
///
/// let text = "function %answer() -> i64 {
/// block0:
///   v0 = iconst.i64 42
///   return v0
/// }
/// ; run: %answer() == 42";
/// let module = parse(Arc::new(Source::new("answer.clif", text)), &Target::host()).unwrap();
/// assert_eq!(&*module.symbols[0].name, "answer");
/// assert_eq!(module.functions[0].run_lines().next().unwrap().text, "run: %answer() == 42");
///
/// let wrong = Arc::new(Source::new("wrong.clif", "function %f() {\nblock0:\n  retrun\n}"));
/// let errors = parse(wrong, &Target::host()).unwrap_err();
/// assert_eq!((errors[0].location.line, errors[0].location.column), (3, 3));
/// ```
///
/// Functions of large files are read on the threads of the current rayon pool. The result does not
/// depend on the number of threads.
pub fn parse(source: Arc<Source>, target: &Target) -> Result<Module, Vec<Diagnostic>> {
    read(source, target, true)
}

/// Reads a file as [`parse`] does, without verifying its functions: the counterpart of
/// [`Modules`](crate::Modules) for text.
///
/// # Errors
///
/// The errors of [`parse`], except for those that only the verifier finds.
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
    if u32::try_from(source.text.len()).is_err() {
        let message = "the file has 4 GiB or more";
        return Err(vec![Diagnostic::new(DiagnosticKind::Unsupported, message, Location::whole(source))]);
    }
    let mut faults = Vec::new();

    // Cut the text into items, and find the code generator that the header lines select.
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

    // Read the functions, each independently of the others.
    let mut symbols = SymbolTable::new(&source);
    aliases(&file.items, &mut symbols, &mut faults);
    let lines = lines::table(&file.items, &source, &mut faults);
    let directory = source.debugged.as_deref().filter(|_| lines.files().len() == 0);
    let options = ReadOptions {
        source: &source,
        call_conv,
        isa: isa.as_deref().filter(|_| verify),
        own_lines: directory.is_some(),
    };
    let verified = options.isa.is_some();
    let mut drafts = if file.items.iter().any(|item| matches!(item, Item::Debug(_))) {
        // `debug` items affect the canonical form, so they are applied before it is made.
        let mut functions = parallel::read(&file.items, options, |read| read, &mut faults);
        debug::apply_debug(&file.items, &mut functions, &source, options.own_lines, &mut faults);
        functions.into_iter().map(|read| read.map(|read| draft(read, &symbols, verified))).collect()
    } else {
        parallel::read(&file.items, options, |read| draft(read, &symbols, verified), &mut faults)
    };

    let lines = match directory {
        Some(directory) => {
            let own = drafts.iter_mut().flatten().filter_map(|draft| {
                let encoded = draft.encoded.as_mut().ok()?;
                Some((&mut encoded.base, std::mem::take(&mut draft.own_lines)))
            });
            own_lines::join(own, &source, directory)
        }
        None => lines,
    };

    // Number the symbols. All definitions are entered first, because a use may precede its
    // definition.
    define(&file.items, &drafts, &source, &mut symbols, &mut faults);
    let mut module = Module {
        name: source.name.clone(),
        source: None,
        settings: file.settings,
        symbols: Vec::new(),
        functions: Vec::new(),
        data: Vec::new(),
        lines,
        comments: Vec::new(),
        ids: ClientIds::default(),
    };
    let mut owners =
        number_definitions(&file.items, &mut drafts, &source, &mut symbols, &mut module, &mut faults);
    if !faults.is_empty() {
        if let Some(fault) = wrong_kind::instead_of_text(&source) {
            return Err(vec![fault]);
        }
        diagnostic::sort(&mut faults);
        return Err(faults);
    }

    // Attach the comments that are outside of functions.
    if !outside.is_empty() {
        own_names(&file.items, &symbols, &mut owners);
    }
    module.symbols = symbols.finish();
    if !outside.is_empty() {
        let items: Vec<_> = file.ranges.into_iter().zip(owners).collect();
        comments::outside(&source, &outside, file.header, &items, &mut module);
    }
    module.source = Some(source);
    Ok(module)
}

/// Returns the diagnostic for a file whose target has no code generator.
fn target_fault(source: &Arc<Source>, settings: &ModuleSettings, error: &TargetError) -> Diagnostic {
    let unknown = settings.targets.iter().find(|line| line.triple.parse::<target_lexicon::Triple>().is_err());
    let (kind, location, message) = match (error, unknown) {
        (TargetError::OtherArchitecture { .. }, Some(line)) => {
            let location = Location::word(source, line.line, &line.triple);
            (DiagnosticKind::Setting, location, format!("`{}` is not a target", line.triple))
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
    Diagnostic::new(kind, message, location)
}
