//! Reads the functions of a file independently, on the current thread pool.
//!
//! All work that needs only one function is done in one go, while the function is in the
//! processor's cache: it is read, verified and brought to canonical form, and its IR is dropped.
//! Only its names are resolved to symbols later, in the order of the text.
//!
//! Invariant: the result does not depend on the number or the speed of threads.

use std::sync::Arc;

use cranelift_codegen::isa::{CallConv, TargetIsa};
use rayon::prelude::*;

use super::function::{self, ReadFunction, Refused};
use super::item::{FunctionItem, Item};
use super::large_numbers::{LargestNumber, NumberBudget};
use super::locate::Locator;
use crate::diagnostic::Diagnostic;
use crate::source::Source;

/// The length in bytes below which a text is read on one thread, because waking threads takes
/// longer.
const SMALL: usize = 32 * 1024;

/// Settings for reading functions.
#[derive(Clone, Copy)]
pub(super) struct ReadOptions<'a> {
    pub(super) source: &'a Arc<Source>,
    pub(super) call_conv: CallConv,
    /// The code generator to verify for, if functions are verified.
    pub(super) isa: Option<&'a dyn TargetIsa>,
    /// Whether source locations are lines of the text itself.
    pub(super) own_lines: bool,
}

/// The result of reading an item.
enum Outcome<T> {
    /// The item is not a function.
    Nothing,
    Read(T),
    Faults(Vec<Diagnostic>),
    /// The function is not read yet, because its large entity numbers must be taken from the budget
    /// first.
    Large(LargestNumber),
}

/// Reads every function among `items`, passes it to `finish`, and adds errors to `faults`.
pub(super) fn read<T: Send>(
    items: &[Item<'_>],
    options: ReadOptions<'_>,
    finish: impl Fn(ReadFunction) -> T + Sync,
    faults: &mut Vec<Diagnostic>,
) -> Vec<Option<T>> {
    let one = |item: &FunctionItem<'_>, large: bool| {
        let locator = Locator { source: options.source, item };
        match function::read(locator, options.call_conv, options.isa, large, options.own_lines) {
            Ok(read) => Outcome::Read(finish(read)),
            Err(Refused::Large(numbers)) => Outcome::Large(numbers),
            Err(Refused::Faults(faults)) => Outcome::Faults(faults),
        }
    };
    let first = |item: &Item<'_>| match item {
        Item::Function(item) => one(item, false),
        _ => Outcome::Nothing,
    };
    let length: usize = items.iter().map(|item| item.function().map_or(0, |item| item.text.len())).sum();
    let mut outcomes: Vec<Outcome<T>> = match length < SMALL || items.len() < 2 {
        true => items.iter().map(first).collect(),
        false => items.par_iter().map(first).collect(),
    };

    // The budget for large numbers is given out in the order of the text.
    let mut budget = NumberBudget::new(&options.source.text);
    let mut granted = Vec::new();
    for (number, (item, outcome)) in items.iter().zip(&mut outcomes).enumerate() {
        if let (Some(item), Outcome::Large(numbers)) = (item.function(), &*outcome) {
            if budget.take(numbers) {
                granted.push((number, item));
            } else {
                let locator = Locator { source: options.source, item };
                *outcome = Outcome::Faults(vec![budget.fault(numbers, locator)]);
            }
        }
    }
    let second: Vec<_> = granted.into_par_iter().map(|(number, item)| (number, one(item, true))).collect();
    for (number, outcome) in second {
        outcomes[number] = outcome;
    }

    let kept = outcomes.into_iter().map(|outcome| match outcome {
        Outcome::Read(read) => Some(read),
        Outcome::Faults(own) => {
            faults.extend(own);
            None
        }
        Outcome::Nothing | Outcome::Large(_) => None,
    });
    kept.collect()
}
