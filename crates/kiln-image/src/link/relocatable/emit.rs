//! Copies all modules, patches the sites whose distances are known, and passes on the other ones.

use kiln_artifact::record::Reloc;
use kiln_artifact::{Artifact, RelocKind};

use super::super::emit::pieces::{ModulePieces, Pieces};
use super::super::error::LinkError;
use super::super::layout::{Area, Output};
use super::super::relocate::{self, PatchAddresses, PatchError, PatchSite, riscv64};
use super::super::riscv_pairs::HighParts;
use super::super::users::function_at;
use super::super::{threads, unwind};
use super::decide::{Aim, Decider, Decision, Form};
use super::plan::ObjectPlan;
use super::relocs::{RelocSink, RelocTarget, TextReloc, Via};
use super::scan::high_of;
use crate::arch::Arch;

/// Areas have no addresses: a distance inside of one does not need it.
const START: u64 = 0;

impl ObjectPlan<'_> {
    /// Writes the object into `out`, and the relocations of the code of each module, and of its
    /// unwind rows, into the module's sink. The last sink is that of the stubs, which come last.
    ///
    /// # Errors
    ///
    /// The first error, in order of modules, about a target that is out of reach.
    pub(crate) fn emit<S: RelocSink + Send>(
        &self,
        out: Output<'_>,
        mut sinks: Vec<S>,
    ) -> Result<(), LinkError> {
        #[cfg(feature = "tracing")]
        let _span = tracing::debug_span!("emit").entered();
        let mut stubs = sinks.pop().expect("a sink for each module and one for stubs");
        let pieces = Pieces::cut(&self.plan, out);
        let (shared_stubs, start, eh_frame_end) =
            (pieces.shared_stubs, pieces.shared_stubs_start, pieces.eh_frame_end);
        let modules = pieces.modules.into_iter().zip(sinks).collect();
        let write = |number, (pieces, mut sink)| self.write_module(number, pieces, &mut sink);
        threads::map_owned(self.plan.parallel, modules, write).into_iter().collect::<Result<(), _>>()?;
        shared_stubs.fill(self.plan.arch.trap_byte());
        self.write_stubs(shared_stubs, start, &mut stubs);
        let pointer = |offset, code| stubs.unwind(offset, code);
        unwind::write_relocatable_stubs(&self.plan.unwind, self.plan.arch, eh_frame_end, pointer);
        Ok(())
    }

    fn decider(&self) -> Decider<'_> {
        let (arch, artifacts) = (self.plan.arch, self.plan.artifacts);
        Decider { arch, artifacts, symbols: &self.plan.symbols, global_symbols: self.global_symbols }
    }

    fn write_module(
        &self,
        number: usize,
        mut pieces: ModulePieces<'_>,
        sink: &mut impl RelocSink,
    ) -> Result<(), LinkError> {
        let artifact = &self.plan.artifacts[number];
        let code = Code { object: self, decider: self.decider(), number, artifact };
        code.write(std::mem::take(&mut pieces.text), sink)?;
        pieces.copy_data(artifact);
        if let Some(entries) = &self.plan.unwind.modules[number] {
            let start = self.plan.placement.modules[number].text.start;
            let pointer = |offset, code| sink.unwind(offset, start + code);
            unwind::write_relocatable(self.plan.arch, artifact, entries, pieces.eh_frame, pointer);
        }
        Ok(())
    }

    /// Writes the stubs of replaceable functions, which jump through their slots. `text` starts at
    /// `start` in the area of code.
    fn write_stubs(&self, text: &mut [u8], start: u64, sink: &mut impl RelocSink) {
        let arch = self.plan.arch;
        for (number, _) in self.plan.symbols.replaceable().iter().enumerate() {
            let (Some(slot), Some(stub)) = self.plan.assignment.replaceable(number as u32) else { continue };
            let offset = self.plan.placement.stubs[stub as usize];
            let at = (offset - start) as usize;
            let site = PatchSite { text: &mut *text, offset: at, address: START, addend: 0 };
            // A slot at the stub itself, so that the instructions hold no distance.
            let targets = PatchAddresses { slot: Some(START), ..PatchAddresses::default() };
            relocate::write_stub(arch, site, targets).expect("a stub reaches itself");
            let slot = RelocTarget::Area(Area::Slots, self.plan.assignment.slot_offset(slot));
            for &(distance, kind, addend) in stub_sites(arch) {
                let label = RelocTarget::Label(stub);
                let target = if kind == RelocKind::RvPcrelLo12I { label } else { slot };
                let reloc = TextReloc { offset: offset + distance, kind, via: Via::Address, target, addend };
                sink.text(reloc, text, at + distance as usize);
            }
        }
    }

    /// Returns the number of relocations of the code of stubs.
    pub(crate) fn stub_reloc_count(&self) -> usize {
        self.plan.assignment.stubs().len() * stub_sites(self.plan.arch).len()
    }

    /// Returns the offsets of the labels of stubs in the area of code, in order of their numbers.
    pub(crate) fn stub_labels(&self) -> &[u64] {
        if self.plan.arch == Arch::Riscv64 { &self.plan.placement.stubs } else { &[] }
    }
}

