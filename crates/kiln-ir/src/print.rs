//! Prints a module as text, which [`parse`](crate::parse) reads back as the same module.
//!
//! Items are in the order of their line numbers if the module has them; otherwise globals precede
//! data, and data precede functions. Aliases and imports of symbols that the module does not define
//! come first, because they have no place of their own. `lines` items come last, after all
//! comments.
//!
//! Invariants:
//! - The text does not depend on the module's name and source. It is a fixed point: reading and
//!   printing it again gives the same bytes.
//! - Nothing is left out silently. What the text form cannot express is a [`PrintError`].

mod code;
mod data;
mod function;
mod line_table;
mod names;
mod quote;
mod uses;

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt::Write as _;

use self::names::Names;
use self::quote::quoted;
use self::uses::DeclaredTypes;
use crate::comments::{Anchor, Comments, ModuleAnchor};
use crate::data::Init;
use crate::function::{Code, Function, InlineHint};
use crate::item_order::{self, ItemKind, PrintedItem};
use crate::limits::{FREE_DATA, MAX_DATA, MAX_ZEROS};
use crate::module::Module;
use crate::reader_limits::too_many;
use crate::settings::Setting;
use crate::symbol::{Linkage, SymbolId, SymbolKind};

/// The error that a module has no text form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` has no text form: {reason}")]
pub struct PrintError {
    name: Box<str>,
    reason: Box<str>,
}

impl PrintError {
    /// Returns the name of the function or data object that has no text form.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Prints the module in the text form that the crate's documentation describes.
///
/// Reading the text gives the same module except for its name, source and lines. Values and other
/// entities are numbered as in [`Body::decode`](crate::Body::decode). Names of globals are made
/// from their keys.
///
/// # Errors
///
/// [`PrintError`] if a function contains something that Cranelift's reader cannot read, or if the
/// data objects are too large. Modules that were read from text always have a text form.
///
/// ```
/// use std::sync::Arc;
/// use kiln_ir::{Source, Target, parse, print};
///
/// let text = "local data %d{i32 1}
/// function %f()->i64{gv7=symbol %d block0: v5=symbol_value.i64 gv7 return v5} ; run
/// ";
/// let target = Target::parse("x86_64").unwrap();
/// let module = parse(Arc::new(Source::new("f.clif", text)), &target).unwrap();
/// assert_eq!(print(&module).unwrap(), "local data %d { bytes #01000000 }
///
/// function %f() -> i64 system_v {
///     gv0 = symbol %d
///
/// block0:
///     v0 = symbol_value.i64 gv0
///     return v0
/// } ; run
/// ");
/// ```
pub fn print(module: &Module) -> Result<String, PrintError> {
    let (names, comments) = (&Names::new(module), CommentsByAnchor::new(module));
    let printer = ModulePrinter { module, names, comments, zeros: Cell::new(FREE_DATA) };
    // Our reader refuses a file with more bytes of data. Data objects that are all zeros do not
    // count.
    let mut bytes = 0;
    for data in module.data.iter().filter(|data| matches!(data.init, Init::Bytes(_))) {
        bytes += data.init.len();
        if bytes > MAX_DATA {
            return Err(printer.error(data.symbol, format!("with it, data have more than {MAX_DATA} bytes")));
        }
    }
    let mut functions = Vec::with_capacity(module.functions.len());
    let mut uses = DeclaredTypes::new(module);
    for function in &module.functions {
        let ir = function.ir();
        if let Some(ir) = &ir {
            uses.function(ir);
        }
        functions.push(printer.function(function, ir)?);
    }
    let mut out = String::new();
    printer.header(&mut out);
    let mut before = None;
    for entry in item_order::entries(module) {
        before = printer.entry(entry, &functions, &uses, before, &mut out)?.or(before);
    }
    if !printer.comments.end.is_empty() {
        separate(&mut out);
        lines(&printer.comments.end, &mut out);
    }
    // They come last, because they are long and nobody reads them.
    for (number, item) in line_table::items(&module.lines).into_iter().enumerate() {
        // An empty line after the last comments would become a part of them.
        if number > 0 || printer.comments.end.is_empty() {
            separate(&mut out);
        }
        out.push_str(&item);
    }
    Ok(out)
}

/// Writes an empty line, unless nothing precedes it.
fn separate(out: &mut String) {
    if !out.is_empty() {
        out.push('\n');
    }
}

/// The comments of a module, grouped by their position.
#[derive(Default)]
struct CommentsByAnchor<'m> {
    header: Vec<&'m str>,
    above: HashMap<SymbolId, Vec<&'m str>>,
    end: Vec<&'m str>,
}

impl<'m> CommentsByAnchor<'m> {
    fn new(module: &'m Module) -> Self {
        let mut comments = Self::default();
        for comment in &module.comments {
            match comment.anchor {
                ModuleAnchor::Header => comments.header.push(&comment.text),
                ModuleAnchor::Above(symbol) => comments.above.entry(symbol).or_default().push(&comment.text),
                ModuleAnchor::End => comments.end.push(&comment.text),
            }
        }
        comments
    }
}

fn lines(lines: &[&str], out: &mut String) {
    for line in lines {
        out.push_str(line);
        out.push('\n');
    }
}

struct ModulePrinter<'m> {
    module: &'m Module,
    names: &'m Names,
    comments: CommentsByAnchor<'m>,
    /// The number of zeros between other data that may still be written as a count. The limit
    /// exists because our reader refuses a short text that stands for many zeros.
    zeros: Cell<u64>,
}

