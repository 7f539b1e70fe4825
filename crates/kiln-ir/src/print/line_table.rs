//! Prints a line table: one item for each file, with the locations that are in it.

use std::fmt::Write as _;

use super::quote::quoted;
use crate::lines::{LineTable, SourceFile};

/// Returns the text of each `lines` item, with its line end.
pub(super) fn items(table: &LineTable) -> Vec<String> {
    let mut entries = vec![Vec::new(); table.files().len()];
    for entry in table.iter() {
        let column = if entry.column == 0 { String::new() } else { format!(":{}", entry.column) };
        if let Some(own) = entries.get_mut(entry.file.as_u32() as usize) {
            own.push(format!("{} {}{column}", entry.location, entry.line));
        }
    }
    let item = |(SourceFile { name, directory, language }, entries): (&SourceFile, Vec<String>)| {
        let mut out = format!("lines {}", quoted(name.as_bytes()));
        if !directory.is_empty() {
            let _ = write!(out, " directory={}", quoted(directory.as_bytes()));
        }
        if *language != 0 {
            let _ = write!(out, " language={language:#06x}");
        }
        match entries.is_empty() {
            true => out.push_str(" {}\n"),
            false => {
                let _ = writeln!(out, " {{\n    {}\n}}", entries.join(",\n    "));
            }
        }
        out
    };
    table.files().zip(entries).map(item).collect()
}
