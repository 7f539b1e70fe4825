//! A machine for which this crate has no entry thunk and does not know the frames of code. It
//! compiles, so that what depends on it does, and refuses: no code can be registered and none
//! called, so nothing here is executed.

use crate::entry::Entry;

pub(crate) const SUPPORTED: bool = false;

/// Is the message of all functions that need registered code.
const NOTHING: &str = "no code is registered on this machine";

pub(crate) const DWARF_FP: i32 = 0;
pub(crate) const DWARF_SAVED: [i32; 5] = [0; 5];
pub(crate) const ENTRY_OFFSET: usize = 0;

pub(crate) fn dwarf_of_saved(_hardware: u8) -> Option<i32> {
    None
}

/// As on machines that are supported.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Returned {
    pub(crate) result: u64,
    pub(crate) outcome: u64,
}

/// # Safety
///
/// It is safe, and panics.
pub(crate) unsafe fn enter(_callee: *const u8, _entry: *mut Entry, _floats: u32) -> Returned {
    unreachable!("{NOTHING}")
}

pub(crate) fn entry_payload(outcome: u64) -> [usize; 2] {
    [0, outcome as usize]
}

/// Returns an address to which nothing returns.
pub(crate) fn entry_return() -> usize {
    usize::MAX
}

pub(crate) fn entry_handler() -> usize {
    usize::MAX
}

/// As on machines that are supported.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "nothing continues anywhere")]
pub(crate) struct Resume {
    pub(crate) pc: usize,
    pub(crate) sp: usize,
    pub(crate) fp: usize,
    pub(crate) payload: [usize; 2],
    pub(crate) saved: [usize; 5],
}

/// # Safety
///
/// It is safe, and panics.
pub(crate) unsafe fn resume(target: &Resume) -> ! {
    unreachable!("{NOTHING}: {target:?}")
}

/// As on machines that are supported.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "no code is interrupted")]
pub(crate) struct Interrupted {
    pub(crate) pc: usize,
    pub(crate) sp: usize,
    pub(crate) fp: usize,
}

/// Returns a place at which there is no code.
///
/// # Safety
///
/// It is safe.
pub(crate) unsafe fn interrupted(_signal: libc::c_int, _context: *const libc::c_void) -> Interrupted {
    Interrupted { pc: 0, sp: 0, fp: 0 }
}

/// # Safety
///
/// It is safe, and panics.
pub(crate) unsafe fn continue_at(
    _context: *mut libc::c_void,
    _pc: usize,
    _sp: usize,
    _fp: usize,
    _outcome: u64,
) {
    unreachable!("{NOTHING}")
}

/// # Safety
///
/// It is safe, and panics.
pub(crate) unsafe fn caller(at: &Interrupted, _start: usize) -> (*const usize, usize) {
    unreachable!("{NOTHING}: {at:?}")
}

/// # Safety
///
/// It is safe, and panics.
pub(crate) unsafe fn parent(_fp: usize) -> (usize, usize) {
    unreachable!("{NOTHING}")
}
