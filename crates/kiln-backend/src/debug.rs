//! Tables for debuggers: lines, places of labelled values, names of labels.

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
/// Ranges of one label may overlap, if several values have it. The one that starts later is the
/// newer value of the variable, so the other one ends where it starts.
pub(crate) fn labels(code: &CompiledCode, isa: &dyn TargetIsa) -> Vec<u8> {
    let mut ranges: Vec<LabelRange> = Vec::new();
    // A hash map, but the ranges are sorted by all their fields.
    for (label, own) in &code.value_labels_ranges {
        let label = label.as_u32();
        ranges.extend(own.iter().filter(|range| range.start < range.end).filter_map(|range| {
            let ValueLocRange { loc, start, end } = *range;
            Some(LabelRange { label, start, end, place: place(loc, isa)? })
        }));
    }
    let order = |place| match place {
        Place::Register(number) => (0, i64::from(number)),
        Place::Frame(offset) => (1, i64::from(offset)),
    };
    ranges.sort_unstable_by_key(|range| (range.label, range.start, range.end, order(range.place)));
    let mut writer = LabelWriter::default();
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
