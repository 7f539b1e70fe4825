//! Tells gdb and lldb about code, by their interface for JITs.
//!
//! # What it costs
//!
//! Nothing but reading one byte, as long as no debugger is there: a debugger that knows the
//! interface has a breakpoint in `__jit_debug_register_code` from the moment at which it sees the
//! program, and [`is_watching`] looks whether it is there. So a client describes code only if
//! somebody reads it, and nobody has to switch debugging on before the program starts. (LuaJIT, V8
//! and wasmtime have switches, because they keep a file for each piece of code.) What was published
//! before a debugger attached has to be told when it is there: by the client, who knows what is
//! alive.
//!
//! Each [`Registration`] is one file and one stop of the program, so a batch should be one: gdb
//! reads 20,000 functions in a fraction of a second, but needs some milliseconds for each
//! registration.

mod elf;
mod interface;
mod rows;

use std::ops::Range;

use self::elf::Elf;
use self::interface::{Entry, Locked};
use crate::describe::Code;

/// Returns whether a debugger is there that wants to know about code: one load, no system call.
///
/// A debugger that sets breakpoints in another way than by changing code is not noticed.
pub fn is_watching() -> bool {
    interface::is_watching()
}

/// Which debuggers are told about code: gdb, lldb, and others that know the interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Debugger {
    /// One that is there when code is published. If none is there, it costs one load, and no
    /// description is kept: one that attaches later has to be told then.
    #[default]
    Present,
    /// Also one that attaches later: a description is kept of all code.
    Any,
    /// None.
    None,
}

impl Debugger {
    /// Returns whether a debugger is to be told what is published now.
    pub fn is_watched(self) -> bool {
        match self {
            Self::Present => is_watching(),
            Self::Any => true,
            Self::None => false,
        }
    }
}

/// Code that debuggers know. Dropping it takes it back.
#[derive(Debug)]
pub struct Registration {
    entry: Box<Entry>,
    file: Elf,
}

impl Registration {
    /// Tells debuggers about code, also those that attach later.
    pub fn new(code: &Code<'_>) -> Self {
        Self::publish(elf::write(code))
    }

    fn publish(file: Elf) -> Self {
        let entry = Entry::new(&file.bytes);
        // SAFETY: `drop` removes the entry; the boxes do not move what they own.
        unsafe { Locked::new().add(&entry) };
        Self { entry, file }
    }

    /// Takes a part of the code back: functions, ranges and unwind rows that begin in `range`.
    pub fn forget(&mut self, range: &Range<usize>) {
        let lock = Locked::new();
        // SAFETY: it was added, and is added again.
        unsafe { lock.remove(&self.entry) };
        self.file.forget(range);
        self.entry = Entry::new(&self.file.bytes);
        // SAFETY: `drop` removes the entry; the boxes do not move what they own.
        unsafe { lock.add(&self.entry) };
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: it was added by `publish`.
        unsafe { Locked::new().remove(&self.entry) };
    }
}
