//! Checks of the tables that describe code: functions, and all records that refer to their code.
//!
//! If the records of a table have an offset in the code, the table is sorted by that offset, so a
//! reader may use binary search. If functions or records refer to ranges of a table, these ranges
//! are in order as well and do not overlap. So a reader that follows all ranges reads each byte at
//! most once, and its time and memory are linear in the length of the table.

use std::ops::Range;

use zerocopy::little_endian::U32;

use crate::layout::Table;
use crate::record::HandlerKind;
use crate::stream::CallSites;
use crate::{Artifact, ArtifactError, RelocKind, unwind};

type Checked = Result<(), ArtifactError>;

/// Returns the range that starts at `start`, if it ends within `limit`.
fn range(start: U32, len: U32, limit: usize) -> Option<Range<usize>> {
    let start = start.get() as usize;
    let end = start.checked_add(len.get() as usize)?;
    (end <= limit).then_some(start..end)
}

/// Whether `range` is after all ranges before it, which end at `end`; an empty range may be
/// anywhere.
fn follows(range: &Range<usize>, end: &mut usize) -> bool {
    if range.is_empty() {
        return true;
    }
    let follows = range.start >= *end;
    *end = range.end;
    follows
}

/// Checks that the records of a table are in ascending order of `place`, an offset in the code.
fn check_order<T>(table: Table, records: &[T], place: impl Fn(&T) -> u64) -> Checked {
    match records.is_sorted_by_key(&place) {
        true => Ok(()),
        false => {
            let before = records.windows(2).position(|pair| place(&pair[0]) > place(&pair[1]));
            Err(table.error(before.map_or(0, |before| before + 1), "before the record in front of it"))
        }
    }
}

/// Checks the functions, except for their parts of the streams, and the unwind information.
pub(super) fn check_functions(artifact: &Artifact) -> Checked {
    let (cie, unwind, text) = (artifact.cie(), artifact.unwind(), artifact.text().len());
    if !cie.is_empty() && !unwind::is_common_entry(cie) {
        return Err(Table::Cie.error(0, "not an entry that unwinders can follow"));
    }
    let mut end = 0;
    let (mut references_end, mut rows_end) = (0, 0);
    let mut names = 0u64;
    for (index, function) in artifact.functions().iter().enumerate() {
        let fail = |what| Err(Table::Functions.error(index, what));
        let Some(symbol) = artifact.symbols().get(function.symbol.get() as usize) else {
            return fail("unknown symbol");
        };
        names += u64::from(symbol.name.len.get());
        let Some(code) = range(function.start, function.len, text) else {
            return fail("range outside the code");
        };
        if code.start < end {
            return fail("overlaps the function before it");
        }
        if !is_alignment(function.align.get()) {
            return fail("an alignment that is not a power of two up to 4096");
        }
        end = code.end;
        let references = artifact.references().len();
        let Some(references) = range(function.references_start, function.references_len, references) else {
            return fail("references outside their table");
        };
        if !follows(&references, &mut references_end) {
            return fail("references that another function has");
        }
        let Some(rows) = range(function.unwind_start, function.unwind_len, unwind.len()) else {
            return fail("unwind rows outside their table");
        };
        if !follows(&rows, &mut rows_end) {
            return fail("unwind rows that another function has");
        }
        if !rows.is_empty() && (cie.is_empty() || !unwind::are_rows(&unwind[rows])) {
            return fail("unwind rows that unwinders cannot follow");
        }
    }
    // If many functions had the same symbol, an image would contain its name many times.
    if names > artifact.table_bytes(Table::Strings).len() as u64 {
        return Err(Table::Functions.error(0, "functions that share a symbol"));
    }
    Ok(())
}

