//! Limits the width of comments and Markdown, which may be narrower than that of code.

use std::str::FromStr as _;

use proc_macro2::{TokenStream, TokenTree};

use super::rules::MAX_COLUMNS;
use super::sources::Source;

/// Lines of Markdown, and lines with a comment, that have too many columns.
pub(super) fn faults(sources: &[Source]) -> Vec<String> {
    sources.iter().flat_map(faults_of_one).collect()
}

fn faults_of_one(source: &Source) -> Vec<String> {
    let too_long = |line: &str| line.chars().count() > MAX_COLUMNS && !is_unbreakable(line);
    if !source.text.lines().any(too_long) {
        return Vec::new();
    }
    let has_text: Vec<bool> = match source.path.rsplit(['.', '/']).next() {
        Some("md") => source.text.lines().map(|_| true).collect(),
        Some("rs") => comments_of_rust(&source.text),
        Some("toml" | "yml" | "run") => source.text.lines().map(|line| has_comment(line, '#')).collect(),
        Some("clif") => source.text.lines().map(is_comment_of_clif).collect(),
        _ => return Vec::new(),
    };
    let lines = source.text.lines().enumerate().zip(has_text);
    lines
        .filter(|((_, line), has_text)| *has_text && too_long(line))
        .map(|((number, line), _)| {
            let (path, columns) = (&source.path, line.chars().count());
            format!("{path}:{}: {columns} columns, at most {MAX_COLUMNS}", number + 1)
        })
        .collect()
}

/// Whether the line consists of an address, which cannot be broken.
fn is_unbreakable(line: &str) -> bool {
    let text = line.trim_start_matches(|c: char| c.is_whitespace() || "/!#;*->".contains(c));
    // The label of a Markdown link definition stays with its address.
    let text = match text.split_once("]: ") {
        Some((label, address)) if label.starts_with('[') => address,
        _ => text,
    };
    text.contains("://") && !text.contains(char::is_whitespace)
}

/// Returns for each line of a Rust file whether it has a comment.
///
/// A `//` inside a string is not a comment, so only the text after a line's last token is searched.
/// A documentation comment is a token itself, but it begins its line.
fn comments_of_rust(text: &str) -> Vec<bool> {
    let mut lines = vec![Line::default(); text.lines().count() + 1];
    // The compiler reports a file that does not parse.
    if let Ok(tokens) = TokenStream::from_str(text) {
        mark(tokens, &mut lines);
    }
    let has_comment = |(text, line): (&str, &Line)| {
        let after: String = text.chars().skip(line.code_end).collect();
        after.contains("//") || !line.begins_in_token && text.trim_start().starts_with("//")
    };
    text.lines().zip(&lines).map(has_comment).collect()
}

#[derive(Clone, Copy, Default)]
struct Line {
    /// Number of the column after the last token that ends on the line.
    code_end: usize,
    /// Whether the line's first column is inside a token, which must be a string.
    begins_in_token: bool,
}

fn mark(tokens: TokenStream, lines: &mut [Line]) {
    for token in tokens {
        let span = token.span();
        let (start, end) = (span.start(), span.end());
        if let TokenTree::Group(group) = token {
            mark(group.stream(), lines);
        } else {
            for line in &mut lines[start.line..end.line] {
                *line = Line { code_end: usize::MAX, begins_in_token: true };
            }
        }
        let last = &mut lines[end.line - 1];
        last.code_end = if last.code_end == usize::MAX { end.column } else { last.code_end.max(end.column) };
    }
}

/// Whether a line of a configuration file has a comment outside quotes.
fn has_comment(line: &str, mark: char) -> bool {
    let mut quoted = false;
    let mut before = ' ';
    line.chars().any(|c| {
        quoted ^= c == '"';
        let found = c == mark && before.is_whitespace() && !quoted;
        before = c;
        found
    })
}

/// Whether a line of IR is a comment for people. A `run:` or `print:` comment cannot be broken.
fn is_comment_of_clif(line: &str) -> bool {
    let Some(comment) = line.trim_start().strip_prefix(';') else { return false };
    !["run:", "print:"].iter().any(|command| comment.trim_start().starts_with(command))
}

#[cfg(test)]
mod tests {
    use super::super::sources::source;
    use super::*;

    /// The numbers of the lines that are too long.
    #[track_caller]
    fn check(path: &str, text: &str, expected: &[usize]) {
        let line = |number: &usize| {
            let columns = text.lines().nth(number - 1).unwrap().chars().count();
            format!("{path}:{number}: {columns} columns, at most 100")
        };
        let expected: Vec<String> = expected.iter().map(line).collect();
        assert_eq!(faults_of_one(&source(path, text)), expected);
    }

    #[test]
    fn markdown_ends_at_column_100() {
        let word = "é".repeat(100);
        check("a.md", &format!("{word}\n{word}.\n"), &[2]);
        check("a.md", &format!("https://{word}\n[a]: https://{word}\na https://{word}\n"), &[3]);
        check("a.txt", &format!("{word}.\n"), &[]);
    }

    #[test]
    fn comments_of_rust_end_at_column_100() {
        let word = "a".repeat(98);
        let code = format!("fn f() {{ g(\"{word}\") }}");
        check("a.rs", &format!("//! {word}\n\n/// {word}\n// {word}\n{code}\n"), &[1, 3, 4]);
        check("a.rs", &format!("{code} // b\n    // {word}\n//{word}\n"), &[1, 2]);
        check("a.rs", &format!("fn f() {{ g(\"// {word}\") }}\nfn h() {{}} // {word}\n"), &[2]);
        check("a.rs", &format!("// https://{word}/{word}\n// see https://{word}/{word}\n"), &[2]);
    }

    #[test]
    fn strings_of_several_lines_hold_no_comments() {
        let word = "a".repeat(98);
        check("a.rs", &format!("const C: &str = \"\n// {word}\n  // {word}\";\n"), &[]);
        check("a.rs", &format!("const C: &str = \"\n// {word}\n  {word}\"; // b\n"), &[3]);
    }

    #[test]
    fn other_files_have_comments_too() {
        let word = "a".repeat(98);
        check("a.toml", &format!("a = \"{word} # {word}\"\n# {word}.\nb = 1 # {word}\n"), &[2, 3]);
        check(".ci/run", &format!("# {word}.\necho {word}\n"), &[1]);
        check("a.clif", &format!("; {word}.\n; run: {word}\n    v0 = {word}\n"), &[1]);
    }
}
