//! A trap that was caught.

use std::fmt;

use crate::backtrace::{Backtrace, CodeFrame};
use crate::entry::Report;

/// The reason for a trap, as Cranelift's `TrapCode` numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TrapCode(u8);

impl TrapCode {
    /// The stack is full.
    pub const STACK_OVERFLOW: Self = Self(251);
    /// An integer operation overflowed.
    pub const INTEGER_OVERFLOW: Self = Self(252);
    /// An access to a heap was out of bounds.
    pub const HEAP_OUT_OF_BOUNDS: Self = Self(253);
    /// An integer was divided by zero.
    pub const INTEGER_DIVISION_BY_ZERO: Self = Self(254);
    /// A floating-point number was converted to an integer that cannot hold it.
    pub const BAD_CONVERSION_TO_INTEGER: Self = Self(255);

    /// Returns the code with this number.
    pub fn from_raw(code: u8) -> Self {
        Self(code)
    }

    /// Returns the number of the code.
    pub fn as_raw(self) -> u8 {
        self.0
    }
}

impl fmt::Display for TrapCode {
    /// Writes the name that Cranelift's text has for the code.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::STACK_OVERFLOW => "stk_ovf",
            Self::INTEGER_OVERFLOW => "int_ovf",
            Self::HEAP_OUT_OF_BOUNDS => "heap_oob",
            Self::INTEGER_DIVISION_BY_ZERO => "int_divz",
            Self::BAD_CONVERSION_TO_INTEGER => "bad_toint",
            Self(user) => return write!(f, "user{user}"),
        })
    }
}

/// A trap that a caught call returned.
#[derive(Clone, Debug)]
pub struct Trap {
    code: TrapCode,
    signal: i32,
    pc: usize,
    address: Option<usize>,
    frame: Option<CodeFrame>,
    returns: Vec<usize>,
    /// How many return addresses are missing, and behind how many.
    missing: (usize, usize),
}

impl Trap {
    pub(crate) fn new(report: &Report) -> Self {
        let (returns, behind, missing) = report.returns();
        let overflow = report.code == 0;
        let is_access = matches!(report.signal, libc::SIGSEGV | libc::SIGBUS);
        Self {
            code: if overflow { TrapCode::STACK_OVERFLOW } else { TrapCode(report.code) },
            signal: report.signal,
            pc: report.pc,
            address: is_access.then_some(report.address),
            frame: CodeFrame::at(report.pc),
            returns,
            missing: (behind, missing),
        }
    }

    /// Returns the reason, from the trap record of the instruction. An access to the guard of the
    /// stack by an instruction without a record is [`TrapCode::STACK_OVERFLOW`].
    pub fn code(&self) -> TrapCode {
        self.code
    }

    /// Returns the number of the signal.
    pub fn signal(&self) -> i32 {
        self.signal
    }

    /// Returns the address of the instruction.
    pub fn pc(&self) -> usize {
        self.pc
    }

    /// Returns the address that was accessed, for SIGSEGV and SIGBUS. It is 0 if the processor does
    /// not tell, as for an address that no memory can have.
    pub fn address(&self) -> Option<usize> {
        self.address
    }

    /// Returns function and source of the instruction.
    pub fn frame(&self) -> Option<&CodeFrame> {
        self.frame.as_ref()
    }

    /// Returns the frames from the instruction out to the call that caught the trap, with the names
    /// that are registered now. Of many frames, the first 64 and the last 32 are kept.
    ///
    /// The frames outside are those of the caller: [`Backtrace::capture`].
    pub fn backtrace(&self) -> Backtrace {
        let first = self.frame.clone().map_or_else(|| Backtrace::frame(self.pc, false), Backtrace::code);
        let outer = self.returns.iter().map(|&pc| Backtrace::frame(pc, true));
        Backtrace::new(std::iter::once(first).chain(outer).collect(), (self.missing.0 + 1, self.missing.1))
    }
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "trap {}", self.code)?;
        match &self.frame {
            Some(frame) => write!(f, " in {frame}"),
            None => write!(f, " at {:#x}", self.pc),
        }
    }
}
