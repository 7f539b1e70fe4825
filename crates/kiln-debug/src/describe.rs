//! Plain descriptions of code: what debuggers and profilers are told.

use std::ops::Range;

/// Code that is described at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Code<'a> {
    /// The functions, in any order.
    pub functions: &'a [Function<'a>],
    /// The ranges of addresses that the functions are in. They do not overlap.
    pub ranges: &'a [Range<usize>],
    /// Unwind rows: sections `.eh_frame`.
    pub rows: &'a [Section<'a>],
    /// DWARF sections and notes, for debuggers: name, such as `.debug_line`, and content. Addresses
    /// in it are those of the code in memory. With a note `.note.gnu.build-id`, gdb looks for a
    /// file with this build id, and moves its addresses to those of the sections `.text`.
    pub dwarf: &'a [(&'a str, &'a [u8])],
}

/// A function in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function<'a> {
    /// Its name. Line breaks and zeros in it are replaced.
    pub name: &'a str,
    /// The address of its first byte.
    pub address: usize,
    /// Its size in bytes.
    pub size: usize,
}

/// A section in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section<'a> {
    /// The address to which it is relocated.
    pub address: usize,
    /// Its content.
    pub bytes: &'a [u8],
}
