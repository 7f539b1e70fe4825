//! Cuts a file into its top-level items, in one pass at the speed of `memchr`.
//!
//! Cranelift's reader takes a whole file and stops at its first error. Reading item by item gives
//! the errors of every function, allows for items that are not in CLIF, and allows reading in
//! parallel. Braces do not nest in CLIF, so a function ends at the first closing brace that is not
//! in a comment or a string. Nothing else inside of a function is examined here.
//!
//! The ranges of comments are recorded. `comments` decides which item each belongs to when all
//! items are known.
//!
//! Invariant: the text of a function item starts with `function` and ends with its closing brace,
//! so that Cranelift's reader never mistakes part of it for a header line.

use cranelift_codegen::isa::CallConv;

use super::cursor::{Cursor, Token};
use super::item::{FunctionItem, Item, ItemRange};
use super::{code, data, debug, items, lines};
use crate::diagnostic::Diagnostic;
use crate::function::InlineHint;
use crate::settings::{ModuleSettings, Setting, TargetLine};
use crate::symbol::Linkage;

/// The properties of the target that affect how a file is read.
#[derive(Clone, Copy)]
pub(super) struct TargetDefaults {
    pub(super) big_endian: bool,
    pub(super) call_conv: CallConv,
}

/// A file that is cut into items.
#[derive(Default)]
pub(super) struct ScannedFile<'t> {
    pub(super) settings: ModuleSettings,
    pub(super) items: Vec<Item<'t>>,
    /// The range of each item.
    pub(super) ranges: Vec<ItemRange>,
    /// The range of the header lines, if there are any.
    pub(super) header: Option<ItemRange>,
}

/// First words of header lines, and of items that may have a linkage.
const FIRST: [&str; 14] = [
    "function",
    "data",
    "code",
    "export",
    "hidden",
    "local",
    "preemptible",
    "replaceable",
    "inline",
    "noinline",
    "test",
    "feature",
    "set",
    "target",
];

/// First words of items that have no linkage.
const OTHERS: [&str; 6] = ["global", "symbol", "anonymous", "import", "debug", "lines"];

/// Cuts the text of `cursor` into items. Adds errors outside of functions to `faults`, and leaves
/// out the items that have them.
pub(super) fn scan<'t>(
    cursor: &mut Cursor<'t>,
    defaults: TargetDefaults,
    faults: &mut Vec<Diagnostic>,
) -> ScannedFile<'t> {
    let mut file = ScannedFile::default();
    loop {
        cursor.trivia();
        if cursor.rest().is_empty() {
            return file;
        }
        if let Err(fault) = item(cursor, defaults, &mut file) {
            faults.push(fault);
            recover(cursor);
        }
    }
}

