//! Code that only jumps on.

use std::ops::Range;

/// Code before a function: a stub, or an entry that counts.
pub(crate) struct Jump<'a> {
    pub(crate) name: &'a str,
    pub(crate) code: Range<usize>,
}