/// Checks the tables that are divided by functions: first that the parts follow each other and fill
/// the table, then the entries of each part.
pub(super) fn check_streams(artifact: &Artifact) -> Checked {
    for table in [Table::Traps, Table::SourceRanges, Table::CallSites, Table::Handlers] {
        let mut end = 0;
        for function in 0..artifact.functions().len() {
            let (start, next) = artifact.part_of(function, table);
            // Bytes before the first part would belong to no function.
            if start != end || start > next {
                return Err(table.error(function, "parts of functions out of order"));
            }
            end = next;
        }
        if end != artifact.parts_len(table) {
            return Err(table.error(0, "records that belong to no function"));
        }
    }
    for (index, function) in artifact.functions().iter().enumerate() {
        // Return addresses and ends of ranges may be the offset just after the last byte.
        let end = function.start.get() + function.len.get();
        let fail = |table: Table, what| Err(table.error(index, what));
        let outside = "an entry that is not whole, or outside of its function";
        let mut traps = artifact.traps_of(index);
        if traps.any(|trap| trap.offset > end) || traps.is_broken() {
            return fail(Table::Traps, outside);
        }
        let mut ranges = artifact.source_ranges_of(index);
        if ranges.any(|range| range.end > end) || ranges.is_broken() {
            return fail(Table::SourceRanges, outside);
        }
        // Not `call_sites_of`: it relies on the number of handlers, which is checked below.
        let stream = artifact.stream_of(index, Table::CallSites);
        let mut sites = CallSites::new(stream, function.start.get(), 0);
        let mut handlers = 0u64;
        for site in &mut sites {
            handlers += u64::from(site.handlers);
            if site.return_offset > end {
                return fail(Table::CallSites, outside);
            }
        }
        if sites.is_broken() {
            return fail(Table::CallSites, outside);
        }
        if handlers != artifact.handlers_of(index).len() as u64 {
            return fail(Table::CallSites, "wrong number of handlers");
        }
    }
    Ok(())
}

/// Checks the tables of fixed-width records that refer to code: handlers, stack maps, references,
/// resolved and patchable calls.
pub(super) fn check_records(artifact: &Artifact) -> Checked {
    let (text, symbols) = (artifact.text().len(), artifact.symbols().len());
    // A return address or the end of a range may be the offset just after the last byte.
    let inside = |table: Table, record: usize, offset: U32| {
        if offset.get() as usize <= text {
            Ok(())
        } else {
            Err(table.error(record, "offset outside the code"))
        }
    };
    for (index, handler) in artifact.handlers().iter().enumerate() {
        inside(Table::Handlers, index, handler.target)?;
        if HandlerKind::from_code(handler.kind).is_none() {
            return Err(Table::Handlers.error(index, "unknown kind"));
        }
    }
    let mut entries_end = 0;
    for (index, map) in artifact.stack_maps().iter().enumerate() {
        inside(Table::StackMaps, index, map.return_offset)?;
        let fail = |what| Err(Table::StackMaps.error(index, what));
        let Some(entries) = range(map.entries_start, map.entries_len, artifact.stack_map_entries().len())
        else {
            return fail("entries outside their table");
        };
        if !follows(&entries, &mut entries_end) {
            return fail("entries that another stack map has");
        }
    }
    for (index, symbol) in artifact.references().iter().enumerate() {
        if symbol.get() as usize >= symbols {
            return Err(Table::References.error(index, "unknown symbol"));
        }
    }
    for (index, call) in artifact.resolved_calls().iter().enumerate() {
        let fail = |what| Err(Table::ResolvedCalls.error(index, what));
        let Some(kind) = RelocKind::from_code(call.kind).filter(|kind| kind.width() <= 8) else {
            return fail("unknown kind");
        };
        if call.offset.get() as usize + kind.width() > text {
            return fail("patch site outside the code");
        }
        if call.symbol.get() as usize >= symbols {
            return fail("unknown symbol");
        }
    }
    for (index, call) in artifact.patchable_calls().iter().enumerate() {
        inside(Table::PatchableCalls, index, call.end)?;
        if call.len > call.end {
            return Err(Table::PatchableCalls.error(index, "starts before the code"));
        }
    }
    let place = |offset: U32| u64::from(offset.get());
    check_order(Table::TextRelocs, artifact.text_relocs(), |reloc| reloc.offset.get())?;
    check_order(Table::StackMaps, artifact.stack_maps(), |map| place(map.return_offset))?;
    check_order(Table::ResolvedCalls, artifact.resolved_calls(), |call| place(call.offset))?;
    check_order(Table::PatchableCalls, artifact.patchable_calls(), |call| place(call.end))
}

/// Whether `align` is an alignment of code or data. The largest is a page, because loaders preserve
/// no larger one.
pub(super) fn is_alignment(align: u32) -> bool {
    align.is_power_of_two() && align <= 4096
}
