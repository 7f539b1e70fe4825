//! Relocations of ELF, for those of artifacts, and their bytes.
//!
//! Sources: the ELF supplements of the processors, as [`RelocKind`] names them. The fields that a
//! relocation patches hold nothing: the addend is in the relocation.

use kiln_artifact::RelocKind;
use object::elf::{self, Rela64};
use object::{Endianness, I64, U64, pod};

use crate::arch::Arch;
use crate::elf64::{RELA, rela_info};
use crate::link::{TextReloc, Via};

/// A relocation of an object.
#[derive(Clone, Copy, Debug)]
pub(super) struct ElfReloc {
    /// Offset in the section that is relocated.
    pub(super) offset: u64,
    /// The number of the symbol.
    pub(super) symbol: u32,
    /// An `R_*` code of the architecture.
    pub(super) kind: u32,
    pub(super) addend: i64,
}

impl ElfReloc {
    /// Writes the relocation to the front of `out`, and takes that off.
    pub(super) fn put(self, endian: Endianness, out: &mut &mut [u8]) {
        let Self { offset, symbol, kind, addend } = self;
        let rela = Rela64 {
            r_offset: U64::new(endian, offset),
            r_info: U64::new(endian, rela_info(symbol, kind)),
            r_addend: I64::new(endian, addend),
        };
        let (to, rest) = std::mem::take(out).split_at_mut(RELA);
        to.copy_from_slice(pod::bytes_of(&rela));
        *out = rest;
    }
}

/// Returns the type of the relocation of code at `at` in `text`, which is the final instruction.
pub(super) fn text_type(arch: Arch, reloc: &TextReloc, text: &[u8], at: usize) -> u32 {
    let got = reloc.via == Via::Got;
    match reloc.kind {
        RelocKind::X86Pc32 | RelocKind::X86GotPc32 if got => x86_got_type(text, at, reloc.addend),
        RelocKind::X86Pc32 if reloc.via == Via::Call => elf::R_X86_64_PLT32,
        RelocKind::X86Pc32 | RelocKind::X86GotPc32 => elf::R_X86_64_PC32,
        RelocKind::A64Call26 if text.get(at + 3).is_some_and(|byte| byte >> 2 == 0b000_101) => {
            elf::R_AARCH64_JUMP26
        }
        RelocKind::A64Call26 => elf::R_AARCH64_CALL26,
        RelocKind::A64AdrGotPage21 if got => elf::R_AARCH64_ADR_GOT_PAGE,
        RelocKind::A64Ld64GotLo12 if got => elf::R_AARCH64_LD64_GOT_LO12_NC,
        RelocKind::A64AdrGotPage21 | RelocKind::A64AdrPrelPg21 => elf::R_AARCH64_ADR_PREL_PG_HI21,
        // A load from a slot of the object, or what became an `add`.
        RelocKind::A64Ld64GotLo12 if text.get(at + 3) == Some(&0xf9) => elf::R_AARCH64_LDST64_ABS_LO12_NC,
        RelocKind::A64Ld64GotLo12 | RelocKind::A64AddLo12 => elf::R_AARCH64_ADD_ABS_LO12_NC,
        RelocKind::RvCallPlt => elf::R_RISCV_CALL_PLT,
        RelocKind::RvGotHi20 if got => elf::R_RISCV_GOT_HI20,
        RelocKind::RvGotHi20 | RelocKind::RvPcrelHi20 => elf::R_RISCV_PCREL_HI20,
        RelocKind::RvPcrelLo12I => elf::R_RISCV_PCREL_LO12_I,
        RelocKind::S390xGotEnt if got => elf::R_390_GOTENT,
        RelocKind::S390xPlt32Dbl => elf::R_390_PLT32DBL,
        RelocKind::S390xGotEnt | RelocKind::S390xPc32Dbl => elf::R_390_PC32DBL,
        // Code has no absolute addresses, and there is no other kind.
        _ => arch.abs64_reloc(),
    }
}

/// Returns the type for a load from a slot of the linker's. Two types allow it to relax the
/// instruction, if it is one of those that it knows.
fn x86_got_type(text: &[u8], at: usize, addend: i64) -> u32 {
    let before = |distance: usize| at.checked_sub(distance).and_then(|at| text.get(at)).copied();
    match (before(3), before(2), before(1)) {
        // mov reg, [rip + slot], with REX.W
        (Some(rex), Some(0x8b), Some(modrm))
            if addend == -4 && rex & 0xf8 == 0x48 && modrm & 0xc7 == 0x05 =>
        {
            elf::R_X86_64_REX_GOTPCRELX
        }
        // call or jmp [rip + slot]
        (_, Some(0xff), Some(0x15 | 0x25)) if addend == -4 => elf::R_X86_64_GOTPCRELX,
        _ => elf::R_X86_64_GOTPCREL,
    }
}

/// Returns the type of a pointer of 4 bytes relative to itself, as unwind rows have it.
pub(super) fn relative32_type(arch: Arch) -> u32 {
    match arch {
        Arch::X86_64 => elf::R_X86_64_PC32,
        Arch::Aarch64 => elf::R_AARCH64_PREL32,
        Arch::Riscv64 => elf::R_RISCV_32_PCREL,
        Arch::S390x => elf::R_390_PC32,
    }
}
