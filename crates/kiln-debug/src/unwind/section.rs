//! A section of rows, and what libgcc makes of its address in a table.

use std::ops::Range;

/// A section of rows, and the code that it describes.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) code: Range<usize>,
    pub(super) address: *const u8,
}

// SAFETY: two addresses, which belong to no thread.
unsafe impl Send for Section {}

/// Returns the first 32 bits of an address in memory.
///
/// libgcc ignores what begins with a word of 32 zero bits, because it takes it for the end of a
/// section. An address of a table may have them. Then [`empty`] comes first.
pub(super) fn first_word(address: *const u8) -> u32 {
    let [a, b, c, d, ..] = address.addr().to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

/// Returns the address of a section without rows, which does not begin with a word of zeros.
pub(super) fn empty() -> *const u8 {
    /// Each word is such a section.
    static EMPTY: [u32; 2] = [0; 2];
    let first: *const u8 = EMPTY.as_ptr().cast();
    if first_word(first) == 0 { EMPTY[1..].as_ptr().cast() } else { first }
}
