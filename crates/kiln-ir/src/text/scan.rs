//! Cuts a file into its top-level items, in one pass at the speed of `memchr`.
//!
//! Cranelift's reader takes a whole file and stops at its first error. Reading item by item gives the errors of every
//! function, leaves room for items of our own, and would allow reading in parallel. A function is cut out by its
//! closing brace, for braces do not nest in CLIF; only comments and strings have to be skipped. What is inside a function
//! is not looked at here.
//!
//! Invariant: the text of a function item starts with `function` and holds nothing else than that function and the
//! comments up to the next item, so that the reader never takes anything in it for a header line.

use super::cursor::{Cursor, Token};
use super::notation::{self, Datum, Global};
use crate::diagnostic::Diagnostic;
use crate::module::Linkage;
use crate::settings::{ModuleSettings, Setting, TargetLine};

/// One function's text.
pub(super) struct FunctionItem<'t> {
    pub(super) linkage: Linkage,
    /// Position of the `function` keyword.
    pub(super) at: usize,
    /// Line of the `function` keyword.
    pub(super) line: u32,
    /// The function and the comments behind it.
    pub(super) text: &'t str,
}

/// A top-level item.
pub(super) enum Item<'t> {
    Function(FunctionItem<'t>),
    Datum(Datum<'t>),
    Global(Global<'t>),
}

/// A file, cut up.
#[derive(Default)]
pub(super) struct File<'t> {
    pub(super) settings: ModuleSettings,
    pub(super) items: Vec<Item<'t>>,
}

/// Cuts up the text of `cursor`. Faults outside functions are added to `faults`, and the item they are in is left out.
pub(super) fn scan<'t>(cursor: &mut Cursor<'t>, big_endian: bool, faults: &mut Vec<Diagnostic>) -> File<'t> {
    let mut file = File::default();
    loop {
        cursor.trivia();
        if cursor.rest().is_empty() {
            return file;
        }
        if let Err(fault) = item(cursor, big_endian, &mut file) {
            faults.push(fault);
            recover(cursor);
        }
    }
}

fn item<'t>(cursor: &mut Cursor<'t>, big_endian: bool, file: &mut File<'t>) -> Token<()> {
    let word = cursor.peek_word();
    if matches!(word, "test" | "feature" | "set" | "target") {
        if !file.items.is_empty() {
            let message = format!("a `{word}` line must stand before functions, data and globals");
            return Err(cursor.fault_at(cursor.at, word.len(), message));
        }
        return header(cursor, word, &mut file.settings);
    }
    let linkage = match word {
        "export" => Some(Linkage::Export),
        "hidden" => Some(Linkage::Hidden),
        "local" => Some(Linkage::Local),
        "preemptible" => Some(Linkage::Preemptible),
        _ => None,
    };
    if linkage.is_some() {
        cursor.at += word.len();
        cursor.trivia();
    }
    let kind = cursor.peek_word();
    let item = match (kind, linkage) {
        ("function", _) => Item::Function(function(cursor, linkage.unwrap_or(Linkage::Export))),
        ("data", _) => {
            cursor.at += kind.len();
            Item::Datum(notation::datum(cursor, linkage.unwrap_or(Linkage::Export), big_endian)?)
        }
        ("global", None) => {
            cursor.at += kind.len();
            Item::Global(notation::global(cursor)?)
        }
        (_, Some(_)) => return Err(cursor.unexpected("`function` or `data`")),
        (_, None) => return Err(cursor.unexpected("`function`, `data` or `global`")),
    };
    file.items.push(item);
    Ok(())
}

/// Reads a header line.
fn header(cursor: &mut Cursor<'_>, word: &str, settings: &mut ModuleSettings) -> Token<()> {
    let at = cursor.at;
    let line = cursor.line_of(at);
    let text = cursor.line_end();
    let mut words = text.split(';').next().unwrap_or("").split_ascii_whitespace().skip(1);
    let setting = |word: &str| {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.into())),
            None => (word, None),
        };
        Setting { name: name.into(), value, line }
    };
    match word {
        "set" => settings.shared.extend(words.map(setting)),
        "target" => {
            let triple =
                words.next().ok_or_else(|| cursor.fault_at(at, word.len(), "expected a target".to_owned()))?;
            settings.targets.push(TargetLine {
                triple: triple.into(),
                settings: words.map(setting).collect(),
                line,
            });
        }
        // `test` and `feature` lines direct Cranelift's own test runner.
        _ => {}
    }
    Ok(())
}

/// Cuts out a function, the cursor standing at its keyword.
fn function<'t>(cursor: &mut Cursor<'t>, linkage: Linkage) -> FunctionItem<'t> {
    let at = cursor.at;
    let line = cursor.line_of(at);
    loop {
        let rest = cursor.rest();
        let Some(next) = memchr::memchr3(b';', b'"', b'}', rest.as_bytes()) else {
            cursor.at = cursor.text.len();
            break;
        };
        cursor.at += next + 1;
        match rest.as_bytes()[next] {
            b'}' => {
                cursor.trivia();
                break;
            }
            b';' => {
                cursor.line_end();
            }
            _ => {
                let rest = cursor.rest();
                cursor.at += memchr::memchr(b'"', rest.as_bytes()).map_or(rest.len(), |end| end + 1);
            }
        }
    }
    FunctionItem { linkage, at, line, text: &cursor.text[at..cursor.at] }
}

/// Skips to the next line that starts with the first word of an item.
fn recover(cursor: &mut Cursor<'_>) {
    loop {
        cursor.line_end();
        if cursor.rest().is_empty() {
            return;
        }
        cursor.at += 1;
        if matches!(
            cursor.peek_word(),
            "function"
                | "data"
                | "global"
                | "export"
                | "hidden"
                | "local"
                | "preemptible"
                | "test"
                | "feature"
                | "set"
                | "target"
        ) {
            return;
        }
    }
}
