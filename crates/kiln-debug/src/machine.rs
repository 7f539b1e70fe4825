//! The machine of this process, as ELF files name it.

/// The number of the machine.
pub(crate) const MACHINE: u16 = if cfg!(target_arch = "x86_64") {
    62
} else if cfg!(target_arch = "aarch64") {
    183
} else if cfg!(target_arch = "s390x") {
    22
} else if cfg!(target_arch = "riscv64") {
    243
} else {
    panic!("this architecture is not supported")
};

/// The flags of the machine: for RISC-V, that floats are passed in registers of 64 bits.
#[cfg(feature = "debugger")]
pub(crate) const FLAGS: u32 = if cfg!(target_arch = "riscv64") { 4 } else { 0 };
