//! `.rela.dyn`: the relocations that `dlopen` and our loader apply to the data of an image, and
//! those that only `dlopen` applies to its code.

use kiln_globals::SlotKey;

use super::dynamic_symbols::DynamicSymbols;
use super::layout::FileLayout;
use super::patches::{TextPatches, TextRelocation};
use super::relr::{PackedRelocations, is_packable};
use crate::elf64::{RELA, rela_info};
use crate::link::{Area, Fixups, Plan, Pointer, PointerSource};

/// The dynamic relocations of an image, before addresses are known.
pub(super) struct Relocations {
    /// Number of dynamic relocations that are not packed.
    pub(super) rela: usize,
    /// Number of those that add the load address to a constant.
    pub(super) relative: usize,
    /// Pointers in data that are the value of a slot plus a constant.
    pub(super) symbolic: usize,
    /// Number of those of addresses in code, which come last.
    pub(super) text: usize,
    /// The packed ones.
    pub(super) packed: PackedRelocations,
    /// Whether those that can be are packed.
    pub(super) is_packing: bool,
}

impl Relocations {
    /// Returns the relocations of a program, of which those that can be are packed if `pack` says
    /// so.
    pub(super) fn of(plan: &Plan<'_>, patches: &TextPatches, pack: bool) -> Self {
        let mut places = Vec::new();
        let counts = plan.pointer_counts(|area, offset| {
            if pack && is_packable(plan.layout(), area, offset) {
                places.push((area, offset));
            }
        });
        let internal = plan.internal_slot_count();
        if pack {
            let first = plan.stored_slots();
            places.extend((first..first + internal).map(|slot| (Area::Slots, 8 * slot as u64)));
        }
        places.sort_unstable();
        let relative = counts.relative + internal - places.len();
        let text = patches.count();
        let rela = relative + plan.symbol_slot_count() + counts.symbols + counts.thread_locals + text;
        let packed = PackedRelocations::new(&places);
        Self { rela, relative, symbolic: counts.symbolic, text, packed, is_packing: pack }
    }
}

/// Writes the dynamic relocations that are not packed into `table`: first the relative relocations,
/// by address, then the relocations against symbols, then those of code, `text`. Returns the
/// pointers that the file must have.
pub(super) fn write_relocations(
    plan: &Plan<'_>,
    layout: &FileLayout<'_>,
    symbols: &DynamicSymbols<'_, '_>,
    fixups: &Fixups,
    text: &[TextRelocation],
    pack: bool,
    table: &mut [u8],
) -> Vec<(u64, u64)> {
    let (arch, addresses) = (plan.arch(), &layout.addresses);
    let address = |area: Area, offset: u64| addresses[area] + offset;
    let pointers = fixups.pointers.iter().chain(&fixups.internal_slots);
    let (packed, plain): (Vec<&Pointer>, Vec<_>) =
        pointers.partition(|pointer| pack && is_packable(plan.layout(), pointer.area, pointer.offset));
    let place = |pointer: &Pointer| (address(pointer.area, pointer.offset), pointer.target);
    let mut relative: Vec<(u64, u64)> = plain.into_iter().map(place).collect();
    relative.sort_unstable();
    // The dynamic symbol of each slot; 0 for a slot of a global that is not patched into code.
    let mut symbol_of = vec![0u32; plan.slots().len()];
    for (index, &(_, slot)) in symbols.undefined.iter().enumerate() {
        symbol_of[slot as usize] = 1 + index as u32;
    }
    let mut records: Vec<(u64, u64, u64)> = Vec::with_capacity(relative.len());
    let relative_info = rela_info(0, arch.relative_reloc());
    records.extend(relative.iter().map(|&(from, to)| (from, relative_info, to)));
    let is_symbol = |slot: u32| !matches!(plan.slots().keys()[slot as usize], SlotKey::Global(_));
    let stored = symbols.undefined.iter().filter(|_| plan.stored_slots() > 0);
    for &(_, slot) in stored.filter(|(_, slot)| is_symbol(*slot)) {
        let from = address(Area::Slots, 8 * u64::from(slot));
        records.push((from, rela_info(symbol_of[slot as usize], arch.glob_dat_reloc()), 0));
    }
    for pointer in &fixups.symbolic {
        let PointerSource::Slot(slot) = pointer.source else { continue };
        let symbol = symbol_of[slot as usize];
        if is_symbol(slot) {
            let from = address(pointer.area, pointer.offset);
            records.push((from, rela_info(symbol, arch.abs64_reloc()), pointer.addend as u64));
        }
    }
    let block = layout.address(&layout.thread_local.0);
    for pointer in &fixups.thread_locals {
        let from = address(pointer.area, pointer.offset);
        let (_, addend) = arch.thread_local_offset(pointer.target - block);
        records.push((from, rela_info(0, arch.thread_local_reloc()), addend));
    }
    // Not counted among the relative ones, so that our loader does not see them.
    records.extend(text.iter().map(|&TextRelocation { address, slot, addend }| match slot {
        Some(slot) => (address, rela_info(symbol_of[slot as usize], arch.abs64_reloc()), addend),
        None => (address, relative_info, addend),
    }));
    let big = arch.endian() == object::Endianness::Big;
    assert_eq!(table.len(), records.len() * RELA, "as many relocations as were reserved");
    for (entry, (offset, info, addend)) in table.chunks_exact_mut(RELA).zip(records) {
        for (field, value) in entry.chunks_exact_mut(8).zip([offset, info, addend]) {
            field.copy_from_slice(&if big { value.to_be_bytes() } else { value.to_le_bytes() });
        }
    }
    // Nothing is relocated if an image is where it wants to be.
    let plain = if layout.base > 0 { relative } else { Vec::new() };
    packed.into_iter().map(place).chain(plain).collect()
}
