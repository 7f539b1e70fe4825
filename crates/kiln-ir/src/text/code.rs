//! Reads `code` items: machine code that a client supplies.

use cranelift_codegen::isa::CallConv;

use super::cursor::{Cursor, Token};
use super::item::{CodeItem, RelocItem, RelocTarget};
use super::signature::signature;
use crate::relocs;
use crate::symbol::Linkage;

/// Reads machine code, after the keyword.
pub(super) fn code<'t>(
    cursor: &mut Cursor<'t>,
    linkage: Linkage,
    call_conv: CallConv,
) -> Token<CodeItem<'t>> {
    let (at, name) = cursor.name()?;
    let line = cursor.line_of(at);
    let signature = signature(cursor, call_conv)?;
    let mut item =
        CodeItem { linkage, name, at, line, signature, align: 1, bytes: Vec::new(), relocs: Vec::new() };
    cursor.expect(b'{', "`{`")?;
    loop {
        if cursor.word("align") {
            let (number_at, number) = cursor.integer()?;
            item.align = cursor.align(number_at, number)?;
        } else if cursor.word("bytes") {
            let bytes = if cursor.eat(b'#') { cursor.hex()? } else { cursor.string()?.1 };
            item.bytes.extend_from_slice(&bytes);
        } else if cursor.word("reloc") {
            item.relocs.push(reloc(cursor)?);
        } else {
            return Err(cursor.unexpected("`align`, `bytes` or `reloc`"));
        }
        if cursor.eat(b'}') {
            break;
        }
        cursor.expect(b',', "`,` or `}`")?;
    }
    let length = item.name.len();
    if item.bytes.is_empty() {
        return Err(cursor.fault_at(at, length, "machine code must not be empty".to_owned()));
    }
    for reloc in &item.relocs {
        if reloc.offset as usize >= item.bytes.len() {
            let message = format!("offset {} is outside of the code", reloc.offset);
            return Err(cursor.fault_at(reloc.at, 1, message));
        }
    }
    // A stable sort: two relocations at one offset keep their order.
    item.relocs.sort_by_key(|reloc| reloc.offset);
    Ok(item)
}

fn reloc<'t>(cursor: &mut Cursor<'t>) -> Token<RelocItem<'t>> {
    cursor.trivia();
    let (kind_at, word) = (cursor.at, cursor.peek_word());
    let Some(kind) = relocs::named(word) else {
        return Err(cursor.unexpected("a kind of relocation"));
    };
    cursor.at += word.len();
    if !cursor.word("at") {
        return Err(cursor.unexpected("`at`"));
    }
    let offset = cursor.number()?;
    let target = if cursor.word("here") {
        RelocTarget::Here(cursor.number()?)
    } else if cursor.word("routine") {
        cursor.trivia();
        let word = cursor.peek_word();
        let Ok(call) = word.parse() else { return Err(cursor.unexpected("a routine, such as `CeilF32`")) };
        cursor.at += word.len();
        RelocTarget::Routine(call)
    } else {
        let (at, name) = cursor.name()?;
        RelocTarget::Name(name, cursor.line_of(at))
    };
    let addend = cursor.addend()?;
    Ok(RelocItem { at: kind_at, offset, kind, target, addend })
}
