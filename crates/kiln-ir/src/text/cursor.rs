//! A position in a text, and the small tokens of Kiln's own notation.
//!
//! Invariant: `at` lies on a character boundary of the text and never goes back, so a caller's loop that advances it ends.

use std::borrow::Cow;
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, DiagnosticKind};
use crate::location::Location;
use crate::source::Source;

/// So many bytes may the data of any file have together, those apart that are all zeros.
pub(crate) const FREE_DATA: u64 = 1 << 24;
/// And so many more for each byte of the file, but no more than [`MAX_DATA`].
const DATA_FOR_BYTE: u64 = 64;
pub(crate) const MAX_DATA: u64 = 1 << 30;

/// Where reading stands.
pub(super) struct Cursor<'t> {
    pub(super) source: &'t Arc<Source>,
    pub(super) text: &'t str,
    pub(super) at: usize,
    /// Start and end of the comments that were skipped.
    pub(super) comments: Vec<(usize, usize)>,
    /// How many bytes more data may have that are held as bytes rather than as a number of zeros: a few words of text can ask for
    /// many.
    pub(super) data_left: u64,
    /// A position and its line, to count on from.
    counted: (usize, u32),
}

/// A token, or what is wrong with it.
pub(super) type Token<T> = Result<T, Diagnostic>;

impl<'t> Cursor<'t> {
    pub(super) fn new(source: &'t Arc<Source>) -> Self {
        let text = &*source.text;
        // Some editors put a byte order mark before UTF-8.
        let at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let data_left = (FREE_DATA + DATA_FOR_BYTE * text.len() as u64).min(MAX_DATA);
        Self { source, text, at, comments: Vec::new(), data_left, counted: (0, 1) }
    }

    /// The text from here on.
    pub(super) fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn bytes(&self) -> &'t [u8] {
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

    /// Skips the comment that stands here, and keeps its place.
    pub(super) fn comment(&mut self) {
        let start = self.at;
        self.line_end();
        self.comments.push((start, self.at));
    }

    /// Skips to the end of the line and gives what was skipped.
    pub(super) fn line_end(&mut self) -> &'t str {
        let rest = self.rest();
        let end = memchr::memchr(b'\n', rest.as_bytes()).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// Line of the position `at`, which must not lie before one asked for earlier.
    pub(super) fn line_of(&mut self, at: usize) -> u32 {
        let (from, line) = self.counted;
        let more = memchr::memchr_iter(b'\n', &self.text.as_bytes()[from..at]).count();
        self.counted = (at, line.saturating_add(u32::try_from(more).unwrap_or(u32::MAX)));
        self.counted.1
    }

