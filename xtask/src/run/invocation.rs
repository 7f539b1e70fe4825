//! Invocations: what a run line asks for, and whether it came.

use cranelift_codegen::data_value::{DataValue, DisplayDataValues};
use cranelift_codegen::ir::Signature;
use cranelift_reader::{Comparison, RunCommand, parse_run_command};
use kiln::ir::{Function, Module, RunLine};

use super::{Event, Verdict};

/// Executes one invocation: the function, its arguments, and the results or why there are none.
pub(super) type Execute<'a> =
    dyn FnMut(&Function, &Signature, &[DataValue]) -> Result<Vec<DataValue>, Stop> + 'a;

/// Why an invocation gave no results.
pub(super) enum Stop {
    /// The file has failed.
    Failed(String),
    /// The file cannot be executed in this way.
    Skipped(String),
}

/// Executes all run lines of `module`, and says how that went. `event` is told of every step.
pub(super) fn all(module: &Module, execute: &mut Execute<'_>, event: &mut dyn FnMut(&Event)) -> Verdict {
    let mut invocations = 0;
    for function in &module.functions {
        let signature = module.symbol(function.symbol).signature.as_ref();
        let signature = signature.expect("a function that is defined has a type");
        for line in function.run_lines() {
            event(&Event::Invoke(line.line, line.text.to_string()));
            match one(function, signature, &line, execute) {
                Ok(None) => invocations += 1,
                Ok(Some(printed)) => {
                    event(&Event::Printed(printed));
                    invocations += 1;
                }
                Err(Stop::Failed(reason)) => {
                    return Verdict::Failed {
                        reason: format!("line {}: `{}`: {reason}", line.line, line.text),
                    };
                }
                Err(Stop::Skipped(reason)) => return Verdict::Skipped { reason },
            }
        }
    }
    Verdict::Passed { invocations, interpreted: false }
}

/// Executes one run line; `Some` is what a `print` line prints.
fn one(
    function: &Function,
    signature: &Signature,
    line: &RunLine<'_>,
    execute: &mut Execute<'_>,
) -> Result<Option<String>, Stop> {
    let command = parse_run_command(line.text, signature)
        .map_err(|error| Stop::Failed(format!("not a run line: {}", error.message)))?
        .ok_or_else(|| Stop::Failed("not a run line".into()))?;
    match command {
        RunCommand::Print(invocation) => {
            let actual = execute(function, signature, &invocation.args)?;
            Ok(Some(format!("{invocation} -> {}", DisplayDataValues(&actual))))
        }
        RunCommand::Run(invocation, comparison, expected) => {
            let actual = execute(function, signature, &invocation.args)?;
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
