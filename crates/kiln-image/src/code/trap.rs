//! The names of traps.

use std::fmt;

/// The reason of a trap, as a number of Cranelift's `TrapCode`. It prints the name that Cranelift's
/// text format has for it, e.g. `int_divz` or `user1`.
///
/// The numbers are those of Cranelift 0.135, `ir/trapcode.rs`; a test compares all of them. They
/// are known here so that a program that only loads images has them without Cranelift.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TrapCode(u8);

impl TrapCode {
    /// The stack is used up, `stk_ovf`.
    pub const STACK_OVERFLOW: Self = Self(251);
    /// An integer operation overflowed, `int_ovf`.
    pub const INTEGER_OVERFLOW: Self = Self(252);
    /// An access outside of a heap, `heap_oob`.
    pub const HEAP_OUT_OF_BOUNDS: Self = Self(253);
    /// An integer was divided by zero, `int_divz`.
    pub const INTEGER_DIVISION_BY_ZERO: Self = Self(254);
    /// A floating point number has no integer, `bad_toint`.
    pub const BAD_CONVERSION_TO_INTEGER: Self = Self(255);

    /// Returns the reason with this number.
    pub const fn from_raw(code: u8) -> Self {
        Self(code)
    }

    /// Returns the number.
    pub const fn as_raw(self) -> u8 {
        self.0
    }

    /// Returns the number that the client gave to a reason of its own.
    pub fn user(self) -> Option<u8> {
        (self.0 < Self::STACK_OVERFLOW.0).then_some(self.0)
    }
}

impl fmt::Display for TrapCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::STACK_OVERFLOW => "stk_ovf",
            Self::INTEGER_OVERFLOW => "int_ovf",
            Self::HEAP_OUT_OF_BOUNDS => "heap_oob",
            Self::INTEGER_DIVISION_BY_ZERO => "int_divz",
            Self::BAD_CONVERSION_TO_INTEGER => "bad_toint",
            Self(code) => return write!(f, "user{code}"),
        })
    }
}
