//! Pairs of riscv64 relocations: finds the high part that a low part belongs to.

use kiln_artifact::RelocKind;
use kiln_artifact::record::Reloc;

/// The number of relocations just before a low part that are searched for its high part.
const NEAR: usize = 8;

/// Finds relocations of high parts by their offsets. Usually a high part is just before its low
/// part; the table of all high parts is built only when a search of the nearest relocations fails.
#[derive(Default)]
pub(super) struct HighParts {
    /// The offset and number of each high part's relocation, sorted by offset.
    all: Option<Vec<(u64, u32)>>,
}

impl HighParts {
    /// Returns the relocation of the high part at `offset` in the code. `index` is the number of
    /// the low part's relocation.
    pub(super) fn find<'r>(&mut self, relocs: &'r [Reloc], index: usize, offset: u64) -> Option<&'r Reloc> {
        let is_high = |reloc: &Reloc| matches!(reloc.kind(), RelocKind::RvGotHi20 | RelocKind::RvPcrelHi20);
        let before = &relocs[index.saturating_sub(NEAR)..index];
        if let Some(found) = before.iter().rfind(|reloc| reloc.offset.get() == offset && is_high(reloc)) {
            return Some(found);
        }
        let all = self.all.get_or_insert_with(|| {
            let highs = relocs.iter().enumerate().filter(|(_, reloc)| is_high(reloc));
            let mut all: Vec<_> = highs.map(|(index, reloc)| (reloc.offset.get(), index as u32)).collect();
            all.sort_unstable();
            all
        });
        let position = all.binary_search_by_key(&offset, |&(offset, _)| offset).ok()?;
        relocs.get(all[position].1 as usize)
    }
}
