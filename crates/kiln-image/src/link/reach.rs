//! Whether pc-relative references reach everything, decided before anything is placed.
//!
//! The phase `scan` must know it: a reference that reaches needs no slot or stub, and slots and
//! stubs are placed later. So the decision rests on upper bounds of sizes. They are the sums of
//! what artifacts say of themselves, with alignment at its worst and a slot and a stub for every
//! symbol. A bound that is too large costs a few needless stubs in programs that almost reach the
//! limit; one that is too small would make a link fail, so `Plan` compares them with the real sizes
//! in debug builds.

use kiln_artifact::Artifact;
use rayon::prelude::*;

use super::layout::{Area, MIN_ALIGN, SLOT_SIZE};
use super::relocate::stub_size;
use super::resolve::SymbolTable;
use super::unwind;
use crate::arch::Arch;

/// How far apart areas may be beyond their sizes, in bytes: each starts on a page of at most 64
/// KiB, and an image has a small table between two of them.
const SPARE: u64 = Area::ALL.len() as u64 * 0x1_0000 + 4096;

/// How far the linker relies on pc-relative references to reach, in bytes. It is smaller in tests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    pub(crate) data: u64,
    pub(crate) call: u64,
}

impl Reach {
    /// The reach of the architecture's instructions.
    pub(super) fn of(arch: Arch) -> Self {
        Self { data: arch.data_reach(), call: arch.call_reach() }
    }
}

/// Upper bounds of sizes, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct SizeBounds {
    /// Code, with one stub for every symbol of the program.
    text: u64,
    /// The whole program, with one stub for every symbol of each module.
    program: u64,
}

impl SizeBounds {
    /// Bounds the sizes of a program with `globals` globals in its table.
    pub(super) fn new(arch: Arch, artifacts: &[Artifact], symbols: &SymbolTable, globals: usize) -> Self {
        let stub = stub_size(arch);
        let sum = |bound: &(dyn Fn(&Artifact) -> u64 + Sync)| {
            artifacts.par_iter().map(bound).reduce(|| 0, u64::saturating_add)
        };
        let text = sum(&|artifact| padded(artifact.text().len() as u64, artifact.summary().text_align.get()));
        let data = sum(&data_bound);
        let unwind = sum(&unwind::size_bound);
        // A module's own stubs are aligned to their size.
        let own_stubs = sum(&|artifact| (artifact.symbols().len() as u64 + 1) * stub);
        let spare = symbols.len() as u64 * (SLOT_SIZE + stub) + globals as u64 * SLOT_SIZE + SPARE;
        let text = text.saturating_add(spare);
        let rest = data.saturating_add(unwind).saturating_add(own_stubs);
        Self { text, program: text.saturating_add(rest) }
    }

    /// The bound of the whole program.
    pub(super) fn program(&self) -> u64 {
        self.program
    }
}

/// A size with the gap that alignment may need before it.
fn padded(size: u64, align: u32) -> u64 {
    if size == 0 { 0 } else { size.saturating_add(u64::from(align).max(MIN_ALIGN)) }
}

/// Bounds what a module has in the areas of data.
fn data_bound(artifact: &Artifact) -> u64 {
    let summary = artifact.summary();
    // Each run of named data may need a gap before it, and one before its section.
    let gaps = artifact.named_data().iter().map(|run| 2 * u64::from(run.align.get()).max(MIN_ALIGN));
    [
        padded(artifact.read_only().len() as u64, summary.read_only_align.get()),
        padded(artifact.writable().len() as u64, summary.writable_align.get()),
        padded(summary.zeroed_size.get(), summary.zeroed_align.get()),
    ]
    .into_iter()
    .chain(gaps)
    .fold(0, u64::saturating_add)
}

/// Which references reach all of the program without a slot or a stub.
#[derive(Clone, Copy, Debug)]
pub(super) struct Near {
    /// Direct calls reach all code.
    pub(super) calls: bool,
    /// Pc-relative addresses reach all code and data.
    pub(super) data: bool,
}

impl Near {
    pub(super) fn decide(bounds: SizeBounds, reach: Reach) -> Self {
        Self { calls: bounds.text < reach.call, data: bounds.program < reach.data }
    }
}
