//! Patches code. There is one file per architecture.
//!
//! Before anything is placed, [`classify`] returns what a relocation needs; afterwards [`patch`]
//! applies the relocation. Both read the instruction at the patch site and assume nothing about the
//! code: artifacts are validated, but their code is not.
//!
//! *Relaxing* turns "load the address from a slot" into "compute the address", when the target is
//! in the program itself. It never changes the length of an instruction.

mod aarch64;
pub(super) mod riscv64;
mod s390x;
mod site;
mod x86_64;

use kiln_artifact::RelocKind;

pub(super) use self::site::{PatchAddresses, PatchError, PatchSite, Use};
use super::error::LinkError;
use crate::arch::Arch;

/// Returns how the relocation at `offset` in the code uses its symbol. An absolute address is an
/// error here: modules that may have some do not ask, see [`direct`](super::direct).
pub(super) fn classify(
    arch: Arch,
    kind: RelocKind,
    text: &[u8],
    offset: usize,
    addend: i64,
) -> Result<Use, PatchError> {
    match (arch, kind) {
        (_, RelocKind::Abs64 | RelocKind::Abs32) => Err(PatchError::Absolute),
        (Arch::X86_64, _) => x86_64::classify(kind, text, offset, addend),
        (Arch::Aarch64, _) => aarch64::classify(kind, text, offset, addend),
        (Arch::Riscv64, _) => riscv64::classify(kind, text, offset, addend),
        (Arch::S390x, _) => s390x::classify(kind, text, offset, addend),
    }
}

/// Whether the 8 bytes at `offset` are the address in an instruction that loads it, and that
/// [`relax_address`] can change.
pub(super) fn is_address_load(arch: Arch, text: &[u8], offset: usize) -> bool {
    match arch {
        Arch::X86_64 => x86_64::is_address_load(text, offset),
        Arch::Aarch64 => aarch64::is_address_load(text, offset),
        Arch::Riscv64 | Arch::S390x => false,
    }
}

/// Changes an instruction that [`is_address_load`] accepts: it computes the address of the symbol
/// relative to itself or, if there is only a slot, loads the address from that.
pub(super) fn relax_address(
    arch: Arch,
    site: PatchSite<'_>,
    targets: PatchAddresses,
) -> Result<(), PatchError> {
    match arch {
        Arch::X86_64 => x86_64::relax_address(site, targets),
        Arch::Aarch64 => aarch64::relax_address(site, targets),
        Arch::Riscv64 | Arch::S390x => Err(PatchError::Instruction),
    }
}

/// Patches a site that [`classify`] accepts, except for [`Use::Pair`], which needs two sites.
pub(super) fn patch(
    arch: Arch,
    kind: RelocKind,
    site: PatchSite<'_>,
    targets: PatchAddresses,
) -> Result<(), PatchError> {
    match arch {
        Arch::X86_64 => x86_64::patch(kind, site, targets),
        Arch::Aarch64 => aarch64::patch(kind, site, targets),
        Arch::Riscv64 => riscv64::patch(kind, site, targets),
        Arch::S390x => s390x::patch(kind, site, targets),
    }
}

/// Writes a jump through the slot at address `slot` into `stub`, whose address is `address`, as the
/// linker does for a replaceable function. `stub` must have the length and the alignment
/// [`stub_size`].
///
/// With it, a function can have slot and address before there is code of it; a link is told by
/// [`ExternalDefinition::Replaceable`](super::ExternalDefinition::Replaceable).
///
/// # Errors
///
/// [`LinkError::Buffer`] if `stub` has another length, [`LinkError::OutOfRange`] or
/// [`LinkError::Misaligned`] if the slot cannot be reached. They name module 0.
pub fn write_stub_to_slot(arch: Arch, stub: &mut [u8], address: u64, slot: u64) -> Result<(), LinkError> {
    if stub.len() as u64 != stub_size(arch) {
        let (given, expected) = (stub.len() as u64, stub_size(arch));
        return Err(LinkError::Buffer { area: "stub", given, expected });
    }
    stub.fill(arch.trap_byte());
    let site = PatchSite { text: stub, offset: 0, address, addend: 0 };
    write_stub(arch, site, PatchAddresses { slot: Some(slot), ..PatchAddresses::default() })
        .map_err(|error| error.into_error(0, "".into(), "a slot".into(), 0, RelocKind::Abs64))
}

/// Returns the size of a stub, in bytes, which is also its alignment.
pub fn stub_size(arch: Arch) -> u64 {
    match arch {
        Arch::X86_64 | Arch::S390x => 8,
        Arch::Aarch64 | Arch::Riscv64 => 16,
    }
}

/// Writes a stub, which jumps to the address in the slot, or to the symbol if it has no slot.
pub(super) fn write_stub(arch: Arch, site: PatchSite<'_>, targets: PatchAddresses) -> Result<(), PatchError> {
    match arch {
        Arch::X86_64 => x86_64::write_stub(site, targets),
        Arch::Aarch64 => aarch64::write_stub(site, targets),
        Arch::Riscv64 => riscv64::write_stub(site, targets),
        Arch::S390x => s390x::write_stub(site, targets),
    }
}
