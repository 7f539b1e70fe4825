//! What is wrong with a module, where, and how that is shown.
//!
//! A [`Diagnostic`] is a value: its kind says what a caller may do about it, its places say where to look. `Display`
//! shows it with the text it is about, as rustc does. Nothing here prints.
//!
//! Invariants:
//! - Lines and columns count from 1, columns and lengths in characters. Line 0 stands for the module as a whole, which
//!   is all that can be said of one that was not read from text; column 0 for a line of a text that is not there.
//! - [`sort`] is a total order, so that the same faults are reported in the same order by every run.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Element, Level, Origin, Renderer, Snippet};

use crate::source::Source;

/// What a diagnostic is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DiagnosticKind {
    /// The text is not in the language.
    Syntax,
    /// A function breaks the rules of Cranelift IR.
    Verifier,
    /// Something is defined twice.
    Duplicate,
    /// Two uses of a function, or a use and its definition, disagree about its type.
    Signature,
    /// A name is used as another kind of thing than it is defined as.
    Kind,
    /// A name that nothing defines.
    Undefined,
    /// A `set` or `target` line asks for a setting that does not exist, or not with this value.
    Setting,
    /// The module has `target` lines, and none is for the target of the build. Not a fault of the module: skip it.
    OtherTarget,
    /// Code cannot be generated for the target of the build.
    Target,
    /// Valid IR that Kiln does not support.
    Unsupported,
}

/// A stretch of one line of a text.
#[derive(Clone, PartialEq, Eq)]
pub struct Location {
    /// The text.
    pub source: Arc<Source>,
    /// The line, or 0 for the whole of it.
    pub line: u32,
    /// The first character, or 0 for all of the line.
    pub column: u32,
    /// The number of characters; 0 only if `column` is 0.
    pub length: u32,
}

impl Location {
    /// The module as a whole.
    pub fn whole(source: Arc<Source>) -> Self {
        Self { source, line: 0, column: 0, length: 0 }
    }

    /// Line `number` of a text that is not there: the module was read from binary form, which keeps the number.
    pub fn unseen(source: Arc<Source>, number: u32) -> Self {
        Self { line: number, ..Self::whole(source) }
    }

    /// `length` bytes of the text at byte `offset`, cut off at the end of the line. Both are rounded down to whole
    /// characters and to the text's end.
    pub fn at(source: &Arc<Source>, offset: usize, length: usize) -> Self {
        let text = &*source.text;
        let offset = text.floor_char_boundary(offset);
        let start = text[..offset].rfind('\n').map_or(0, |at| at + 1);
        let end = text.floor_char_boundary(offset.saturating_add(length));
        let stretch = text[offset..end].lines().next().unwrap_or("");
        Self {
            source: source.clone(),
            line: count(memchr::memchr_iter(b'\n', &text.as_bytes()[..offset]).count()).saturating_add(1),
            column: count(text[start..offset].chars().count()).saturating_add(1),
            length: count(stretch.chars().count()).max(1),
        }
    }

    /// Line `number` from its first to its last character that is not blank, comments left out.
    pub fn line(source: &Arc<Source>, number: u32) -> Self {
        if number == 0 {
            return Self::whole(source.clone());
        }
        let line = source.line(number);
        let code = line.split(';').next().filter(|code| !code.trim().is_empty()).unwrap_or(line);
        let blank = code.chars().take_while(|c| c.is_whitespace()).count();
        let length = code.trim().chars().count().max(1);
        Self { source: source.clone(), line: number, column: count(blank) + 1, length: count(length) }
    }

    /// The first occurrence on line `number` of `word` as a whole word, or else [`Location::line`].
    pub fn word(source: &Arc<Source>, number: u32, word: &str) -> Self {
        let line = source.line(number);
        match find_word(line, word) {
            Some(at) if number != 0 => Self {
                source: source.clone(),
                line: number,
                column: count(line[..at].chars().count()) + 1,
                length: count(word.chars().count()).max(1),
            },
            _ => Self::line(source, number),
        }
    }

