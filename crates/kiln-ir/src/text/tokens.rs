//! The small tokens of Kiln's own notation: names, numbers and strings.

use std::borrow::Cow;

use super::cursor::{Cursor, Token};
use crate::data::MAX_ALIGN;

impl<'t> Cursor<'t> {
    /// Reads a name and returns it with its position: `%word`, without the `%`, or `u1:23`.
    pub(super) fn name(&mut self) -> Token<(usize, Cow<'t, str>)> {
        self.trivia();
        let at = self.at;
        if self.rest().starts_with('%') {
            self.at += 1;
            let word = self.peek_word();
            self.at += word.len();
            if word.is_empty() {
                return Err(self.fault_at(at, 1, "expected a word after `%`".to_owned()));
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

    /// Reads an integer with or without sign, decimal or `0x`, with `_` allowed between digits.
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

    /// Reads an optional addend, such as `+ 8` or `- 8`.
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

    /// Reads an integer from `low` to `high`; `range` describes these limits in a message.
    pub(super) fn integer_in(&mut self, low: i128, high: i128, range: &str) -> Token<i128> {
        let (at, value) = self.integer()?;
        if (low..=high).contains(&value) {
            Ok(value)
        } else {
            Err(self.fault_at(at, self.at - at, format!("{value} is out of range: {range}")))
        }
    }

    /// Reads what looks like a floating-point number: decimal, `0x1.8p3`, `Inf` or `NaN`, with or
    /// without sign.
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

    /// Reads a string that must be UTF-8 and not empty; `what` names it in a message.
    pub(super) fn text(&mut self, what: &str) -> Token<Box<str>> {
        let (at, bytes) = self.string()?;
        match String::from_utf8(bytes) {
            Ok(text) if !text.is_empty() => Ok(text.into()),
            Ok(_) => Err(self.fault_at(at, 2, format!("{what} must not be empty"))),
            Err(_) => Err(self.fault_at(at, self.at - at, format!("{what} must be UTF-8"))),
        }
    }

    /// Reads a string and resolves its escapes.
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

    pub(super) fn number(&mut self) -> Token<u32> {
        let value = self.integer_in(0, i128::from(u32::MAX), "at most 32 bits")?;
        Ok(u32::try_from(value).unwrap_or(u32::MAX))
    }

    /// Checks the alignment `number`, which was read at `at`.
    pub(super) fn align(&self, at: usize, number: i128) -> Token<u32> {
        u32::try_from(number).ok().filter(|n| n.is_power_of_two() && *n <= MAX_ALIGN).ok_or_else(|| {
            let message = format!("{number} is not an alignment: a power of two up to {MAX_ALIGN}");
            self.fault_at(at, self.at - at, message)
        })
    }

    pub(super) fn value(&mut self) -> Token<u32> {
        let word = self.peek_word();
        let number = word.strip_prefix('v').and_then(|digits| digits.parse().ok());
        let Some(number) = number.filter(|number| *number != u32::MAX) else {
            return Err(self.unexpected("`base`, `labels` or a value"));
        };
        self.at += word.len();
        Ok(number)
    }

    pub(super) fn value_number(&mut self) -> Token<u32> {
        self.trivia();
        self.value()
    }

    /// Reads a source location: `@12`, in hexadecimal, or `@-` for none.
    pub(super) fn location(&mut self) -> Token<u32> {
        if !self.eat(b'@') {
            return Err(self.unexpected("a source location (`@12`)"));
        }
        if self.rest().starts_with('-') {
            self.at += 1;
            return Ok(u32::MAX);
        }
        let word = self.peek_word();
        match u32::from_str_radix(word, 16) {
            Ok(number) => {
                self.at += word.len();
                Ok(number)
            }
            Err(_) => Err(self.unexpected("a hexadecimal number of at most 32 bits")),
        }
    }

    /// Reads pairs of hexadecimal digits, with `_` allowed.
    pub(super) fn hex(&mut self) -> Token<Vec<u8>> {
        let (at, word) = (self.at, self.peek_word());
        self.at += word.len();
        let digits: Option<Vec<u32>> = word.chars().filter(|c| *c != '_').map(|c| c.to_digit(16)).collect();
        match digits {
            Some(digits) if digits.len().is_multiple_of(2) => {
                Ok(digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap_or(0)).collect())
            }
            Some(_) => Err(self.fault_at(at, word.len(), "an odd number of hexadecimal digits".to_owned())),
            None => Err(self.fault_at(at, word.len(), format!("`{word}` is not hexadecimal"))),
        }
    }
}

/// Returns the byte of an escape, whose `\` is followed by `rest`, and the number of bytes that it
/// takes of `rest`.
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

/// Returns the bytes of a string; `None` if it contains a `\` that starts no escape.
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
