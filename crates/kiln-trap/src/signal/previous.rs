//! Calls the handler that was there before, as the kernel would have called it.

use std::cell::UnsafeCell;
use std::mem::{MaybeUninit, transmute};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);

/// The action of a signal before ours.
pub(super) struct Previous {
    /// Written before our handler is installed, and not changed then.
    action: UnsafeCell<MaybeUninit<libc::sigaction>>,
    /// Whether a handler that wants to be called only once was called.
    used: AtomicBool,
}

// SAFETY: the cell is written by `install` only, which runs once, before anything reads it.
unsafe impl Sync for Previous {}

impl Previous {
    pub(super) const fn new() -> Self {
        Self { action: UnsafeCell::new(MaybeUninit::uninit()), used: AtomicBool::new(false) }
    }

    /// Installs `handler` for `signal`, and remembers the action that was there. Called once.
    pub(super) fn install(&self, signal: libc::c_int, handler: Handler) {
        // SAFETY: the pointers are to actions. The old action is written before the new one is
        // installed, so a signal on another thread finds it.
        unsafe {
            let old = (*self.action.get()).as_mut_ptr();
            assert!(libc::sigaction(signal, ptr::null(), old) == 0, "signal {signal} has no action");
            let mut new: libc::sigaction = std::mem::zeroed();
            new.sa_sigaction = handler as *const () as usize;
            // On the alternate stack, for stack overflows. A handler that was there before may jump
            // out, or trap again, so the signal is not blocked; `call` blocks what that handler
            // wants to have blocked. System calls are restarted if it wants that.
            new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            new.sa_flags |= (*old).sa_flags & libc::SA_RESTART;
            let installed = libc::sigaction(signal, &raw const new, ptr::null_mut());
            assert!(installed == 0, "no handler can be installed for signal {signal}");
        }
    }

    /// Does with a signal what would have been done without our handler.
    ///
    /// # Safety
    ///
    /// The arguments must be those of a signal handler, after `install`.
    pub(super) unsafe fn call(
        &self,
        signal: libc::c_int,
        info: *mut libc::siginfo_t,
        context: *mut libc::c_void,
    ) {
        // SAFETY: `install` has written it, and nothing changes it.
        let action = unsafe { (*self.action.get()).assume_init_ref() };
        // SAFETY: a handler's argument can be read.
        let sent = unsafe { (*info).si_code } <= 0;
        let once = action.sa_flags & libc::SA_RESETHAND != 0;
        let used = once && self.used.swap(true, Ordering::Relaxed);
        match action.sa_sigaction {
            libc::SIG_IGN if sent => return,
            handler if used || handler == libc::SIG_DFL || handler == libc::SIG_IGN => {
                // The kernel does not let a process ignore what an instruction raised. The
                // instruction is executed again, and the process ends with the right context. What
                // was sent, and what the processor does not repeat, is sent again.
                reset(signal);
                if sent || signal == libc::SIGTRAP {
                    // SAFETY: it sends a signal to this thread.
                    unsafe { libc::raise(signal) };
                }
                return;
            }
            _ => {}
        }
        // SAFETY: the masks are local. The handler has the type that its flags say.
        unsafe {
            let mut blocked = action.sa_mask;
            if action.sa_flags & libc::SA_NODEFER == 0 {
                libc::sigaddset(&raw mut blocked, signal);
            }
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const blocked, &raw mut before);
            if action.sa_flags & libc::SA_SIGINFO != 0 {
                transmute::<usize, Handler>(action.sa_sigaction)(signal, info, context);
            } else {
                transmute::<usize, extern "C" fn(libc::c_int)>(action.sa_sigaction)(signal);
            }
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
        }
    }
}

/// Makes the action of a signal the default one.
fn reset(signal: libc::c_int) {
    // SAFETY: a zeroed action is the default action with an empty mask.
    unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, &raw const default, ptr::null_mut());
    }
}
