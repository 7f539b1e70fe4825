//! How code is patched, one file per architecture.
//!
//! Before the layout is fixed, [`classify`] says what a relocation needs; afterwards [`patch`] writes it. Both look at
//! the instruction itself and take nothing for granted: an artifact is checked, but its code is only bytes.
//!
//! *Relaxing* turns "load the address from a slot" into "compute the address", when the target lies in the program
//! itself. It never changes the length of an instruction.

pub(super) mod aarch64;
pub(super) mod riscv64;
pub(super) mod s390x;
pub(super) mod x86_64;

use kiln_artifact::RelocKind;

use super::error::LinkError;
use crate::arch::Arch;

/// What a relocation needs of its symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
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
pub(super) enum Fault {
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

impl Fault {
    /// The error, for a relocation of `symbol` at `offset` of the code of `module`.
    pub(super) fn into_error(
        self,
        module: usize,
        symbol: Box<str>,
        offset: u64,
        kind: RelocKind,
    ) -> LinkError {
        match self {
            Self::Foreign => LinkError::ForeignRelocation { module, offset, kind },
            Self::Instruction => LinkError::Instruction { module, offset, kind, symbol },
            Self::OutOfRange { distance, limit } => {
                LinkError::OutOfRange { module, offset, symbol, distance, limit }
            }
            Self::Misaligned => LinkError::Misaligned { module, offset, symbol },
            Self::Unreachable => LinkError::DirectReference { module, offset, symbol },
        }
    }
}

/// A place in code.
pub(super) struct PatchSite<'t> {
    /// The code around it.
    pub(super) text: &'t mut [u8],
    /// Where the place is in `text`.
    pub(super) offset: usize,
    /// The virtual address of the place.
    pub(super) address: u64,
    pub(super) addend: i64,
}

/// The virtual addresses that stand for a symbol, as far as it has them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PatchAddresses {
    pub(super) symbol: Option<u64>,
    pub(super) slot: Option<u64>,
    pub(super) stub: Option<u64>,
}

/// What the relocation at `at` needs.
pub(super) fn classify(
    arch: Arch,
    kind: RelocKind,
    text: &[u8],
    offset: usize,
    addend: i64,
) -> Result<Use, Fault> {
    match (arch, kind) {
        (_, RelocKind::Abs64 | RelocKind::Abs32) => Ok(Use::Absolute),
        (Arch::X86_64, _) => x86_64::classify(kind, text, offset, addend),
        (Arch::Aarch64, _) => aarch64::classify(kind, text, offset, addend),
        (Arch::Riscv64, _) => riscv64::classify(kind, text, offset, addend),
        (Arch::S390x, _) => s390x::classify(kind, text, offset, addend),
    }
}

/// Patches a place that [`classify`] accepted; not for [`Use::Pair`], which needs two places.
pub(super) fn patch(
    arch: Arch,
    kind: RelocKind,
    site: PatchSite<'_>,
    targets: PatchAddresses,
) -> Result<(), Fault> {
    match arch {
        Arch::X86_64 => x86_64::patch(kind, site, targets),
        Arch::Aarch64 => aarch64::patch(kind, site, targets),
        Arch::Riscv64 => riscv64::patch(kind, site, targets),
        Arch::S390x => s390x::patch(kind, site, targets),
    }
}

/// Size of a stub, in bytes; also its alignment.
pub(super) fn stub_size(arch: Arch) -> u64 {
    match arch {
        Arch::X86_64 | Arch::S390x => 8,
        Arch::Aarch64 | Arch::Riscv64 => 16,
    }
}

/// Writes a stub that jumps where the slot says, or to the symbol if it has no slot.
pub(super) fn write_stub(arch: Arch, site: PatchSite<'_>, targets: PatchAddresses) -> Result<(), Fault> {
    match arch {
        Arch::X86_64 => x86_64::write_stub(site, targets),
        Arch::Aarch64 => aarch64::write_stub(site, targets),
        Arch::Riscv64 => riscv64::write_stub(site, targets),
        Arch::S390x => s390x::write_stub(site, targets),
    }
}

/// `target - place` if it lies in `-limit..limit`.
pub(super) fn distance(target: u64, address: u64, limit: u64) -> Result<i64, Fault> {
    let distance = target.wrapping_sub(address) as i64;
    let bound = limit as i64;
    if (-bound..bound).contains(&distance) {
        Ok(distance)
    } else {
        Err(Fault::OutOfRange { distance, limit })
    }
}

/// A little-endian instruction word.
pub(super) fn read32(text: &[u8], offset: usize) -> Option<u32> {
    text.get(offset..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

pub(super) fn write32(text: &mut [u8], offset: usize, word: u32) -> Result<(), Fault> {
    let place = text.get_mut(offset..).and_then(|rest| rest.first_chunk_mut()).ok_or(Fault::Instruction)?;
    *place = word.to_le_bytes();
    Ok(())
}
