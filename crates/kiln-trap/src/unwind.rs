//! The system's unwinder (libgcc or libunwind), which the Rust runtime links: the functions that
//! the Itanium C++ ABI names, level I.

use std::ffi::{c_int, c_void};

/// A frame that the unwinder is at.
#[repr(C)]
pub(crate) struct Context {
    _opaque: [u8; 0],
}

/// The header of an exception object.
#[repr(C, align(16))]
pub(crate) struct ExceptionHeader {
    pub(crate) class: u64,
    pub(crate) cleanup: Option<extern "C" fn(c_int, *mut Self)>,
    pub(crate) private: [usize; 6],
}

pub(crate) const NO_REASON: c_int = 0;
pub(crate) const NORMAL_STOP: c_int = 4;
pub(crate) const END_OF_STACK: c_int = 5;
/// The action that tells a stop function that there are no more frames.
pub(crate) const ACTION_END_OF_STACK: c_int = 16;

pub(crate) type Stop =
    extern "C-unwind" fn(c_int, c_int, u64, *mut ExceptionHeader, *mut Context, *mut c_void) -> c_int;

unsafe extern "C-unwind" {
    pub(crate) fn _Unwind_ForcedUnwind(
        exception: *mut ExceptionHeader,
        stop: Stop,
        argument: *mut c_void,
    ) -> c_int;
}

unsafe extern "C" {
    pub(crate) fn _Unwind_Backtrace(
        visit: extern "C" fn(*mut Context, *mut c_void) -> c_int,
        argument: *mut c_void,
    ) -> c_int;
    fn _Unwind_GetIPInfo(context: *mut Context, before: *mut c_int) -> usize;
    fn _Unwind_GetCFA(context: *mut Context) -> usize;
    fn _Unwind_GetGR(context: *mut Context, register: c_int) -> usize;
    fn _Unwind_GetLanguageSpecificData(context: *mut Context) -> *const u8;
    fn _Unwind_GetRegionStart(context: *mut Context) -> usize;
}

/// A frame that the unwinder is at, while it calls back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame(*mut Context);

impl Frame {
    /// # Safety
    ///
    /// `context` must be what the unwinder has passed to the function that runs.
    pub(crate) unsafe fn new(context: *mut Context) -> Self {
        Self(context)
    }

    /// Returns the address where the frame continues, and whether the instruction before it is the
    /// one that is being executed (a call), not the one at it (a signal).
    pub(crate) fn pc(self) -> (usize, bool) {
        let mut before = 0;
        // SAFETY: the context is valid, as `new` demands.
        let pc = unsafe { _Unwind_GetIPInfo(self.0, &raw mut before) };
        (pc, before == 0)
    }

    /// Returns an address in the instruction that is being executed.
    pub(crate) fn inside(self) -> usize {
        let (pc, after) = self.pc();
        pc.wrapping_sub(usize::from(after))
    }

    /// Returns a register by DWARF's number. It must be one that a callee saves.
    pub(crate) fn saved_register(self, register: c_int) -> usize {
        // SAFETY: as above. The unwinder knows all registers that callees save.
        unsafe { _Unwind_GetGR(self.0, register) }
    }

    /// Returns the stack pointer after the call that the frame is in.
    pub(crate) fn sp(self) -> usize {
        // SAFETY: as above.
        unsafe { _Unwind_GetCFA(self.0) }
    }

    /// Returns the function's language-specific data, which may be null.
    pub(crate) fn language_data(self) -> *const u8 {
        // SAFETY: as above.
        unsafe { _Unwind_GetLanguageSpecificData(self.0) }
    }

    /// Returns the start of the function.
    pub(crate) fn function_start(self) -> usize {
        // SAFETY: as above.
        unsafe { _Unwind_GetRegionStart(self.0) }
    }
}
