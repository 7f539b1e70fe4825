//! The addresses in code of a planned program: what becomes of each, and those that are left to
//! patch.

use kiln_artifact::record::Reloc;
use kiln_artifact::{Artifact, GlobalAccess};

use super::assign::Slot;
use super::direct::{Aim, PatchSource, aim};
#[cfg(feature = "write")]
use super::direct::{TextPatch, is_address};
use super::plan::Plan;
use super::resolve::Resolution;

impl Plan<'_> {
    /// Returns what becomes of an address in the code of a module.
    pub(super) fn aim(&self, module: usize, reloc: &Reloc) -> Aim {
        aim(self.arch, self.is_near, &self.symbols, (&self.artifacts[module], module), reloc)
    }

    /// Returns the slot whose value an address in code is, if it is that of a slot.
    pub(super) fn patched_slot(&self, module: usize, reloc: &Reloc) -> Option<PatchSource> {
        let id = self.symbols.of_module(module)[reloc.symbol.get() as usize];
        match (self.symbols.resolution(id), self.assignment.slot(id)) {
            (Resolution::KnownSlot(address), _) => Some(PatchSource::KnownSlot(address)),
            (_, Some(Slot::External(number))) => Some(PatchSource::Slot(number)),
            (_, Some(Slot::Internal(_)) | None) => None,
        }
    }

    /// Returns how the code reaches what is outside of it: directly, if that of any module does.
    pub fn global_access(&self) -> GlobalAccess {
        let mut all = self.artifacts.iter().map(Artifact::global_access);
        let direct = all.find(|access| *access == GlobalAccess::Direct);
        direct.unwrap_or_default()
    }

    /// Returns the addresses in code that are left to patch, before addresses are known: those of
    /// the program itself are 0. In order of module and relocation, as in
    /// [`Fixups`](super::Fixups).
    #[cfg(feature = "write")]
    pub(crate) fn text_patches(&self) -> impl Iterator<Item = TextPatch> {
        let modules = self.artifacts.iter().enumerate();
        let modules = modules.filter(|(_, artifact)| artifact.global_access() == GlobalAccess::Direct);
        modules.flat_map(move |(module, artifact)| {
            let start = self.placement.modules[module].text.start;
            let relocs = artifact.text_relocs().iter().filter(|reloc| is_address(artifact, reloc));
            relocs.filter_map(move |reloc| {
                let source = match self.aim(module, reloc) {
                    Aim::Relaxed | Aim::CodeSlot(_) => return None,
                    Aim::Address => PatchSource::Program(0),
                    Aim::Value => self.patched_slot(module, reloc)?,
                };
                let (offset, addend) = (start + reloc.offset.get(), reloc.addend.get());
                Some(TextPatch { offset, source, addend })
            })
        })
    }
}
