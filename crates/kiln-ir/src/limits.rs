//! Limits that keep memory and time in proportion to the length of what is read.

/// So many bytes may the data of any file have together, those apart that are all zeros.
pub(crate) const FREE_DATA: u64 = 1 << 24;
/// And so many more for each byte of the file, but no more than [`MAX_DATA`].
pub(crate) const DATA_FOR_BYTE: u64 = 64;
pub(crate) const MAX_DATA: u64 = 1 << 30;

/// The largest data object, in bytes. Only one of zeros can be as large.
pub(crate) const MAX_ZEROS: u64 = 1 << 40;

/// How many faults of a file are reported before reading stops. Each costs a pass over the text.
pub(crate) const MAX_FAULTS: usize = 1000;

/// How many values may stand for, or be made from, one another in a row. The verifier and Cranelift's reader go through the whole chain for
/// each of its members.
pub(crate) const MAX_CHAIN: usize = 1000;

/// Names such as `u0:1` in a function: each is looked for among those before it.
pub(crate) const MAX_NAMES: usize = 1 << 14;
