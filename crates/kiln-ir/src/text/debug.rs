//! Reads `debug` items and applies them to functions.

use std::collections::HashMap;
use std::sync::Arc;

use cranelift_codegen::ir::function::FunctionParameters;
use cranelift_codegen::ir::{
    self, RelSourceLoc, SourceLoc, Value, ValueLabel, ValueLabelAssignments, ValueLabelStart,
};

use super::cursor::{Cursor, Token};
use super::function::ReadFunction;
use super::item::{DebugItem, DebugLabel, Item};
use crate::diagnostic::{Diagnostic, DiagnosticKind};
use crate::location::Location;
use crate::names::{function_name, written};
use crate::source::Source;

/// Reads a `debug` item, after the keyword.
pub(super) fn debug<'t>(cursor: &mut Cursor<'t>) -> Token<DebugItem<'t>> {
    let (at, name) = cursor.name()?;
    let mut item = DebugItem { name, at, base: None, labels: None };
    cursor.expect(b'{', "`{`")?;
    loop {
        if cursor.word("base") {
            item.base = Some(SourceLoc::new(cursor.location()?));
        } else if cursor.word("labels") {
            item.labels.get_or_insert_default();
        } else {
            cursor.trivia();
            let value_at = cursor.at;
            let value = cursor.value()?;
            let label = if cursor.word("label") {
                let label = ValueLabel::from_u32(cursor.number()?.min(u32::MAX - 1));
                DebugLabel::Start(ValueLabelStart { label, from: RelSourceLoc::new(cursor.location()?) })
            } else if cursor.word("alias") {
                let of = cursor.value_number()?;
                DebugLabel::Alias(RelSourceLoc::new(cursor.location()?), of)
            } else {
                DebugLabel::Nothing
            };
            item.labels.get_or_insert_default().push((value, value_at, label));
        }
        if cursor.eat(b'}') {
            return Ok(item);
        }
        cursor.expect(b',', "`,` or `}`")?;
    }
}

/// Applies `debug` items to their functions.
pub(super) fn apply_debug(
    items: &[Item<'_>],
    functions: &mut [Option<ReadFunction>],
    source: &Arc<Source>,
    faults: &mut Vec<Diagnostic>,
) {
    if !items.iter().any(|item| matches!(item, Item::Debug(_))) {
        return;
    }
    let mut by_name: HashMap<String, usize> = HashMap::new();
    for (number, read) in functions.iter().enumerate() {
        if let Some(read) = read {
            by_name.insert(function_name(&read.ir.name).into_owned(), number);
        }
    }
    let broken =
        items.iter().zip(&*functions).any(|(item, read)| matches!((item, read), (Item::Function(_), None)));
    for item in items {
        let Item::Debug(debug) = item else { continue };
        let shown = written(&debug.name);
        let fault = |at, message| {
            Diagnostic::new(DiagnosticKind::Undefined, message, Location::at(source, at, shown.len()))
        };
        match by_name.get(&*debug.name).and_then(|number| functions[*number].as_mut()) {
            Some(read) => {
                if let Err(at) = debug.apply(&mut read.ir) {
                    faults.push(fault(at, format!("`{shown}` has no such value, or it has another label")));
                }
            }
            // The function may have failed to be read.
            None if broken => {}
            None => faults.push(fault(debug.at, format!("there is no function `{shown}` in this file"))),
        }
    }
}

impl DebugItem<'_> {
    /// Applies the item to `function`. On failure, returns the position of a value that the
    /// function does not have, or that has another label.
    pub(super) fn apply(&self, function: &mut ir::Function) -> Result<(), usize> {
        if let Some(base) = self.base {
            rebase(function, base);
        }
        let Some(labels) = &self.labels else { return Ok(()) };
        let values = function.dfg.num_values();
        let map = function.dfg.values_labels.get_or_insert_default();
        for (value, at, label) in labels {
            let known =
                |value: u32| if (value as usize) < values { Ok(Value::from_u32(value)) } else { Err(*at) };
            let value = known(*value)?;
            match label {
                DebugLabel::Nothing => {
                    map.insert(value, ValueLabelAssignments::Starts(Vec::new()));
                }
                DebugLabel::Start(start) => {
                    let starts =
                        map.entry(value).or_insert_with(|| ValueLabelAssignments::Starts(Vec::new()));
                    match starts {
                        ValueLabelAssignments::Starts(starts) => starts.push(start.clone()),
                        ValueLabelAssignments::Alias { .. } => return Err(*at),
                    }
                }
                DebugLabel::Alias(from, of) => {
                    let alias = ValueLabelAssignments::Alias { from: *from, value: known(*of)? };
                    map.insert(value, alias);
                }
            }
        }
        Ok(())
    }
}

/// Makes the source locations of a function relative to `base`.
fn rebase(function: &mut ir::Function, base: SourceLoc) {
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
