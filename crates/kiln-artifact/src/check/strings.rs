//! Checks of the strings that records refer to.
//!
//! The strings that one table refers to are together no longer than the string table. Compilers
//! give every symbol and every signature a string of its own. If many records shared one long
//! string, an image or a list of names made from them could be many times as long as the artifact.

use crate::layout::Table;
use crate::record::Str;
use crate::{Artifact, ArtifactError};

/// Checks every string that a table refers to.
pub(super) fn check_strings(artifact: &Artifact) -> Result<(), ArtifactError> {
    let strings = str::from_utf8(artifact.table_bytes(Table::Strings))
        .map_err(|_| Table::Strings.error(0, "text that is not UTF-8"))?;
    let check_table = |table, texts: &mut dyn Iterator<Item = Str>| check_table(strings, table, texts);
    let summary = artifact.summary();
    check_table(Table::Summary, &mut [summary.triple].into_iter())?;
    check_table(Table::Summary, &mut [summary.producer].into_iter())?;
    for table in [Table::Features, Table::Signatures] {
        check_table(table, &mut artifact.records::<Str>(table).iter().copied())?;
    }
    check_table(Table::Symbols, &mut artifact.symbols().iter().map(|symbol| symbol.name))?;
    check_table(Table::NamedData, &mut artifact.named_data().iter().map(|run| run.name))?;
    check_table(Table::SourceFiles, &mut artifact.source_files().iter().map(|file| file.name))?;
    check_table(Table::SourceFiles, &mut artifact.source_files().iter().map(|file| file.directory))
}

/// Checks the strings that one table refers to.
fn check_table(
    strings: &str,
    table: Table,
    texts: &mut dyn Iterator<Item = Str>,
) -> Result<(), ArtifactError> {
    // A table in memory refers to fewer than 2^32 strings, so the sum does not overflow.
    let mut total = 0u64;
    for (record, text) in texts.enumerate() {
        let start = text.start.get() as usize;
        let end = start.checked_add(text.len.get() as usize);
        if end.and_then(|end| strings.get(start..end)).is_none() {
            return Err(table.error(record, "string outside the string table"));
        }
        total += u64::from(text.len.get());
    }
    if total > strings.len() as u64 {
        return Err(table.error(0, "strings that are together longer than the string table"));
    }
    Ok(())
}
