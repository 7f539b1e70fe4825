//! Reads `lines` items: the files that source locations are in, and the lines that they stand for.

use std::collections::HashSet;
use std::sync::Arc;

use cranelift_codegen::ir::SourceLoc;

use super::cursor::{Cursor, Token};
use super::item::{Item, LinesItem};
use crate::diagnostic::{Diagnostic, DiagnosticKind};
use crate::lines::{LineEntry, LineTable, SourceFile};
use crate::location::Location;
use crate::source::Source;

/// Reads a `lines` item, after the keyword.
pub(super) fn lines(cursor: &mut Cursor<'_>) -> Token<LinesItem> {
    cursor.trivia();
    let at = cursor.at;
    let mut file = SourceFile::new(cursor.text("the name of a source file")?);
    loop {
        if cursor.word("directory") {
            cursor.expect(b'=', "`=` and a folder")?;
            file.directory = cursor.text("a folder")?;
        } else if cursor.word("language") {
            cursor.expect(b'=', "`=` and a number")?;
            let language = cursor.integer_in(0, i128::from(u16::MAX), "a language has 16 bits")?;
            file.language = u16::try_from(language).unwrap_or(u16::MAX);
        } else {
            break;
        }
    }
    if file.name.contains('\0') || file.directory.contains('\0') {
        let message = "the name of a file holds no zero byte".to_owned();
        return Err(cursor.fault_at(at, cursor.at - at, message));
    }
    cursor.expect(b'{', "`directory`, `language` or `{`")?;
    let mut entries = Vec::new();
    if cursor.eat(b'}') {
        return Ok(LinesItem { at, file, entries });
    }
    loop {
        cursor.trivia();
        let at = cursor.at;
        let location = SourceLoc::new(cursor.location()?);
        if location.is_default() {
            return Err(cursor.fault_at(at, cursor.at - at, "`@-` is no location".to_owned()));
        }
        let line = cursor.number()?;
        let column = if cursor.eat(b':') { cursor.number()? } else { 0 };
        entries.push((at, location, line, column));
        if cursor.eat(b'}') {
            return Ok(LinesItem { at, file, entries });
        }
        cursor.expect(b',', "`,` or `}`")?;
    }
}

/// Makes the line table of a file's `lines` items.
pub(super) fn table(items: &[Item<'_>], source: &Arc<Source>, faults: &mut Vec<Diagnostic>) -> LineTable {
    let mut table = LineTable::default();
    let mut fault = |at, message: &str| {
        faults.push(Diagnostic::new(DiagnosticKind::Duplicate, message, Location::at(source, at, 1)));
    };
    let mut all = Vec::new();
    let mut known = HashSet::new();
    for item in items {
        let Item::Lines(LinesItem { at, file, entries }) = item else { continue };
        // The reader has checked the names.
        let Ok(number) = table.file(file.clone()) else { continue };
        if !known.insert(number) {
            fault(*at, "this source file has two `lines` items");
        }
        all.extend(
            entries.iter().map(|&(at, location, line, column)| {
                (at, LineEntry { location, file: number, line, column })
            }),
        );
    }
    all.sort_by_key(|(at, entry)| (entry.location.bits(), *at));
    for (at, entry) in all {
        if table.push(entry).is_err() {
            fault(at, "this source location has two lines");
        }
    }
    table
}
