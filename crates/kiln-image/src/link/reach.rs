//! Decides whether pc-relative references reach all code and data.
//!
//! The phase `scan` needs this decision before anything is placed: a reference that reaches its
//! target needs no slot and no stub. So the decision is made from upper bounds of sizes: sums of
//! the sizes in all artifacts, plus the largest gaps that alignment can cause, plus a slot and a
//! stub for every symbol. Bounds that are too large only cost needless slots and stubs in programs
//! that are almost too large. If a bound were too small, a link could fail, so debug builds check
//! that the real size is within it.

use kiln_artifact::Artifact;

use super::layout::{Area, MIN_ALIGN, SLOT_SIZE};
use super::relocate::stub_size;
use super::resolve::SymbolTable;
use super::{code_size, unwind_size};
use crate::arch::Arch;

/// The largest total size of the gaps between areas, in bytes: each area starts on a page of at
/// most 64 KiB, and an image has a small table between two of them.
const SPARE: u64 = Area::ALL.len() as u64 * 0x1_0000 + 4096;

/// The distances that pc-relative references are sure to reach, in bytes. Tests use smaller
/// distances.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    pub(crate) data: u64,
    pub(crate) call: u64,
}

impl Reach {
    /// Returns the reach of the architecture's instructions.
    pub(super) fn of(arch: Arch) -> Self {
        Self { data: arch.data_reach(), call: arch.call_reach() }
    }
}

/// Upper bounds of sizes, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct SizeBounds {
    /// The bound for code, with a stub for every resolved symbol.
    text: u64,
    /// The bound for the whole program, with a stub for every symbol of each module.
    program: u64,
}

impl SizeBounds {
    /// Computes the bounds for a program whose table has `globals` globals.
    pub(super) fn new(
        arch: Arch,
        artifacts: &[Artifact],
        names: &[&str],
        symbols: &SymbolTable,
        globals: usize,
    ) -> Self {
        let stub = stub_size(arch);
        let sum = |bound: &dyn Fn(&Artifact) -> u64| artifacts.iter().map(bound).fold(0, u64::saturating_add);
        let text = sum(&|artifact| padded(artifact.text().len() as u64, artifact.summary().text_align.get()));
        let data = sum(&data_bound);
        let unwind = sum(&unwind_size::size_bound);
        let names = names.iter().map(|name| name.len() as u64).sum();
        let code_tables = sum(&code_size::size_bound).saturating_add(names);
        // The first of a module's own stubs may need a gap before it.
        let own_stubs = sum(&|artifact| (artifact.symbols().len() as u64 + 1) * stub);
        // A replaceable function has two slots: one holds the address of its code, one that of its
        // stub.
        let slots = symbols.len() + symbols.replaceable().len() + globals;
        let spare = symbols.len() as u64 * stub + slots as u64 * SLOT_SIZE + SPARE;
        let text = text.saturating_add(spare);
        let tables = unwind.saturating_add(code_tables);
        let rest = data.saturating_add(tables).saturating_add(own_stubs);
        Self { text, program: text.saturating_add(rest) }
    }

    /// Returns the bound for the whole program.
    pub(super) fn program(&self) -> u64 {
        self.program
    }
}

/// The program whose sizes are bounded.
#[derive(Clone, Copy)]
pub(super) struct Bounded<'p> {
    pub(super) arch: Arch,
    pub(super) artifacts: &'p [Artifact],
    pub(super) names: &'p [&'p str],
    pub(super) symbols: &'p SymbolTable,
    /// The number of globals of the table.
    pub(super) globals: usize,
}

impl Bounded<'_> {
    /// Returns the bounds of [`SizeBounds::new`].
    pub(super) fn exact(&self) -> SizeBounds {
        let Self { arch, artifacts, names, symbols, globals } = *self;
        SizeBounds::new(arch, artifacts, names, symbols, globals)
    }

    /// Returns bounds that are quick to find and far too large. `None` if the sizes of the
    /// artifacts do not bound those of the program.
    fn rough(&self) -> Option<SizeBounds> {
        // No byte of an artifact makes more bytes than this, be it of code, of a record or of a
        // name.
        const MOST: u64 = 32;
        let mut bytes: u64 = self.names.iter().map(|name| name.len() as u64).sum();
        for artifact in self.artifacts {
            let summary = artifact.summary();
            // Files share their names, and a short record may ask for a long gap.
            if !artifact.source_files().is_empty() || !artifact.named_data().is_empty() {
                return None;
            }
            let aligns = [summary.text_align, summary.read_only_align, summary.writable_align];
            let aligns = aligns.iter().chain([&summary.zeroed_align]).map(|align| u64::from(align.get()));
            bytes = bytes
                .checked_add(artifact.as_bytes().len() as u64)?
                .checked_add(summary.zeroed_size.get())?
                .checked_add(aligns.sum())?;
        }
        let slots = (self.globals as u64).checked_mul(SLOT_SIZE)?;
        let size = bytes.checked_mul(MOST)?.checked_add(slots)?.checked_add(SPARE)?;
        let rough = SizeBounds { text: size, program: size };
        debug_assert!(self.exact().text <= size && self.exact().program <= size, "{rough:?}");
        Some(rough)
    }
}

/// Returns `size` plus the largest gap that alignment can cause.
fn padded(size: u64, align: u32) -> u64 {
    if size == 0 { 0 } else { size.saturating_add(u64::from(align).max(MIN_ALIGN)) }
}

/// Returns an upper bound of the size of a module's data, in bytes.
fn data_bound(artifact: &Artifact) -> u64 {
    let summary = artifact.summary();
    // A gap before each run of named data, and one before its section.
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

/// The decision which references are sure to reach their targets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Near {
    /// Whether direct calls reach all code.
    pub(super) calls: bool,
    /// Whether pc-relative addresses reach all code and data.
    pub(super) data: bool,
}

impl Near {
    /// Decides for a program.
    pub(super) fn of(program: Bounded<'_>, reach: Reach) -> Self {
        // Almost every program is so small that there is nothing to compute.
        match program.rough().map(|bounds| Self::decide(bounds, reach)) {
            Some(Self { calls: true, data: true }) => Self { calls: true, data: true },
            _ => Self::decide(program.exact(), reach),
        }
    }

    pub(super) fn decide(bounds: SizeBounds, reach: Reach) -> Self {
        Self { calls: bounds.text < reach.call, data: bounds.program < reach.data }
    }
}
