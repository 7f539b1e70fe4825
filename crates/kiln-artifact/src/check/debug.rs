//! Checks of the tables for debuggers.

use crate::debug::{LabelRanges, Lines, Variables, split_parameters};
use crate::layout::Table;
use crate::record::NONE;
use crate::{Artifact, ArtifactError};

type Checked = Result<(), ArtifactError>;

/// The largest size of a variable, in bytes.
const MAX_SIZE: u8 = 16;

/// Checks the source files and the lines.
pub(super) fn check_lines(artifact: &Artifact) -> Checked {
    let files = artifact.source_files();
    for (index, file) in files.iter().enumerate() {
        let (name, directory) = artifact.source_file_name(file);
        if name.is_empty() || name.contains('\0') || directory.contains('\0') {
            return Err(Table::SourceFiles.error(index, "an empty name, or one with a zero byte"));
        }
    }
    let mut lines: Lines<'_> = artifact.lines();
    let mut before = None;
    for (index, line) in (&mut lines).enumerate() {
        if line.file as usize >= files.len() {
            return Err(Table::Lines.error(index, "unknown source file"));
        }
        if line.location == NONE || before.is_some_and(|before| before >= line.location) {
            return Err(Table::Lines.error(index, "a location out of order"));
        }
        before = Some(line.location);
    }
    match lines.is_broken() {
        true => Err(Table::Lines.error(0, "an entry that is not whole")),
        false => Ok(()),
    }
}

/// Checks the functions with labels, and their parts of the streams: first that the parts follow
/// each other and fill the tables, then the entries of each part.
pub(super) fn check_labels(artifact: &Artifact) -> Checked {
    let records = artifact.labelled_functions();
    let fail = |record, what| Err(Table::LabelledFunctions.error(record, what));
    let (mut before, mut labels, mut variables) = (None, 0, 0);
    for (index, record) in records.iter().enumerate() {
        let function = record.function.get();
        if function as usize >= artifact.functions().len() || before.is_some_and(|before| before >= function)
        {
            return fail(index, "an unknown function, or one out of order");
        }
        before = Some(function);
        let (labels_start, variables_start) = (record.labels_start.get(), record.variables_start.get());
        // Bytes before the first part would belong to no function.
        if labels_start < labels
            || variables_start < variables
            || (index == 0 && labels_start | variables_start != 0)
        {
            return fail(index, "parts of functions out of order");
        }
        (labels, variables) = (labels_start, variables_start);
    }
    for (table, last) in [(Table::Labels, labels), (Table::Variables, variables)] {
        let len = artifact.table_bytes(table).len();
        if last as usize > len || (records.is_empty() && len > 0) {
            return Err(table.error(0, "entries that belong to no function, or a part outside the table"));
        }
    }
    for (index, record) in records.iter().enumerate() {
        let function = &artifact.functions()[record.function.get() as usize];
        let end = function.start.get() + function.len.get();
        let split = split_parameters(artifact.labels_part(index));
        let whole = split.is_some_and(|(parameters, bytes)| {
            let mut ranges = LabelRanges::new(bytes, function.start.get());
            let is_wrong = ranges.any(|range| range.end > end || range.label == NONE);
            !is_wrong && !ranges.is_broken() && !parameters.contains(&NONE)
        });
        if !whole {
            let what = "an entry that is not whole, or outside of its function";
            return Err(Table::Labels.error(record.function.get() as usize, what));
        }
        let mut variables = Variables::new(artifact.variables_part(index), 0);
        let mut before = None;
        let wrong = |variable: crate::debug::Variable<'_>| {
            let named = !variable.name.is_empty() && !variable.name.contains('\0');
            let ordered = before.is_none_or(|before| before < variable.label) && variable.label != NONE;
            before = Some(variable.label);
            !(named && ordered && (1..=MAX_SIZE).contains(&variable.size))
        };
        if variables.any(wrong) || variables.is_broken() {
            let what = "a variable that is not whole, or has no name, no size or another's label";
            return Err(Table::Variables.error(record.function.get() as usize, what));
        }
    }
    Ok(())
}
