//! Shortens the text of a function for Cranelift's reader.

/// The shortened text of a function. Its memory is reused.
#[derive(Default)]
pub(super) struct ShortText {
    /// The text for Cranelift's reader.
    pub(super) text: String,
    pub(super) comments: Vec<CommentNote>,
}

/// A note on a comment that was shortened.
pub(super) struct CommentNote {
    /// The comment's line in the function's text.
    pub(super) line: usize,
    /// Whether anything but spaces and tabs precedes it on its line.
    pub(super) after_code: bool,
}

/// Writes the text of a function without the parts that Cranelift's reader would skip slowly,
/// character by character: blanks at the start of lines and after source locations, and the text of
/// comments. The `;` of each comment remains, and lines keep their numbers.
///
/// `whole` is the text of the function or the first part of it, which starts at position `at` of
/// the file, and `inside` has the range of each comment in it, as positions in the file.
pub(super) fn shorten(whole: &str, at: usize, inside: &[(usize, usize)], short: &mut ShortText) {
    let ShortText { text, comments } = short;
    text.clear();
    comments.clear();
    text.reserve(whole.len());
    let (mut from, mut line) = (0, 1);
    for &(start, end) in inside {
        line += lines(&whole[from..start - at], text);
        comments
            .push(CommentNote { line, after_code: !matches!(text.as_bytes().last(), None | Some(b'\n')) });
        text.push(';');
        from = end - at;
    }
    lines(&whole[from..], text);
}

/// Appends a piece of a function's text that has no comments, and returns the number of line ends
/// in it. Strings never contain a line end.
fn lines(text: &str, out: &mut String) -> usize {
    let (mut rest, mut count) = (text, 0);
    loop {
        let Some(end) = memchr::memchr(b'\n', rest.as_bytes()) else {
            out.push_str(rest);
            return count;
        };
        out.push_str(&rest[..=end]);
        count += 1;
        rest = blanks(&rest[end + 1..]);
        if rest.starts_with('@') {
            let word = rest.bytes().take_while(|b| !matches!(b, b' ' | b'\t' | b'\n')).count();
            let after = blanks(&rest[word..]);
            if rest.len() - after.len() > word {
                out.push_str(&rest[..word]);
                out.push(' ');
                rest = after;
            }
        }
    }
}

/// Returns the text after its leading blanks.
#[inline]
pub(super) fn blanks(text: &str) -> &str {
    // Listings are indented by dozens of spaces.
    let (groups, _) = text.as_bytes().as_chunks::<8>();
    let at = groups.iter().take_while(|group| **group == [b' '; 8]).count() * 8;
    let rest = &text[at..];
    &rest[rest.bytes().take_while(|b| matches!(b, b' ' | b'\t')).count()..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_reader_need_not_skip() {
        let text = "function %f() {\n\tss0 = explicit_slot 8  ; a \"\n\n           block0: ; b\n@12  \t   return ;\n   ; c\n @3\n}";
        let at = text.match_indices(';').map(|(at, _)| at);
        let comments: Vec<_> = at.map(|at| (at, at + text[at..].find('\n').unwrap())).collect();
        let mut short = ShortText::default();
        shorten(text, 0, &comments, &mut short);
        let expected = "function %f() {\nss0 = explicit_slot 8  ;\n\nblock0: ;\n@12 return ;\n;\n@3\n}";
        assert_eq!(short.text, expected);
        let noted: Vec<_> = short.comments.iter().map(|noted| (noted.line, noted.after_code)).collect();
        assert_eq!(noted, [(2, true), (4, true), (5, true), (6, false)]);
    }
}
