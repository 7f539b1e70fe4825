//! The stubs and veneers of a program, by the names of what they lead to: for code tables, and for
//! symbols.
//!
//! A veneer is a stub that the compiler put between the functions of a module, of which the code is
//! larger than a call reaches (aarch64). The linker knows it by the relocation at its start.

use kiln_artifact::{Artifact, RelocKind};

use super::assign::{Assignment, Slot};
use super::layout::SLOT_SIZE;
use super::place::Placement;
use super::relocate::stub_size;
use super::resolve::{Resolution, ResolvedId, SymbolTable};
use super::unwind_size::has_veneers;
use crate::arch::Arch;
use crate::code::StubRow;

/// The size of a veneer, in bytes.
pub(super) const VENEER: u64 = 12;

/// All stubs and veneers, in order of their code.
#[derive(Clone, Default)]
pub(super) struct StubRows<'a> {
    /// The veneers and own stubs of each module. Empty if no module has some.
    own: Vec<Vec<StubRow<'a>>>,
    /// The stubs that all modules share, from the first of them on.
    pub(super) shared: Vec<StubRow<'a>>,
    /// The offset of the first shared stub in the code area, in bytes.
    pub(super) shared_start: u64,
}

/// A stub of a program, or a veneer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StubRange<'a> {
    /// The name of what it leads to.
    pub name: &'a str,
    /// Offset in the area [`Area::Text`](super::Area::Text), in bytes.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
    /// Whether its address is that of the function: the stub of a replaceable one.
    pub is_function: bool,
}

impl<'a> StubRows<'a> {
    /// Finds all stubs and veneers.
    pub(super) fn find(
        arch: Arch,
        artifacts: &'a [Artifact],
        symbols: &SymbolTable,
        assignment: &Assignment,
        placement: &Placement<'_>,
    ) -> Self {
        let row = |number: usize, base: u64| {
            let id = assignment.stubs()[number];
            StubRow {
                // The casts keep the values: a program is smaller than 2 GiB.
                start: (placement.stubs[number] - base) as u32,
                len: stub_size(arch) as u32,
                // Private functions with several bodies have no name that anyone knows.
                name: Some(symbols.name(artifacts, id))
                    .filter(|name| !name.starts_with('\0'))
                    .unwrap_or_default(),
                slot: slot_of_code(symbols, assignment, id),
            }
        };
        let numbers = assignment.shared_stubs();
        let shared_start = numbers.clone().next().map_or(0, |first| placement.stubs[first]);
        let shared = numbers.map(|number| row(number, shared_start)).collect();
        let mut own = Vec::new();
        let may_have_veneers = |artifact: &Artifact| arch == Arch::Aarch64 && has_veneers(artifact);
        if assignment.has_own_stubs() || artifacts.iter().any(may_have_veneers) {
            own.extend(artifacts.iter().enumerate().map(|(module, artifact)| {
                let mut rows = if may_have_veneers(artifact) { veneers(artifact) } else { Vec::new() };
                let start = placement.modules[module].text.start;
                rows.extend(assignment.stubs_of_module(module).map(|number| row(number, start)));
                rows
            }));
        }
        Self { own, shared, shared_start }
    }

    /// Returns the veneers and the own stubs of a module.
    pub(super) fn of_module(&self, module: usize) -> &[StubRow<'a>] {
        self.own.get(module).map_or(&[], Vec::as_slice)
    }
}

/// Returns the position in the slot array of the slot with the code of a replaceable function, if
/// it is this link's own.
fn slot_of_code(symbols: &SymbolTable, assignment: &Assignment, id: ResolvedId) -> Option<u32> {
    let Resolution::Replaceable(number) = symbols.resolution(id) else { return None };
    let slot: Slot = assignment.replaceable(number).0?;
    Some((assignment.slot_offset(slot) / SLOT_SIZE) as u32)
}

/// Returns the veneers between the functions of a module.
fn veneers(artifact: &Artifact) -> Vec<StubRow<'_>> {
    let mut functions = artifact.functions().iter().peekable();
    let mut veneers = Vec::new();
    for reloc in artifact.text_relocs() {
        let start = reloc.offset.get();
        while functions
            .next_if(|next| u64::from(next.start.get()) + u64::from(next.len.get()) <= start)
            .is_some()
        {}
        let outside = functions.peek().is_none_or(|next| start + VENEER <= next.start.get().into());
        if outside
            && reloc.kind() == RelocKind::A64AdrGotPage21
            && start + VENEER <= artifact.text().len() as u64
        {
            let name = artifact.name(&artifact.symbols()[reloc.symbol.get() as usize]);
            // The casts keep the values: a module is smaller than 2 GiB.
            veneers.push(StubRow { start: start as u32, len: VENEER as u32, name, slot: None });
        }
    }
    veneers
}