    fn key(&self) -> (&str, u32, u32, u32) {
        (&self.source.name, self.line, self.column, self.length)
    }
}

/// Saturates: a text has fewer than 2^32 bytes before anything is reported in it.
fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Position of `word` in `line` where no letter, digit or `_` stands beside it.
pub(crate) fn find_word(line: &str, word: &str) -> Option<usize> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    line.match_indices(word).map(|(at, _)| at).find(|&at| {
        let before = word.starts_with(part) && line[..at].ends_with(part);
        let behind = word.ends_with(part) && line[at + word.len()..].starts_with(part);
        !(word.is_empty() || before || behind)
    })
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (0, _) => f.write_str(&self.source.name),
            (line, 0) => write!(f, "{}:{line}", self.source.name),
            (line, column) => write!(f, "{}:{line}:{column}", self.source.name),
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}+{}", self.length)
    }
}

/// Another place that has to do with a diagnostic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Related {
    /// The place.
    pub location: Location,
    /// What is there: `first defined here`.
    pub label: Box<str>,
}

/// One fault of a module, or of several together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What it is about.
    pub kind: DiagnosticKind,
    /// What is wrong: lower case, one line, no full stop.
    pub message: Box<str>,
    /// Where.
    pub location: Location,
    /// Where else to look.
    pub related: Vec<Related>,
}

impl Diagnostic {
    /// A diagnostic without related places.
    pub fn new(kind: DiagnosticKind, message: impl Into<Box<str>>, location: Location) -> Self {
        Self { kind, message: message.into(), location, related: Vec::new() }
    }

    /// Adds a related place.
    #[must_use]
    pub fn related(mut self, location: Location, label: impl Into<Box<str>>) -> Self {
        self.related.push(Related { location, label: label.into() });
        self
    }
}

impl std::error::Error for Diagnostic {}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = Level::ERROR.primary_title(&*self.message).element(excerpt(&self.location, None));
        let group =
            group.elements(self.related.iter().map(|other| excerpt(&other.location, Some(&other.label))));
        f.write_str(&Renderer::plain().render(&[group]))
    }
}

/// Longer lines, in bytes, are not shown.
const MAX_LINE: usize = 1000;

/// The line of a place with carets under it. Only that line is handed to the renderer, whatever the size of the text.
fn excerpt<'a>(location: &'a Location, label: Option<&'a str>) -> Element<'a> {
    let (name, number) = (&*location.source.name, usize::try_from(location.line).unwrap_or(usize::MAX));
    let line = location.source.line(location.line);
    if line.len() > MAX_LINE || line.trim().is_empty() {
        let origin = Origin::path(name);
        return match (number, usize::try_from(location.column)) {
            (0, _) => origin.into(),
            (_, Ok(0) | Err(_)) => origin.line(number).into(),
            (_, Ok(column)) => origin.line(number).char_column(column).into(),
        };
    }
    let byte = |characters: u32| {
        let characters = usize::try_from(characters).unwrap_or(usize::MAX);
        line.char_indices().nth(characters).map_or(line.len(), |(at, _)| at)
    };
    let start = byte(location.column.saturating_sub(1));
    let end = byte(location.column.saturating_sub(1).saturating_add(location.length));
    let kind = if label.is_some() { AnnotationKind::Context } else { AnnotationKind::Primary };
    Snippet::source(line).path(name).line_start(number).annotation(kind.span(start..end).label(label)).into()
}

/// Orders diagnostics by file name, line, column, then message.
pub fn sort(diagnostics: &mut [Diagnostic]) {
    diagnostics.sort_by(|a, b| -> Ordering {
        (a.location.key(), &a.message, a.kind as u8).cmp(&(b.location.key(), &b.message, b.kind as u8))
    });
}
