//! Relocation kinds: how a site in code or data is patched with the address of a symbol.
//!
//! In the formulas `S` is the address of the symbol, `A` the addend, `P` the address of the patch
//! site, `G` the address of the symbol's GOT slot, and `Page(x)` is `x` with its low 12 bits
//! cleared. Sources: System V ABI, AMD64 supplement; ELF for the Arm 64-bit Architecture; RISC-V
//! ELF psABI; System/390 ELF supplement (z/Architecture).

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $width:literal, $slot:literal;)*) => {
        /// How a site is patched.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum RelocKind { $($(#[$doc])* $name = $value,)* }

        impl RelocKind {
            /// Every kind, in order of its code.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Returns the kind with this code, or `None` if there is none.
            #[inline]
            pub fn from_code(code: u8) -> Option<Self> {
                match code { $($value => Some(Self::$name),)* _ => None }
            }

            /// Returns the width of the patch site: the number of bytes, starting at the
            /// relocation's offset, that a linker reads or writes.
            #[inline]
            pub fn width(self) -> usize {
                match self { $(Self::$name => $width,)* }
            }

            /// Whether the site refers to the symbol's GOT slot rather than to the symbol.
            #[inline]
            pub fn uses_slot(self) -> bool {
                match self { $(Self::$name => $slot,)* }
            }
        }
    };
}

kinds! {
    /// `S + A`, 8 bytes: a relative or symbolic pointer, filled at load. Code has it only if it
    /// reaches globals directly.
    Abs64 = 1, 8, false;
    /// `S + A`, 4 bytes; the value must fit.
    Abs32 = 2, 4, false;
    /// Two words by which code finds the thread-local symbol in the block of its thread, filled at
    /// load: the number of the block and the symbol's offset in it, or on aarch64 a TLS descriptor.
    /// Only read-only data has it; the section of the symbol is `.tdata`.
    ThreadLocal = 3, 16, false;
    /// x86-64, `S + A - P`, 4 bytes: a call, jump or `lea`, depending on the opcode before the
    /// site.
    X86Pc32 = 16, 4, false;
    /// x86-64, `G + A - P`, 4 bytes: `mov reg, [rip + slot]`.
    X86GotPc32 = 17, 4, true;
    /// aarch64 `bl`/`b`: `(S + A - P) >> 2`, 26 bits.
    A64Call26 = 32, 4, false;
    /// aarch64 `adrp`: `Page(G + A) - Page(P)`, 21 bits of pages.
    A64AdrGotPage21 = 33, 4, true;
    /// aarch64 `ldr`: `(G + A)`, low 12 bits, scaled by 8.
    A64Ld64GotLo12 = 34, 4, true;
    /// aarch64 `adrp`: `Page(S + A) - Page(P)`, 21 bits of pages.
    A64AdrPrelPg21 = 35, 4, false;
    /// aarch64 `add`: `(S + A)`, low 12 bits.
    A64AddLo12 = 36, 4, false;
    /// aarch64 `ldr`: `(S + A)`, low 12 bits, scaled by 8.
    A64Ld64Lo12 = 37, 4, false;
    /// riscv64 `auipc` + `jalr`: `S + A - P`, 8 bytes of code.
    RvCallPlt = 48, 8, false;
    /// riscv64 `auipc`: high 20 bits of `G + A - P`, rounded.
    RvGotHi20 = 49, 4, true;
    /// riscv64 `auipc`: high 20 bits of `S + A - P`, rounded.
    RvPcrelHi20 = 50, 4, false;
    /// riscv64 I-type: low 12 bits of the `auipc` that the symbol names.
    RvPcrelLo12I = 51, 4, false;
    /// s390x, `(S + A - P) >> 1`, 4 bytes, big-endian.
    S390xPc32Dbl = 64, 4, false;
    /// s390x call, `(S + A - P) >> 1`, 4 bytes, big-endian; may go through a stub.
    S390xPlt32Dbl = 65, 4, false;
    /// s390x, `(G + A - P) >> 1`, 4 bytes, big-endian.
    S390xGotEnt = 66, 4, true;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_round_trip() {
        for &kind in RelocKind::ALL {
            assert_eq!(RelocKind::from_code(kind as u8), Some(kind));
        }
        assert_eq!(RelocKind::from_code(0), None);
    }
}
