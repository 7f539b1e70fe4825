//! The words of a function's blocks.
//!
//! A word ends where Cranelift's lexer ends it. Between the words of a line, only spaces and tabs
//! are skipped.

use cranelift_codegen::ir::immediates::Imm64;
use cranelift_codegen::ir::{Block, Type, Value, types};

use crate::text::shorten::blanks;

/// Reads words from front to back. `None` means that the text has something else.
pub(super) struct Words<'t> {
    text: &'t str,
    at: usize,
    /// The largest number that an entity may have.
    largest: u32,
}

impl<'t> Words<'t> {
    pub(super) fn new(text: &'t str, largest: u32) -> Self {
        Self { text, at: 0, largest }
    }

    /// Returns the position in the text.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn text(&self) -> &'t str {
        self.text
    }

    /// Moves on to the position `at`, which is a character boundary.
    pub(super) fn go_to(&mut self, at: usize) {
        self.at = at;
    }

    #[inline]
    pub(super) fn rest(&self) -> &'t [u8] {
        &self.text.as_bytes()[self.at..]
    }

    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.rest().first().copied()
    }

    /// Skips spaces and tabs, of which there may be many.
    pub(super) fn skip_blanks(&mut self) {
        self.at = self.text.len() - blanks(&self.text[self.at..]).len();
    }

    /// Skips spaces and tabs, and returns the byte after them.
    #[inline]
    pub(super) fn next(&mut self) -> Option<u8> {
        loop {
            match self.peek() {
                Some(b' ' | b'\t') => self.at += 1,
                byte => return byte,
            }
        }
    }

    /// Takes the character `c` if it comes next, after blanks.
    #[inline]
    pub(super) fn eat(&mut self, c: u8) -> bool {
        let found = self.next() == Some(c);
        self.at += usize::from(found);
        found
    }

    /// Takes the character `c`, which must come next.
    #[inline]
    pub(super) fn expect(&mut self, c: u8) -> Option<()> {
        self.eat(c).then_some(())
    }

    /// Takes the next word: letters, digits and `_`. It is empty if another character is next.
    #[inline]
    pub(super) fn word(&mut self) -> &'t str {
        self.next();
        let length = self.rest().iter().take_while(|byte| is_word(**byte)).count();
        let start = self.at;
        self.at += length;
        &self.text[start..self.at]
    }

    /// Takes the next number with its sign, if it has one.
    #[inline]
    pub(super) fn number(&mut self) -> &'t str {
        self.next();
        let rest = self.rest();
        let sign = usize::from(matches!(rest.first(), Some(b'+' | b'-')));
        if !rest.get(sign).is_some_and(u8::is_ascii_digit) {
            return "";
        }
        let part = |byte: &u8| is_word(*byte) || matches!(byte, b'-' | b'.');
        let start = self.at;
        self.at += sign + rest[sign..].iter().take_while(|byte| part(byte)).count();
        &self.text[start..self.at]
    }

    /// Takes an entity: the letters `kind` and a number.
    #[inline]
    pub(super) fn entity(&mut self, kind: &str) -> Option<u32> {
        self.next();
        let digits = self.rest().strip_prefix(kind.as_bytes())?;
        let mut number: u32 = 0;
        let mut length = 0;
        while let Some(byte @ b'0'..=b'9') = digits.get(length) {
            number = number.checked_mul(10)?.checked_add(u32::from(byte - b'0'))?;
            length += 1;
        }
        // A number has no leading zeros.
        let plain = length > 0 && (digits[0] != b'0' || length == 1);
        let ends = !digits.get(length).is_some_and(|byte| is_word(*byte));
        self.at += kind.len() + length;
        (plain && ends && number <= self.largest).then_some(number)
    }

    #[inline]
    pub(super) fn value(&mut self) -> Option<Value> {
        Value::with_number(self.entity("v")?)
    }

    #[inline]
    pub(super) fn block(&mut self) -> Option<Block> {
        Block::with_number(self.entity("block")?)
    }

    /// Takes a type with a fixed size.
    #[inline]
    pub(super) fn ty(&mut self) -> Option<Type> {
        let word = self.word();
        scalar(word).or_else(|| {
            let (lane, lanes) = word.split_once('x')?;
            let plain = !lanes.starts_with('0') && lanes.bytes().all(|byte| byte.is_ascii_digit());
            let lanes = lanes.parse::<u16>().ok().filter(|_| plain)?;
            scalar(lane)?.by(u32::from(lanes))
        })
    }

    /// Takes an integer of `bits` bits, and returns it without a sign.
    #[inline]
    pub(super) fn integer(&mut self, bits: u32) -> Option<i64> {
        let text = self.number();
        if text.is_empty() || bits == 64 {
            return text.parse().ok().map(|imm: Imm64| imm.bits()).filter(|_| !text.is_empty());
        }
        let negative = text.starts_with('-');
        let digits = text.trim_start_matches(['-', '+']);
        let size = match digits.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(&hex.replace('_', ""), 16).ok()?,
            None => digits.parse().ok()?,
        };
        let mask = (1 << bits) - 1;
        let number = if negative { size.wrapping_neg() & mask } else { size };
        let too_small = negative && number != 0 && number >> (bits - 1) == 0;
        (size <= mask && !too_small).then_some(number as i64)
    }

    /// Takes an integer of 8 bits without a sign.
    pub(super) fn byte(&mut self) -> Option<u8> {
        let text = self.number();
        match text.strip_prefix("0x") {
            Some(hex) => u8::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        }
    }

    /// Takes a float that is written with a point.
    pub(super) fn float<T: std::str::FromStr>(&mut self) -> Option<T> {
        let text = self.number();
        text.contains('.').then(|| text.parse().ok())?
    }
}

fn scalar(word: &str) -> Option<Type> {
    Some(match word {
        "i8" => types::I8,
        "i16" => types::I16,
        "i32" => types::I32,
        "i64" => types::I64,
        "i128" => types::I128,
        "f16" => types::F16,
        "f32" => types::F32,
        "f64" => types::F64,
        "f128" => types::F128,
        _ => return None,
    })
}

#[inline]
pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}
