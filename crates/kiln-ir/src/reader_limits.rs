//! Finds texts that Cranelift's reader would need quadratic time for.

use std::collections::HashMap;

use crate::limits::{MAX_CHAIN, MAX_NAMES};

/// A limit that a text exceeds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMany<'t> {
    /// The word that exceeds the limit, and its line.
    pub(crate) word: &'t str,
    pub(crate) line: usize,
    pub(crate) message: String,
}

/// Returns the limit that the text of a function, without comments, exceeds.
pub(crate) fn too_many(text: &str) -> Option<TooMany<'_>> {
    long_chain(text).or_else(|| many_names(text))
}

impl<'t> TooMany<'t> {
    fn new(text: &str, word: &'t str, at: usize, message: String) -> Self {
        Self { word, line: 1 + memchr::memchr_iter(b'\n', &text.as_bytes()[..at]).count(), message }
    }
}

/// Finds a long chain of aliases. Cranelift's reader follows each alias to the end of its chain.
fn long_chain(text: &str) -> Option<TooMany<'_>> {
    let bytes = text.as_bytes();
    // An alias takes at least `v1->v0` and a blank.
    if bytes.len() < 7 * MAX_CHAIN {
        return None;
    }
    let arrows = || memchr::memmem::find_iter(bytes, "->");
    arrows().nth(MAX_CHAIN)?;
    // The target of an alias is defined before it.
    let mut depths: HashMap<u64, usize> = HashMap::new();
    arrows().find_map(|at| {
        let word = last_word(&text[..at]);
        let alias = number('v', word)?;
        let depth = 1 + number('v', first_word(&text[at + 2..])).and_then(|to| depths.get(&to)).unwrap_or(&0);
        depths.insert(alias, depth);
        let message = || format!("an alias of an alias, and so on, more than {MAX_CHAIN} times");
        (depth > MAX_CHAIN).then(|| TooMany::new(text, word, at, message()))
    })
}

fn many_names(text: &str) -> Option<TooMany<'_>> {
    let bytes = text.as_bytes();
    // A name takes at least `u0:1` and a blank.
    if bytes.len() < 5 * MAX_NAMES {
        return None;
    }
    let colons = memchr::memchr_iter(b':', bytes);
    let mut names = colons.filter(|&at| number('u', last_word(&text[..at])).is_some());
    let at = names.nth(MAX_NAMES)?;
    let message = format!("a function has up to {MAX_NAMES} references by number");
    Some(TooMany::new(text, last_word(&text[..at]), at, message))
}

/// Tells whether `c` may be between two words: it is a blank, or the `;` that is left of a comment.
fn is_between(c: char) -> bool {
    c.is_ascii_whitespace() || c == ';'
}

fn first_word(text: &str) -> &str {
    let text = text.trim_start_matches(is_between);
    &text[..text.bytes().take_while(u8::is_ascii_alphanumeric).count()]
}

fn last_word(text: &str) -> &str {
    let text = text.trim_end_matches(is_between);
    &text[text.len() - text.bytes().rev().take_while(u8::is_ascii_alphanumeric).count()..]
}

/// Returns the number after the letter `letter`, if the word consists of these.
fn number(letter: char, word: &str) -> Option<u64> {
    word.strip_prefix(letter)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<(&str, usize)> {
        too_many(text).map(|TooMany { word, line, message: _ }| (word, line))
    }

    #[test]
    fn chains_of_aliases() {
        let chain =
            |length: usize| -> String { (0..length).map(|n| format!("v{} ;\n-> v{n}\n", n + 1)).collect() };
        assert_eq!(found(&chain(MAX_CHAIN)), None);
        assert_eq!(found(&chain(MAX_CHAIN + 5)), Some(("v1001", 2 * MAX_CHAIN + 2)));
        let many: String = (1..=2 * MAX_CHAIN).map(|n| format!("v{n} -> v0\n")).collect();
        assert_eq!(found(&many), None);
        let signatures: String = (0..=2 * MAX_CHAIN).map(|n| format!("sig{n} = () -> i64\n")).collect();
        assert_eq!(found(&signatures), None);
    }

    #[test]
    fn names_by_number() {
        let names = |count: usize| -> String { (0..count).map(|n| format!("fn{n} = u7:{n}()\n")).collect() };
        assert_eq!(found(&names(MAX_NAMES)), None);
        assert_eq!(found(&names(MAX_NAMES + 1)), Some(("u7", MAX_NAMES + 1)));
        let blocks: String = (0..2 * MAX_NAMES).map(|n| format!("block{n}: jump block{n}\n")).collect();
        assert_eq!(found(&blocks), None);
    }
}
