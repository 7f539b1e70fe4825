//! The debug information of an object: sections that a linker completes.

use super::options::ObjectOptions;
use super::reloc::ElfReloc;
use crate::arch::Arch;
use crate::dwarf::{self, Reference, Section};
use crate::link::{LinkError, ObjectPlan};

/// The debug information of an object.
#[derive(Default)]
pub(super) struct Debug {
    pub(super) sections: Vec<Section>,
    references: Vec<Reference>,
}

impl Debug {
    /// Makes the debug information, if there is to be any.
    pub(super) fn of(plan: &ObjectPlan<'_>, options: &ObjectOptions) -> Result<Self, LinkError> {
        if !options.debug {
            return Ok(Self::default());
        }
        let (sections, references) = dwarf::relocatable(plan.plan()).map_err(dwarf_too_large)?;
        Ok(Self { sections, references })
    }

    /// Returns the relocations of the section with this number. `symbol` returns the symbol of the
    /// section of debug information with a number, or of code.
    pub(super) fn relocs(
        &self,
        arch: Arch,
        number: usize,
        symbol: impl Fn(Option<usize>) -> u32,
    ) -> impl Iterator<Item = ElfReloc> {
        let own = self.references.iter().filter(move |place| place.section == number);
        own.map(move |&Reference { offset, size, target, addend, .. }| {
            let kind = if size == 8 { arch.abs64_reloc() } else { arch.abs32_reloc() };
            // Sections are smaller than 4 GiB.
            ElfReloc { offset: offset as u64, symbol: symbol(target), kind, addend }
        })
    }
}

/// Returns the error for more debug information than its format can hold.
fn dwarf_too_large(_: dwarf::TooLarge) -> LinkError {
    let what = "the debug information".into();
    LinkError::TooLarge { module: None, what, size: u64::MAX, limit: u32::MAX.into() }
}
