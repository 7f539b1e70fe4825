//! The relocations that a client's machine code may have, and their names in text and binary form.

use cranelift_codegen::binemit::Reloc;

/// The relocations of Cranelift that Kiln links. The linker refuses some of them where the loader
/// would have to patch code.
const RELOCS: [(Reloc, &str); 17] = [
    (Reloc::Abs4, "abs4"),
    (Reloc::Abs8, "abs8"),
    (Reloc::X86PCRel4, "x86_pcrel4"),
    (Reloc::X86CallPCRel4, "x86_call_pcrel4"),
    (Reloc::X86CallPLTRel4, "x86_call_pltrel4"),
    (Reloc::X86GOTPCRel4, "x86_gotpcrel4"),
    (Reloc::Arm64Call, "arm64_call"),
    (Reloc::Aarch64AdrGotPage21, "aarch64_adr_got_page21"),
    (Reloc::Aarch64Ld64GotLo12Nc, "aarch64_ld64_got_lo12_nc"),
    (Reloc::Aarch64AdrPrelPgHi21, "aarch64_adr_prel_pg_hi21"),
    (Reloc::Aarch64AddAbsLo12Nc, "aarch64_add_abs_lo12_nc"),
    (Reloc::RiscvCallPlt, "riscv_call_plt"),
    (Reloc::RiscvGotHi20, "riscv_got_hi20"),
    (Reloc::RiscvPCRelHi20, "riscv_pcrel_hi20"),
    (Reloc::RiscvPCRelLo12I, "riscv_pcrel_lo12_i"),
    (Reloc::S390xPCRel32Dbl, "s390x_pcrel32_dbl"),
    (Reloc::S390xPLTRel32Dbl, "s390x_pltrel32_dbl"),
];

/// Returns the name of a relocation, or `None` if Kiln does not link it.
pub(crate) fn name(reloc: Reloc) -> Option<&'static str> {
    RELOCS.iter().find(|(known, _)| *known == reloc).map(|(_, name)| *name)
}

/// Returns the relocation with this name.
pub(crate) fn named(name: &str) -> Option<Reloc> {
    RELOCS.iter().find(|(_, known)| *known == name).map(|(reloc, _)| *reloc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct() {
        for (reloc, text) in RELOCS {
            assert_eq!((name(reloc), named(text)), (Some(text), Some(reloc)));
        }
        assert_eq!(name(Reloc::ElfX86_64TlsGd), None);
    }
}