fn item<'t>(cursor: &mut Cursor<'t>, defaults: TargetDefaults, file: &mut ScannedFile<'t>) -> Token<()> {
    let start = cursor.at;
    let word = cursor.peek_word();
    if matches!(word, "test" | "feature" | "set" | "target") {
        if !file.items.is_empty() {
            let message = format!("a `{word}` line must stand before functions, data and globals");
            return Err(cursor.fault_at(cursor.at, word.len(), message));
        }
        header(cursor, word, &mut file.settings)?;
        let start = file.header.map_or(start, |header| header.start);
        file.header = Some(ItemRange { start, end: cursor.at, comments: cursor.comments.len() });
        return Ok(());
    }
    let linkage = match word {
        "export" => Some(Linkage::Export),
        "hidden" => Some(Linkage::Hidden),
        "local" => Some(Linkage::Local),
        "preemptible" => Some(Linkage::Preemptible),
        "replaceable" => Some(Linkage::Replaceable),
        _ => None,
    };
    if linkage.is_some() {
        cursor.at += word.len();
        cursor.trivia();
    }
    let hint = match cursor.peek_word() {
        "inline" => Some(InlineHint::Inline),
        "noinline" => Some(InlineHint::Never),
        _ => None,
    };
    if hint.is_some() {
        let (at, word) = (cursor.at, cursor.peek_word());
        cursor.at += word.len();
        cursor.trivia();
        if cursor.peek_word() != "function" {
            return Err(cursor.fault_at(at, word.len(), format!("only functions can be `{word}`")));
        }
    }
    let kind = cursor.peek_word();
    if kind == "data" && linkage == Some(Linkage::Replaceable) {
        return Err(cursor.fault_at(start, word.len(), "only functions can be `replaceable`".to_owned()));
    }
    let defined = linkage.unwrap_or(Linkage::Export);
    if matches!(kind, "data" | "code") || (linkage.is_none() && OTHERS.contains(&kind)) {
        cursor.at += kind.len();
    }
    let item = match (kind, linkage) {
        ("function", _) => Item::Function(function(cursor, defined, hint.unwrap_or_default())?),
        ("data", _) => Item::Data(data::data_object(cursor, defined, defaults.big_endian)?),
        ("code", _) => Item::Code(code::code(cursor, defined, defaults.call_conv)?),
        ("global", None) => Item::Global(data::global(cursor)?),
        ("symbol", None) => Item::Alias(items::alias(cursor, true)?),
        ("anonymous", None) => Item::Alias(items::alias(cursor, false)?),
        ("import", None) => Item::Import(items::import(cursor, defaults.call_conv)?),
        ("debug", None) => Item::Debug(debug::debug(cursor)?),
        ("lines", None) => Item::Lines(lines::lines(cursor)?),
        (_, Some(_)) => return Err(cursor.unexpected("`function`, `data` or `code`")),
        (_, None) => return Err(cursor.unexpected("`function`, `data`, `global` or another item")),
    };
    file.ranges.push(ItemRange { start, end: cursor.at, comments: cursor.comments.len() });
    file.items.push(item);
    Ok(())
}

/// Reads a header line.
fn header(cursor: &mut Cursor<'_>, word: &str, settings: &mut ModuleSettings) -> Token<()> {
    let at = cursor.at;
    let line = cursor.line_of(at);
    let rest = cursor.rest();
    let end = memchr::memchr2(b'\n', b';', rest.as_bytes()).unwrap_or(rest.len());
    cursor.at += end;
    let mut words = rest[..end].split_ascii_whitespace().skip(1);
    if matches!(word, "set" | "target")
        && let Some(nameless) = words.clone().find(|word| word.starts_with('='))
    {
        // Words are slices of the text.
        let at = nameless.as_ptr().addr() - cursor.text.as_ptr().addr();
        return Err(cursor.fault_at(at, nameless.len(), "a setting needs a name".to_owned()));
    }
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
        _ => {
            let words: Vec<_> = std::iter::once(word).chain(words).collect();
            settings.directives.push(words.join(" ").into());
        }
    }
    Ok(())
}

/// Cuts out a function, with the cursor at its keyword.
fn function<'t>(cursor: &mut Cursor<'t>, linkage: Linkage, inline: InlineHint) -> Token<FunctionItem<'t>> {
    let at = cursor.at;
    let line = cursor.line_of(at);
    let mut comments = Vec::new();
    loop {
        let rest = cursor.rest();
        let Some(next) = memchr::memchr3(b';', b'"', b'}', rest.as_bytes()) else {
            cursor.at = cursor.text.len();
            break;
        };
        cursor.at += next + 1;
        match rest.as_bytes()[next] {
            b'}' => break,
            b';' => {
                let start = cursor.at - 1;
                cursor.line_end();
                comments.push((start, cursor.at));
            }
            _ => {
                // Cranelift's reader would accept a string of several lines. Usually that is a
                // string that was not closed, and the error would be reported far below it.
                let rest = cursor.rest().as_bytes();
                let Some(end) = memchr::memchr2(b'"', b'\n', rest).filter(|&end| rest[end] == b'"') else {
                    let message = "this string does not end on its line".to_owned();
                    return Err(cursor.fault_at(cursor.at - 1, 1, message));
                };
                cursor.at += end + 1;
            }
        }
    }
    Ok(FunctionItem { linkage, inline, start: at, line, text: &cursor.text[at..cursor.at], comments })
}

