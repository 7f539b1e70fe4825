//! Formats a list of errors for people, in the same way in all crates of Kiln that show such lists.
//!
//! The code is here because all crates that show such lists depend on this crate.

use std::fmt::{Display, Write as _};

/// The largest number of errors of a list that are shown.
pub const SHOWN_ERRORS: usize = 100;

/// Returns a list of errors as text, each error on a new line. After the first [`SHOWN_ERRORS`]
/// errors, the text only says how many more there are: a build can have as many errors as
/// functions, and nobody reads thousands. Only the errors that are shown are taken from `errors`.
///
/// ```
/// let errors = kiln_globals::list_errors((1..10_001).map(|n| format!("`f{n}` is not defined")));
/// assert_eq!(errors.lines().count(), 101);
/// assert!(errors.ends_with("`f100` is not defined\nand 9,900 more"));
/// ```
pub fn list_errors<T: Display>(errors: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>) -> String {
    let mut errors = errors.into_iter();
    let mut text = String::new();
    for error in errors.by_ref().take(SHOWN_ERRORS) {
        let separator = if text.is_empty() { "" } else { "\n" };
        // Writing to a string does not fail.
        let _ = write!(text, "{separator}{error}");
    }
    if errors.len() > 0 {
        let _ = write!(text, "\nand {} more", with_commas(errors.len()));
    }
    text
}

/// Returns a number with commas between groups of three digits: `1,234,567`.
fn with_commas(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_counted() {
        assert_eq!(list_errors([0; 0]), "");
        assert_eq!(list_errors(["a", "b"]), "a\nb");
        let lines = |count: usize| list_errors(vec!["x"; count]).lines().count();
        assert_eq!((lines(99), lines(100), lines(101), lines(5000)), (99, 100, 101, 101));
        assert!(list_errors(vec!["x"; 101]).ends_with("x\nand 1 more"));
    }

    #[test]
    fn errors_that_are_not_shown_are_not_made() {
        let mut made = 0;
        list_errors((0..1000).map(|_| made += 1).map(|()| "x"));
        assert_eq!(made, SHOWN_ERRORS);
    }

    #[test]
    fn commas() {
        let numbers = [1, 999, 1000, 99_900, 1_234_567];
        assert_eq!(numbers.map(with_commas), ["1", "999", "1,000", "99,900", "1,234,567"]);
    }
}
