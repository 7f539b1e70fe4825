//! Makes the text itself what a debugger shows: source locations are places in it.
//!
//! A function's locations are numbers of their own: 0 for its head, then one for each instruction.
//! So they do not depend on the layout of the text, and a comment or an empty line more changes
//! only the line table. When all functions are known, the locations of each are moved behind those
//! of the function before it, by its base.

use std::sync::Arc;

use cranelift_codegen::ir::function::FunctionParameters;
use cranelift_codegen::ir::{
    self, RelSourceLoc, SourceLoc, Type, Value, ValueLabel, ValueLabelAssignments, ValueLabelStart,
};
use cranelift_reader::SourceMap;

use super::locate::Locator;
use crate::lines::{LineEntry, LineTable, SourceFile};
use crate::source::Source;
use crate::variables::{Encoding, MAX_SIZE, Variable, VariableType};

/// `DW_LANG_C99`. There is no code for CLIF, and debuggers evaluate expressions like `v3 + 1` only
/// for languages that they know.
const LANGUAGE: u16 = 0x0c;

/// Line and column of each location of a function; empty if its locations are not lines.
pub(super) type OwnLines = Vec<(u32, u32)>;

/// Gives the function's instructions numbers as source locations, and names its values. Returns the
/// lines of the locations.
pub(super) fn number(
    ir: &mut ir::Function,
    map: &SourceMap,
    locator: Locator<'_>,
) -> (OwnLines, Box<[Variable]>) {
    rebase(ir, SourceLoc::new(0));
    let mut lines = vec![(locator.item.line, 0)];
    let mut variables = Vec::new();
    let mut labels = 0;
    let mut starts = std::collections::BTreeMap::new();
    let mut columns = Columns { text: locator.item.text.as_bytes(), line: 1, at: 0 };
    let blocks: Vec<_> = ir.layout.blocks().collect();
    for block in blocks {
        let mut name = |value: Value, ty: Type| {
            // Numbers by position, as those of the canonical form.
            let label = labels;
            labels += 1;
            if let Some(ty) = variable_type(ty) {
                let from = RelSourceLoc::new(0);
                let start = ValueLabelStart { from, label: ValueLabel::from_u32(label) };
                starts.insert(value, ValueLabelAssignments::Starts(vec![start]));
                variables.push(Variable { label, name: value.to_string().into(), ty });
            }
        };
        for &param in ir.dfg.block_params(block) {
            name(param, ir.dfg.value_type(param));
        }
        let mut next = ir.layout.first_inst(block);
        while let Some(inst) = next {
            next = ir.layout.next_inst(inst);
            for &result in ir.dfg.inst_results(inst) {
                name(result, ir.dfg.value_type(result));
            }
            ir.stencil.srclocs[inst] = RelSourceLoc::new(lines.len() as u32);
            let line = map.location(inst.into()).map_or(1, |place| place.line_number);
            lines.push((locator.line(line), columns.of(line)));
        }
    }
    ir.dfg.values_labels = Some(starts);
    (lines, variables.into())
}

/// Returns the type of a variable that holds values of a type that debuggers can show.
fn variable_type(ty: Type) -> Option<VariableType> {
    let encoding = match ty {
        ty if ty.is_int() => Encoding::Signed,
        ty if ty.is_float() => Encoding::Float,
        _ => return None,
    };
    let size = u8::try_from(ty.bytes()).ok().filter(|size| (1..=MAX_SIZE).contains(size))?;
    Some(VariableType { encoding, size })
}

/// Finds the columns of instructions, whose lines are in ascending order.
struct Columns<'t> {
    text: &'t [u8],
    line: usize,
    /// The start of the line.
    at: usize,
}

impl Columns<'_> {
    /// Returns the column of the first instruction on `line`; 0 for every other, and for one that
    /// is not first on its line, because its place is not known.
    fn of(&mut self, line: usize) -> u32 {
        let again = line == self.line;
        while self.line < line {
            let Some(end) = memchr::memchr(b'\n', &self.text[self.at..]) else { return 0 };
            (self.line, self.at) = (self.line + 1, self.at + end + 1);
        }
        let blanks = self.text[self.at..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let head = line == 1 || self.text[self.at + blanks..].starts_with(b"block");
        if again || head { 0 } else { u32::try_from(blanks + 1).unwrap_or(0) }
    }
}

/// Moves the locations of functions behind each other, and returns the line table of the text,
/// whose name is relative to `directory`. Each function has a base, which is set, and its lines.
pub(super) fn join<'d>(
    functions: impl Iterator<Item = (&'d mut SourceLoc, OwnLines)>,
    source: &Arc<Source>,
    directory: &str,
) -> LineTable {
    let mut table = LineTable::default();
    let file = SourceFile::new(source.name.replace('\0', "")).directory(directory.replace('\0', ""));
    let Ok(file) = table.file(file.language(LANGUAGE)) else { return table };
    let mut next = 0;
    for (base, lines) in functions {
        *base = SourceLoc::new(next);
        for (line, column) in lines {
            let location = SourceLoc::new(next);
            // There are fewer instructions than bytes, so no location is left out.
            let _ = table.push(LineEntry { location, file, line, column });
            next = next.saturating_add(1);
        }
    }
    table
}

/// Makes the source locations of a function relative to `base`.
pub(super) fn rebase(function: &mut ir::Function, base: SourceLoc) {
    let insts: Vec<_> =
        function.layout.blocks().flat_map(|block| function.layout.block_insts(block)).collect();
    let locations: Vec<_> = insts.iter().map(|inst| function.srcloc(*inst)).collect();
    // A base can be set only once, so `params` is replaced.
    let names: Vec<_> = function.params.user_named_funcs().values().cloned().collect();
    function.params = FunctionParameters::new();
    for name in names {
        function.params.ensure_user_func_name(name);
    }
    if !base.is_default() {
        function.params.ensure_base_srcloc(base);
    }
    for (inst, location) in insts.into_iter().zip(locations) {
        if !location.is_default() {
            function.set_srcloc(inst, location);
        }
    }
}
