//! Exceptions: from host or compiled code to the handlers of `try_call`.
//!
//! A throw has two phases. The first looks for a handler and changes nothing, so a throw without a
//! handler is an error value for the thrower. The second lets the system's unwinder leave frame
//! after frame (`_Unwind_ForcedUnwind`), because frames of the host have destructors, until it is
//! at the handler's frame. There execution continues at the handler, with the registers that the
//! unwinder has recovered for that frame.
//!
//! # Why forced unwinding?
//!
//! `_Unwind_RaiseException` asks the personality of each frame for a handler, and compiled frames
//! have none: their handlers are in tables of ours. Jumping over frames is what wasmtime does, and
//! demands that no frame of the host has a destructor.
//!
//! A frame of the host that catches panics would end the process if it met this exception. The
//! search finds such frames in their tables, and the throw is an error.

use std::ffi::{c_int, c_void};
use std::ops::ControlFlow;

use crate::arch::{self, DWARF_FP, DWARF_SAVED, ENTRY_OFFSET, Resume};
use crate::code::HandlerInfo;
use crate::entry::{Entry, Outcome};
use crate::language_data::{Passage, passage};
use crate::registry;
use crate::unwind::{self, ACTION_END_OF_STACK, Context, ExceptionHeader, Frame};
use crate::walk::{self, Step};

/// An exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Decides which handlers are for it.
    pub tag: u32,
    /// The two values that the handler's block receives (`exn0` and `exn1` in Cranelift's text).
    pub payload: [usize; 2],
}

/// The tag of a handler, with the context in which the handler's function reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandlerTag {
    /// The tag.
    pub tag: u32,
    /// The value of the context entry before it, if there is one that can be read: a pointer to the
    /// instance whose tags these are, for example.
    pub context: Option<usize>,
}

/// Says why an exception was not thrown. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ThrowError {
    /// No frame on the stack has a handler for it.
    NoHandler,
    /// There is a handler, but a function of the host on the way to it catches panics
    /// (`catch_unwind`), and would end the process.
    Blocked {
        /// An address in that function.
        pc: usize,
    },
    /// The system's unwinder failed.
    Unwinder {
        /// The reason code that it returned.
        code: i32,
    },
}

impl std::fmt::Display for ThrowError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoHandler => write!(f, "no frame has a handler for the exception"),
            Self::Blocked { pc } => {
                write!(
                    f,
                    "the function at {pc:#x} is between the exception and its handler, and cannot unwind"
                )
            }
            Self::Unwinder { code } => write!(f, "the system's unwinder failed with code {code}"),
        }
    }
}

impl std::error::Error for ThrowError {}

/// Throws an exception to the first handler of its tag, or of all tags.
///
/// Returns only if there is no such handler.
///
/// # Safety
///
/// As for [`throw_to`].
pub unsafe fn throw(exception: Exception) -> ThrowError {
    let Exception { tag, payload } = exception;
    // SAFETY: the caller promises the same.
    unsafe { throw_to(tag, payload, &mut |handler| handler.tag == tag) }
}

/// Throws an exception to the first handler that `matches` accepts, or that is for all tags.
///
/// `matches` must not take back a [`Registration`](crate::Registration). `tag` is what
/// [`call_and_catch`](crate::call_and_catch) returns, which catches every exception. Returns only
/// if there is no such handler.
///
/// # Safety
///
/// The handler's block must expect these payloads. Frames of the host between the handler and this
/// call are unwound as by a foreign exception: their destructors run, and an `extern "C"` function
/// ends the process, so a function that throws or lets exceptions pass is `extern "C-unwind"`.
pub unsafe fn throw_to(
    tag: u32,
    payload: [usize; 2],
    matches: &mut dyn FnMut(HandlerTag) -> bool,
) -> ThrowError {
    let here = 0u8;
    let target = match search((&raw const here).addr(), tag, payload, matches) {
        Ok(target) => target,
        Err(error) => return error,
    };
    // On the heap, because destructors run on the stack below the frames that are left.
    let flight = Box::into_raw(Box::new(Flight {
        header: ExceptionHeader { class: u64::from_be_bytes(*b"KILNTRAP"), cleanup: None, private: [0; 6] },
        target,
    }));
    // SAFETY: the exception lives until `stop` has arrived, which frees it. The caller promises
    // that the frames may be unwound.
    let code = unsafe { unwind::_Unwind_ForcedUnwind(&raw mut (*flight).header, stop, flight.cast()) };
    // It returns only if the first frame could not be unwound.
    // SAFETY: it was made above, and nobody else has it.
    drop(unsafe { Box::from_raw(flight) });
    ThrowError::Unwinder { code }
}

/// Throws an exception from compiled code, which imports this function with the signature
/// `(i32, i64, i64) -> i32 system_v`.
///
/// Returns 1 if there is no handler, 2 if a function of the host is in the way, and 3 if the
/// unwinder failed.
///
/// # Safety
///
/// As for [`throw_to`].
pub unsafe extern "C-unwind" fn throw_from_code(tag: u32, first: usize, second: usize) -> u32 {
    // SAFETY: the caller promises the same.
    match unsafe { throw(Exception { tag, payload: [first, second] }) } {
        ThrowError::NoHandler => 1,
        ThrowError::Blocked { .. } => 2,
        ThrowError::Unwinder { .. } => 3,
    }
}

