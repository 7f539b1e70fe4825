//! Reads the functions of a file, each by itself and all at once on the current pool of threads.
//!
//! What can be done without the other functions is done at once, while a function lies in the cache: it is read, verified and
//! brought to its canonical form, and its IR is dropped. Only who is behind a name is asked later, in the order of the
//! text.
//!
//! Invariant: the result does not depend on the number of threads, nor on which of them is faster. Reading stops behind the
//! function with which a file has [`MAX_FAULTS`] faults; functions behind it may be looked at, and are forgotten.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use cranelift_codegen::isa::{CallConv, TargetIsa};
use rayon::prelude::*;

use super::function::{self, ReadFunction, Refused};
use super::item::{FunctionItem, Item};
use super::large_numbers::{LargestNumber, NumberBudget};
use super::locate::Locator;
use crate::diagnostic::Diagnostic;
use crate::limits::MAX_FAULTS;
use crate::source::Source;

/// Less text than this is read faster than threads are woken.
const SMALL: usize = 32 * 1024;

/// How functions are read.
#[derive(Clone, Copy)]
pub(super) struct ReadOptions<'a> {
    pub(super) source: &'a Arc<Source>,
    pub(super) call_conv: CallConv,
    /// Verifies for this code generator, if there is any.
    pub(super) isa: Option<&'a dyn TargetIsa>,
}

/// What became of a function's text.
enum Outcome<T> {
    /// Nobody looked, for it stands behind too many faults, or it is no function.
    Nothing,
    Read(T),
    Faults(Vec<Diagnostic>),
    /// It waits for leave to have a large table.
    Large(LargestNumber),
}

/// Reads every function among `items`, adding to `faults`. `finish` is what is done with each of them.
pub(super) fn read<T: Send>(
    items: &[Item<'_>],
    options: ReadOptions<'_>,
    finish: impl Fn(ReadFunction) -> T + Sync,
    faults: &mut Vec<Diagnostic>,
) -> Vec<Option<T>> {
    let limit = FaultLimit::new(faults.len());
    let one = |number: usize, item: &FunctionItem<'_>, large: bool| {
        if limit.passed(number) {
            return Outcome::Nothing;
        }
        let locator = Locator { source: options.source, item };
        match function::read(locator, options.call_conv, options.isa, large) {
            Ok(read) => Outcome::Read(finish(read)),
            Err(Refused::Large(numbers)) => Outcome::Large(numbers),
            Err(Refused::Faults(faults)) => {
                limit.add(number, faults.len());
                Outcome::Faults(faults)
            }
        }
    };
    let first = |(number, item): (usize, &Item<'_>)| match item {
        Item::Function(item) => one(number, item, false),
        _ => Outcome::Nothing,
    };
    let length: usize = items.iter().map(|item| item.function().map_or(0, |item| item.text.len())).sum();
    let mut outcomes: Vec<Outcome<T>> = match length < SMALL || items.len() < 2 {
        true => items.iter().enumerate().map(first).collect(),
        false => items.par_iter().enumerate().map(first).collect(),
    };

    // Who may have large tables is decided in the order of the text.
    let mut budget = NumberBudget::new(&options.source.text);
    let mut granted = Vec::new();
    for (number, (item, outcome)) in items.iter().zip(&mut outcomes).enumerate() {
        if let (Some(item), Outcome::Large(numbers)) = (item.function(), &*outcome) {
            if limit.passed(number) {
                *outcome = Outcome::Nothing;
            } else if budget.take(numbers) {
                granted.push((number, item));
            } else {
                limit.add(number, 1);
                let locator = Locator { source: options.source, item };
                *outcome = Outcome::Faults(vec![budget.fault(numbers, locator)]);
            }
        }
    }
    let second: Vec<_> =
        granted.into_par_iter().map(|(number, item)| (number, one(number, item, true))).collect();
    for (number, outcome) in second {
        outcomes[number] = outcome;
    }

    let kept = outcomes.into_iter().map(|outcome| match outcome {
        _ if faults.len() >= MAX_FAULTS => None,
        Outcome::Read(read) => Some(read),
        Outcome::Faults(own) => {
            faults.extend(own);
            None
        }
        Outcome::Nothing | Outcome::Large(_) => None,
    });
    kept.collect()
}

/// Behind which function there are too many faults.
struct FaultLimit {
    before: usize,
    /// Number of faults by function.
    counts: Mutex<BTreeMap<usize, usize>>,
    /// The last function that counts, as far as known.
    last: AtomicUsize,
}

impl FaultLimit {
    fn new(before: usize) -> Self {
        let last = if before >= MAX_FAULTS { 0 } else { usize::MAX };
        Self { before, counts: Mutex::default(), last: AtomicUsize::new(last) }
    }

    /// Whether nothing of function `number` will be kept.
    fn passed(&self, number: usize) -> bool {
        self.before >= MAX_FAULTS || number > self.last.load(Ordering::Relaxed)
    }

    fn add(&self, number: usize, faults: usize) {
        let mut counts = self.counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        counts.insert(number, faults);
        let mut sum = self.before;
        for (number, count) in &*counts {
            sum += count;
            if sum >= MAX_FAULTS {
                self.last.store(*number, Ordering::Relaxed);
                break;
            }
        }
    }
}
