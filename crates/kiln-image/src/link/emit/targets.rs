//! The addresses of symbols, slots and stubs, computed from the addresses of areas.

use std::ops::Range;

use kiln_artifact::RelocKind;

use super::super::error::LinkError;
use super::super::layout::{Addresses, Area};
use super::super::plan::Plan;
use super::super::relocate::{self, PatchAddresses, PatchSite};
use super::super::resolve::{Resolution, ResolvedId, ResolvedSymbol};
use super::super::sections::Bound;

/// The addresses by which code reaches each resolved symbol.
pub(super) struct Targets<'e> {
    pub(super) plan: &'e Plan<'e>,
    /// The addresses of areas.
    pub(super) areas: &'e Addresses,
}

impl<'e> Targets<'e> {
    pub(super) fn new(plan: &'e Plan<'e>, areas: &'e Addresses) -> Self {
        Self { plan, areas }
    }

    /// Returns the addresses of a resolved symbol. The address of the stub is that of the shared
    /// stub. They are computed for each relocation anew: most symbols have none, and a table of all
    /// is longer than caches are.
    pub(super) fn of(&self, id: ResolvedId) -> PatchAddresses {
        addresses_of(self.plan, self.areas, id)
    }

    /// Returns the address of symbol `symbol` of module `module`, which the module defines.
    pub(super) fn definition(&self, module: u32, symbol: u32) -> Option<u64> {
        definition(self.plan, self.areas, module, symbol)
    }

    /// Returns the address of the code of a replaceable function, if this link has it.
    pub(super) fn code_of(&self, function: u32) -> Option<u64> {
        let (module, symbol) = self.plan.symbols.replaceable()[function as usize].definition?;
        self.definition(module, symbol)
    }

    /// Returns the slot with the address of the code of a replaceable function, as the only address
    /// by which code reaches it.
    pub(super) fn slot_of_code(&self, function: u32) -> PatchAddresses {
        let Plan { ref symbols, ref assignment, .. } = *self.plan;
        let own =
            || Some(self.areas[Area::Slots] + assignment.slot_offset(assignment.replaceable(function).0?));
        let slot = symbols.replaceable()[function as usize].known_slot.or_else(own);
        PatchAddresses { slot, ..PatchAddresses::default() }
    }

    /// Returns the address of a stub.
    pub(super) fn stub_address(&self, stub: u32) -> u64 {
        stub_address(self.plan, self.areas, stub)
    }

    /// Writes the stubs with these numbers into `text`, which starts at offset `start` in the code
    /// area.
    pub(super) fn write_stubs(
        &self,
        numbers: Range<usize>,
        text: &mut [u8],
        start: u64,
    ) -> Result<(), LinkError> {
        let Plan { arch, artifacts, ref symbols, ref assignment, ref placement, .. } = *self.plan;
        let stubs = assignment.stubs()[numbers.clone()].iter().zip(&placement.stubs[numbers]);
        for (&id, &offset) in stubs {
            let address = self.areas[Area::Text] + offset;
            let site = PatchSite { text: &mut *text, offset: (offset - start) as usize, address, addend: 0 };
            let targets = match symbols.resolution(id) {
                Resolution::Replaceable(function) => self.slot_of_code(function),
                _ => self.of(id),
            };
            relocate::write_stub(arch, site, targets).map_err(|error| {
                let ResolvedSymbol { module, .. } = symbols.symbols()[id.index()];
                let name = symbols.name(artifacts, id).into();
                // A stub is in no function.
                error.into_error(module as usize, "".into(), name, offset, RelocKind::Abs64)
            })?;
        }
        Ok(())
    }
}

fn stub_address(plan: &Plan<'_>, areas: &Addresses, stub: u32) -> u64 {
    areas[Area::Text] + plan.placement.stubs[stub as usize]
}

fn definition(plan: &Plan<'_>, areas: &Addresses, module: u32, symbol: u32) -> Option<u64> {
    let record = &plan.artifacts[module as usize].symbols()[symbol as usize];
    let located = plan.placement.locate(module as usize, record.section(), record.offset.get());
    located.map(|(area, offset)| areas[area] + offset)
}

fn addresses_of(plan: &Plan<'_>, areas: &Addresses, id: ResolvedId) -> PatchAddresses {
    let resolution = plan.symbols.resolution(id);
    let symbol = match resolution {
        Resolution::Defined { module, symbol } => definition(plan, areas, module, symbol),
        Resolution::Replaceable(number) => {
            let stub = plan.assignment.replaceable(number).1.map(|stub| stub_address(plan, areas, stub));
            stub.or(plan.symbols.replaceable()[number as usize].known_stub)
        }
        Resolution::SectionBound { section, bound } => {
            let section = &plan.placement.sections[section as usize].info;
            let size = if bound == Bound::Stop { section.size } else { 0 };
            Some(areas[section.area] + section.offset + size)
        }
        Resolution::KnownAddress(address) => Some(address),
        Resolution::KnownSlot(_) | Resolution::Undefined => None,
    };
    let slot = match resolution {
        Resolution::KnownSlot(address) => Some(address),
        _ => {
            let offset = plan.assignment.slot(id).and_then(|slot| plan.assignment.stored_offset(slot));
            offset.map(|offset| areas[Area::Slots] + offset)
        }
    };
    let stub = plan.assignment.shared_stub(id).map(|stub| stub_address(plan, areas, stub));
    PatchAddresses { symbol, slot, stub }
}
