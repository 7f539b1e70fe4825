//! Cuts a file into its top-level items, in one pass at the speed of `memchr`.
//!
//! Cranelift's reader takes a whole file and stops at its first error. Reading item by item gives the errors of every
//! function, leaves room for items of our own, and would allow reading in parallel. A function is cut out by its
//! closing brace, for braces do not nest in CLIF; only comments and strings have to be skipped. What is inside a function
//! is not looked at here.
//!
//! Invariant: the text of a function item starts with `function` and holds nothing else than that function and the
//! comments up to the next item, so that the reader never takes anything in it for a header line.

use super::MAX_FAULTS;
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
    /// Where in it the closing brace is.
    pub(super) end: usize,
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
        if cursor.rest().is_empty() || faults.len() >= MAX_FAULTS {
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
            let triple = words
                .next()
                .ok_or_else(|| cursor.fault_at(at, word.len(), "expected a target".to_owned()))?;
            settings.targets.push(TargetLine {
                triple: triple.into(),
                settings: words.map(setting).collect(),
                line,
            });
        }
        "test" => settings.tests.extend(words.next().map(Into::into)),
        // `feature` lines direct Cranelift's own test runner.
        _ => {}
    }
    Ok(())
}

/// Cuts out a function, the cursor standing at its keyword.
fn function<'t>(cursor: &mut Cursor<'t>, linkage: Linkage) -> FunctionItem<'t> {
    let at = cursor.at;
    let line = cursor.line_of(at);
    let mut end = usize::MAX;
    loop {
        let rest = cursor.rest();
        let Some(next) = memchr::memchr3(b';', b'"', b'}', rest.as_bytes()) else {
            cursor.at = cursor.text.len();
            break;
        };
        cursor.at += next + 1;
        match rest.as_bytes()[next] {
            b'}' => {
                end = cursor.at - 1 - at;
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
    FunctionItem { linkage, at, line, text: &cursor.text[at..cursor.at], end }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::module::Init;
    use crate::source::Source;

    /// The items of a text: `line kind text`, with faults behind them.
    fn items(text: &str) -> Vec<String> {
        let source = Arc::new(Source::new("test", text));
        let mut faults = Vec::new();
        let file = scan(&mut Cursor::new(&source), false, &mut faults);
        let items = file.items.iter().map(|item| match item {
            Item::Function(item) => {
                assert_eq!(&text[item.at..item.at + item.text.len()], item.text);
                format!("{} {:?} {}", item.line, item.linkage, item.text)
            }
            Item::Datum(item) => format!("{} {:?} data {}", item.line, item.linkage, item.name),
            Item::Global(item) => format!("{} global {} {}", item.line, item.name, item.key),
        });
        let faults = faults.iter().map(|fault| format!("{:?}: {}", fault.place, fault.message));
        items.chain(faults).collect()
    }

    #[test]
    fn functions_with_the_comments_behind_them() {
        assert_eq!(
            items("; a\nfunction %a() {}\n; b\n; c\n\n function %b() { } function %c() {}"),
            [
                "2 Export function %a() {}\n; b\n; c\n\n ",
                "6 Export function %b() { } ",
                "6 Export function %c() {}"
            ]
        );
    }

    #[test]
    fn braces_in_comments_and_strings() {
        let text = "function %a() { ; }\n region0 = 1 \"}\n;}\" }";
        assert_eq!(items(text), [format!("1 Export {text}")]);
    }

    #[test]
    fn linkage_and_other_items() {
        assert_eq!(
            items("local\n; x\nfunction %a() {}\nhidden data %d{}global %g=\"k\"\r\nfunction %b() {}\n"),
            ["3 Local function %a() {}\n", "4 Hidden data d", "4 global g k", "5 Export function %b() {}\n"]
        );
    }

    #[test]
    fn text_that_ends_early() {
        assert_eq!(items("function %a() {"), ["1 Export function %a() {"]);
        assert_eq!(items("function %a() { \"}"), ["1 Export function %a() { \"}"]);
        assert_eq!(items("function %a() { ; }"), ["1 Export function %a() { ; }"]);
        assert_eq!(items("local"), ["test:1:6+1: expected `function` or `data`, found the end of the file"]);
    }

    #[test]
    fn goes_on_behind_a_fault() {
        assert_eq!(
            items("what\n is this\nfunction %a() {}\n}\ndata ?\nfunction %b() {}"),
            [
                "3 Export function %a() {}\n",
                "6 Export function %b() {}",
                "test:1:1+4: expected `function`, `data` or `global`, found `what`",
                "test:4:1+1: expected `function`, `data` or `global`, found `}`",
                "test:5:6+1: expected a name (`%name` or `u1:23`), found `?`",
            ]
        );
    }

    #[test]
    fn byte_order_of_the_target() {
        let source = Arc::new(Source::new("test", "data %d { i32 1, f32 1.0, bytes #0102 }"));
        let init =
            |big_endian| match scan(&mut Cursor::new(&source), big_endian, &mut Vec::new()).items.remove(0) {
                Item::Datum(datum) => datum.init,
                _ => panic!("a datum was written"),
            };
        assert_eq!(init(true), Init::Bytes(vec![0, 0, 0, 1, 0x3f, 0x80, 0, 0, 1, 2]));
        assert_eq!(init(false), Init::Bytes(vec![1, 0, 0, 0, 0, 0, 0x80, 0x3f, 1, 2]));
    }
}