/// Returns the patch sites of a stub, with their distances from its start, and their addends.
fn stub_sites(arch: Arch) -> &'static [(u64, RelocKind, i64)] {
    match arch {
        Arch::X86_64 => &[(2, RelocKind::X86GotPc32, -4)],
        // After the landing pad.
        Arch::Aarch64 => &[(4, RelocKind::A64AdrGotPage21, 0), (8, RelocKind::A64Ld64GotLo12, 0)],
        Arch::Riscv64 => &[(0, RelocKind::RvGotHi20, 0), (4, RelocKind::RvPcrelLo12I, 0)],
        Arch::S390x => &[(2, RelocKind::S390xGotEnt, 2)],
    }
}

/// The code of one module.
struct Code<'c> {
    object: &'c ObjectPlan<'c>,
    decider: Decider<'c>,
    number: usize,
    artifact: &'c Artifact,
}

impl Code<'_> {
    fn write(&self, text: &mut [u8], sink: &mut impl RelocSink) -> Result<(), LinkError> {
        let artifact = self.artifact;
        text.copy_from_slice(artifact.text());
        let relocs = artifact.text_relocs();
        let mut high_parts = HighParts::default();
        for (index, reloc) in relocs.iter().enumerate() {
            let result = match reloc.kind() {
                RelocKind::RvPcrelLo12I => self.low(text, relocs, index, &mut high_parts, sink),
                _ => self.site(text, reloc, sink),
            };
            result.map_err(|error| {
                let symbol = artifact.name(&artifact.symbols()[reloc.symbol.get() as usize]).into();
                let (offset, kind) = (reloc.offset.get(), reloc.kind());
                error.into_error(self.number, function_at(artifact, offset), symbol, offset, kind)
            })?;
        }
        Ok(())
    }

    /// Returns the decision about a relocation that is no low part, and whether its site is
    /// patched.
    fn decide(&self, reloc: &Reloc) -> Result<(Decision, bool), PatchError> {
        let decision = self.decider.decide(self.number, reloc)?.ok_or(PatchError::Instruction)?;
        Ok((decision, decision.is_patched(self.decider.artifacts, reloc.kind())))
    }

    /// Returns the offset of the module's code in its area.
    fn start(&self) -> u64 {
        self.object.plan.placement.modules[self.number].text.start
    }

    fn target(&self, aim: Aim) -> Result<RelocTarget, PatchError> {
        let plan = &self.object.plan;
        let slot = |slot| RelocTarget::Area(Area::Slots, plan.assignment.slot_offset(slot));
        let target = match aim {
            Aim::Definition { module, symbol } => self.object.definition(module, symbol),
            Aim::Stub(number) => self.object.own(plan.symbols.replaceable()[number as usize].id),
            Aim::CodeSlot(number) => plan.assignment.replaceable(number).0.map(slot),
            Aim::Slot(id) => plan.assignment.slot(id).map(slot),
            Aim::Symbol(id) => Some(RelocTarget::Symbol(id)),
        };
        target.ok_or(PatchError::Unreachable)
    }

    /// Returns the addresses with which to patch a site: those that are known, or the ones that
    /// leave nothing but the changed instruction. `None` if nothing is to be changed.
    fn addresses(
        &self,
        decision: &Decision,
        is_patched: bool,
        addend: i64,
    ) -> Result<Option<(u64, PatchAddresses)>, PatchError> {
        let none = PatchAddresses::default();
        if is_patched {
            let RelocTarget::Area(Area::Text, target) = self.target(decision.aim)? else {
                return Err(PatchError::Unreachable);
            };
            return Ok(Some((self.start(), PatchAddresses { symbol: Some(target), ..none })));
        }
        let nothing = Some(START.wrapping_sub(addend as u64));
        Ok(match decision.form {
            Form::Unchanged => None,
            Form::Relaxed => Some((START, PatchAddresses { symbol: nothing, ..none })),
            Form::ToSlot => Some((START, PatchAddresses { slot: nothing, ..none })),
        })
    }

    fn site(&self, text: &mut [u8], reloc: &Reloc, sink: &mut impl RelocSink) -> Result<(), PatchError> {
        let (offset, addend, kind) = (reloc.offset.get(), reloc.addend.get(), reloc.kind());
        let at = offset as usize;
        let (decision, is_patched) = self.decide(reloc)?;
        if let Some((start, addresses)) = self.addresses(&decision, is_patched, addend)? {
            let address = if is_patched { start + offset } else { start };
            let site = PatchSite { text: &mut *text, offset: at, address, addend };
            relocate::patch(self.decider.arch, kind, site, addresses)?;
        }
        if !is_patched {
            let (target, via) = (self.target(decision.aim)?, decision.via);
            sink.text(TextReloc { offset: self.start() + offset, kind, via, target, addend }, text, at);
        }
        Ok(())
    }

    /// Patches or passes on the low part of a riscv64 pair, as its high part.
    fn low(
        &self,
        text: &mut [u8],
        relocs: &[Reloc],
        index: usize,
        high_parts: &mut HighParts,
        sink: &mut impl RelocSink,
    ) -> Result<(), PatchError> {
        let reloc = &relocs[index];
        let auipc = high_of(self.artifact, reloc).ok_or(PatchError::Instruction)?;
        let high = high_parts.find(relocs, index, auipc).ok_or(PatchError::Instruction)?;
        let (decision, is_patched) = self.decide(high)?;
        let (offset, kind, addend) = (reloc.offset.get(), high.kind(), high.addend.get());
        if let Some((start, addresses)) = self.addresses(&decision, is_patched, addend)? {
            let address = if is_patched { start + auipc } else { start };
            riscv64::patch_low(text, offset as usize, riscv64::High { kind, address, addend }, addresses)?;
        }
        if !is_patched {
            let labels = self.object.labels_of(self.number);
            let label = labels.binary_search(&auipc).map_err(|_| PatchError::Instruction)?;
            let target = RelocTarget::Label(label as u32);
            let (offset, kind) = (self.start() + offset, reloc.kind());
            let reloc = TextReloc { offset, kind, via: decision.via, target, addend: 0 };
            sink.text(reloc, text, (offset - self.start()) as usize);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The instructions of stubs are made elsewhere.
    #[test]
    fn the_patch_sites_of_stubs_are_in_their_instructions() {
        for arch in [Arch::X86_64, Arch::Aarch64, Arch::Riscv64, Arch::S390x] {
            let mut text = vec![0; relocate::stub_size(arch) as usize];
            let site = PatchSite { text: &mut text, offset: 0, address: START, addend: 0 };
            let targets = PatchAddresses { slot: Some(0x10_0000), ..PatchAddresses::default() };
            relocate::write_stub(arch, site, targets).unwrap();
            for &(offset, kind, addend) in stub_sites(arch) {
                let classified = relocate::classify(arch, kind, &text, offset as usize, addend);
                // A jump through memory is not one of the loads that can be relaxed.
                assert!(classified.is_ok(), "{arch:?} {kind:?}");
                let width = kind.width();
                let bytes = &text[offset as usize..offset as usize + width];
                assert!(bytes.iter().any(|byte| *byte != 0), "{arch:?} {kind:?} patches nothing");
            }
        }
    }
}
