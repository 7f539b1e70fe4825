//! `.rela.dyn`: the relocations that `dlopen` and our loader apply to the data of an image.

use super::dynamic_symbols::DynamicSymbols;
use crate::elf64::{RELA, rela_info};
use crate::link::{Addresses, Area, Fixups, Plan, PointerSource};

/// Numbers of dynamic relocations and symbolic pointers of an image.
pub(super) struct RelaCounts {
    /// All dynamic relocations.
    pub(super) rela: usize,
    /// Dynamic relocations that add the load address to a constant.
    pub(super) relative: usize,
    /// Pointers in data that are the value of a slot plus a constant.
    pub(super) symbolic: usize,
}

impl RelaCounts {
    /// Returns the counts for a program.
    pub(super) fn of(plan: &Plan<'_>) -> Self {
        let counts = plan.pointer_counts();
        let relative = counts.relative + plan.internal_slot_count();
        let slots = plan.symbol_slot_count();
        Self { rela: relative + slots + counts.symbols, relative, symbolic: counts.symbolic }
    }
}

/// Writes the dynamic relocations into `table`: first the relative relocations, by address, then
/// the relocations against symbols.
pub(super) fn write_relocations(
    plan: &Plan<'_>,
    addresses: &Addresses,
    symbols: &DynamicSymbols<'_, '_>,
    fixups: &Fixups,
    table: &mut [u8],
) {
    let arch = plan.arch();
    let address = |area: Area, offset: u64| addresses[area] + offset;
    let pointers = fixups.pointers.iter().chain(&fixups.internal_slots);
    let mut relative: Vec<(u64, u64)> =
        pointers.map(|pointer| (address(pointer.area, pointer.offset), pointer.target)).collect();
    relative.sort_unstable();
    // The dynamic symbol of each slot; 0 for a slot of a global.
    let mut symbol_of = vec![0u32; plan.slots().len()];
    for (index, &(_, slot)) in symbols.undefined.iter().enumerate() {
        symbol_of[slot as usize] = 1 + index as u32;
    }
    let mut records: Vec<(u64, u64, u64)> = Vec::with_capacity(relative.len());
    let relative_info = rela_info(0, arch.relative_reloc());
    records.extend(relative.into_iter().map(|(from, to)| (from, relative_info, to)));
    for &(_, slot) in &symbols.undefined {
        let from = address(Area::Slots, 8 * u64::from(slot));
        records.push((from, rela_info(symbol_of[slot as usize], arch.glob_dat_reloc()), 0));
    }
    for pointer in &fixups.symbolic {
        let PointerSource::Slot(slot) = pointer.source else { continue };
        let symbol = symbol_of[slot as usize];
        if symbol != 0 {
            let from = address(pointer.area, pointer.offset);
            records.push((from, rela_info(symbol, arch.abs64_reloc()), pointer.addend as u64));
        }
    }
    let big = arch.endian() == object::Endianness::Big;
    assert_eq!(table.len(), records.len() * RELA, "as many relocations as were reserved");
    for (entry, (offset, info, addend)) in table.chunks_exact_mut(RELA).zip(records) {
        for (field, value) in entry.chunks_exact_mut(8).zip([offset, info, addend]) {
            field.copy_from_slice(&if big { value.to_be_bytes() } else { value.to_le_bytes() });
        }
    }
}
