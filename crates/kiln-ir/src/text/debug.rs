//! Reads `debug` items and applies them to functions.

use std::collections::HashMap;
use std::sync::Arc;

use cranelift_codegen::ir::{
    self, RelSourceLoc, SourceLoc, Value, ValueLabel, ValueLabelAssignments, ValueLabelStart,
};

use super::cursor::{Cursor, Token};
use super::function::ReadFunction;
use super::item::{DebugItem, DebugLabel, Item};
use super::own_lines::rebase;
use crate::diagnostic::{Diagnostic, DiagnosticKind};
use crate::location::Location;
use crate::names::{function_name, written};
use crate::source::Source;
use crate::variables::{Encoding, MAX_SIZE, Variable, VariableType};

/// Reads a `debug` item, after the keyword.
pub(super) fn debug<'t>(cursor: &mut Cursor<'t>) -> Token<DebugItem<'t>> {
    let (at, name) = cursor.name()?;
    let mut item = DebugItem { name, at, base: None, labels: None, variables: Vec::new() };
    cursor.expect(b'{', "`{`")?;
    loop {
        if cursor.word("base") {
            item.base = Some(SourceLoc::new(cursor.location()?));
        } else if cursor.word("labels") {
            item.labels.get_or_insert_default();
        } else if cursor.word("variable") {
            item.variables.push(variable(cursor)?);
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

/// Reads the name of a label, `3 "x" signed 8`.
fn variable(cursor: &mut Cursor<'_>) -> Token<(usize, Variable)> {
    cursor.trivia();
    let at = cursor.at;
    let label = cursor.number()?;
    let name = cursor.text("the name of a variable")?;
    let encoding = Encoding::ALL.into_iter().find(|encoding| cursor.word(encoding.word()));
    let Some(encoding) = encoding else {
        return Err(cursor.unexpected("`signed`, `unsigned`, `float` or `address`"));
    };
    let range = "a variable has 1 to 16 bytes";
    let size = cursor.integer_in(1, i128::from(MAX_SIZE), range)? as u8;
    let variable = Variable { label, name, ty: VariableType { encoding, size } };
    match variable.is_valid() {
        true => Ok((at, variable)),
        false => {
            Err(cursor.fault_at(at, cursor.at - at, "not a variable: its name has a zero byte".to_owned()))
        }
    }
}

/// Applies `debug` items to their functions. With `own`, source locations are lines of the text
/// itself, and have no base that an item could give.
pub(super) fn apply_debug(
    items: &[Item<'_>],
    functions: &mut [Option<ReadFunction>],
    source: &Arc<Source>,
    own: bool,
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
                if let Err(at) = debug.apply(&mut read.ir, own) {
                    faults.push(fault(at, format!("`{shown}` has no such value, or it has another label")));
                }
                match debug.named() {
                    // The labels that the text gets have names already.
                    Ok(_) if own && debug.labels.is_none() => {}
                    Ok(variables) => read.variables = variables,
                    Err(at) => {
                        let message = format!("a label of `{shown}` has two names");
                        let location = Location::at(source, at, 1);
                        faults.push(Diagnostic::new(DiagnosticKind::Duplicate, message, location));
                    }
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
    fn apply(&self, function: &mut ir::Function, own: bool) -> Result<(), usize> {
        if let (Some(base), false) = (self.base, own) {
            rebase(function, base);
        }
        let Some(labels) = &self.labels else { return Ok(()) };
        if own {
            // The client's labels say more than those that the text would get.
            function.dfg.values_labels = None;
        }
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

impl DebugItem<'_> {
    /// Returns the variables in order of their labels, or the position of one whose label another
    /// has.
    fn named(&self) -> Result<Box<[Variable]>, usize> {
        let mut variables = self.variables.clone();
        variables.sort_by_key(|(at, variable)| (variable.label, *at));
        let twice = variables.windows(2).find(|pair| pair[0].1.label == pair[1].1.label);
        match twice {
            Some(pair) => Err(pair[1].0),
            None => Ok(variables.into_iter().map(|(_, variable)| variable).collect()),
        }
    }
}