    /// The letters, digits and `_` that stand here.
    pub(super) fn peek_word(&self) -> &'t str {
        let rest = self.rest();
        let end = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
        &rest[..end]
    }

    /// Takes `word` if it stands here, after blanks.
    pub(super) fn word(&mut self, word: &str) -> bool {
        self.trivia();
        let found = self.peek_word() == word;
        if found {
            self.at += word.len();
        }
        found
    }

    /// Takes the character `c` if it stands here, after blanks.
    pub(super) fn eat(&mut self, c: u8) -> bool {
        self.trivia();
        let found = self.bytes().first() == Some(&c);
        if found {
            self.at += 1;
        }
        found
    }

    /// Takes the character `c`, which must stand here.
    pub(super) fn expect(&mut self, c: u8, what: &str) -> Token<()> {
        if self.eat(c) { Ok(()) } else { Err(self.unexpected(what)) }
    }

    /// The next token is not `expected`.
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

    /// Something is wrong with `length` bytes at `at`.
    pub(super) fn fault_at(&self, at: usize, length: usize, message: String) -> Diagnostic {
        Diagnostic::new(DiagnosticKind::Syntax, message, Location::at(self.source, at, length))
    }

    /// `%word` without its `%`, or `u1:23`.
    pub(super) fn name(&mut self) -> Token<(usize, Cow<'t, str>)> {
        self.trivia();
        let at = self.at;
        if self.rest().starts_with('%') {
            self.at += 1;
            let word = self.peek_word();
            self.at += word.len();
            if word.is_empty() {
                return Err(self.fault_at(at, 1, "expected a word behind `%`".to_owned()));
            }
            return Ok((at, word.into()));
        }
        let word = self.peek_word();
        let index = self.rest()[word.len()..].strip_prefix(':').map(|tail| {
            let end = tail.bytes().take_while(u8::is_ascii_digit).count();
            &tail[..end]
        });
        let number = |digits: &str| digits.parse::<u32>().ok();
        match (word.strip_prefix('u').and_then(number), index) {
            (Some(space), Some(index)) if number(index).is_some() => {
                self.at += word.len() + 1 + index.len();
                Ok((at, format!("u{space}:{}", number(index).unwrap_or(0)).into()))
            }
            _ => Err(self.unexpected("a name (`%name` or `u1:23`)")),
        }
    }

    /// An integer with or without sign, decimal or `0x`, `_` allowed between digits.
    pub(super) fn integer(&mut self) -> Token<(usize, i128)> {
        self.trivia();
        let at = self.at;
        let sign = self.rest().chars().next().filter(|c| matches!(c, '+' | '-'));
        let tail = &self.rest()[sign.map_or(0, char::len_utf8)..];
        let end = tail.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
        let digits = &tail[..end];
        if !digits.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(self.unexpected("an integer"));
        }
        let length = self.rest().len() - tail.len() + end;
        let plain = digits.replace('_', "");
        let value = match plain.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => plain.parse::<u64>(),
        };
        self.at += length;
        match value {
            Ok(value) if sign == Some('-') => Ok((at, -i128::from(value))),
            Ok(value) => Ok((at, i128::from(value))),
            Err(_) => {
                let text = &self.text[at..at + length];
                Err(self.fault_at(at, length, format!("`{text}` is not an integer of at most 64 bits")))
            }
        }
    }

    /// `+ 8` or `- 8` or nothing.
    pub(super) fn addend(&mut self) -> Token<i64> {
        self.trivia();
        let Some(sign @ (b'+' | b'-')) = self.rest().bytes().next() else { return Ok(0) };
        let sign_at = self.at;
        self.at += 1;
        self.trivia();
        if !self.rest().starts_with(|c: char| c.is_ascii_digit()) {
            return Err(self.unexpected("an integer"));
        }
        let (_, value) = self.integer()?;
        let value = if sign == b'-' { -value } else { value };
        i64::try_from(value).map_err(|_| {
            let message = format!("{value} is out of range: an addend has 64 bits");
            self.fault_at(sign_at, self.at - sign_at, message)
        })
    }

    /// An integer from `low` to `high`, which are described by `range`.
    pub(super) fn integer_in(&mut self, low: i128, high: i128, range: &str) -> Token<i128> {
        let (at, value) = self.integer()?;
        if (low..=high).contains(&value) {
            Ok(value)
        } else {
            Err(self.fault_at(at, self.at - at, format!("{value} is out of range: {range}")))
        }
    }

    /// What looks like a floating-point number: decimal, `0x1.8p3`, `Inf` or `NaN`, with or without sign.
    pub(super) fn float(&mut self) -> Token<(usize, &'t str)> {
        self.trivia();
        let (at, rest) = (self.at, self.rest());
        let mut before = b' ';
        let end = rest
            .bytes()
            .take_while(|&b| {
                let sign = matches!(b, b'+' | b'-') && matches!(before, b' ' | b'e' | b'E' | b'p' | b'P');
                before = b;
                sign || b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':')
            })
            .count();
        if end == 0 {
            return Err(self.unexpected("a number"));
        }
        self.at += end;
        Ok((at, &rest[..end]))
    }

    /// A string that is UTF-8 and not empty, and what it is.
    pub(super) fn text(&mut self, what: &str) -> Token<Box<str>> {
        let (at, bytes) = self.string()?;
        match String::from_utf8(bytes) {
            Ok(text) if !text.is_empty() => Ok(text.into()),
            Ok(_) => Err(self.fault_at(at, 2, format!("{what} must not be empty"))),
            Err(_) => Err(self.fault_at(at, self.at - at, format!("{what} must be UTF-8"))),
        }
    }

    /// A string with its escapes resolved.
    pub(super) fn string(&mut self) -> Token<(usize, Vec<u8>)> {
        self.trivia();
        let at = self.at;
        if !self.eat(b'"') {
            return Err(self.unexpected("a string"));
        }
        let mut value = Vec::new();
        loop {
            let bytes = self.bytes();
            let Some(end) = memchr::memchr3(b'"', b'\\', b'\n', bytes).filter(|&end| bytes[end] != b'\n')
            else {
                return Err(self.fault_at(at, 1, "this string does not end on its line".to_owned()));
            };
            value.extend_from_slice(&bytes[..end]);
            self.at += end + 1;
            if bytes[end] == b'"' {
                return Ok((at, value));
            }
            match escape(self.rest()) {
                Some((byte, length)) => {
                    value.push(byte);
                    self.at += length;
                }
                None if self.rest().starts_with('x') => {
                    let message = "`\\x` takes two hexadecimal digits".to_owned();
                    return Err(self.fault_at(self.at - 1, 2, message));
                }
                None => {
                    let length = 1 + self.rest().chars().next().map_or(0, char::len_utf8);
                    return Err(self.fault_at(self.at - 1, length, "unknown escape in a string".to_owned()));
                }
            }
        }
    }
}

/// What an escape stands for, whose `\` is followed by `rest`, and how many bytes of that it takes.
fn escape(rest: &str) -> Option<(u8, usize)> {
    match *rest.as_bytes().first()? {
        b'n' => Some((b'\n', 1)),
        b't' => Some((b'\t', 1)),
        b'r' => Some((b'\r', 1)),
        b'0' => Some((0, 1)),
        c @ (b'\\' | b'"') => Some((c, 1)),
        b'x' => {
            let digits = rest.get(1..3).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))?;
            Some((u8::from_str_radix(digits, 16).ok()?, 3))
        }
        _ => None,
    }
}

/// The bytes that a string stands for; `None` if it holds anything that looks like an escape and is none.
pub(super) fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let (byte, length) = escape(&rest[at + 1..])?;
        bytes.push(byte);
        rest = &rest[at + 1 + length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(bytes)
}
