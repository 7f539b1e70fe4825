//! A range of text that a message is about.
//!
//! Lines and columns count from 1, columns and lengths in characters. Line 0 means the module as a
//! whole, which is all that can be said of a module that was not read from text. Column 0 means a
//! line of a text that is not available.

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
    /// Returns the module as a whole.
    pub fn whole(source: Arc<Source>) -> Self {
        Self { source, line: 0, column: 0, length: 0 }
    }

    /// Returns line `number` of a text that is not available: the module was read from binary form,
    /// which keeps only the number.
    pub fn unseen(source: Arc<Source>, number: u32) -> Self {
        Self { line: number, ..Self::whole(source) }
    }

    /// Returns `length` bytes of the text at byte `offset`, cut off at the end of the line. Both
    /// are rounded down to whole characters and to the text's end.
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

    /// Returns line `number` from its first to its last character that is not blank, without
    /// comments.
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

    /// Returns the first occurrence on line `number` of `word` as a whole word, or else
    /// [`Location::line`].
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

    pub(crate) fn key(&self) -> (&str, u32, u32, u32) {
        (&self.source.name, self.line, self.column, self.length)
    }
}

/// Saturates. A text that messages are about has fewer than 2^32 bytes.
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
