//! Finds the column of an error that Cranelift reports by line or by entity.
//!
//! The reader reports the line of an error, and the verifier reports an entity. For some kinds of
//! declaration the reader's map from entity to line has the line of the *next* token. So the text
//! itself is searched: for the entity or the word that a message names, at the place where it must
//! be. If nothing is found, the location is the whole line, never a guess.

use std::cell::OnceCell;
use std::sync::Arc;

use cranelift_codegen::ir::entities::AnyEntity;
use cranelift_reader::SourceMap;

use super::item::FunctionItem;
use crate::location::{Location, beginning, find_word};
use crate::source::Source;

/// Finds locations in one function.
#[derive(Clone, Copy)]
pub(super) struct Locator<'t> {
    pub(super) source: &'t Arc<Source>,
    pub(super) item: &'t FunctionItem<'t>,
}

/// Finds the entities of one function. All declarations are searched at once, when the first is
/// needed, because each may have an error.
pub(super) struct EntityLocator<'t, 'm> {
    pub(super) locator: Locator<'t>,
    map: &'m SourceMap,
    declarations: OnceCell<Declarations<'t>>,
}

/// The declarations of a function, sorted by name, each with its position in the file and its line.
pub(super) struct Declarations<'t>(Vec<(&'t str, (usize, u32))>);

impl Declarations<'_> {
    /// Returns the position in the file and the line of the declaration of `word`.
    pub(super) fn get(&self, word: &str) -> Option<(usize, u32)> {
        let at = self.0.partition_point(|(other, _)| *other < word);
        self.0.get(at).filter(|(other, _)| *other == word).map(|(_, found)| *found)
    }
}

impl<'t> Locator<'t> {
    /// Returns the position and length of the `function` keyword with the name after it.
    pub(super) fn header(&self) -> (usize, usize) {
        let text = beginning(self.item.text);
        let end = text.find(['(', '{', ';', '\r', '\n']).unwrap_or(text.len());
        (self.item.start, text[..end].trim_end().len())
    }

    /// Returns the location of the `function` keyword with the name after it.
    pub(super) fn function(&self) -> Location {
        let (at, length) = self.header();
        Location::at(self.source, at, length)
    }

    /// Converts line `number` of the function's text to a line of the file.
    pub(super) fn line(&self, number: usize) -> u32 {
        let number = u32::try_from(number).unwrap_or(u32::MAX).max(1);
        self.item.line.saturating_add(number - 1)
    }

    /// Returns the declarations `word = ..` before the first block that are first on their lines.
    pub(super) fn declarations(&self) -> Declarations<'t> {
        let mut found = Vec::new();
        let text = self.item.text;
        let (mut at, mut line) = (0, 1);
        loop {
            let code = text[at..].trim_start_matches([' ', '\t']);
            let start = text.len() - code.len();
            if code.starts_with("block") {
                break;
            }
            if DECLARED.iter().any(|kind| code.starts_with(kind)) {
                let word = code.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
                found.push((&code[..word], (self.item.start + start, self.line(line))));
            }
            let Some(end) = memchr::memchr(b'\n', code.as_bytes()) else { break };
            at = start + end + 1;
            line += 1;
        }
        // A stable sort: declarations of one name keep their order.
        found.sort_by_key(|(word, _)| *word);
        Declarations(found)
    }

    /// Returns the instruction on line `number`, without debug tags, source location and comment.
    fn instruction(&self, number: u32) -> Location {
        let line = beginning(self.source.line(number));
        let code = &line[..line.find(';').unwrap_or(line.len())];
        let mut rest = code.trim_start();
        if rest.starts_with('<') {
            rest = rest.split_once('>').map_or(rest, |(_, rest)| rest.trim_start());
        }
        if let Some(tail) = rest.strip_prefix('@') {
            rest = tail.trim_start_matches(|c: char| c.is_ascii_hexdigit()).trim_start();
        }
        if rest.is_empty() {
            return Location::line(self.source, number);
        }
        let before = code[..code.len() - rest.len()].chars().count();
        let clip = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Location {
            source: self.source.clone(),
            line: number,
            column: clip(before).saturating_add(1),
            length: clip(rest.trim_end().chars().count()),
        }
    }

    /// Returns the location of an error that Cranelift's reader reports, and a better message if
    /// the reader's message hides the cause.
    pub(super) fn syntax(&self, number: usize, message: &str) -> (Location, Option<String>) {
        // A line may contain a whole file, so only the function's part of it is searched.
        let text = self.item.text;
        let Some(line) = text.lines().nth(number.saturating_sub(1)).filter(|line| !line.is_empty()) else {
            return (Location::line(self.source, self.line(number)), None);
        };
        let start = self.item.start + (line.as_ptr().addr() - text.as_ptr().addr());
        let place = |at: usize, length: usize| Location::at(self.source, start + at, length);
        if let Some((at, c)) = invalid_character(line) {
            return (place(at, c.len_utf8()), Some(format!("invalid character `{}`", c.escape_debug())));
        }
        let code = &line[..line.find(';').unwrap_or(line.len())];
        // A message that says what was expected does not name what was found.
        let named = if message.to_ascii_lowercase().starts_with("expected") {
            None
        } else {
            message
                .rsplit(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '%')))
                .filter(|word| word.len() > 1)
                .find_map(|word| find_word(code, word).map(|at| (at, word.len())))
        };
        let whole = || {
            let code = if code.trim().is_empty() { line } else { code };
            (code.len() - code.trim_start().len(), code.trim().len())
        };
        let (at, length) = named.unwrap_or_else(whole);
        (place(at, length), None)
    }
}

