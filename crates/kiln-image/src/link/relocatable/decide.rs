//! The decision about a relocation of code: which address it means, and whether the instruction
//! changes. It depends on the results of `resolve` only, so `scan` and `emit` come to the same.

use kiln_artifact::record::{Linkage, Reloc, SectionKind, SymbolKind};
use kiln_artifact::{Artifact, RelocKind};

use super::super::meaning::{is_called, is_own};
use super::super::relocate::{self, PatchError, Use};
use super::super::resolve::{Resolution, ResolvedId, SymbolTable};
use super::relocs::Via;
use crate::arch::Arch;

/// The thing whose address code needs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Aim {
    /// A definition of the object that nothing overrides.
    Definition { module: u32, symbol: u32 },
    /// The stub of the replaceable function with this number.
    Stub(u32),
    /// The slot with the address of the code of the replaceable function with this number.
    CodeSlot(u32),
    /// The object's own slot of a resolved symbol.
    Slot(ResolvedId),
    /// A symbol that the other linker finds.
    Symbol(ResolvedId),
}

/// The change of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Unchanged,
    /// A load from a slot becomes the computation of the address.
    Relaxed,
    /// The computation of an address becomes a load from a slot.
    ToSlot,
}

/// The decision about a relocation of code.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decision {
    pub(super) aim: Aim,
    pub(super) form: Form,
    pub(super) via: Via,
}

impl Decision {
    /// Whether the site is patched, because its distance to the target is known: both are in the
    /// code of the object.
    pub(super) fn is_patched(&self, artifacts: &[Artifact], kind: RelocKind) -> bool {
        // Such an instruction has a part of an address, which the distance does not tell.
        if matches!(
            kind,
            RelocKind::A64AdrGotPage21
                | RelocKind::A64Ld64GotLo12
                | RelocKind::A64AdrPrelPg21
                | RelocKind::A64AddLo12
        ) {
            return false;
        }
        match self.aim {
            Aim::Definition { module, symbol } => {
                let record = &artifacts[module as usize].symbols()[symbol as usize];
                record.section() == SectionKind::Text
            }
            Aim::Stub(_) => true,
            Aim::CodeSlot(_) | Aim::Slot(_) | Aim::Symbol(_) => false,
        }
    }
}

/// The facts from which decisions follow.
#[derive(Clone, Copy)]
pub(super) struct Decider<'d> {
    pub(super) arch: Arch,
    pub(super) artifacts: &'d [Artifact],
    pub(super) symbols: &'d SymbolTable,
    /// Whether globals are symbols of the other linker.
    pub(super) global_symbols: bool,
}

impl Decider<'_> {
    /// Returns what becomes of a relocation of module `number`; `None` for the low part of a pair.
    pub(super) fn decide(&self, number: usize, reloc: &Reloc) -> Result<Option<Decision>, PatchError> {
        let (text, offset) = (self.artifacts[number].text(), reloc.offset.get() as usize);
        let usage = relocate::classify(self.arch, reloc.kind(), text, offset, reloc.addend.get())?;
        if usage == Use::Pair {
            return Ok(None);
        }
        let aim = self.aim(number, reloc, usage);
        let decision = |aim, form, via| Ok(Some(Decision { aim, form, via }));
        match (usage, aim) {
            (Use::Slot { .. }, Aim::CodeSlot(_) | Aim::Slot(_)) => {
                decision(aim, Form::Unchanged, Via::Address)
            }
            (Use::AddressOrSlot, Aim::CodeSlot(_) | Aim::Slot(_)) => {
                decision(aim, Form::ToSlot, Via::Address)
            }
            (_, Aim::CodeSlot(_) | Aim::Slot(_)) => Err(PatchError::Unreachable),
            (Use::Slot { .. }, Aim::Symbol(_)) => decision(aim, Form::Unchanged, Via::Got),
            (Use::AddressOrSlot, Aim::Symbol(_)) => decision(aim, Form::ToSlot, Via::Got),
            (Use::Slot { relaxable }, _) => match relaxable && !self.is_odd(aim) {
                true => decision(aim, Form::Relaxed, Via::Address),
                false => {
                    let id = self.symbols.of_module(number)[reloc.symbol.get() as usize];
                    decision(Aim::Slot(id), Form::Unchanged, Via::Address)
                }
            },
            (Use::Call, _) => decision(aim, Form::Unchanged, Via::Call),
            (Use::Direct | Use::AddressOrSlot | Use::Pair, _) => decision(aim, Form::Unchanged, Via::Address),
        }
    }

    fn aim(&self, number: usize, reloc: &Reloc, usage: Use) -> Aim {
        let artifact = &self.artifacts[number];
        let symbol = reloc.symbol.get();
        if is_own(artifact, reloc) {
            return Aim::Definition { module: number as u32, symbol };
        }
        let id = self.symbols.of_module(number)[symbol as usize];
        match self.symbols.resolution(id) {
            Resolution::Defined { module, symbol } => {
                let record = &self.artifacts[module as usize].symbols()[symbol as usize];
                // An address must be the same everywhere, and the other linker may give the symbol
                // one that is not that of the definition. A call does not care.
                let takes_address = matches!(usage, Use::Slot { .. }) && !is_called(artifact, reloc);
                match record.linkage() {
                    Linkage::Preemptible => Aim::Symbol(id),
                    Linkage::Export if takes_address => Aim::Symbol(id),
                    _ => Aim::Definition { module, symbol },
                }
            }
            Resolution::Replaceable(number) if is_called(artifact, reloc) => Aim::CodeSlot(number),
            Resolution::Replaceable(number) => Aim::Stub(number),
            Resolution::Undefined if self.has_slot(artifact, symbol) => Aim::Slot(id),
            _ => Aim::Symbol(id),
        }
    }

    /// Whether code reaches a symbol without definition through a slot of the object.
    fn has_slot(&self, artifact: &Artifact, symbol: u32) -> bool {
        !self.global_symbols && artifact.symbols()[symbol as usize].kind() == SymbolKind::Global
    }

    /// Whether the address is odd, so that `larl` of s390x cannot compute it.
    fn is_odd(&self, aim: Aim) -> bool {
        let Aim::Definition { module, symbol } = aim else { return false };
        self.arch == Arch::S390x
            && !self.artifacts[module as usize].symbols()[symbol as usize].offset.get().is_multiple_of(2)
    }
}
