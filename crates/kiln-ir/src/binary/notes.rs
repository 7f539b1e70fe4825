//! Reads comments and header lines from the notes of a module.

use super::write::PreviousComment;
use crate::body::wire::{ByteReader, DecodeResult, unzigzag};
use crate::comments::{Anchor, CommentMark, Comments, ModuleAnchor, ModuleComment};
use crate::settings::{ModuleSettings, Setting, TargetLine};
use crate::symbol::SymbolId;

/// Reads a comment outside of functions. The module has `symbols` symbols.
pub(super) fn module_comment(notes: &mut ByteReader<'_>, symbols: usize) -> DecodeResult<ModuleComment> {
    let kind = notes.byte()?;
    let number = notes.u32()?;
    let anchor = match (kind, number) {
        (0, 0) => ModuleAnchor::Header,
        (1, number) if (number as usize) < symbols => ModuleAnchor::Above(SymbolId::from_u32(number)),
        (2, 0) => ModuleAnchor::End,
        _ => return Err(notes.error("not a place of a comment")),
    };
    let line = notes.u32()?;
    // An empty text stands for an empty line.
    let text = match notes.clone().str()? {
        "" => notes.str()?.into(),
        _ => comment_text(notes)?,
    };
    Ok(ModuleComment { anchor, line, text })
}

/// Reads the comments of a function on `line`. Their texts are read and checked as one string.
pub(super) fn comments(notes: &mut ByteReader<'_>, line: u32) -> DecodeResult<Comments> {
    let count = notes.count()?;
    if count == 0 {
        return Ok(Comments::new());
    }
    let text = notes.str()?;
    if u32::try_from(text.len()).is_err() || memchr::memchr(b'\n', text.as_bytes()).is_some() {
        return Err(notes.error("not comments"));
    }
    let mut marks = Vec::with_capacity(count);
    let (mut start, mut before) = (0, PreviousComment::new(line));
    for _ in 0..count {
        let code = notes.uint()?;
        let kind = (code >> 1 & 3) as usize;
        let number = distant(notes, &mut before.numbers[kind], code >> 3)?;
        let anchor = match (kind, number) {
            (0, 0) => Anchor::Declarations,
            (1, number) => Anchor::Block(number),
            (2, number) => Anchor::Inst(number),
            (3, 0) => Anchor::End,
            _ => return Err(notes.error("not a place of a comment")),
        };
        let line = notes.uint()?;
        let line = distant(notes, &mut before.line, line)?;
        let length = notes.uint()?;
        let rest = &text.as_bytes()[start..];
        let own = usize::try_from(length).ok().and_then(|length| rest.get(..length));
        // `;` is a whole character, so a text that starts with it starts at a character boundary.
        let Some([b';', .., last] | [last @ b';']) = own else {
            return Err(notes.error("not a comment"));
        };
        start += own.map_or(0, <[u8]>::len);
        let blank = if last.is_ascii() {
            last.is_ascii_whitespace() || *last == 0xb
        } else {
            blank_before(text, start)
        };
        if blank {
            return Err(notes.error("not a comment"));
        }
        marks.push(CommentMark { anchor, trailing: code & 1 != 0, line, end: start as u32 });
    }
    if start != text.len() {
        return Err(notes.error("more text than the comments have"));
    }
    Ok(Comments::of(text.to_owned(), marks))
}

/// Adds a zigzag-encoded distance to the previous number, and returns the sum.
#[inline]
fn distant(notes: &ByteReader<'_>, before: &mut u32, distance: u64) -> DecodeResult<u32> {
    let number =
        i64::from(*before).checked_add(unzigzag(distance)).and_then(|number| u32::try_from(number).ok());
    *before = number.ok_or_else(|| notes.error("an integer of more than 32 bits"))?;
    Ok(*before)
}

/// Tells whether the character before `end` is white space, or `end` is within a character.
#[cold]
fn blank_before(text: &str, end: usize) -> bool {
    text.get(..end).is_none_or(|text| text.ends_with(char::is_whitespace))
}

/// Reads the text of a comment. It has no line end and no blanks at its end, so that it is the same
/// comment when it is printed and read.
fn comment_text(notes: &mut ByteReader<'_>) -> DecodeResult<Box<str>> {
    let text = notes.str()?;
    if !text.starts_with(';') || text.contains('\n') || text.trim_end() != text {
        return Err(notes.error("not a comment"));
    }
    Ok(text.into())
}

/// Reads a word of a header line. It has no white space or `;`, so that it is one word when it is
/// printed.
fn word(notes: &mut ByteReader<'_>) -> DecodeResult<Box<str>> {
    let text = notes.str()?;
    if text.is_empty() || text.contains(|c: char| c.is_ascii_whitespace() || c == ';') {
        return Err(notes.error("not a word of a header line"));
    }
    Ok(text.into())
}

/// Reads a `test` or `feature` line.
fn directive(notes: &mut ByteReader<'_>) -> DecodeResult<Box<str>> {
    let text = notes.str()?;
    let mut words = text.split(' ');
    let known = matches!(words.next(), Some("test" | "feature"));
    if !known
        || words.any(str::is_empty)
        || text.contains(|c: char| c.is_ascii_whitespace() && c != ' ' || c == ';')
    {
        return Err(notes.error("not a header line"));
    }
    Ok(text.into())
}

fn setting_value(notes: &mut ByteReader<'_>) -> DecodeResult<Option<Box<str>>> {
    if notes.bool()? {
        let text = notes.str()?;
        if text.contains(|c: char| c.is_ascii_whitespace() || c == ';') {
            return Err(notes.error("not a word of a header line"));
        }
        return Ok(Some(text.into()));
    }
    match notes.str()? {
        "" => Ok(None),
        _ => Err(notes.error("a value for a setting that has none")),
    }
}

fn settings(notes: &mut ByteReader<'_>) -> DecodeResult<Vec<Setting>> {
    let mut settings = Vec::new();
    for _ in 0..notes.count()? {
        let name = word(notes)?;
        if name.contains('=') {
            return Err(notes.error("not the name of a setting"));
        }
        settings.push(Setting { name, value: setting_value(notes)?, line: notes.u32()? });
    }
    Ok(settings)
}

pub(super) fn module_settings(notes: &mut ByteReader<'_>) -> DecodeResult<ModuleSettings> {
    let mut read = ModuleSettings { shared: settings(notes)?, ..ModuleSettings::default() };
    for _ in 0..notes.count()? {
        let triple = word(notes)?;
        let line = notes.u32()?;
        read.targets.push(TargetLine { triple, settings: settings(notes)?, line });
    }
    for _ in 0..notes.count()? {
        read.directives.push(directive(notes)?);
    }
    Ok(read)
}
