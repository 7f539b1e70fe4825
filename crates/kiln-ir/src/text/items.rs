//! Reads aliases and imports.
//!
//! As in `data`, each function reads one item, with the cursor after its keyword, and returns it.

use cranelift_codegen::isa::CallConv;

use super::cursor::{Cursor, Token};
use super::item::{AliasItem, ImportItem};
use super::signature::signature;
use crate::symbol::SymbolKind;

/// Reads `symbol`, or `anonymous` if not `named`.
pub(super) fn alias<'t>(cursor: &mut Cursor<'t>, named: bool) -> Token<AliasItem<'t>> {
    let (at, name) = cursor.name()?;
    let line = cursor.line_of(at);
    let of = if named {
        cursor.expect(b'=', "`=` and the symbol's name")?;
        let text = cursor.text("a symbol's name")?;
        if text.contains('\0') {
            let message = "a symbol's name holds no zero byte".to_owned();
            return Err(cursor.fault_at(at, cursor.at - at, message));
        }
        Some(text)
    } else {
        None
    };
    Ok(AliasItem { name, at, line, of })
}

/// Reads an import.
pub(super) fn import<'t>(cursor: &mut Cursor<'t>, call_conv: CallConv) -> Token<ImportItem<'t>> {
    let kind = if cursor.word("function") {
        SymbolKind::Function
    } else if cursor.word("data") {
        SymbolKind::Data
    } else {
        return Err(cursor.unexpected("`function` or `data`"));
    };
    let (at, name) = cursor.name()?;
    let line = cursor.line_of(at);
    let signed = kind == SymbolKind::Function && cursor.rest().trim_start_matches(' ').starts_with('(');
    let signature = if signed { Some(signature(cursor, call_conv)?) } else { None };
    Ok(ImportItem { name, at, line, kind, signature })
}