/// Skips to the next line that starts with the first word of an item.
fn recover(cursor: &mut Cursor<'_>) {
    loop {
        cursor.line_end();
        if cursor.rest().is_empty() {
            return;
        }
        cursor.at += 1;
        let word = cursor.peek_word();
        if OTHERS.contains(&word) || FIRST.contains(&word) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::data::Init;
    use crate::source::Source;

    const LITTLE: TargetDefaults = TargetDefaults { big_endian: false, call_conv: CallConv::SystemV };

    /// Returns the items of a text as `line kind text`, followed by its errors.
    fn items(text: &str) -> Vec<String> {
        let source = Arc::new(Source::new("test", text));
        let mut faults = Vec::new();
        let file = scan(&mut Cursor::new(&source), LITTLE, &mut faults);
        let items = file.items.iter().map(|item| match item {
            Item::Function(item) => {
                assert_eq!(&text[item.start..item.start + item.text.len()], item.text);
                format!("{} {:?} {}", item.line, item.linkage, item.text)
            }
            Item::Data(item) => format!("{} {:?} data {}", item.line, item.linkage, item.name),
            Item::Global(item) => format!("{} global {} {}", item.line, item.name, item.key),
            Item::Code(item) => format!("{} {:?} code {}", item.line, item.linkage, item.name),
            Item::Alias(item) => format!("{} alias {} {:?}", item.line, item.name, item.of),
            Item::Import(item) => format!("{} import {:?} {}", item.line, item.kind, item.name),
            Item::Debug(item) => format!("debug {}", item.name),
            Item::Lines(item) => format!("lines {}", item.file.name),
        });
        let faults = faults.iter().map(|fault| format!("{:?}: {}", fault.location, fault.message));
        items.chain(faults).collect()
    }

    #[test]
    fn functions_without_the_comments_after_them() {
        assert_eq!(
            items("; a\nfunction %a() {}\n; b\n; c\n\n function %b() { } function %c() {}"),
            ["2 Export function %a() {}", "6 Export function %b() { }", "6 Export function %c() {}"]
        );
    }

    #[test]
    fn braces_in_comments_and_strings() {
        let text = "function %a() { ; }\n region0 = 1 \"};}\" }";
        assert_eq!(items(text), [format!("1 Export {text}")]);
    }

    #[test]
    fn linkage_and_other_items() {
        assert_eq!(
            items("local\n; x\nfunction %a() {}\nhidden data %d{}global %g=\"k\"\r\nfunction %b() {}\n"),
            ["3 Local function %a() {}", "4 Hidden data d", "4 global g k", "5 Export function %b() {}"]
        );
    }

    #[test]
    fn text_that_ends_early() {
        assert_eq!(items("function %a() {"), ["1 Export function %a() {"]);
        assert_eq!(items("function %a() { \"}\n}"), ["test:1:17+1: this string does not end on its line"]);
        assert_eq!(items("function %a() { ; }"), ["1 Export function %a() { ; }"]);
        assert_eq!(
            items("local"),
            ["test:1:6+1: expected `function`, `data` or `code`, found the end of the file"]
        );
    }

    #[test]
    fn goes_on_after_an_error() {
        assert_eq!(
            items("what\n is this\nfunction %a() {}\n}\ndata ?\nfunction %b() {}"),
            [
                "3 Export function %a() {}",
                "6 Export function %b() {}",
                "test:1:1+4: expected `function`, `data`, `global` or another item, found `what`",
                "test:4:1+1: expected `function`, `data`, `global` or another item, found `}`",
                "test:5:6+1: expected a name (`%name` or `u1:23`), found `?`",
            ]
        );
    }

    #[test]
    fn byte_order_of_the_target() {
        let source = Arc::new(Source::new("test", "data %d { i32 1, f32 1.0, bytes #0102 }"));
        let init = |big_endian| match scan(
            &mut Cursor::new(&source),
            TargetDefaults { big_endian, ..LITTLE },
            &mut Vec::new(),
        )
        .items
        .remove(0)
        {
            Item::Data(object) => object.init,
            _ => panic!("a data object was written"),
        };
        assert_eq!(init(true), Init::Bytes(vec![0, 0, 0, 1, 0x3f, 0x80, 0, 0, 1, 2]));
        assert_eq!(init(false), Init::Bytes(vec![1, 0, 0, 0, 0, 0, 0x80, 0x3f, 1, 2]));
    }
}
