//! A range of text that a message is about.
//!
//! Lines and columns count from 1, columns and lengths in characters. Line 0 means the module as a
//! whole, for example if it was not read from text. Column 0 means a whole line, whose text is not
//! available.

use std::fmt;
use std::sync::Arc;

use crate::source::Source;

/// A range in one line of a text.
#[derive(Clone, PartialEq, Eq)]
pub struct Location {
    /// The text.
    pub source: Arc<Source>,
    /// The line, or 0 for the whole text.
    pub line: u32,
    /// The first character, or 0 for the whole line.
    pub column: u32,
    /// The number of characters; 0 only if `column` is 0.
    pub length: u32,
}

impl Location {
    /// Returns the location of a module as a whole.
    pub fn whole(source: Arc<Source>) -> Self {
        Self { source, line: 0, column: 0, length: 0 }
    }

    /// Returns the location of line `number` of a text that is not available, because the module
    /// was read from binary form, which keeps only line numbers.
    pub fn unseen(source: Arc<Source>, number: u32) -> Self {
        Self { line: number, ..Self::whole(source) }
    }

    /// Returns the location of the `length` bytes at byte `offset` of the text, cut off at the end
    /// of the line. Both are rounded down to whole characters and to the text's end.
    pub fn at(source: &Arc<Source>, offset: usize, length: usize) -> Self {
        let (text, positions) = (&*source.text, source.positions());
        let offset = text.floor_char_boundary(offset);
        let line = positions.line_of(text, offset);
        let (start, line_end) = source.line_range(line).unwrap_or((offset, offset));
        let end = text.floor_char_boundary(offset.saturating_add(length)).clamp(offset, line_end.max(offset));
        Self {
            source: source.clone(),
            line: count(line).saturating_add(1),
            column: count(positions.characters(text, start, offset)).saturating_add(1),
            length: count(positions.characters(text, offset, end)).max(1),
        }
    }

    /// Returns the location of line `number`, without comments and without blanks at both ends.
    /// Only the beginning of a very long line is looked at.
    pub fn line(source: &Arc<Source>, number: u32) -> Self {
        if number == 0 {
            return Self::whole(source.clone());
        }
        let line = beginning(source.line(number));
        let code = line.split(';').next().filter(|code| !code.trim().is_empty()).unwrap_or(line);
        let blank = code.chars().take_while(|c| c.is_whitespace()).count();
        let length = code.trim().chars().count().max(1);
        Self { source: source.clone(), line: number, column: count(blank) + 1, length: count(length) }
    }

    /// Returns the location of the first occurrence of `word` as a whole word on line `number`, or
    /// else [`Location::line`]. Only the beginning of a very long line is searched.
    pub fn word(source: &Arc<Source>, number: u32, word: &str) -> Self {
        Self::word_from(source, number, word, 0)
    }

    /// Does the same as [`Location::word`], but the search begins at byte `from` of the text, if
    /// that is on the line.
    pub(crate) fn word_from(source: &Arc<Source>, number: u32, word: &str, from: usize) -> Self {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        let range = index.checked_sub(1).and_then(|index| source.line_range(index));
        let found = range.and_then(|(start, end)| {
            let from = if (start..end).contains(&from) { from } else { start };
            find_word(beginning(&source.text[from..end]), word).map(|at| from + at)
        });
        match found {
            Some(at) => Self::at(source, at, word.len()),
            None => Self::line(source, number),
        }
    }

    pub(crate) fn key(&self) -> (&str, u32, u32, u32) {
        (&self.source.name, self.line, self.column, self.length)
    }
}

/// The number of bytes of a line that are searched. The limit is needed because a whole file may be
/// one line, with many errors on it.
const SEARCHED: usize = 1 << 12;

/// Returns the part of a line, or of any text, that is searched.
pub(crate) fn beginning(line: &str) -> &str {
    &line[..line.floor_char_boundary(SEARCHED)]
}

/// Converts a number to 32 bits, and saturates. Texts in messages have fewer than 2^32 bytes.
fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Returns the byte offset of `word` in `line` where no letter, digit or `_` is next to it.
pub(crate) fn find_word(line: &str, word: &str) -> Option<usize> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    line.match_indices(word).map(|(at, _)| at).find(|&at| {
        let before = word.starts_with(part) && line[..at].ends_with(part);
        let after = word.ends_with(part) && line[at + word.len()..].starts_with(part);
        !(word.is_empty() || before || after)
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
