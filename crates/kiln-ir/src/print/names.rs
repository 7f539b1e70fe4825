//! The name that each symbol of a module has in its text.
//!
//! A symbol is written under its own name where the text form can express it: `%word`, `u1:23`.
//! Globals, anonymous symbols and symbols with other names get a generated word, which an alias
//! item defines.
//!
//! Invariant: no two symbols have the same text name, and a generated name has no other meaning in
//! the module or in Cranelift.

use std::collections::HashSet;

use cranelift_codegen::ir::ExternalName;

use crate::module::Module;
use crate::symbol::{Symbol, SymbolId, SymbolKind};

/// The text name of each symbol, including any `%`, and whether the name was generated.
pub(super) struct Names(Vec<(Box<str>, bool)>);

impl Names {
    pub(super) fn new(module: &Module) -> Self {
        let plain = |symbol: &Symbol| match symbol.kind {
            SymbolKind::Global => None,
            SymbolKind::Function | SymbolKind::Data => plain(&symbol.name),
        };
        let mut names: Vec<Option<(Box<str>, bool)>> =
            module.symbols.iter().map(|symbol| plain(symbol).map(|name| (name.into(), false))).collect();
        let mut taken: HashSet<Box<str>> = names.iter().flatten().map(|(name, _)| name.clone()).collect();
        for (symbol, name) in module.symbols.iter().zip(&mut names) {
            if name.is_none() {
                let word = word(&symbol.name);
                let free = |text: &str| plain_word(&text[1..]) && !taken.contains(text);
                let mut text = format!("%{word}");
                let mut number = 2;
                while !free(&text) {
                    text = format!("%{word}_{number}");
                    number += 1;
                }
                taken.insert(text.as_str().into());
                *name = Some((text.into(), true));
            }
        }
        Self(names.into_iter().flatten().collect())
    }

    /// Returns the name that functions and data objects use for the symbol.
    pub(super) fn text(&self, symbol: SymbolId) -> &str {
        &self.0[symbol.index()].0
    }

    /// Tells whether the symbol's text name was generated.
    pub(super) fn is_alias(&self, symbol: SymbolId) -> bool {
        self.0[symbol.index()].1
    }
}

/// Returns the text form of the name, if it has one without an alias.
fn plain(name: &str) -> Option<String> {
    if plain_word(name) {
        return Some(format!("%{name}"));
    }
    let (space, index) = name.strip_prefix('u')?.split_once(':')?;
    let number = |digits: &str| digits.parse::<u32>().ok().filter(|number| number.to_string() == digits);
    number(space).and(number(index)).map(|_| name.to_owned())
}

/// Tells whether `%name` means `name` in a function: it is a word, and has no other meaning in
/// Cranelift.
fn plain_word(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && matches!(name.parse(), Ok(ExternalName::TestCase(_)))
}

/// Returns a word that resembles `name`.
fn word(name: &str) -> String {
    let mut word = String::new();
    for c in name.chars().take(64) {
        if c.is_ascii_alphanumeric() || c == '_' {
            word.push(c);
        } else if !word.is_empty() && !word.ends_with('_') {
            word.push('_');
        }
    }
    let length = word.trim_end_matches('_').len();
    word.truncate(length);
    if word.is_empty() { "symbol".to_owned() } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_no_alias() {
        assert_eq!(plain("f").as_deref(), Some("%f"));
        assert_eq!(plain("0").as_deref(), Some("%0"));
        assert_eq!(plain("u0:1").as_deref(), Some("u0:1"));
        for name in [
            "",
            "a.b",
            "CeilF32",
            "ElfGlobalOffsetTable",
            "u0:01",
            "u0:4294967296",
            "u0:",
            "ü",
            "a b",
            "v0:1",
        ] {
            assert_eq!(plain(name), None, "{name}");
        }
    }

    #[test]
    fn words_are_words() {
        assert_eq!(word("core::fmt::Display$u7b$"), "core_fmt_Display_u7b");
        assert_eq!(word("\"\u{e9}"), "symbol");
        assert_eq!(word("__x__"), "__x");
    }
}
