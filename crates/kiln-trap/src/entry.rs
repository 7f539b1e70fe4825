//! The record of a caught call, on the stack of its caller: arguments, results, and what was
//! caught.
//!
//! The entry thunk keeps a pointer to it in its frame. So a signal handler that has found the
//! thunk's frame has found the place for its report as well, and a call needs no list of calls in a
//! thread-local value.

use std::mem::{MaybeUninit, offset_of};

use crate::arguments::Registers;
use crate::thread::Bounds;

/// The number of innermost return addresses that a report keeps.
pub(crate) const INNER: usize = 64;
/// The number of outermost return addresses that a report keeps.
pub(crate) const OUTER: usize = 32;

#[repr(C)]
pub(crate) struct Entry {
    pub(crate) registers: Registers,
    /// Of the thread's stack; a thread-local value.
    pub(crate) bounds: *const Bounds,
    /// Whether an exception that reaches the thunk is caught by it.
    pub(crate) catches_exceptions: bool,
    pub(crate) report: MaybeUninit<Report>,
    pub(crate) exception: MaybeUninit<[usize; 3]>,
}

#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "for the entry thunk"))]
pub(crate) const INTS: usize = offset_of!(Entry, registers.ints);
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "for the entry thunk"))]
pub(crate) const FLOATS: usize = offset_of!(Entry, registers.floats);
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "for the entry thunk"))]
pub(crate) const FLOAT_RESULT: usize = offset_of!(Entry, registers.float_result);

/// How a call ended, as the entry thunk returns it.
pub(crate) struct Outcome;

impl Outcome {
    pub(crate) const RETURNED: u64 = 0;
    /// [`Entry::report`] is filled in.
    pub(crate) const TRAPPED: u64 = 1;
    /// [`Entry::exception`] is filled in.
    pub(crate) const THREW: u64 = 2;
}

/// A trap, as a signal handler writes it down.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Report {
    pub(crate) signal: libc::c_int,
    pub(crate) pc: usize,
    /// The address that was accessed, for SIGSEGV and SIGBUS.
    pub(crate) address: usize,
    /// The record's trap code; 0 if the stack overflowed where there is no record.
    pub(crate) code: u8,
    pub(crate) overflow: bool,
    /// The number of return addresses on the way to the entry thunk.
    pub(crate) frames: usize,
    /// The first of them.
    pub(crate) inner: [usize; INNER],
    /// The last of the others: number `n` is at `n % OUTER`.
    pub(crate) outer: [usize; OUTER],
}

impl Report {
    pub(crate) fn push(&mut self, return_pc: usize) {
        match self.inner.get_mut(self.frames) {
            Some(place) => *place = return_pc,
            None => self.outer[(self.frames - INNER) % OUTER] = return_pc,
        }
        self.frames += 1;
    }

    /// Returns the return addresses that were kept, innermost first, and how many are missing
    /// behind the first of them, and behind how many.
    pub(crate) fn returns(&self) -> (Vec<usize>, usize, usize) {
        let inner = self.frames.min(INNER);
        let rest = self.frames - inner;
        let kept = rest.min(OUTER);
        let outer = (rest - kept..rest).map(|number| self.outer[number % OUTER]);
        (self.inner[..inner].iter().copied().chain(outer).collect(), inner, rest - kept)
    }
}
