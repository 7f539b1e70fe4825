//! The modules that a build compiles, and what becomes of them, here or on a farm.

use kiln_backend::{Built, CompileError};
use kiln_cache::{Entry, Key};
use kiln_ir::Module;

use super::generator::Generator;
use super::reuse::Pending;

/// A module that is to be compiled.
pub(super) struct Missing<'a> {
    pub(super) module: &'a Module,
    pub(super) generator: &'a Generator,
    pub(super) pending: &'a Pending,
}

/// A module that was compiled.
pub(super) struct Made {
    pub(super) built: Built,
    /// The entry, if the farm has compiled it.
    pub(super) farmed: Option<(Key, Entry)>,
}

pub(super) type Outcome = Result<Made, Vec<CompileError>>;

/// Returns all modules, or all errors, each with the position of its module in the build.
pub(super) fn all(outcomes: impl Iterator<Item = (Outcome, usize)>) -> Result<Vec<Made>, Vec<CompileError>> {
    let (mut made, mut errors) = (Vec::new(), Vec::new());
    for (outcome, position) in outcomes {
        match at(outcome, position) {
            Ok(done) => made.push(done),
            Err(found) => errors.extend(found),
        }
    }
    if errors.is_empty() { Ok(made) } else { Err(errors) }
}

/// Gives errors the position of their module in the build.
pub(super) fn at(outcome: Outcome, position: usize) -> Outcome {
    outcome.map_err(|mut errors| {
        errors.iter_mut().for_each(|error| error.module = position);
        errors
    })
}
