//! Determines which item each comment of a file belongs to.
//!
//! A comment in a function belongs to the block or instruction before it. After a function, the
//! comments up to the first empty line belong to it, and so do run lines (`; run` and `; print`)
//! anywhere before the next definition. A comment inside another item, or after it on its last
//! line, belongs to that item. Every other comment belongs to the item below it. If its item
//! defines nothing that is used, the comment belongs to the next item that does.
//!
//! Invariant: reading a printed module gives each comment the same owner again.

use std::sync::Arc;

use cranelift_codegen::ir;
use cranelift_codegen::ir::entities::AnyEntity;

use super::item::ItemRange;
use super::locate::Locator;
use super::shorten::CommentNote;
use crate::comments::{Anchor, Comment, Comments, ModuleAnchor, ModuleComment};
use crate::item_order;
use crate::module::Module;
use crate::settings::ModuleSettings;
use crate::source::Source;
use crate::symbol::SymbolId;

/// The part of the module that an item of the text became.
#[derive(Clone, Copy)]
pub(super) enum Owner {
    /// The function with this number.
    Function(usize),
    /// A data object or a global.
    Symbol(SymbolId),
    /// An import, which is printed elsewhere.
    Import(SymbolId),
    /// An item that a printed module does not have.
    Nothing,
}

/// Returns the comments in a function, each with its anchor: the last block or instruction that
/// starts on the comment's line or before it. `noted` gives, for each comment, the note from
/// shortening and the entity that Cranelift's reader attached the comment to.
pub(super) fn inside<'n>(
    locator: Locator<'_>,
    ir: &ir::Function,
    noted: impl Iterator<Item = (&'n CommentNote, AnyEntity)>,
) -> Comments {
    let item = locator.item;
    let text = &*locator.source.text;
    let mut blocks = (0..).zip(ir.layout.blocks());
    let mut anchor = Anchor::Declarations;
    let bytes = item.comments.iter().map(|(start, end)| end - start).sum();
    let mut comments = Comments::with_capacity(item.comments.len(), bytes);
    let mut last = None;
    for (&(start, end), (noted, entity)) in item.comments.iter().zip(noted) {
        match entity {
            // The reader creates exactly the instructions of the text, in the order of the text.
            AnyEntity::Inst(inst) => anchor = Anchor::Inst(inst.as_u32()),
            AnyEntity::Block(block) => {
                if let Some((number, _)) = blocks.find(|(_, other)| *other == block) {
                    anchor = Anchor::Block(number);
                }
            }
            _ => {}
        }
        // Only the first comment of an anchor can be trailing, because a comment ends its line.
        let first = last.replace(anchor) != Some(anchor);
        let beside = anchor != Anchor::Declarations || noted.line == 1;
        comments.push(Comment {
            anchor,
            trailing: first && beside && noted.after_code && trailing(text, start),
            line: locator.line(noted.line),
            text: text[start..end].trim_end(),
        });
    }
    comments
}

/// Tells whether anything but blanks precedes position `at` on its line.
fn trailing(text: &str, at: usize) -> bool {
    let before =
        text.as_bytes()[..at].iter().rev().find(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | 11 | 12));
    match before {
        None | Some(b'\n') => false,
        Some(byte) if byte.is_ascii() => true,
        Some(_) => {
            let line = memchr::memrchr(b'\n', &text.as_bytes()[..at]).map_or(0, |end| end + 1);
            !text[line..at].trim_matches(['\u{feff}', ' ', '\t']).trim().is_empty()
        }
    }
}

/// Attaches the comments outside of functions to their owners.
struct CommentSorter<'m> {
    source: &'m Arc<Source>,
    module: &'m mut Module,
    /// The position up to which lines were counted, and its line.
    counted: (usize, u32),
    /// Comments that belong to the next item.
    waiting: Vec<WaitingComment>,
}

/// A comment that belongs to the next item.
struct WaitingComment {
    start: usize,
    end: usize,
    /// Whether an empty line follows it.
    apart: bool,
}

