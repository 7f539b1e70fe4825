//! Copies and relocates one module.

use kiln_artifact::record::{Reloc, SectionKind};
use kiln_artifact::{Artifact, RelocKind};

use super::super::assign::Slot;
use super::super::direct::{self, Aim, PatchSource, TextPatch};
use super::super::error::LinkError;
use super::super::fixups::{Fixups, Pointer, PointerSource, SymbolicPointer};
use super::super::layout::Area;
use super::super::meaning::{is_called, is_own};
use super::super::plan::Plan;
use super::super::relocate::{self, PatchAddresses, PatchError, PatchSite, riscv64};
use super::super::resolve::{Resolution, ResolvedId};
use super::super::riscv_pairs::HighParts;
use super::super::unwind::{self, UnwindAddresses};
use super::super::users::function_at;
use super::pieces::ModulePieces;
use super::targets::Targets;

/// Copies and relocates one module.
pub(super) struct ModuleWriter<'m> {
    targets: &'m Targets<'m>,
    plan: &'m Plan<'m>,
    number: usize,
    artifact: &'m Artifact,
    /// The resolved symbol of each of the module's symbols.
    resolved: &'m [ResolvedId],
    /// The stub of each of the module's symbols, if the module has its own stubs.
    own_stubs: Option<&'m [Option<u32>]>,
}

impl<'m> ModuleWriter<'m> {
    pub(super) fn new(targets: &'m Targets<'m>, number: usize) -> Self {
        let plan = targets.plan;
        Self {
            targets,
            plan,
            number,
            artifact: &plan.artifacts[number],
            resolved: plan.symbols.of_module(number),
            own_stubs: plan.assignment.own_stubs(number),
        }
    }

    /// Writes all pieces of the module, and returns the fixups of its data and of its code.
    pub(super) fn write(&self, mut pieces: ModulePieces<'_>) -> Result<Fixups, LinkError> {
        let artifact = self.artifact;
        let mut fixups = Fixups::default();
        self.write_text(std::mem::take(&mut pieces.text), &mut fixups)?;
        pieces.copy_data(artifact);
        if let Some(entries) = &self.plan.unwind.modules[self.number] {
            let addresses = UnwindAddresses {
                arch: self.plan.arch,
                text: self.text_address(),
                eh_frame: self.targets.areas[Area::EhFrame],
                eh_frame_hdr: self.targets.areas[Area::EhFrameHdr],
            };
            unwind::write_module(artifact, entries, addresses, pieces.eh_frame, pieces.eh_index)
                .ok_or_else(|| unwind::out_of_reach(self.plan.layout()))?;
        }

        let code = &self.plan.code;
        let (name, stubs) = (code.name(self.number), code.stubs.of_module(self.number));
        code.modules[self.number].0.write(artifact, name, stubs, pieces.code_tables);

        self.collect_pointers(artifact.read_only_relocs(), SectionKind::ReadOnly, &mut fixups);
        self.collect_pointers(artifact.writable_relocs(), SectionKind::Writable, &mut fixups);
        Ok(fixups)
    }

    /// Returns the address of the module's code.
    fn text_address(&self) -> u64 {
        self.targets.areas[Area::Text] + self.plan.placement.modules[self.number].text.start
    }

    /// Returns the addresses by which the module's code reaches the symbol of a relocation.
    fn addresses_of(&self, reloc: &Reloc) -> PatchAddresses {
        let symbol = reloc.symbol.get();
        let id = self.resolved[symbol as usize];
        if is_own(self.artifact, reloc) {
            let symbol = self.targets.definition(self.number as u32, symbol);
            return PatchAddresses { symbol, ..PatchAddresses::default() };
        }
        if let Resolution::Replaceable(number) = self.plan.symbols.resolution(id)
            && is_called(self.artifact, reloc)
        {
            return self.targets.slot_of_code(number);
        }
        let mut addresses = self.targets.of(id);
        if let Some(own_stubs) = self.own_stubs {
            addresses.stub = own_stubs[symbol as usize].map(|stub| self.targets.stub_address(stub));
        }
        addresses
    }

