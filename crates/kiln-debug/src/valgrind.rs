//! Tells valgrind that code has changed.
//!
//! valgrind translates code once. It notices changes of code in memory that no file is mapped to.
//! Code that is written through a second mapping of a `memfd` is in a file, so new code at an
//! address that was used before would be the old code, unless valgrind is told.

use std::ops::Range;

/// Discards what valgrind has translated of a range of addresses. Without valgrind, this costs a
/// few instructions.
#[inline]
pub fn discard(code: &Range<usize>) {
    /// `VG_USERREQ__DISCARD_TRANSLATIONS` in `valgrind.h`.
    const DISCARD: usize = 0x1002;
    let request = [DISCARD, code.start, code.len(), 0, 0, 0];
    // The sequences are those of `valgrind.h`. They change nothing on a processor: the rotations
    // add up to whole turns.
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as above; valgrind reads the request and changes the result.
    unsafe {
        std::arch::asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") request.as_ptr(),
            inlateout("rdx") 0usize => _,
            options(nostack, readonly),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!(
            "ror x12, x12, #3",
            "ror x12, x12, #13",
            "ror x12, x12, #51",
            "ror x12, x12, #61",
            "orr x10, x10, x10",
            in("x4") request.as_ptr(),
            inlateout("x3") 0usize => _,
            options(nostack, readonly),
        );
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = request;
}