impl ModulePrinter<'_> {
    fn header(&self, out: &mut String) {
        lines(&self.comments.header, out);
        let settings = &self.module.settings;
        for directive in &settings.directives {
            let _ = writeln!(out, "{directive}");
        }
        // Settings that were on one line are written on one line again.
        for line in settings.shared.chunk_by(|a, b| a.line == b.line && a.line != 0) {
            list(out, "set", line);
        }
        for target in &settings.targets {
            list(out, &format!("target {}", target.triple), &target.settings);
        }
    }

    /// Writes an item if it is needed, and returns its kind. `before` is the kind of the item
    /// before it.
    fn entry(
        &self,
        entry: PrintedItem,
        functions: &[String],
        uses: &DeclaredTypes,
        before: Option<ItemKind>,
        out: &mut String,
    ) -> Result<Option<ItemKind>, PrintError> {
        let PrintedItem { symbol, item } = entry;
        let above = self.comments.above.get(&symbol);
        let declared = above.is_some() || !uses.tell(self.module, symbol);
        if item == ItemKind::Import && !declared && !self.names.is_alias(symbol) {
            return Ok(None);
        }
        // There is no empty line between short items of one kind.
        let together = before == Some(item) && matches!(item, ItemKind::Import | ItemKind::Global);
        if above.is_some() || !together {
            separate(out);
        }
        lines(above.map_or(&[], Vec::as_slice), out);
        if self.names.is_alias(symbol) {
            self.alias(symbol, out);
        }
        match item {
            ItemKind::Import if declared => self.import(symbol, out),
            ItemKind::Import | ItemKind::Global => {}
            ItemKind::Data(number) => {
                let data = &self.module.data[number];
                if matches!(data.init, Init::Zeros(len) if len > MAX_ZEROS) {
                    return Err(self.error(symbol, format!("it has more than {MAX_ZEROS} bytes")));
                }
                self.linkage(symbol, out);
                out.push_str("data ");
                data::write(data, self.names, &self.zeros, out);
            }
            ItemKind::Function(number) => out.push_str(&functions[number]),
        }
        Ok(Some(item))
    }

    /// Writes the item that defines a generated name.
    fn alias(&self, symbol: SymbolId, out: &mut String) {
        let (text, of) = (self.names.text(symbol), self.module.symbol(symbol));
        let _ = match (of.kind, &*of.name) {
            (SymbolKind::Global, key) => writeln!(out, "global {text} = {}", quoted(key.as_bytes())),
            (_, "") => writeln!(out, "anonymous {text}"),
            (_, name) => writeln!(out, "symbol {text} = {}", quoted(name.as_bytes())),
        };
    }

    fn import(&self, symbol: SymbolId, out: &mut String) {
        let (text, of) = (self.names.text(symbol), self.module.symbol(symbol));
        let _ = match (of.kind, &of.signature) {
            (SymbolKind::Function, Some(signature)) => writeln!(out, "import function {text}{signature}"),
            (SymbolKind::Function, None) => writeln!(out, "import function {text}"),
            (SymbolKind::Data | SymbolKind::Global, _) => writeln!(out, "import data {text}"),
        };
    }

    fn linkage(&self, symbol: SymbolId, out: &mut String) {
        out.push_str(match self.module.symbol(symbol).linkage {
            Linkage::Export | Linkage::Import => "",
            Linkage::Hidden => "hidden ",
            Linkage::Local => "local ",
            Linkage::Preemptible => "preemptible ",
            Linkage::Replaceable => "replaceable ",
        });
    }

    /// Writes a function with its `debug` item and its comments.
    fn function(
        &self,
        function: &Function,
        ir: Option<cranelift_codegen::ir::Function>,
    ) -> Result<String, PrintError> {
        let symbol = function.symbol;
        let mut out = String::new();
        let (name, variables) = (self.names.text(symbol), &*function.variables);
        let written = match (&function.code, &ir) {
            (Code::Machine(code), _) => {
                self.linkage(symbol, &mut out);
                code::write(code, self.names, symbol, self.module.symbol(symbol).signature.as_ref(), &mut out)
            }
            (_, Some(ir)) => function::debug(ir, name, variables, &mut out).and_then(|()| {
                self.linkage(symbol, &mut out);
                out.push_str(match function.inline {
                    InlineHint::BySize => "",
                    InlineHint::Inline => "inline ",
                    InlineHint::Never => "noinline ",
                });
                let comments = &function.comments;
                function::write(ir, self.names, symbol, comments, &mut out)?;
                if too_many(&out).is_none() {
                    return Ok(());
                }
                // The match may be inside a comment, so the search is repeated without comments.
                let mut bare = String::new();
                function::write(ir, self.names, symbol, &Comments::new(), &mut bare)?;
                too_many(&bare).map_or(Ok(()), |found| Err(found.message))
            }),
            (Code::Ir(_), None) => Ok(()),
        };
        written.map_err(|reason| self.error(symbol, reason))?;
        end(&function.comments, &mut out);
        Ok(out)
    }

    fn error(&self, symbol: SymbolId, reason: String) -> PrintError {
        PrintError { name: self.module.symbol(symbol).name.clone(), reason: reason.into() }
    }
}

/// Writes the comments after a function, from the end of its last line on.
fn end(comments: &Comments, out: &mut String) {
    let mut comments = comments.iter().filter(|comment| comment.anchor == Anchor::End).peekable();
    if let Some(comment) = comments.next_if(|comment| comment.trailing) {
        let _ = write!(out, " {}", comment.text);
    }
    out.push('\n');
    for comment in comments {
        let _ = writeln!(out, "{}", comment.text);
    }
}

fn list(out: &mut String, words: &str, settings: &[Setting]) {
    out.push_str(words);
    for setting in settings {
        let _ = write!(out, " {setting}");
    }
    out.push('\n');
}
