//! The supported architectures, and how their ELF files differ.
//!
//! Everything here is a table; instruction encodings are in `link::relocate`.

use object::{Endianness, elf};

/// A processor architecture, named by the first part of a target triple.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Arch {
    /// x86-64.
    X86_64,
    /// 64-bit Arm, little-endian.
    Aarch64,
    /// 64-bit RISC-V.
    Riscv64,
    /// z/Architecture, big-endian.
    S390x,
}

impl Arch {
    /// Returns the architecture of this process, or `None` if it is not supported.
    pub fn host() -> Option<Self> {
        Self::from_triple(std::env::consts::ARCH)
    }

    /// Returns the architecture that a target triple names, or `None` if it is not supported. The
    /// variants with 32-bit pointers, `gnux32` and `gnu_ilp32`, are not supported.
    pub fn from_triple(triple: &str) -> Option<Self> {
        if triple.ends_with("x32") || triple.ends_with("ilp32") {
            return None;
        }
        // Splitting would look at every byte, and every small link asks.
        let begins = |name: &str| {
            triple.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        match triple.as_bytes().first()? {
            b'x' => begins("x86_64").then_some(Self::X86_64),
            b'a' => begins("aarch64").then_some(Self::Aarch64),
            b's' => begins("s390x").then_some(Self::S390x),
            _ => triple.starts_with("riscv64").then_some(Self::Riscv64),
        }
    }

    /// Returns whether this process can run code for a target triple, apart from the CPU features
    /// that the code may need.
    pub fn is_host(triple: &str) -> bool {
        let arch = Self::from_triple(triple);
        arch.is_some() && arch == Self::host() && triple.split('-').any(|part| part == "linux")
    }

    /// Returns the first part of a target triple of this architecture.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
            Self::Riscv64 => "riscv64",
            Self::S390x => "s390x",
        }
    }

    /// The alignment of segments, in bytes: the largest page size that Linux uses on the
    /// architecture.
    pub fn page_size(self) -> u64 {
        match self {
            Self::X86_64 | Self::Riscv64 | Self::S390x => 4096,
            Self::Aarch64 => 65536,
        }
    }

    /// Returns the ELF machine number.
    pub fn elf_machine(self) -> u16 {
        match self {
            Self::X86_64 => elf::EM_X86_64,
            Self::Aarch64 => elf::EM_AARCH64,
            Self::Riscv64 => elf::EM_RISCV,
            Self::S390x => elf::EM_S390,
        }
    }

    /// Returns the architecture with this ELF machine number.
    pub fn from_elf_machine(machine: u16) -> Option<Self> {
        [Self::X86_64, Self::Aarch64, Self::Riscv64, Self::S390x]
            .into_iter()
            .find(|arch| arch.elf_machine() == machine)
    }

    /// Returns the byte order of the architecture.
    pub(crate) fn endian(self) -> Endianness {
        match self {
            Self::S390x => Endianness::Big,
            _ => Endianness::Little,
        }
    }

    /// Returns the bytes of a 64-bit number in the byte order of the architecture.
    #[cfg(feature = "write")]
    pub(crate) fn u64_bytes(self, value: u64) -> [u8; 8] {
        match self {
            Self::S390x => value.to_be_bytes(),
            _ => value.to_le_bytes(),
        }
    }

    /// Returns the bytes of a number in the byte order of the architecture.
    pub(crate) fn u32_bytes(self, value: u32) -> [u8; 4] {
        match self {
            Self::S390x => value.to_be_bytes(),
            _ => value.to_le_bytes(),
        }
    }

    /// Returns the type of the dynamic relocation "base plus addend".
    #[cfg_attr(not(any(feature = "write", feature = "load")), expect(dead_code, reason = "for images only"))]
    pub(crate) fn relative_reloc(self) -> u32 {
        match self {
            Self::X86_64 => elf::R_X86_64_RELATIVE,
            Self::Aarch64 => elf::R_AARCH64_RELATIVE,
            Self::Riscv64 => elf::R_RISCV_RELATIVE,
            Self::S390x => elf::R_390_RELATIVE,
        }
    }

    /// Returns the type of the dynamic relocation for the words by which code finds thread-local
    /// data: of the first word "number of the block", or of both "TLS descriptor".
    #[cfg_attr(not(any(feature = "write", feature = "load")), expect(dead_code, reason = "for images only"))]
    pub(crate) fn thread_local_reloc(self) -> u32 {
        match self {
            Self::X86_64 => elf::R_X86_64_DTPMOD64,
            Self::Aarch64 => elf::R_AARCH64_TLSDESC,
            Self::Riscv64 => elf::R_RISCV_TLS_DTPMOD64,
            Self::S390x => elf::R_390_TLS_DTPMOD,
        }
    }
}