/// An exception on its way.
#[repr(C)]
struct Flight {
    header: ExceptionHeader,
    target: Target,
}

/// The frame of a handler.
#[derive(Clone, Copy, Debug)]
struct Target {
    /// The address to which the frame's call returns.
    return_pc: usize,
    /// The last compiled frame that the unwinder can come to, if it cannot come to the handler's.
    last: Option<(usize, usize)>,
    resume: Resume,
    /// The record of the thunk's caller, and what it is told.
    thunk: Option<(*mut Entry, [usize; 3])>,
}

/// Looks for a handler. Frames at `below` and deeper are those of this file.
fn search(
    below: usize,
    tag: u32,
    payload: [usize; 2],
    matches: &mut dyn FnMut(HandlerTag) -> bool,
) -> Result<Target, ThrowError> {
    let mut found = None;
    let mut blocked = None;
    let mut last = None;
    walk::stack(&mut |step| {
        match step {
            Step::Host(frame) => {
                let outside = frame.sp() > below;
                if blocked.is_none() && outside && passage(frame) == Passage::Blocked {
                    blocked = Some(frame.inside());
                }
            }
            Step::Code { return_pc, fp, frame } => {
                if frame.is_some() {
                    last = Some((return_pc, fp));
                }
                let handler = handler_at(return_pc, fp, frame, matches);
                found = handler.map(|(pc, sp)| Target {
                    return_pc,
                    last,
                    resume: Resume { pc, sp, fp, payload, saved: [0; DWARF_SAVED.len()] },
                    thunk: None,
                });
            }
            Step::Thunk { fp } => {
                // SAFETY: it is the frame of an entry thunk, which keeps the pointer to its entry
                // there. The thunk's caller waits for it, with the entry.
                let (entry, catches) = unsafe {
                    let entry = *((fp - ENTRY_OFFSET) as *const *mut Entry);
                    (entry, (*entry).catches_exceptions)
                };
                found = catches.then(|| Target {
                    return_pc: arch::entry_return(),
                    last,
                    resume: Resume {
                        pc: arch::entry_handler(),
                        sp: fp - ENTRY_OFFSET,
                        fp,
                        payload: arch::entry_payload(Outcome::THREW),
                        saved: [0; DWARF_SAVED.len()],
                    },
                    thunk: Some((entry, [tag as usize, payload[0], payload[1]])),
                });
            }
        }
        if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    match (found, blocked) {
        (Some(_), Some(pc)) => Err(ThrowError::Blocked { pc }),
        (Some(target), None) => Ok(target),
        (None, _) => Err(ThrowError::NoHandler),
    }
}

/// Returns the address of the handler of a compiled frame, and the stack pointer there.
fn handler_at(
    return_pc: usize,
    fp: usize,
    frame: Option<Frame>,
    matches: &mut dyn FnMut(HandlerTag) -> bool,
) -> Option<(usize, usize)> {
    registry::at(return_pc - 1, |code| {
        let sp = fp - code.call_at(return_pc)?.frame_offset? as usize;
        let (mut context, mut found) = (None, None);
        code.handlers_at(return_pc, &mut |entry| {
            match entry {
                HandlerInfo::Tag { tag, target } if matches(HandlerTag { tag, context }) => {
                    found = Some((target, sp));
                }
                HandlerInfo::Tag { .. } => {}
                HandlerInfo::Default { target } => found = Some((target, sp)),
                HandlerInfo::ContextOnStack(offset) => {
                    // SAFETY: `CodeLookup` promises that it is there, in a frame that waits.
                    context = Some(unsafe { *((sp + offset as usize) as *const usize) });
                }
                HandlerInfo::ContextInRegister(register) => {
                    let register = arch::dwarf_of_saved(register);
                    context = frame.and_then(|frame| Some(frame.saved_register(register?)));
                }
            }
            if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        found
    })
    .flatten()
}

/// The stop function: called with each frame, before it is left.
extern "C-unwind" fn stop(
    _version: c_int,
    actions: c_int,
    _class: u64,
    _exception: *mut ExceptionHeader,
    context: *mut Context,
    flight: *mut c_void,
) -> c_int {
    // SAFETY: the unwinder passes on the flight of this throw, and a context that is valid now.
    let (frame, target) = unsafe { (Frame::new(context), (*flight.cast::<Flight>()).target) };
    let at = (frame.pc().0, frame.saved_register(DWARF_FP));
    let mut resume = target.resume;
    if at == (target.return_pc, resume.fp) {
        resume.saved = DWARF_SAVED.map(|register| frame.saved_register(register));
    } else if target.last != Some(at) || actions & ACTION_END_OF_STACK == 0 {
        return unwind::NO_REASON;
    }
    // SAFETY: the unwinder is done with the exception, which nobody else has. The search found the
    // handler for this frame, and all frames of the host below it are left. This function owns
    // nothing any more.
    unsafe {
        drop(Box::from_raw(flight.cast::<Flight>()));
        if let Some((entry, exception)) = target.thunk {
            (&raw mut (*entry).exception).write(std::mem::MaybeUninit::new(exception));
        }
        arch::resume(&resume)
    }
}
