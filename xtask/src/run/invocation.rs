//! Invocations: the calls that run lines make, and the comparison of their results.

use cranelift_codegen::data_value::{DataValue, DisplayDataValues};
use cranelift_codegen::ir::Signature;
use cranelift_reader::{Comparison, RunCommand, parse_run_command};
use kiln::ir::{Function, Module, RunLine};

use super::report::{Event, Verdict};

/// Executes an invocation. The arguments are the number of the module, the function, its signature
/// and the values of its parameters.
pub(super) type Execute<'a> =
    dyn FnMut(usize, &Function, &Signature, &[DataValue]) -> Result<Vec<DataValue>, Stop> + 'a;

/// The reason why an invocation has no results.
pub(super) enum Stop {
    /// The file has failed.
    Failed(String),
    /// The file cannot be executed in this way.
    Skipped(String),
}

/// Executes all run lines of a file's modules, and calls `event` with every step.
pub(super) fn all(modules: &[Module], execute: &mut Execute<'_>, event: &mut dyn FnMut(&Event)) -> Verdict {
    let mut invocations = 0;
    let functions = modules
        .iter()
        .enumerate()
        .flat_map(|(number, module)| module.functions.iter().map(move |function| (number, module, function)));
    for (number, module, function) in functions {
        let signature = module.symbol(function.symbol).signature.as_ref();
        let signature = signature.expect("a defined function has a signature");
        for line in function.run_lines() {
            let place = match modules.len() {
                1 => format!("line {}: `{}`", line.line, line.text),
                _ => format!("{}, line {}: `{}`", module.name, line.line, line.text),
            };
            event(&Event::Invoke(place.clone()));
            if let Some(other) = other_name(&line, &module.symbol(function.symbol).name) {
                let name = &module.symbol(function.symbol).name;
                event(&Event::Note(format!("{place}: the function above is `%{name}`, and not `{other}`")));
            }
            let execute = |arguments: &[_]| execute(number, function, signature, arguments);
            match one(signature, &line, execute) {
                Ok(None) => invocations += 1,
                Ok(Some(printed)) => {
                    event(&Event::Printed(printed));
                    invocations += 1;
                }
                Err(Stop::Failed(reason)) => {
                    return Verdict::Failed { reason: format!("{place}: {reason}") };
                }
                Err(Stop::Skipped(reason)) => return Verdict::Skipped { reason },
            }
        }
    }
    Verdict::Passed { invocations, interpreted: false }
}

/// Returns the function that a run line names, if it is not the function `name` above the line,
/// which the line calls. If run lines cannot spell `name`, any spelling is accepted.
fn other_name<'l>(line: &RunLine<'l>, name: &str) -> Option<&'l str> {
    let (_, invocation) = line.text.split_once(':')?;
    let named = invocation.trim_start().split('(').next()?.trim_end();
    let own = named.strip_prefix('%').unwrap_or(named);
    let spelt = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (spelt && !own.is_empty() && own != name).then_some(named)
}

/// Executes a run line, and returns the text that a `print` line prints.
fn one(
    signature: &Signature,
    line: &RunLine<'_>,
    mut execute: impl FnMut(&[DataValue]) -> Result<Vec<DataValue>, Stop>,
) -> Result<Option<String>, Stop> {
    let command = parse_run_command(line.text, signature)
        .map_err(|error| Stop::Failed(format!("not a run line: {}", error.message)))?
        .ok_or_else(|| Stop::Failed("not a run line".into()))?;
    match command {
        RunCommand::Print(invocation) => {
            let actual = execute(&invocation.args)?;
            Ok(Some(format!("{invocation} -> {}", DisplayDataValues(&actual))))
        }
        RunCommand::Run(invocation, comparison, expected) => {
            let actual = execute(&invocation.args)?;
            let equal =
                actual.len() == expected.len() && actual.iter().zip(&expected).all(|(a, b)| a.bitwise_eq(b));
            let (holds, relation) = match comparison {
                Comparison::Equals => (equal, "expected"),
                Comparison::NotEquals => (!equal, "expected anything but"),
            };
            if holds {
                return Ok(None);
            }
            let (expected, actual) = (DisplayDataValues(&expected), DisplayDataValues(&actual));
            Err(Stop::Failed(format!("{relation} {expected}, got {actual}")))
        }
    }
}
