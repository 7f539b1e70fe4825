//! Makes text that others wrote safe to show on a terminal.
//!
//! Names of symbols, modules and files can hold any character, including characters that move the
//! cursor, change colours, or reverse the order of what follows. Such characters are shown as
//! escapes.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Replaces characters that cannot be seen by escapes; the ends of lines stay.
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    replace(text, |c| c != '\n' && is_hidden(c), &mut |out, c| out.extend(c.escape_default()))
}

/// Like [`visible`], but escapes line ends too: a name must stay within its line.
pub(crate) fn name(text: &str) -> Cow<'_, str> {
    replace(text, is_hidden, &mut |out, c| out.extend(c.escape_default()))
}

/// Escapes the characters of a JSON document that cannot be seen. The document means the same,
/// because such characters can only be in its strings.
pub(super) fn json(text: &str) -> Cow<'_, str> {
    replace(text, |c| c != '\n' && is_hidden(c), &mut |out, c| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(out, "\\u{unit:04x}");
        }
    })
}

fn replace<'t>(
    text: &'t str,
    hidden: impl Fn(char) -> bool,
    escape: &mut dyn FnMut(&mut String, char),
) -> Cow<'t, str> {
    let Some(first) = text.find(&hidden) else { return text.into() };
    let mut out = String::with_capacity(text.len() + 16);
    out.push_str(&text[..first]);
    for c in text[first..].chars() {
        if hidden(c) { escape(&mut out, c) } else { out.push(c) }
    }
    out.into()
}

/// Whether a character has no glyph of its own, or changes how others are shown: control
/// characters, spaces other than ` `, marks of direction, joiners, fillers, selectors.
fn is_hidden(c: char) -> bool {
    match c {
        ' '..='~' => false,
        // These characters count as printable by their category, but have no glyph.
        '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{3164}' | '\u{ffa0}' => true,
        // Variation selectors and tags.
        '\u{180b}'..='\u{180f}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0000}'..='\u{e0fff}' => true,
        // `escape_debug` escapes characters that cannot be printed. It also escapes a combining
        // mark at the start of a text, so `a` comes before the character.
        _ => ['a', c].iter().collect::<String>().escape_debug().count() > 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_escaped() {
        let hidden = [
            ("a\u{1b}[31mRED\u{7}", r"a\u{1b}[31mRED\u{7}"),
            ("\r\t\0\u{7f}\u{9b}", r"\r\t\u{0}\u{7f}\u{9b}"),
            ("a\u{202e}b\u{2066}c\u{200b}d\u{feff}", r"a\u{202e}b\u{2066}c\u{200b}d\u{feff}"),
            ("\u{ad}\u{61c}\u{2028}\u{3164}\u{e0041}\u{a0}", r"\u{ad}\u{61c}\u{2028}\u{3164}\u{e0041}\u{a0}"),
        ];
        for (text, shown) in hidden {
            assert_eq!((&*visible(text), &*name(text)), (shown, shown));
        }
        assert_eq!(visible("two\nlines"), "two\nlines");
        assert_eq!(name("two\nlines"), r"two\nlines");
    }

    #[test]
    fn what_can_be_seen_stays() {
        for text in ["", "plain %name \"quoted\" \\ 'x' {}", "größe", "e\u{301}", "名前", "имя", "→ ☃ 🦀"]
        {
            assert!(matches!(name(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn a_document_means_the_same() {
        let text = "\u{1b}[31m \u{9b} \u{202e} \u{e0041} é 🦀 \n";
        let written = serde_json::to_string(text).unwrap();
        let shown = json(&written);
        assert!(!shown.contains(is_hidden), "{shown}");
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
    }
}
