//! The signal handler, and the handlers that were there before.
//!
//! A signal is ours if all of this holds: the processor raised it, in a function of registered
//! code; the instruction has a trap record, or the access was to the guard of the thread's stack;
//! and between it and an entry thunk are compiled frames only. Then execution continues at the
//! thunk's handler. Every other signal goes to the handler that was there before, as if ours were
//! not there.
//!
//! On the way nothing is allocated and no lock is taken. The thunk is found by walking frame
//! pointers, and its `Entry` is found in its frame.

mod previous;

use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::sync::Once;

use self::previous::Previous;
use crate::arch::{self, ENTRY_OFFSET};
use crate::entry::{Entry, INNER, OUTER, Outcome, Report};
use crate::registry;
use crate::walk::{self, Parent};

/// The signals that compiled code can raise.
pub(crate) const SIGNALS: [libc::c_int; 5] =
    [libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGSEGV, libc::SIGBUS];

static PREVIOUS: [Previous; SIGNALS.len()] = [const { Previous::new() }; SIGNALS.len()];

/// Installs the handlers, the first time.
///
/// [`call`](crate::call) does it. A program that installs handlers of its own decides by this who
/// is asked first: whoever is installed last. On a machine that is not
/// [supported](crate::SUPPORTED), nothing is installed.
pub fn install() {
    static ONCE: Once = Once::new();
    if !arch::SUPPORTED {
        return;
    }
    ONCE.call_once(|| {
        for (signal, previous) in SIGNALS.into_iter().zip(&PREVIOUS) {
            previous.install(signal, handle);
        }
    });
}

extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // A handler must leave `errno` as it was.
    // SAFETY: the location is this thread's, always.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: the kernel, or a handler that passes its arguments on, calls with these.
    if !unsafe { is_trap(signal, info, context) }
        && let Some(index) = SIGNALS.iter().position(|&one| one == signal)
    {
        // SAFETY: as above.
        unsafe { PREVIOUS[index].call(signal, info, context) };
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Makes the thread continue at the handler of the entry thunk, if the signal is a trap of compiled
/// code.
///
/// # Safety
///
/// The arguments must be those of a signal handler.
unsafe fn is_trap(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) -> bool {
    // SAFETY: a handler's arguments can be read.
    let (sent, at) = unsafe { ((*info).si_code <= 0, arch::interrupted(signal, context)) };
    // A signal that a process sent has nothing to do with the instruction.
    if sent {
        return false;
    }
    let found = registry::at(at.pc, |code| {
        let mut start = None;
        code.function_at(at.pc, &mut |function| start = Some(function.start));
        start.map(|start| (start, code.trap_at(at.pc)))
    });
    let Some((start, record)) = found.flatten() else { return false };
    let access = matches!(signal, libc::SIGSEGV | libc::SIGBUS);
    // SAFETY: these signals have an address.
    let address = if access { unsafe { (*info).si_addr() }.addr() } else { 0 };
    let mut report = Report {
        signal,
        pc: at.pc,
        address,
        code: record.unwrap_or(0),
        overflow: false,
        frames: 0,
        inner: [0; INNER],
        outer: [0; OUTER],
    };
    let mut thunk = None;
    // SAFETY: the instruction is in code whose frames are as `CodeLookup` promises.
    unsafe {
        walk::from_trap(&at, start, &mut |parent| {
            match parent {
                Parent::Code { return_pc, .. } => report.push(return_pc),
                Parent::Thunk { fp } => thunk = Some(fp),
            }
            ControlFlow::Continue(())
        });
    }
    let Some(thunk) = thunk else { return false };
    // SAFETY: it is the frame of an entry thunk, which keeps the pointer to its entry there. Its
    // caller waits for it, with the entry. At the handler, registers have these values.
    unsafe {
        let entry = *((thunk - ENTRY_OFFSET) as *const *mut Entry);
        report.overflow = access && (*(*entry).bounds).is_overflow(address);
        if record.is_none() && !report.overflow {
            return false;
        }
        (&raw mut (*entry).report).write(MaybeUninit::new(report));
        arch::continue_at(context, arch::entry_handler(), thunk - ENTRY_OFFSET, thunk, Outcome::TRAPPED);
    }
    true
}
