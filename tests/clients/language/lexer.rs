//! Splits text into tokens. A comment goes from `#` to the end of the line.

use super::Failure;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Word(String),
    Int(i64),
    Float(f64),
    Text(String),
    Sign(&'static str),
}

/// Signs, longer ones first.
const SIGNS: [&str; 23] = [
    "->", "==", "!=", "<=", ">=", "(", ")", "[", "]", "{", "}", ",", ":", ";", "=", "<", ">", "+", "-", "*",
    "/", "%", "|",
];

/// The tokens of `text`, each with its line.
pub(super) fn tokens(text: &str) -> Result<Vec<(Token, usize)>, Failure> {
    let mut tokens = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next().filter(|first| *first != '#') {
            let (token, len) =
                token(rest, first).ok_or_else(|| format!("line {}: what is `{rest}`", number + 1))?;
            tokens.push((token, number + 1));
            rest = rest[len..].trim_start();
        }
    }
    Ok(tokens)
}

/// The first token of `rest`, and its length.
fn token(rest: &str, first: char) -> Option<(Token, usize)> {
    let run = |accepts: fn(char) -> bool| rest.find(|c| !accepts(c)).unwrap_or(rest.len());
    if first.is_ascii_digit() {
        let len = run(|c| c.is_ascii_digit() || c == '.');
        let word = &rest[..len];
        let number = if word.contains('.') {
            Token::Float(word.parse().ok()?)
        } else {
            Token::Int(word.parse().ok()?)
        };
        Some((number, len))
    } else if first.is_alphabetic() {
        let len = run(|c| c.is_alphanumeric() || c == '_');
        Some((Token::Word(rest[..len].into()), len))
    } else if first == '"' {
        let text = rest[1..].split_once('"')?.0;
        Some((Token::Text(text.into()), text.len() + 2))
    } else {
        let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign))?;
        Some((Token::Sign(sign), sign.len()))
    }
}
