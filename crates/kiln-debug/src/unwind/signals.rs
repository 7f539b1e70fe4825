//! Keeps signals away from a thread for a moment.

use std::mem::MaybeUninit;
use std::sync::atomic::AtomicBool;

/// Whether signal handlers unwind. It is set while the registry is locked.
pub(super) static IN_SIGNALS: AtomicBool = AtomicBool::new(false);

/// While it lives, no signal is delivered to this thread.
pub(super) struct Blocked {
    before: libc::sigset_t,
}

impl Blocked {
    /// Blocks all signals that can be blocked.
    pub(super) fn all() -> Self {
        let mut all = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: `sigfillset` fills the set, and `pthread_sigmask` reads it and fills the other.
        // It fails only for another first argument.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            Self { before: before.assume_init() }
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: it was filled by `pthread_sigmask`.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}