#[cfg(feature = "link")]
impl Arch {
    /// Returns the byte that fills the gaps between pieces of code, so that executing a gap traps.
    pub(crate) fn trap_byte(self) -> u8 {
        match self {
            Self::X86_64 => 0xcc,
            _ => 0, // `udf`, the all-zero illegal instruction, an invalid operation code
        }
    }

    /// The distance that a pc-relative reference to code or data reaches in both directions, in
    /// bytes.
    pub(crate) fn data_reach(self) -> u64 {
        match self {
            Self::X86_64 | Self::Riscv64 => 1 << 31,
            Self::Aarch64 | Self::S390x => 1 << 32,
        }
    }

    /// The distance that a direct call reaches in both directions, in bytes.
    pub(crate) fn call_reach(self) -> u64 {
        match self {
            Self::Aarch64 => 1 << 27,
            _ => self.data_reach(),
        }
    }
}

#[cfg(feature = "write")]
impl Arch {
    /// Returns the type of the dynamic relocation "address of a symbol" for a slot.
    pub(crate) fn glob_dat_reloc(self) -> u32 {
        match self {
            Self::X86_64 => elf::R_X86_64_GLOB_DAT,
            Self::Aarch64 => elf::R_AARCH64_GLOB_DAT,
            Self::Riscv64 => elf::R_RISCV_64, // RISC-V has no other
            Self::S390x => elf::R_390_GLOB_DAT,
        }
    }

    /// Returns the second word by which code finds the thread-local data at `offset` of its block,
    /// and the addend of the relocation.
    ///
    /// RISC-V counts from 2 KiB after the start of the block (psABI, "Dynamic Thread Vectors").
    pub(crate) fn thread_local_offset(self, offset: u64) -> (u64, u64) {
        match self {
            Self::X86_64 | Self::S390x => (offset, 0),
            Self::Riscv64 => (offset.wrapping_sub(0x800), 0),
            Self::Aarch64 => (0, offset),
        }
    }

    /// Returns the type of the dynamic relocation "address of a symbol plus addend".
    pub(crate) fn abs64_reloc(self) -> u32 {
        match self {
            Self::X86_64 => elf::R_X86_64_64,
            Self::Aarch64 => elf::R_AARCH64_ABS64,
            Self::Riscv64 => elf::R_RISCV_64,
            Self::S390x => elf::R_390_64,
        }
    }

    /// Returns the type of the relocation "address of a symbol plus addend" for 4 bytes.
    #[cfg(feature = "dwarf")]
    pub(crate) fn abs32_reloc(self) -> u32 {
        match self {
            Self::X86_64 => elf::R_X86_64_32,
            Self::Aarch64 => elf::R_AARCH64_ABS32,
            Self::Riscv64 => elf::R_RISCV_32,
            Self::S390x => elf::R_390_32,
        }
    }

    /// Returns `e_flags` of the ELF header, for code that uses `features`.
    pub(crate) fn elf_flags<'f>(self, mut features: impl Iterator<Item = &'f str>) -> u32 {
        match self {
            // Cranelift passes floats in registers. The flag for compressed instructions must be
            // set if any code has them.
            Self::Riscv64 => {
                let compressed = features.any(|feature| feature == "has_zca" || feature == "has_c");
                elf::EF_RISCV_FLOAT_ABI_DOUBLE | if compressed { elf::EF_RISCV_RVC } else { 0 }
            }
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_of_32_bits_are_other_architectures() {
        for triple in ["x86_64-unknown-linux-gnux32", "aarch64-unknown-linux-gnu_ilp32", "aarch64_be", ""] {
            assert_eq!(Arch::from_triple(triple), None, "{triple}");
        }
        assert_eq!(Arch::from_triple("riscv64gc-unknown-linux-gnu"), Some(Arch::Riscv64));
    }

    #[test]
    fn the_host_runs_code_for_linux_on_it() {
        let arch = std::env::consts::ARCH;
        assert!(Arch::is_host(&format!("{arch}-unknown-linux-musl")));
        assert!(!Arch::is_host(&format!("{arch}-apple-darwin")));
        assert!(!Arch::is_host(&format!("{arch}-unknown-linux-gnux32")));
        assert!(!Arch::is_host("mips-unknown-linux-gnu"));
    }
}
