//! Finds entity numbers that would make Cranelift's reader allocate large tables.

use super::locate::Locator;
use crate::diagnostic::{Diagnostic, DiagnosticKind};
use crate::location::Location;

/// The factor between the length of a text in bytes and the largest entity number that it allows.
const FREE_NUMBERS: usize = 4;

/// The table entries that the functions of a file share, for numbers larger than a function's
/// length allows. It keeps memory and time in proportion to the length of a file, and still allows
/// sparse numbers.
pub(super) struct NumberBudget(usize);

impl NumberBudget {
    pub(super) fn new(file: &str) -> Self {
        Self(file.len().saturating_mul(FREE_NUMBERS).saturating_add(1 << 16))
    }

    /// Takes what a function needs from the budget. Returns false, and takes nothing, if too little
    /// is left.
    pub(super) fn take(&mut self, numbers: &LargestNumber) -> bool {
        let rest = self.0.checked_sub(numbers.number);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// Returns the error for a function that needs more than is left.
    pub(super) fn fault(&self, numbers: &LargestNumber, locator: Locator<'_>) -> Diagnostic {
        let location = Location::at(locator.source, locator.item.start + numbers.offset, numbers.length);
        let limit = numbers.free.max(self.0);
        let message = format!("entity numbers go up to {limit} in a function of this size");
        Diagnostic::new(DiagnosticKind::Unsupported, message, location)
    }
}

/// The largest entity number of a function.
pub(super) struct LargestNumber {
    /// The position of the number in the function's text.
    offset: usize,
    length: usize,
    number: usize,
    /// The largest number that a function of this length may have without taking from the budget.
    free: usize,
}

/// Returns the largest number that an entity of a function may have without taking from the budget.
pub(super) fn free_numbers(text: &str) -> usize {
    // Numbers below 100 are always allowed.
    text.len().saturating_mul(FREE_NUMBERS).max(100)
}

/// The words before numbers that are table indices.
const ENTITIES: [&str; 13] =
    ["v", "block", "ss", "dss", "dt", "gv", "mt", "const", "fn", "sig", "userextname", "region", "ex"];

/// Returns the largest entity number of a function, if it must be taken from the budget. `short` is
/// the function's shortened text, which contains all its entities, or those that matter.
pub(super) fn large_numbers(text: &str, short: &str) -> Option<LargestNumber> {
    let bytes = text.as_bytes();
    let free = free_numbers(text);
    if !suspicious(short.as_bytes(), free.ilog10() as usize + 1) {
        return None;
    }
    // The exact search: words outside of comments and strings.
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
                // The reader refuses a number of more than 64 bits.
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
    (number > free).then_some(LargestNumber { offset: at, length, number, free })
}

/// Tells whether the text may contain an entity number of `digits` or more digits; `digits` is at
/// least 3. This is a quick search, because nearly all functions have no such number.
fn suspicious(bytes: &[u8], digits: usize) -> bool {
    let long = |at: usize| {
        let before = bytes[..at].iter().rev().take_while(|b| b.is_ascii_digit()).count();
        let after = bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
        let word = bytes[..at - before].iter().rev().take_while(|b| b.is_ascii_alphabetic()).count();
        let word = &bytes[at - before - word..at - before];
        before + after >= digits && ENTITIES.iter().any(|entity| entity.as_bytes() == word)
    };
    if digits >= 5 {
        // Five digits in a row contain two adjacent pairs that each start at an even position.
        let (chunks, rest) = bytes.as_chunks::<8>();
        let mut before = (0, 0);
        let groups = chunks.iter().enumerate().any(|(n, chunk)| {
            // After the exclusive or, digits are 0 to 9. In `other`, the top bit of a byte is set
            // if the byte is not a digit.
            let value = u64::from_le_bytes(*chunk) ^ 0x3030_3030_3030_3030;
            let other = value | (value & 0x7f7f_7f7f_7f7f_7f7f).wrapping_add(0x7676_7676_7676_7676);
            let digits = !other & 0x8080_8080_8080_8080;
            // Bits 15, 31, 47 and 63 tell which of the four pairs are digits.
            let pairs = digits & digits << 8 & 0x8000_8000_8000_8000;
            let found = pairs & (pairs << 16 | before.0 >> 48);
            // Only the first match in a run of digits is examined.
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
        // The tail has fewer than 8 bytes. It is searched byte by byte, together with the two bytes
        // before it, which may be the first of two pairs.
        let tail = bytes.len() - rest.len();
        groups || (tail.saturating_sub(2)..bytes.len()).any(|at| bytes[at].is_ascii_digit() && long(at))
    } else {
        // Three digits in a row contain a pair that starts at an even position.
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
    fn long_numbers_are_found_at_every_position() {
        for digits in 5..9 {
            for at in 0..40 {
                for after in 0..20 {
                    let blanks = |count| " ".repeat(count);
                    let text = |number: &str| format!("{}v{number}{}", blanks(at), blanks(after));
                    assert!(
                        suspicious(text(&"7".repeat(digits)).as_bytes(), digits),
                        "{digits} {at} {after}"
                    );
                    assert!(!suspicious(text(&"7".repeat(digits - 1)).as_bytes(), digits));
                    assert!(!suspicious(text(&format!("x{}", "7".repeat(digits))).as_bytes(), digits));
                }
            }
        }
    }
}
