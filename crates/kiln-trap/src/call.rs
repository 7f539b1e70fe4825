//! Calls that catch what compiled code raises.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;

use crate::arch;
use crate::arguments::{Arguments, Callee, Output, Registers};
use crate::entry::{Entry, Outcome};
use crate::signal;
use crate::thread;
use crate::throw::Exception;
use crate::trap::Trap;

/// Says why a call has no result.
#[derive(Debug)]
#[non_exhaustive]
pub enum Caught {
    /// The code trapped.
    Trap(Box<Trap>),
    /// The code threw an exception for which it has no handler. Only [`call_and_catch`] returns it.
    Exception(Exception),
    /// Nothing was called: the system gave this thread no memory for an alternate stack.
    Thread(io::Error),
    /// Nothing was called: this machine is not one that [is supported](crate::SUPPORTED).
    Unsupported {
        /// Its architecture.
        arch: &'static str,
    },
}

impl fmt::Display for Caught {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trap(trap) => trap.fmt(f),
            Self::Exception(exception) => write!(f, "exception with tag {}", exception.tag),
            Self::Unsupported { arch } => arch::refuse(f, arch),
            Self::Thread(_) => write!(f, "no memory for an alternate stack of this thread"),
        }
    }
}

impl std::error::Error for Caught {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Thread(error) => Some(error),
            _ => None,
        }
    }
}

/// Calls compiled code, and returns an error if it traps.
///
/// `callee` is an `extern "C"` or `extern "C-unwind"` function pointer with up to six arguments:
/// integers, pointers, `f32` and `f64`. Any other signature is called through a thunk of the client
/// that takes a pointer to the values, as `kiln::Thunk` does; the thunk must be registered code.
///
/// A trap is caught if the code between it and this call is all registered: nothing of the host is
/// left without being dropped. If code calls the host and that calls code again, the inner call
/// should be such a call, too. Exceptions and panics pass through a call.
///
/// The first call of a process installs the signal handlers ([`install`](crate::install)), and the
/// first call of a thread gives it an alternate stack.
///
/// # Errors
///
/// [`Caught::Trap`], or [`Caught::Thread`] or [`Caught::Unsupported`] if nothing was called.
///
/// # Safety
///
/// The function must have the signature of `callee`, and its code must be sound for these
/// arguments.
pub unsafe fn call<F: Callee<A>, A: Arguments>(callee: F, arguments: A) -> Result<F::Output, Caught> {
    // SAFETY: the caller promises the same.
    unsafe { run(callee.address(), arguments, false) }
}

/// Calls compiled code, and returns an error if it traps or throws.
///
/// This is [`call`], but exceptions end here: one for which the code has no handler is an error of
/// this call, whatever its tag, and does not look for a handler outside.
///
/// # Errors
///
/// Those of [`call`], and [`Caught::Exception`].
///
/// # Safety
///
/// As for [`call`].
pub unsafe fn call_and_catch<F: Callee<A>, A: Arguments>(
    callee: F,
    arguments: A,
) -> Result<F::Output, Caught> {
    // SAFETY: the caller promises the same.
    unsafe { run(callee.address(), arguments, true) }
}

/// # Safety
///
/// As for [`call`].
#[inline]
unsafe fn run<A: Arguments, R: Output>(
    callee: *const u8,
    arguments: A,
    catches_exceptions: bool,
) -> Result<R, Caught> {
    if !arch::SUPPORTED {
        return Err(Caught::Unsupported { arch: std::env::consts::ARCH });
    }
    let bounds = thread::prepare(signal::install).map_err(Caught::Thread)?;
    let mut entry = Entry {
        registers: Registers::new(),
        bounds,
        catches_exceptions,
        report: MaybeUninit::uninit(),
        exception: MaybeUninit::uninit(),
    };
    arguments.store(&mut entry.registers);
    // SAFETY: the caller promises that the function takes what was stored. The entry lives until
    // the thunk returns, and is used by this thread only.
    let returned = unsafe { arch::enter(callee, &raw mut entry, A::HAS_FLOATS.into()) };
    match returned.outcome {
        Outcome::RETURNED => {
            // SAFETY: the function has returned, and the thunk has stored the register.
            let float = unsafe { entry.registers.float_result.assume_init() };
            Ok(R::from_results([returned.result, float]))
        }
        outcome => Err(caught(outcome, &entry)),
    }
}

#[cold]
fn caught(outcome: u64, entry: &Entry) -> Caught {
    match outcome {
        Outcome::TRAPPED => {
            // SAFETY: who returns this outcome has written the report.
            Caught::Trap(Box::new(Trap::new(unsafe { entry.report.assume_init_ref() })))
        }
        _ => {
            // SAFETY: as above, the exception.
            let [tag, first, second] = unsafe { entry.exception.assume_init() };
            Caught::Exception(Exception { tag: tag as u32, payload: [first, second] })
        }
    }
}
