//! Tables for debuggers: lines, places of labelled values, names of labels.

use cranelift_codegen::ir::{self, ValueLabelAssignments};
use cranelift_codegen::isa::TargetIsa;
use cranelift_codegen::{CompiledCode, LabelValueLoc, ValueLocRange};
use kiln_artifact::Contents;
use kiln_artifact::debug::{
    Encoding, LabelRange, LabelWriter, Line, LineWriter, Place, Variable, write_variable,
};
use kiln_artifact::record::{LabelledFunction, SourceFile};
use kiln_ir::{Function, LineTable};

/// Returns the function's part of the stream of labels; empty if no value has a label.
///
/// A register that functions need not preserve has the value only until the next call: within the
/// callee, debuggers would take the register's content for the value. So such a range ends before
/// the end of the call instruction, where debuggers look up the caller's variables.
///
/// Ranges of one label may overlap, if several values have it. The one that starts later is the
/// newer value of the variable, so the other one ends where it starts.
pub(crate) fn labels(code: &CompiledCode, function: &ir::Function, isa: &dyn TargetIsa) -> Vec<u8> {
    let mut ranges: Vec<LabelRange> = Vec::new();
    let parameters = parameters(function);
    if code.value_labels_ranges.is_empty() && parameters.is_empty() {
        return Vec::new();
    }
    let returns: Vec<u32> = code.buffer.call_sites().map(|site| site.ret_addr).collect();
    // A hash map, but the ranges are sorted by all their fields.
    for (label, own) in &code.value_labels_ranges {
        let label = label.as_u32();
        ranges.extend(own.iter().filter(|range| range.start < range.end).filter_map(|range| {
            let ValueLocRange { loc, start, end } = *range;
            let place = place(loc, isa)?;
            let after = returns.partition_point(|at| *at <= start);
            let call = returns.get(after).filter(|at| **at <= end && !survives_calls(place, isa));
            Some(LabelRange { label, start, end: call.map_or(end, |at| at - 1), place })
        }));
    }
    let order = |place| match place {
        Place::Register(number) => (0, i64::from(number)),
        Place::Frame(offset) => (1, i64::from(offset)),
    };
    ranges.sort_unstable_by_key(|range| (range.label, range.start, range.end, order(range.place)));
    let mut writer = LabelWriter::default();
    writer.parameters(parameters);
    let mut ranges = ranges.into_iter().peekable();
    while let Some(mut range) = ranges.next() {
        if let Some(next) = ranges.peek().filter(|next| next.label == range.label) {
            range.end = range.end.min(next.start);
        }
        if range.start < range.end {
            writer.range(range);
        }
    }
    writer.finish()
}

/// Returns the labels of a function's parameters, in order.
fn parameters(function: &ir::Function) -> Vec<u32> {
    let dfg = &function.dfg;
    let (Some(labels), Some(entry)) = (&dfg.values_labels, function.layout.entry_block()) else {
        return Vec::new();
    };
    let mut found: Vec<u32> = Vec::new();
    for value in dfg.block_params(entry) {
        if let Some(ValueLabelAssignments::Starts(starts)) = labels.get(value)
            && let Some(first) = starts.first()
            && !found.contains(&first.label.as_u32())
        {
            found.push(first.label.as_u32());
        }
    }
    found
}

/// Returns the place in the terms of DWARF; `None` for a register that DWARF has no number for.
fn place(loc: LabelValueLoc, isa: &dyn TargetIsa) -> Option<Place> {
    match loc {
        LabelValueLoc::Reg(register) => isa.map_regalloc_reg_to_dwarf(register).ok().map(Place::Register),
        LabelValueLoc::CFAOffset(offset) => {
            let near = (-Place::MAX_DISTANCE..=Place::MAX_DISTANCE).contains(&offset);
            i32::try_from(offset).ok().filter(|_| near).map(Place::Frame)
        }
    }
}

/// Whether a call leaves the value in its place, by the calling convention of the platform.
fn survives_calls(place: Place, isa: &dyn TargetIsa) -> bool {
    let Place::Register(number) = place else { return true };
    match isa.name() {
        "x64" => matches!(number, 3 | 6 | 12..=15),
        "aarch64" => matches!(number, 19..=29),
        "riscv64" => matches!(number, 8 | 9 | 18..=27 | 40 | 41 | 50..=59),
        "s390x" => matches!(number, 6..=13 | 15),
        _ => false,
    }
}

/// Writes the line table of a module.
pub(crate) fn write_lines(lines: &LineTable, contents: &mut Contents) {
    for file in lines.files() {
        let file = SourceFile {
            name: contents.string(&file.name),
            directory: contents.string(&file.directory),
            language: file.language.into(),
            reserved: [0; 2],
        };
        contents.source_files.push(file);
    }
    let mut writer = LineWriter::default();
    for entry in lines.iter() {
        let (location, file) = (entry.location.bits(), entry.file.as_u32());
        writer.line(Line { location, file, line: entry.line, column: entry.column });
    }
    contents.lines = writer.finish();
}

/// Writes the labels and the variables of the function whose record was added last.
pub(crate) fn write_labels(function: &Function, labels: &[u8], contents: &mut Contents) {
    if labels.is_empty() && function.variables.is_empty() {
        return;
    }
    contents.labelled_functions.push(LabelledFunction {
        function: (contents.functions.len() as u32 - 1).into(),
        labels_start: (contents.labels.len() as u32).into(),
        variables_start: (contents.variables.len() as u32).into(),
    });
    contents.labels.extend_from_slice(labels);
    let mut before = 0;
    for kiln_ir::Variable { label, name, ty } in &function.variables {
        let encoding = match ty.encoding {
            kiln_ir::Encoding::Signed => Encoding::Signed,
            kiln_ir::Encoding::Unsigned => Encoding::Unsigned,
            kiln_ir::Encoding::Float => Encoding::Float,
            kiln_ir::Encoding::Address => Encoding::Address,
        };
        let variable = Variable { label: *label, name, encoding, size: ty.size };
        write_variable(&mut contents.variables, before, variable);
        before = *label;
    }
}