    /// Copies and relocates code, and writes the module's own stubs after it.
    fn write_text(&self, text: &mut [u8], fixups: &mut Fixups) -> Result<(), LinkError> {
        let (artifact, arch) = (self.artifact, self.plan.arch);
        let (code, stubs) = text.split_at_mut(artifact.text().len());
        code.copy_from_slice(artifact.text());
        let start = self.text_address();
        let relocs = artifact.text_relocs();
        let mut high_parts = HighParts::default();
        for (index, reloc) in relocs.iter().enumerate() {
            let offset = reloc.offset.get();
            let result = if reloc.kind() == RelocKind::RvPcrelLo12I {
                self.patch_low(code, start, relocs, index, &mut high_parts)
            } else if direct::is_address(artifact, reloc) {
                self.write_address(code, start, reloc, fixups)
            } else {
                let site = PatchSite {
                    text: &mut *code,
                    offset: offset as usize,
                    address: start + offset,
                    addend: reloc.addend.get(),
                };
                relocate::patch(arch, reloc.kind(), site, self.addresses_of(reloc))
            };
            result.map_err(|error| {
                let symbol = artifact.name(&artifact.symbols()[reloc.symbol.get() as usize]).into();
                error.into_error(self.number, function_at(artifact, offset), symbol, offset, reloc.kind())
            })?;
        }
        stubs.fill(arch.trap_byte());
        let stubs_start = self.plan.placement.modules[self.number].text.start + code.len() as u64;
        self.targets.write_stubs(self.plan.assignment.stubs_of_module(self.number), stubs, stubs_start)
    }

    /// Relaxes an address in code, or adds its patch to the fixups.
    fn write_address(
        &self,
        code: &mut [u8],
        start: u64,
        reloc: &Reloc,
        fixups: &mut Fixups,
    ) -> Result<(), PatchError> {
        let (plan, offset, addend) = (self.plan, reloc.offset.get(), reloc.addend.get());
        let site = PatchSite { text: code, offset: offset as usize, address: start + offset, addend };
        let none = PatchAddresses::default();
        let source = match plan.aim(self.number, reloc) {
            Aim::Relaxed => {
                let symbol = self.addresses_of(reloc).symbol;
                return relocate::relax_address(plan.arch, site, PatchAddresses { symbol, ..none });
            }
            Aim::CodeSlot(number) => {
                return relocate::relax_address(plan.arch, site, self.targets.slot_of_code(number));
            }
            Aim::Address => {
                let address = self.addresses_of(reloc).symbol.ok_or(PatchError::Unreachable)?;
                PatchSource::Program(address)
            }
            Aim::Value => plan.patched_slot(self.number, reloc).ok_or(PatchError::Unreachable)?,
        };
        let offset = plan.placement.modules[self.number].text.start + offset;
        fixups.text.push(TextPatch { offset, source, addend });
        Ok(())
    }

    /// Patches the low part of a riscv64 pair. The symbol and addend of its relocation name the
    /// `auipc` of the high part, which is in the same module.
    fn patch_low(
        &self,
        code: &mut [u8],
        start: u64,
        relocs: &[Reloc],
        index: usize,
        high_parts: &mut HighParts,
    ) -> Result<(), PatchError> {
        let reloc = &relocs[index];
        let symbol = &self.artifact.symbols()[reloc.symbol.get() as usize];
        let auipc =
            symbol.offset.get().checked_add_signed(reloc.addend.get()).ok_or(PatchError::Instruction)?;
        let high = high_parts.find(relocs, index, auipc).ok_or(PatchError::Instruction)?;
        let targets = self.addresses_of(high);
        let high = riscv64::High { kind: high.kind(), address: start + auipc, addend: high.addend.get() };
        riscv64::patch_low(code, reloc.offset.get() as usize, high, targets)
    }

    /// Adds the pointers in one data section to the fixups.
    fn collect_pointers(&self, relocs: &[Reloc], section: SectionKind, fixups: &mut Fixups) {
        let placement = &self.plan.placement;
        for reloc in relocs {
            let id = self.resolved[reloc.symbol.get() as usize];
            let located = placement.locate(self.number, section, reloc.offset.get());
            let Some((area, offset)) = located else { continue };
            let addend = reloc.addend.get();
            if let Some(symbol) = self.targets.of(id).symbol {
                let target = symbol.wrapping_add_signed(addend);
                if reloc.kind() == RelocKind::ThreadLocal {
                    fixups.thread_locals.push(Pointer { area, offset, target });
                    continue;
                }
                fixups.pointers.push(Pointer { area, offset, target });
                continue;
            }
            let source = match (self.plan.symbols.resolution(id), self.plan.assignment.slot(id)) {
                (Resolution::KnownSlot(address), _) => PointerSource::KnownSlot(address),
                (_, Some(Slot::External(number))) => PointerSource::Slot(number),
                (_, Some(Slot::Internal(_)) | None) => {
                    unreachable!("`scan` gives a slot to an undefined symbol that data points at")
                }
            };
            fixups.symbolic.push(SymbolicPointer { area, offset, source, addend });
        }
    }
}
