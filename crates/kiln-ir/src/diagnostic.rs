//! Diagnostics describe errors in modules, and can be displayed.
//!
//! A [`Diagnostic`] is a value. Its kind tells a caller how to react, and its locations tell a
//! reader where to look. `Display` shows it with an excerpt of the text, as rustc does. Nothing
//! here writes to the terminal.
//!
//! Invariant: [`sort`] is a total order, so that every run reports the same errors in the same
//! order.

use std::cmp::Ordering;
use std::fmt;

use annotate_snippets::{AnnotationKind, Element, Level, Origin, Renderer, Snippet};

use crate::location::Location;
use crate::names::written;

/// The kind of a diagnostic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DiagnosticKind {
    /// The text is not valid CLIF, or not text at all.
    Syntax,
    /// A function breaks the rules of Cranelift IR.
    Verifier,
    /// Something is defined twice.
    Duplicate,
    /// Two uses of a function, or a use and its definition, have different types.
    Signature,
    /// A name is used as another kind of symbol than it is defined as.
    Kind,
    /// A name is used, but nothing defines it.
    Undefined,
    /// A `set` or `target` line names a setting that does not exist, or does not have this value.
    Setting,
    /// The module has `target` lines, but none for the target of the build. This is not an error in
    /// the module: skip it.
    OtherTarget,
    /// Code cannot be generated for the target of the build.
    Target,
    /// The IR is valid, but Kiln does not support it.
    Unsupported,
}

/// Another location that matters for a diagnostic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Related {
    /// The location.
    pub location: Location,
    /// A note on it: `first defined here`.
    pub label: Box<str>,
}

/// One error in a module, or between several modules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Its kind.
    pub kind: DiagnosticKind,
    /// The message: lower case, one line, no full stop.
    pub message: Box<str>,
    /// The location of the error.
    pub location: Location,
    /// Other locations to look at.
    pub related: Vec<Related>,
}

impl Diagnostic {
    /// Creates a diagnostic without related locations.
    pub fn new(kind: DiagnosticKind, message: impl Into<Box<str>>, location: Location) -> Self {
        Self { kind, message: message.into(), location, related: Vec::new() }
    }

    /// Adds a related location.
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

/// The length in bytes of the longest line that is shown.
const MAX_LINE: usize = 1000;

/// Shows the line of a location with carets under it. Only that line is passed to the renderer,
/// whatever the size of the text.
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

/// Orders diagnostics by file name, line, column, length, message, then kind.
pub fn sort(diagnostics: &mut [Diagnostic]) {
    diagnostics.sort_by(order);
}

/// Compares diagnostics in the order of [`sort`].
pub(crate) fn order(a: &Diagnostic, b: &Diagnostic) -> Ordering {
    (a.location.key(), &a.message, a.kind as u8).cmp(&(b.location.key(), &b.message, b.kind as u8))
}

/// Returns a message of Cranelift in the form of Kiln's messages: one line, lower case unless it
/// starts with a name, no full stop.
pub(crate) fn one_line(message: &str) -> String {
    let mut text = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut chars = text.chars();
    if let (Some(first), Some(second)) = (chars.next(), chars.next())
        && first.is_ascii_uppercase()
        && second.is_ascii_lowercase()
    {
        text.replace_range(..1, &first.to_ascii_lowercase().to_string());
    }
    text.truncate(text.trim_end_matches('.').len());
    text
}

/// Returns the diagnostic for a name that has two definitions.
pub(crate) fn duplicate(name: &str, second: Location, first: Location) -> Diagnostic {
    let message = format!("`{}` is defined twice", written(name));
    Diagnostic::new(DiagnosticKind::Duplicate, message, second).related(first, "first defined here")
}
