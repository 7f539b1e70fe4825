//! How code is patched, one file per architecture.
//!
//! Before the layout is fixed, [`classify`] says what a relocation needs; afterwards [`patch`] writes it. Both look at
//! the instruction itself and take nothing for granted: an artifact is checked, but its code is only bytes.
//!
//! *Relaxing* turns "load the address from a slot" into "compute the address", when the target lies in the program
//! itself. It never changes the length of an instruction.

pub(crate) mod aarch64;
pub(crate) mod riscv64;
pub(crate) mod s390x;
pub(crate) mod x86_64;

use kiln_artifact::RelocKind;

use crate::arch::Arch;

/// What a relocation needs of its symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// The symbol's address, in reach.
    Direct,
    /// The symbol's address, in reach, or else its slot.
    AddressOrSlot,
    /// The symbol's address in reach, or else a stub.
    Call,
    /// The symbol's slot; or its address in reach, if the instruction can be relaxed.
    Slot { relaxable: bool },
    /// Nothing: it completes the relocation at another place of the code.
    Pair,
    /// The absolute address, which code must not hold.
    Absolute,
}

/// Why a place cannot be patched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The relocation belongs to another architecture.
    Foreign,
    /// The instruction is not one that the relocation can patch.
    Instruction,
    /// The distance does not fit.
    OutOfRange { distance: i64, limit: u64 },
    /// The address is not a multiple of what the instruction can express.
    Misaligned,
    /// Neither the address nor a detour to it is available.
    Unreachable,
}

/// A place in code.
pub(crate) struct Site<'t> {
    /// The code around it.
    pub(crate) text: &'t mut [u8],
    /// Where the place is in `text`.
    pub(crate) at: usize,
    /// The virtual address of the place.
    pub(crate) place: u64,
    pub(crate) addend: i64,
}

/// The virtual addresses that stand for a symbol, as far as it has them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ends {
    pub(crate) symbol: Option<u64>,
    pub(crate) slot: Option<u64>,
    pub(crate) stub: Option<u64>,
}

/// What the relocation at `at` needs.
pub(crate) fn classify(
    arch: Arch,
    kind: RelocKind,
    text: &[u8],
    at: usize,
    addend: i64,
) -> Result<Use, Fault> {
    match (arch, kind) {
        (_, RelocKind::Abs64 | RelocKind::Abs32) => Ok(Use::Absolute),
        (Arch::X86_64, _) => x86_64::classify(kind, text, at, addend),
        (Arch::Aarch64, _) => aarch64::classify(kind, text, at, addend),
        (Arch::Riscv64, _) => riscv64::classify(kind, text, at, addend),
        (Arch::S390x, _) => s390x::classify(kind, text, at, addend),
    }
}

/// Patches a place that [`classify`] accepted; not for [`Use::Pair`], which needs two places.
pub(crate) fn patch(arch: Arch, kind: RelocKind, site: Site<'_>, ends: Ends) -> Result<(), Fault> {
    match arch {
        Arch::X86_64 => x86_64::patch(kind, site, ends),
        Arch::Aarch64 => aarch64::patch(kind, site, ends),
        Arch::Riscv64 => riscv64::patch(kind, site, ends),
        Arch::S390x => s390x::patch(kind, site, ends),
    }
}

/// Size of a stub, in bytes; also its alignment.
pub(crate) fn stub_size(arch: Arch) -> u64 {
    match arch {
        Arch::X86_64 | Arch::S390x => 8,
        Arch::Aarch64 | Arch::Riscv64 => 16,
    }
}

/// Writes a stub that jumps where the slot says, or to the symbol if it has no slot.
pub(crate) fn write_stub(arch: Arch, site: Site<'_>, ends: Ends) -> Result<(), Fault> {
    match arch {
        Arch::X86_64 => x86_64::write_stub(site, ends),
        Arch::Aarch64 => aarch64::write_stub(site, ends),
        Arch::Riscv64 => riscv64::write_stub(site, ends),
        Arch::S390x => s390x::write_stub(site, ends),
    }
}

/// `target - place` if it lies in `-limit..limit`.
pub(crate) fn distance(target: u64, place: u64, limit: u64) -> Result<i64, Fault> {
    let distance = target.wrapping_sub(place) as i64;
    let bound = limit as i64;
    if (-bound..bound).contains(&distance) {
        Ok(distance)
    } else {
        Err(Fault::OutOfRange { distance, limit })
    }
}

/// A little-endian instruction word.
pub(crate) fn read32(text: &[u8], at: usize) -> Option<u32> {
    text.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

pub(crate) fn write32(text: &mut [u8], at: usize, word: u32) -> Result<(), Fault> {
    let place = text.get_mut(at..).and_then(|rest| rest.first_chunk_mut()).ok_or(Fault::Instruction)?;
    *place = word.to_le_bytes();
    Ok(())
}