/// Attaches each comment outside of functions to its owner. `items` has the range and the owner for
/// each item.
pub(super) fn outside(
    source: &Arc<Source>,
    comments: &[(usize, usize)],
    header: Option<ItemRange>,
    items: &[(ItemRange, Owner)],
    module: &mut Module,
) {
    let mut sorter = CommentSorter { source, module, counted: (0, 1), waiting: Vec::new() };
    let mut done = 0;
    if let Some(header) = header {
        done = header.comments;
        for (number, &(start, end)) in comments[..done].iter().enumerate() {
            sorter.wait(start, end, comments[..done].get(number + 1), header.start);
        }
        // Some header lines change no settings, so there may be no header to print.
        if sorter.module.settings != ModuleSettings::default() {
            sorter.flush(ModuleAnchor::Header);
        }
    }
    // The item before the current comments.
    let mut before: Option<(ItemRange, Owner)> = None;
    // The last function, data object or global so far.
    let mut last: Option<Owner> = None;
    for &(range, owner) in items {
        let own = &comments[done..range.comments];
        done = range.comments;
        sorter.gap(own, range.start, before, last);
        match owner {
            Owner::Function(number) => {
                let symbol = sorter.module.functions[number].symbol;
                sorter.flush(ModuleAnchor::Above(symbol));
                last = Some(owner);
            }
            Owner::Symbol(symbol) => {
                sorter.flush(ModuleAnchor::Above(symbol));
                last = Some(owner);
            }
            Owner::Import(symbol) => sorter.flush(ModuleAnchor::Above(symbol)),
            Owner::Nothing => {}
        }
        before = Some((range, owner));
    }
    sorter.gap(&comments[done..], usize::MAX, before, last);
    sorter.flush(ModuleAnchor::End);

    // Items that share a line may be printed in another order than that of the text.
    let mut ranks = vec![0; module.symbols.len()];
    for (rank, entry) in item_order::entries(module).into_iter().enumerate() {
        ranks[entry.symbol.index()] = rank + 1;
    }
    module.comments.sort_by_key(|comment| match comment.anchor {
        ModuleAnchor::Header => 0,
        ModuleAnchor::Above(symbol) => ranks[symbol.index()],
        ModuleAnchor::End => usize::MAX,
    });
}

impl<'m> CommentSorter<'m> {
    /// Attaches the comments between two items and those inside the second, which starts at `next`.
    fn gap(
        &mut self,
        comments: &[(usize, usize)],
        next: usize,
        before: Option<(ItemRange, Owner)>,
        last: Option<Owner>,
    ) {
        let text = self.source.text.as_bytes();
        let mut end = before.map_or(0, |(range, _)| range.end);
        let mut adjacent = true;
        for (number, &(start, stop)) in comments.iter().enumerate() {
            let lines = if start < next { newlines(&text[end..start]) } else { 0 };
            adjacent &= lines < 2;
            end = stop;
            let comment = self.comment(start, stop);
            let run = comment.run_line().is_some();
            match (before, last) {
                _ if start >= next => self.wait(start, stop, None, next),
                (Some((_, Owner::Function(number))), _) if adjacent || run => self.after(number, comment),
                (_, Some(Owner::Function(number))) if run => self.after(number, comment),
                // The comment is on the line where the item ends.
                (Some((range, Owner::Symbol(symbol) | Owner::Import(symbol))), _)
                    if newlines(&text[range.end..start]) == 0 =>
                {
                    let Comment { line, text, .. } = comment;
                    self.module.comments.push(ModuleComment {
                        anchor: ModuleAnchor::Above(symbol),
                        line,
                        text: text.into(),
                    });
                }
                _ => self.wait(start, stop, comments.get(number + 1), next),
            }
        }
    }

    fn comment(&mut self, start: usize, end: usize) -> Comment<'m> {
        let text = &*self.source.text;
        if start < self.counted.0 {
            self.counted = (0, 1);
        }
        let (from, line) = self.counted;
        let lines = newlines(&text.as_bytes()[from..start]);
        self.counted = (start, line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX)));
        let trailing = trailing(text, start);
        Comment { anchor: Anchor::End, trailing, line: self.counted.1, text: text[start..end].trim_end() }
    }

    /// Adds a comment after a function.
    fn after(&mut self, number: usize, mut comment: Comment<'_>) {
        let comments = &mut self.module.functions[number].comments;
        comment.trailing &= comments.last().is_none_or(|last| last.anchor != Anchor::End);
        comments.push(comment);
    }

    /// Keeps a comment for the next item. The comment `then` or the item at `next` follows it in
    /// the text.
    fn wait(&mut self, start: usize, end: usize, then: Option<&(usize, usize)>, next: usize) {
        let until = then.map_or(next, |(start, _)| next.min(*start));
        let apart = self.source.text.as_bytes().get(end..until).is_some_and(|text| newlines(text) > 1);
        self.waiting.push(WaitingComment { start, end, apart });
    }

    /// Gives the waiting comments to `anchor`. An empty line after one of them is a comment without
    /// text.
    fn flush(&mut self, anchor: ModuleAnchor) {
        for WaitingComment { start, end, apart } in std::mem::take(&mut self.waiting) {
            let Comment { line, text, .. } = self.comment(start, end);
            self.module.comments.push(ModuleComment { anchor, line, text: text.into() });
            if apart {
                self.module.comments.push(ModuleComment { anchor, line, text: "".into() });
            }
        }
    }
}

fn newlines(text: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', text).count()
}
