//! Runs code that a compiler made at run time, so that its traps are errors, its exceptions are
//! caught, its references are found, and backtraces name its functions.
//!
#![doc = include_str!("../README.md")]
//!
//! # What is in it?
//!
//! - [`call`] calls a function. A trap, a stack overflow or a bad access in it comes back as a
//!   [`Trap`]: reason, function, source and backtrace.
//! - [`throw`] takes an exception to a handler of Cranelift's `try_call`, from host or code,
//!   through frames of both. Destructors run.
//! - [`roots`] visits the live references in the frames of code, for a garbage collector.
//! - [`Backtrace::capture`] names compiled frames among those of the host.
//!
//! # What must a client do?
//!
//! - Compile as it likes: no setting is needed. Probes (`enable_probestack`) make sure that a large
//!   frame does not jump over the guard of the stack.
//! - Register unwind rows with the system's unwinder, for panics and exceptions that go through
//!   several calls, for backtraces that go on behind the code, and for [`roots`].
//! - Enter code through [`call`] wherever a trap is to be caught. A trap is not caught through
//!   frames of the host, since their destructors would not run.
//! - Stop a function that runs too long by a flag that its loops check (`trapnz`), or by fuel: the
//!   trap comes back as any other.
//!
//! # How it works
//!
//! `call` goes through an entry thunk of a few instructions that keeps a pointer to the call's
//! record in its frame, and costs nothing else: there is no `setjmp`, and no list of calls. A
//! signal handler asks the registered tables about the instruction, walks frame pointers to the
//! thunk, and continues at the thunk's handler. It allocates nothing and takes no lock. A signal
//! that is not a trap of such code goes to the handler that was there before, as the kernel would
//! have called it.
//!
//! # Where is what?
//!
//! `code` is what a client says about its code, `registry` finds it by address, `table` keeps it in
//! vectors. `call` and `entry` are a call and its record, `arguments` its types. `signal` handles
//! signals, `thread` has alternate stacks, `trap` is the error. `throw` has the two phases of an
//! exception; `language_data` says what frames of the host do with it. `walk` walks stacks, for
//! `backtrace` and `roots`. `unwind` declares the system's unwinder, `arch/` has the assembly.
//!
//! # Architecture invariants
//!
//! Nothing on the way from a signal to the thunk allocates, locks, or touches a thread-local value.
//! No frame of the host is left without its destructors.

mod arch;
mod arguments;
mod backtrace;
mod call;
mod code;
mod entry;
mod language_data;
mod registry;
mod roots;
mod signal;
mod table;
mod thread;
mod throw;
mod trap;
mod unwind;
mod walk;

/// Whether code can be registered and called on this machine: x86-64.
///
/// On the others, [`register`] and [`call`] return errors that say so, [`install`] does nothing,
/// and there are no compiled frames for backtraces, roots and exceptions. So whatever uses this
/// crate can be built for all machines of Linux.
pub const SUPPORTED: bool = arch::SUPPORTED;

pub use self::arguments::{Argument, Arguments, Callee, Output};
pub use self::backtrace::{Backtrace, BacktraceFrame, CodeFrame, Source};
pub use self::call::{Caught, call, call_and_catch};
pub use self::code::{CallInfo, CodeLookup, FunctionInfo, HandlerInfo, RootInfo, SourceInfo};
pub use self::registry::{MAX_RANGES, RegisterError, Registration, register};
pub use self::roots::{Root, RootsError, roots};
pub use self::signal::install;
pub use self::table::{CodeTable, TableCall, TableFunction, TableStackMap};
pub use self::throw::{Exception, HandlerTag, ThrowError, throw, throw_from_code, throw_to};
pub use self::trap::{Trap, TrapCode};
