//! Finds entity numbers that Cranelift's reader would make large tables for.

use super::locate::Locator;
use crate::diagnostic::{Diagnostic, DiagnosticKind};
use crate::location::Location;

/// A function may hold entity numbers up to so many for each byte of its text.
const FREE_NUMBERS: usize = 4;

/// Entries of tables that a file may ask for beyond what its functions may hold. So memory and time are in proportion to the
/// length of a file, and numbers may still be sparse.
pub(super) struct NumberBudget(usize);

impl NumberBudget {
    pub(super) fn new(file: &str) -> Self {
        Self(file.len().saturating_mul(FREE_NUMBERS).saturating_add(1 << 16))
    }

    /// Takes what a function asks for, if it is there.
    pub(super) fn take(&mut self, numbers: &LargestNumber) -> bool {
        let rest = self.0.checked_sub(numbers.number);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// What to say of a function that asks for more.
    pub(super) fn fault(&self, numbers: &LargestNumber, locator: Locator<'_>) -> Diagnostic {
        let place = Location::at(locator.source, locator.item.at + numbers.at, numbers.length);
        let limit = numbers.free.max(self.0);
        let message = format!("entity numbers go up to {limit} in a function of this size");
        Diagnostic::new(DiagnosticKind::Unsupported, message, place)
    }
}

/// The largest entity number of a function.
pub(super) struct LargestNumber {
    /// Where it stands in the function's text.
    at: usize,
    length: usize,
    number: usize,
    /// Up to which number a function of this length may have any.
    free: usize,
}

/// What stands before the numbers that are table indices.
const ENTITIES: [&str; 13] =
    ["v", "block", "ss", "dss", "dt", "gv", "mt", "const", "fn", "sig", "userextname", "region", "ex"];

/// The largest entity number of a function, if it may not have it without being asked about.
/// `short` is its text without what needs no look.
pub(super) fn large_numbers(text: &str, short: &str) -> Option<LargestNumber> {
    let bytes = text.as_bytes();
    // Below a hundred nothing is looked at.
    let free = text.len().saturating_mul(FREE_NUMBERS).max(100);
    if !suspicious(short.as_bytes(), free.ilog10() as usize + 1) {
        return None;
    }
    // Now exactly: words outside comments and strings.
    let mut largest = (0, 0, 0);
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let rest = &bytes[at..];
        let length = match byte {
            b';' => memchr::memchr(b'\n', rest).unwrap_or(rest.len()),
            b'"' => memchr::memchr(b'"', &rest[1..]).map_or(rest.len(), |end| end + 2),
            b'%' | b'@' | b'#' => 1 + word_length(&rest[1..]),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => {
                let length = word_length(rest);
                let word = &text[at..at + length];
                let number = word.trim_start_matches(|c: char| !c.is_ascii_digit());
                let entity = &word[..length - number.len()];
                // A number of more than 64 bits is refused by the reader.
                if let (true, Ok(number)) = (ENTITIES.contains(&entity), number.parse::<u64>()) {
                    let number = usize::try_from(number).unwrap_or(usize::MAX);
                    if number > largest.2 {
                        largest = (at, length, number);
                    }
                }
                length
            }
            _ => 1,
        };
        at += length;
    }
    let (at, length, number) = largest;
    (number > free).then_some(LargestNumber { at, length, number, free })
}

/// Whether there may be an entity number of so many digits, at least 3; a quick look, for nearly all functions have none.
fn suspicious(bytes: &[u8], digits: usize) -> bool {
    let long = |at: usize| {
        let before = bytes[..at].iter().rev().take_while(|b| b.is_ascii_digit()).count();
        let behind = bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
        let word = bytes[..at - before].iter().rev().take_while(|b| b.is_ascii_alphabetic()).count();
        let word = &bytes[at - before - word..at - before];
        before + behind >= digits && ENTITIES.iter().any(|entity| entity.as_bytes() == word)
    };
    if digits >= 5 {
        // Four of the five are two pairs in a row, each of which starts at an even place.
        let (chunks, rest) = bytes.as_chunks::<8>();
        let mut before = (0, 0);
        let groups = chunks.iter().enumerate().any(|(n, chunk)| {
            // Digits are 0 to 9 after the exclusive or. The top bit of each byte then tells whether it is none.
            let value = u64::from_le_bytes(*chunk) ^ 0x3030_3030_3030_3030;
            let other = value | (value & 0x7f7f_7f7f_7f7f_7f7f).wrapping_add(0x7676_7676_7676_7676);
            let digits = !other & 0x8080_8080_8080_8080;
            // A bit for each of the four pairs, at 15, 31, 47 and 63.
            let pairs = digits & digits << 8 & 0x8000_8000_8000_8000;
            let found = pairs & (pairs << 16 | before.0 >> 48);
            // A long row of digits is looked at once.
            let first = found & !(found << 16 | before.1 >> 48);
            before = (pairs, found);
            let mut left = first;
            while left != 0 {
                if long(n * 8 + left.trailing_zeros() as usize / 16 * 2) {
                    return true;
                }
                left &= left - 1;
            }
            false
        });
        // What is left has less than two pairs in a row, but for what stands before it.
        let tail = bytes.len() - rest.len();
        groups || (tail.saturating_sub(2)..bytes.len()).any(|at| bytes[at].is_ascii_digit() && long(at))
    } else {
        // Of three in a row, two are an aligned pair.
        let mut pairs = bytes.as_chunks::<2>().0.iter().enumerate();
        pairs.any(|(n, [a, b])| a.is_ascii_digit() && b.is_ascii_digit() && long(n * 2))
    }
}

fn word_length(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_numbers_are_found_wherever_they_stand() {
        for digits in 5..9 {
            for at in 0..40 {
                for behind in 0..20 {
                    let blanks = |count| " ".repeat(count);
                    let text = |number: &str| format!("{}v{number}{}", blanks(at), blanks(behind));
                    assert!(
                        suspicious(text(&"7".repeat(digits)).as_bytes(), digits),
                        "{digits} {at} {behind}"
                    );
                    assert!(!suspicious(text(&"7".repeat(digits - 1)).as_bytes(), digits));
                    assert!(!suspicious(text(&format!("x{}", "7".repeat(digits))).as_bytes(), digits));
                }
            }
        }
    }
}
