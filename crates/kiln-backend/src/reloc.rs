//! Translates Cranelift's relocations and library calls to those of the artifact, and back.

use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::ir::LibCall;
use kiln_artifact::RelocKind;

/// Returns the artifact's kind for a relocation, or `None` if Kiln does not link it.
pub(crate) fn kind(reloc: Reloc) -> Option<RelocKind> {
    Some(match reloc {
        Reloc::Abs4 => RelocKind::Abs32,
        Reloc::Abs8 => RelocKind::Abs64,
        Reloc::X86PCRel4 | Reloc::X86CallPCRel4 | Reloc::X86CallPLTRel4 => RelocKind::X86Pc32,
        Reloc::X86GOTPCRel4 => RelocKind::X86GotPc32,
        Reloc::Arm64Call => RelocKind::A64Call26,
        Reloc::Aarch64AdrGotPage21 => RelocKind::A64AdrGotPage21,
        Reloc::Aarch64Ld64GotLo12Nc => RelocKind::A64Ld64GotLo12,
        Reloc::Aarch64AdrPrelPgHi21 => RelocKind::A64AdrPrelPg21,
        Reloc::Aarch64AddAbsLo12Nc => RelocKind::A64AddLo12,
        Reloc::RiscvCallPlt => RelocKind::RvCallPlt,
        Reloc::RiscvGotHi20 => RelocKind::RvGotHi20,
        Reloc::RiscvPCRelHi20 => RelocKind::RvPcrelHi20,
        Reloc::RiscvPCRelLo12I => RelocKind::RvPcrelLo12I,
        // Thread-local symbols, which code reaches through two words of read-only data.
        Reloc::ElfX86_64TlsGd => RelocKind::X86Pc32,
        Reloc::Aarch64TlsDescAdrPage21 => RelocKind::A64AdrPrelPg21,
        Reloc::Aarch64TlsDescLd64Lo12 => RelocKind::A64Ld64Lo12,
        Reloc::Aarch64TlsDescAddLo12 => RelocKind::A64AddLo12,
        Reloc::RiscvTlsGdHi20 => RelocKind::RvPcrelHi20,
        Reloc::S390xTlsGd64 => RelocKind::ThreadLocal,
        Reloc::S390xPCRel32Dbl => RelocKind::S390xPc32Dbl,
        Reloc::S390xPLTRel32Dbl => RelocKind::S390xPlt32Dbl,
        _ => return None,
    })
}

/// Whether a relocation is about a thread-local symbol.
pub(crate) fn is_thread_local(reloc: Reloc) -> bool {
    matches!(
        reloc,
        Reloc::ElfX86_64TlsGd
            | Reloc::Aarch64TlsDescAdrPage21
            | Reloc::Aarch64TlsDescLd64Lo12
            | Reloc::Aarch64TlsDescAddLo12
            | Reloc::RiscvTlsGdHi20
            | Reloc::S390xTlsGd64
    )
}

/// Whether a relocation only marks a call that linkers may replace.
pub(crate) fn is_mark(reloc: Reloc) -> bool {
    matches!(reloc, Reloc::Aarch64TlsDescCall | Reloc::S390xTlsGdCall)
}

/// Returns Cranelift's relocation for `kind`, if Cranelift may resolve such a relocation inside a
/// module: if it is for a call or, on s390x, for a pc-relative address.
pub(crate) fn call(kind: RelocKind) -> Option<Reloc> {
    Some(match kind {
        RelocKind::X86Pc32 => Reloc::X86CallPCRel4,
        RelocKind::A64Call26 => Reloc::Arm64Call,
        RelocKind::RvCallPlt => Reloc::RiscvCallPlt,
        RelocKind::S390xPlt32Dbl => Reloc::S390xPLTRel32Dbl,
        RelocKind::S390xPc32Dbl => Reloc::S390xPCRel32Dbl,
        _ => return None,
    })
}

/// Returns the routine of the C library with this name, or `None` if Cranelift calls no such
/// routine.
pub(crate) fn libcall(name: &str) -> Option<LibCall> {
    LibCall::all_libcalls().iter().copied().find(|call| libcall_name(*call) == name)
}

/// Returns the C library's name of a routine that Cranelift's code calls.
pub(crate) fn libcall_name(call: LibCall) -> &'static str {
    match call {
        LibCall::Probestack => "__cranelift_probestack",
        LibCall::CeilF32 => "ceilf",
        LibCall::CeilF64 => "ceil",
        LibCall::FloorF32 => "floorf",
        LibCall::FloorF64 => "floor",
        LibCall::TruncF32 => "truncf",
        LibCall::TruncF64 => "trunc",
        LibCall::NearestF32 => "nearbyintf",
        LibCall::NearestF64 => "nearbyint",
        LibCall::FmaF32 => "fmaf",
        LibCall::FmaF64 => "fma",
        LibCall::Memcpy => "memcpy",
        LibCall::Memset => "memset",
        LibCall::Memmove => "memmove",
        LibCall::Memcmp => "memcmp",
        LibCall::ElfTlsGetAddr => "__tls_get_addr",
        LibCall::ElfTlsGetOffset => "__tls_get_offset",
        LibCall::X86Pshufb => "__cranelift_x86_pshufb",
    }
}
