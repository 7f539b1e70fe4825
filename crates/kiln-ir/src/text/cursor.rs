//! A position in a text.
//!
//! Invariant: `at` is at a character boundary of the text and never goes back, so a caller's loop
//! that advances it ends.

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, DiagnosticKind};
use crate::limits::{DATA_FOR_BYTE, FREE_DATA, MAX_DATA};
use crate::location::Location;
use crate::source::Source;

/// Reads a text from front to back.
pub(super) struct Cursor<'t> {
    pub(super) source: &'t Arc<Source>,
    pub(super) text: &'t str,
    pub(super) at: usize,
    /// Start and end of each comment that was skipped.
    pub(super) comments: Vec<(usize, usize)>,
    /// The number of bytes that data objects may still have, not counting those that are all zeros.
    /// Without this limit, a short text could need a lot of memory.
    pub(super) data_left: u64,
    /// A position and its line, to continue counting from.
    counted: (usize, u32),
}

/// A token, or the error in its text.
pub(super) type Token<T> = Result<T, Diagnostic>;

impl<'t> Cursor<'t> {
    pub(super) fn new(source: &'t Arc<Source>) -> Self {
        let text = &*source.text;
        // Some editors put a byte order mark before UTF-8.
        let at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let data_left = (FREE_DATA + DATA_FOR_BYTE * text.len() as u64).min(MAX_DATA);
        Self { source, text, at, comments: Vec::new(), data_left, counted: (0, 1) }
    }

    /// Returns the text from here on.
    pub(super) fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    pub(super) fn bytes(&self) -> &'t [u8] {
        &self.text.as_bytes()[self.at..]
    }

    /// Skips blanks and comments.
    pub(super) fn trivia(&mut self) {
        loop {
            let blank = self.bytes().iter().take_while(|b| matches!(b, b' ' | 9..=13)).count();
            self.at += blank;
            if self.bytes().first() != Some(&b';') {
                return;
            }
            self.comment();
        }
    }

    /// Skips the comment that starts here, and records its range.
    pub(super) fn comment(&mut self) {
        let start = self.at;
        self.line_end();
        self.comments.push((start, self.at));
    }

    /// Skips to the end of the line and returns what was skipped.
    pub(super) fn line_end(&mut self) -> &'t str {
        let rest = self.rest();
        let end = memchr::memchr(b'\n', rest.as_bytes()).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// Returns the line of position `at`. Positions must not decrease from call to call.
    pub(super) fn line_of(&mut self, at: usize) -> u32 {
        let (from, line) = self.counted;
        let more = memchr::memchr_iter(b'\n', &self.text.as_bytes()[from..at]).count();
        self.counted = (at, line.saturating_add(u32::try_from(more).unwrap_or(u32::MAX)));
        self.counted.1
    }

    /// Returns the letters, digits and `_` from here on.
    pub(super) fn peek_word(&self) -> &'t str {
        let rest = self.rest();
        let end = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
        &rest[..end]
    }

    /// Takes `word` if it comes next, after blanks.
    pub(super) fn word(&mut self, word: &str) -> bool {
        self.trivia();
        let found = self.peek_word() == word;
        if found {
            self.at += word.len();
        }
        found
    }

    /// Takes the character `c` if it comes next, after blanks.
    pub(super) fn eat(&mut self, c: u8) -> bool {
        self.trivia();
        let found = self.bytes().first() == Some(&c);
        if found {
            self.at += 1;
        }
        found
    }

    /// Takes the character `c`, which must come next.
    pub(super) fn expect(&mut self, c: u8, what: &str) -> Token<()> {
        if self.eat(c) { Ok(()) } else { Err(self.unexpected(what)) }
    }

    /// Returns the error that the next token is not `expected`.
    pub(super) fn unexpected(&mut self, expected: &str) -> Diagnostic {
        self.trivia();
        let word = self.peek_word();
        let sign = self.rest().chars().next().filter(|c| matches!(c, '%' | '@' | '#' | '"'));
        let length = match (sign, word) {
            (None, "") => self.rest().chars().next().map_or(0, char::len_utf8),
            (None, word) => word.len(),
            (Some(sign), _) => {
                let tail = &self.rest()[sign.len_utf8()..];
                sign.len_utf8() + tail.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count()
            }
        };
        let found = match length {
            0 => "the end of the file".to_owned(),
            _ => format!("`{}`", self.rest()[..length].escape_debug()),
        };
        self.fault_at(self.at, length, format!("expected {expected}, found {found}"))
    }

    /// Returns a syntax error that is located at the `length` bytes from `at`.
    pub(super) fn fault_at(&self, at: usize, length: usize, message: String) -> Diagnostic {
        Diagnostic::new(DiagnosticKind::Syntax, message, Location::at(self.source, at, length))
    }
}