impl<'t, 'm> EntityLocator<'t, 'm> {
    pub(super) fn new(locator: Locator<'t>, map: &'m SourceMap) -> Self {
        Self { locator, map, declarations: OnceCell::new() }
    }

    /// Tells whether the reader recorded a line for `entity`.
    pub(super) fn has_line(&self, entity: AnyEntity) -> bool {
        self.map.location(entity).is_some()
    }

    /// Returns the location where `entity` is defined, or a location close to it.
    pub(super) fn location(&self, entity: AnyEntity) -> Location {
        let Locator { source, item } = self.locator;
        let line = || self.map.location(entity).map(|location| self.locator.line(location.line_number));
        let found = match entity {
            AnyEntity::Function | AnyEntity::JumpTable(_) | AnyEntity::ExceptionTable(_) => None,
            AnyEntity::GlobalValue(_)
            | AnyEntity::SigRef(_)
            | AnyEntity::FuncRef(_)
            | AnyEntity::Constant(_)
            | AnyEntity::AliasRegion(_)
            | AnyEntity::StackLimit => {
                let word = entity.to_string();
                self.declaration(&word).map(|at| Location::at(source, at, word.len()))
            }
            AnyEntity::Inst(_) => line().map(|line| self.locator.instruction(line)),
            AnyEntity::Block(_)
            | AnyEntity::Value(_)
            | AnyEntity::StackSlot(_)
            | AnyEntity::DynamicStackSlot(_)
            | AnyEntity::DynamicType(_) => {
                line().map(|line| Location::word_from(source, line, &entity.to_string(), item.start))
            }
        };
        found.unwrap_or_else(|| self.locator.function())
    }

    /// Returns the position in the file of the declaration `word = ..`.
    fn declaration(&self, word: &str) -> Option<usize> {
        let all = self.declarations.get_or_init(|| self.locator.declarations());
        all.get(word).map(|(at, _)| at).or_else(|| self.within_line(word))
    }

    /// Searches near the start of the function for a declaration that is not the first on its line.
    fn within_line(&self, word: &str) -> Option<usize> {
        let Locator { item, .. } = self.locator;
        let text = beginning(item.text);
        memchr::memmem::find_iter(text.as_bytes(), word).find_map(|at| {
            let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
            let before = &text[start..at];
            let after = text[at + word.len()..].trim_start();
            let alone = !before.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
            (alone && after.starts_with('=') && !before.contains(';')).then_some(item.start + at)
        })
    }
}

/// The prefixes of the words that declarations define, such as `fn` of `fn0`.
const DECLARED: [&str; 6] = ["fn", "gv", "sig", "const", "region", "stack_limit"];

/// Returns the first character outside of comments and strings that is in no token of CLIF.
fn invalid_character(line: &str) -> Option<(usize, char)> {
    let mut quoted = false;
    for (at, c) in line.char_indices() {
        match c {
            '"' => quoted = !quoted,
            _ if quoted => {}
            ';' => return None,
            'a'..='z' | 'A'..='Z' | '0'..='9' | ' ' | '\x09'..='\x0d' => {}
            _ if "()[]{}<>,.:=!+*-%#@_".contains(c) => {}
            _ => return Some((at, c)),
        }
    }
    None
}
