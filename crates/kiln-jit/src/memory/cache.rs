//! Instruction caches that do not see what was written as data.
//!
//! x86-64 and s390x keep them coherent. riscv64 and aarch64 need instructions or a system call,
//! which the crate that cranelift-jit uses makes. On aarch64 that crate takes for granted that data
//! caches were cleaned to where instructions are fetched from, which not every core does by
//! itself, so that is done here first.

use wasmtime_internal_jit_icache_coherence::{clear_cache, pipeline_flush_mt};

use super::error::MemoryError;
use super::system::Refused;

/// Makes `len` bytes of code visible to instruction fetches of this processor: they are executed at
/// `address`, and were written at `writable`. [`flush_pipelines`] follows.
///
/// # Safety
///
/// Both ranges are mapped and readable.
pub(super) unsafe fn publish(address: *const u8, writable: *const u8, len: usize) -> Result<(), MemoryError> {
    // SAFETY: the caller promises that these bytes are mapped.
    unsafe {
        clean_data(writable, len);
        clear_cache(address.cast(), len).map_err(failed)
    }
}

/// Makes all processors that run this process fetch instructions anew.
pub(super) fn flush_pipelines() -> Result<(), MemoryError> {
    pipeline_flush_mt().map_err(failed)
}

fn failed(source: std::io::Error) -> MemoryError {
    Refused { call: "membarrier", purpose: "to refresh instruction caches", source }.into()
}

/// Writes `len` bytes from the data cache to where instructions are fetched from.
#[cfg(target_arch = "aarch64")]
unsafe fn clean_data(start: *const u8, len: usize) {
    let types: u64;
    // SAFETY: the register can be read in user mode.
    unsafe { std::arch::asm!("mrs {}, ctr_el0", out(reg) types, options(nomem, nostack)) };
    let line = 4_usize << (types >> 16 & 15);
    let end = start as usize + len;
    for address in (start as usize / line * line..end).step_by(line) {
        // SAFETY: the line has a byte that the caller promises is mapped.
        unsafe { std::arch::asm!("dc cvau, {}", in(reg) address, options(nostack)) };
    }
    // SAFETY: a barrier.
    unsafe { std::arch::asm!("dsb ish", options(nostack)) };
}

/// Does nothing: this architecture keeps its caches coherent, or one call does everything.
#[cfg(not(target_arch = "aarch64"))]
unsafe fn clean_data(_start: *const u8, _len: usize) {}
