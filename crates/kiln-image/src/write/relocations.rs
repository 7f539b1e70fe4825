//! `.rela.dyn`: what `dlopen` and our loader do to the data of an image.

use super::dynamic::DynamicSymbols;
use super::file::File;
use crate::link::{Area, Fixups, Plan, PointerSource};

/// Size of a dynamic relocation in bytes.
pub(crate) const RELA: usize = 24;

/// How many dynamic relocations and symbolic pointers there will be.
pub(crate) struct RelaCounts {
    pub(crate) rela: usize,
    pub(crate) relative: usize,
    pub(crate) symbolic: usize,
}

impl RelaCounts {
    pub(crate) fn of(plan: &Plan<'_>) -> Self {
        let counts = plan.pointer_counts();
        let relative = counts.relative + plan.internal_slot_count();
        let slots = plan.symbol_slot_count();
        Self { rela: relative + slots + counts.symbols, relative, symbolic: counts.symbolic }
    }
}

impl File {
    /// Writes the dynamic relocations: relative ones first, by place; then those against symbols.
    pub(crate) fn write_relocations(
        &self,
        plan: &Plan<'_>,
        symbols: &DynamicSymbols<'_, '_>,
        fixups: &Fixups,
        buffer: &mut [u8],
    ) {
        let arch = plan.arch();
        let place = |area: Area, offset: u64| self.addresses[area] + offset;
        let pointers = fixups.pointers.iter().chain(&fixups.internal_slots);
        let mut relative: Vec<(u64, u64)> =
            pointers.map(|pointer| (place(pointer.area, pointer.offset), pointer.target)).collect();
        relative.sort_unstable();
        // Dynamic symbol of each slot of a symbol.
        let mut symbol_of = vec![0u32; plan.slots().len()];
        for (index, &(_, slot)) in symbols.undefined.iter().enumerate() {
            symbol_of[slot as usize] = 1 + index as u32;
        }
        let mut records: Vec<(u64, u64, u64)> = Vec::with_capacity(relative.len());
        records.extend(relative.into_iter().map(|(at, to)| (at, u64::from(arch.relative_reloc()), to)));
        let info = |symbol: u32, kind: u32| u64::from(symbol) << 32 | u64::from(kind);
        for &(_, slot) in &symbols.undefined {
            let at = place(Area::Slots, 8 * u64::from(slot));
            records.push((at, info(symbol_of[slot as usize], arch.glob_dat_reloc()), 0));
        }
        for pointer in &fixups.symbolic {
            let PointerSource::Slot(slot) = pointer.source else { continue };
            let symbol = symbol_of[slot as usize];
            if symbol != 0 {
                let at = place(pointer.area, pointer.offset);
                records.push((at, info(symbol, arch.abs64_reloc()), pointer.addend as u64));
            }
        }
        let big = arch.endian() == object::Endianness::Big;
        let range = self.rela.within(buffer.len()).unwrap_or(0..0);
        let table = &mut buffer[range];
        assert_eq!(table.len(), records.len() * RELA, "as many relocations as were reserved");
        for (entry, (at, info, addend)) in table.chunks_exact_mut(RELA).zip(records) {
            for (field, value) in entry.chunks_exact_mut(8).zip([at, info, addend]) {
                field.copy_from_slice(&if big { value.to_be_bytes() } else { value.to_le_bytes() });
            }
        }
    }
}
