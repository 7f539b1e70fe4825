//! Prints lists of errors for people.

use std::sync::Arc;

use kiln::ir::{Diagnostic, Location, Source};

use super::escape::name;
use super::failure::Failure;
use super::units::count;

/// The number of errors that are shown. The rest are only counted.
const SHOWN: usize = kiln::globals::SHOWN_ERRORS;

/// Prints the first errors of a list that arrives in parts, and counts all of them.
#[derive(Default)]
pub(crate) struct Shown(usize);

impl Shown {
    /// Prints the errors of one part to standard error.
    pub(crate) fn print(&mut self, diagnostics: &[Diagnostic]) {
        let left = SHOWN.saturating_sub(self.0);
        diagnostics.iter().take(left).for_each(|diagnostic| eprintln!("{}", shown(diagnostic)));
        self.0 += diagnostics.len();
    }

    /// The number of errors.
    pub(crate) fn count(&self) -> usize {
        self.0
    }

    /// Returns the failure of a command that has found errors. `noun` names an error and `rest`
    /// says where they are: `2 errors in the input`.
    pub(crate) fn failure(&self, noun: &str, rest: &str) -> Failure {
        let found = count(self.0, noun);
        Failure::new(match self.0 {
            0..=SHOWN => format!("{found} {rest}"),
            _ => format!("{found} {rest}, of which the first {SHOWN} are shown"),
        })
    }
}

/// Returns the first lines of a list, and a line with the number of the others.
pub(crate) fn first_lines(lines: impl Iterator<Item = String>) -> String {
    let mut lines = lines.fuse();
    let mut text: Vec<String> = lines.by_ref().take(SHOWN).collect();
    match lines.count() {
        0 => {}
        more => text.push(format!("error: {} not shown", count(more, "more error"))),
    }
    text.join("\n")
}

/// Formats an error for people. Line ends in names are escaped, so a name cannot break a line.
pub(crate) fn shown(diagnostic: &Diagnostic) -> String {
    let file = |location: &mut Location| {
        if let std::borrow::Cow::Owned(escaped) = name(&location.source.name) {
            location.source = Arc::new(Source::new(escaped, location.source.text()));
        }
    };
    let mut diagnostic = diagnostic.clone();
    diagnostic.message = name(&diagnostic.message).into();
    file(&mut diagnostic.location);
    for related in &mut diagnostic.related {
        related.label = name(&related.label).into();
        file(&mut related.location);
    }
    diagnostic.to_string()
}
