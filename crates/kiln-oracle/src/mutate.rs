//! Alters inputs that a reader accepts, so that they are nearly right.
//!
//! The alterations are chosen so that a reader gets far before it refuses the result. They flip
//! single bits, cut bytes, move pieces of the same or of another input to another offset, exchange
//! words of a text, and make numbers huge, as text and as bytes.

use crate::random::Random;

/// Words that have a meaning in a text, and numbers at the limits of types.
pub const WORDS: [&str; 44] = [
    "",
    " ",
    "\n",
    ";",
    "\"",
    "{",
    "}",
    "\u{e9}",
    "\0",
    "v4294967295",
    "block4294967294",
    "ss9",
    "gv9",
    "sig9",
    "fn9",
    "region1",
    "const3",
    "i128",
    "f128",
    "i8x16",
    "i64x2xN",
    "-",
    "0x",
    "+",
    "@-",
    "@ffffffff",
    "65536",
    "4294967295",
    "4294967296",
    "-9223372036854775808",
    "18446744073709551615",
    "340282366920938463463374607431768211456",
    "userextname0",
    "u0:4294967295",
    ":",
    "function ",
    "data ",
    "global ",
    "anonymous ",
    "dt0 = i32*gv0\n",
    "try_call_indirect ",
    "return_call ",
    "stack_map=[i32 @ ss9+0]",
    "addr %x,",
];

/// Alters `input`; pieces may come from `other`.
pub fn mutate(input: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..random.within(1, 4) {
        let at = random.below(bytes.len() as u32 + 1) as usize;
        match random.below(9) {
            0 | 1 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            2 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = *random.choose(&[0, 1, 2, 0x7f, 0x80, 0xff, b'0', b'9']);
                }
            }
            3 if random.once_in(4) => bytes.truncate(at),
            3 => {
                let piece = piece(&bytes, random, 16);
                bytes.drain(piece);
            }
            4 => {
                let source = if random.once_in(2) { other } else { input };
                let piece = &source[piece(source, random, 64)];
                let end = (at + random.below(2) as usize * piece.len()).min(bytes.len());
                bytes.splice(at..end, piece.iter().copied());
            }
            5 => {
                // A number of 4 or 8 bytes, aligned.
                let width = *random.choose(&[4, 8]);
                let number =
                    *random.choose(&[0, 1, u64::MAX, 1 << 31, u64::from(u32::MAX), 1 << 40, 1 << 62]);
                let at = at & !3;
                if let Some(site) = bytes.get_mut(at..at + width) {
                    site.copy_from_slice(&number.to_le_bytes()[..width]);
                }
            }
            _ => {
                let old = word(&bytes, at);
                let new = match random.below(3) {
                    0 => random.choose(&WORDS).as_bytes().to_vec(),
                    1 => input[word(input, random.below(input.len() as u32) as usize)].to_vec(),
                    _ => other[word(other, random.below(other.len() as u32) as usize)].to_vec(),
                };
                bytes.splice(old, new);
            }
        }
    }
    bytes
}

/// Returns a range of at most `most` bytes.
fn piece(bytes: &[u8], random: &mut Random, most: u32) -> std::ops::Range<usize> {
    let start = random.below(bytes.len() as u32) as usize;
    let start = start.min(bytes.len());
    start..(start + random.within(1, most) as usize).min(bytes.len())
}

/// Returns the range of the word around `offset`, or of the byte there.
fn word(bytes: &[u8], offset: usize) -> std::ops::Range<usize> {
    let offset = offset.min(bytes.len());
    let part = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_';
    let before = bytes[..offset].iter().rev().take_while(part).take(64).count();
    let after = bytes[offset..].iter().take_while(part).take(64).count();
    if before + after == 0 { offset..(offset + 1).min(bytes.len()) } else { offset - before..offset + after }
}
