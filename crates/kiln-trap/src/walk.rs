//! Walks over stacks: by frame pointers through compiled frames, and by the system's unwinder
//! through frames of all kinds.

use std::ffi::{c_int, c_void};
use std::ops::ControlFlow;

use crate::arch::{self, DWARF_FP, Interrupted};
use crate::registry;
use crate::unwind::{self, Context, Frame};

/// A frame that waits for a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Parent {
    /// A compiled frame.
    Code { return_pc: usize, fp: usize },
    /// The frame of an entry thunk.
    Thunk { fp: usize },
}

/// Visits the callers of code that a signal has interrupted, up to the first that is not compiled.
/// Safe in a signal handler.
///
/// # Safety
///
/// The registers must be those of registered code, in a function that starts at `start`.
pub(crate) unsafe fn from_trap(
    at: &Interrupted,
    start: usize,
    visit: &mut dyn FnMut(Parent) -> ControlFlow<()>,
) {
    // SAFETY: the caller promises that the frames are as `CodeLookup` says. Each step reads the
    // frame of a function that waits for a call, so it has a frame.
    unsafe {
        let (slot, fp) = arch::caller(at, start);
        parents(*slot, fp, slot.addr(), visit);
    }
}

/// Visits the frame that continues at `return_pc` with this frame pointer, and its callers, up to
/// the first that is not compiled.
///
/// # Safety
///
/// The frame must be on this thread's stack, above `below`.
unsafe fn parents(
    mut return_pc: usize,
    mut fp: usize,
    mut below: usize,
    visit: &mut dyn FnMut(Parent) -> ControlFlow<()>,
) {
    loop {
        let is_thunk = return_pc == arch::entry_return();
        // Frame pointers of the host are not followed: it may use the register for other values.
        if !is_thunk && !registry::returns_to_code(return_pc) {
            return;
        }
        // Should code break its promise, the walk ends and does not turn in a circle.
        if fp <= below || !fp.is_multiple_of(align_of::<usize>()) {
            return;
        }
        if is_thunk {
            let _ = visit(Parent::Thunk { fp });
            return;
        }
        if visit(Parent::Code { return_pc, fp }).is_break() {
            return;
        }
        below = fp;
        // SAFETY: the frame is compiled and waits for a call, so its frame pointer is set up.
        (return_pc, fp) = unsafe { arch::parent(fp) };
    }
}

/// A frame of this thread's stack.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// A frame of the host.
    Host(Frame),
    /// A compiled frame, and the unwinder's view of it, if the unwinder can see it.
    Code { return_pc: usize, fp: usize, frame: Option<Frame> },
    /// The frame of an entry thunk.
    Thunk { fp: usize },
}

/// Visits the frames of this thread's stack, from the caller of this function outwards, until
/// `visit` breaks.
///
/// Compiled frames without unwind rows are visited, but the walk cannot go on behind their entry
/// thunk.
pub(crate) fn stack(visit: &mut dyn FnMut(Step) -> ControlFlow<()>) {
    struct State<'a> {
        visit: &'a mut dyn FnMut(Step) -> ControlFlow<()>,
        broken: bool,
        /// The last frame, if it is compiled.
        last: Option<(usize, usize)>,
    }

    extern "C" fn each(context: *mut Context, state: *mut c_void) -> c_int {
        // SAFETY: the unwinder passes on what `stack` gave it, and a context that is valid now.
        let (state, frame) = unsafe { (&mut *state.cast::<State<'_>>(), Frame::new(context)) };
        let (pc, after_call) = frame.pc();
        state.last = None;
        let step = if pc == arch::entry_return() {
            Step::Thunk { fp: frame.saved_register(DWARF_FP) }
        } else if registry::at(frame.inside(), |_| ()).is_some() && after_call {
            let fp = frame.saved_register(DWARF_FP);
            state.last = Some((pc, fp));
            Step::Code { return_pc: pc, fp, frame: Some(frame) }
        } else {
            Step::Host(frame)
        };
        state.broken = (state.visit)(step).is_break();
        if state.broken { unwind::NORMAL_STOP } else { unwind::NO_REASON }
    }

    let mut state = State { visit, broken: false, last: None };
    // SAFETY: the callback gets the state that it expects, and both live until the call returns.
    let result = unsafe { unwind::_Unwind_Backtrace(each, (&raw mut state).cast()) };
    // The unwinder has no rows of this frame; but its frame pointer leads on.
    if let (false, unwind::END_OF_STACK, Some((return_pc, fp))) = (state.broken, result, state.last) {
        let mut first = true;
        // SAFETY: the unwinder found this compiled frame on this thread's stack.
        unsafe {
            parents(return_pc, fp, fp - 1, &mut |parent| {
                if std::mem::take(&mut first) {
                    return ControlFlow::Continue(());
                }
                match parent {
                    Parent::Code { return_pc, fp } => {
                        (state.visit)(Step::Code { return_pc, fp, frame: None })
                    }
                    Parent::Thunk { fp } => (state.visit)(Step::Thunk { fp }),
                }
            });
        }
    }
}
