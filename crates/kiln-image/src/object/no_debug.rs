//! Without the feature `dwarf`, objects have no debug information.

use super::options::ObjectOptions;
use super::reloc::ElfReloc;
use crate::arch::Arch;
use crate::link::{LinkError, ObjectPlan};

/// A section of debug information, of which there is none.
pub(super) struct Section {
    pub(super) name: &'static str,
    pub(super) bytes: Vec<u8>,
}

/// The debug information of an object: none.
#[derive(Default)]
pub(super) struct Debug {
    pub(super) sections: [Section; 0],
}

impl Debug {
    pub(super) fn of(_: &ObjectPlan<'_>, _: &ObjectOptions) -> Result<Self, LinkError> {
        Ok(Self::default())
    }

    pub(super) fn relocs(
        &self,
        _: Arch,
        _: usize,
        _: impl Fn(Option<usize>) -> u32,
    ) -> impl Iterator<Item = ElfReloc> {
        std::iter::empty()
    }
}
