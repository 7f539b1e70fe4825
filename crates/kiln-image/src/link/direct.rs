//! Addresses in code: what becomes of each, in modules that reach globals directly.
//!
//! With [`GlobalAccess::Direct`], Cranelift's code contains the address of whatever may be outside
//! of its module: on x86-64 as the operand of `movabs`, elsewhere as eight bytes that the code
//! jumps over. This file decides what the linker does with such an address:
//!
//! - If the target is in the program, the instruction is relaxed, where its architecture allows: it
//!   computes the address relative to itself, and nothing is left to patch.
//! - A replaceable function stays behind its slot: a call loads the address of the code that is in
//!   force, and every other use has the address of the stub.
//! - Everything else is a [`TextPatch`], which is applied when the code is loaded: by the JIT
//!   before the code is published, by the loader before the pages become executable.
//!
//! The decision depends on the results of `resolve` and `reach` and on the bytes of the artifact,
//! so `scan`, `emit` and the writer of images come to the same.

use kiln_artifact::record::{Reloc, SymbolKind};
use kiln_artifact::{Artifact, GlobalAccess, RelocKind};

use super::meaning::is_own;
use super::relocate;
use super::resolve::{Resolution, SymbolTable};
use crate::arch::Arch;

/// The source of an address in code that is written when the code is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PatchSource {
    /// An address of the program itself, in the same address space as the
    /// [`Addresses`](super::Addresses) given to the linker.
    Program(u64),
    /// The value of the external slot with this number.
    Slot(u32),
    /// The value of the slot at this address, which exists outside this link.
    KnownSlot(u64),
}

/// Eight bytes of code that must hold an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TextPatch {
    /// Offset in [`Area::Text`](super::Area::Text), in bytes. It need not be aligned.
    pub offset: u64,
    /// The address.
    pub source: PatchSource,
    /// The number that is added to it.
    pub addend: i64,
}

/// The decision about an address in code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// The instruction computes the address relative to itself.
    Relaxed,
    /// The instruction loads the address of the code of the replaceable function with this number
    /// from its slot.
    CodeSlot(u32),
    /// An address that the linker knows is patched in.
    Address,
    /// The value of a slot is patched in.
    Value,
}

/// Whether a relocation is that of an address in code which may contain addresses.
pub(super) fn is_address(artifact: &Artifact, reloc: &Reloc) -> bool {
    reloc.kind() == RelocKind::Abs64 && artifact.global_access() == GlobalAccess::Direct
}

/// Returns what becomes of an address in the code of module `number`. `near` says whether
/// pc-relative addresses reach all of the program.
pub(super) fn aim(
    arch: Arch,
    near: bool,
    symbols: &SymbolTable,
    (artifact, number): (&Artifact, usize),
    reloc: &Reloc,
) -> Aim {
    let symbol = reloc.symbol.get() as usize;
    let can_change = relocate::is_address_load(arch, artifact.text(), reloc.offset.get() as usize);
    let known = if can_change && near { Aim::Relaxed } else { Aim::Address };
    if is_own(artifact, reloc) {
        return known;
    }
    match symbols.resolution(symbols.of_module(number)[symbol]) {
        Resolution::Defined { .. } | Resolution::SectionBound { .. } => known,
        Resolution::Replaceable(function) => {
            let is_called = !reloc.has(Reloc::TAKES_ADDRESS)
                && artifact.symbols()[symbol].kind() == SymbolKind::Function
                && reloc.addend.get() == 0;
            match symbols.replaceable()[function as usize].known_stub {
                _ if is_called && can_change => Aim::CodeSlot(function),
                None => known,
                Some(_) => Aim::Address,
            }
        }
        Resolution::KnownAddress(_) => Aim::Address,
        Resolution::KnownSlot(_) | Resolution::Undefined => Aim::Value,
    }
}
