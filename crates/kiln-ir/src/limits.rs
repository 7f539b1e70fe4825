//! Limits that keep memory and time proportional to the length of the input.

/// The number of bytes of data that any file may have, not counting data objects that are all
/// zeros.
pub(crate) const FREE_DATA: u64 = 1 << 24;
/// The number of bytes of data that each byte of the file adds, up to [`MAX_DATA`] in all.
pub(crate) const DATA_FOR_BYTE: u64 = 64;
pub(crate) const MAX_DATA: u64 = 1 << 30;

/// The largest data object, in bytes. Only an object of zeros can be as large.
pub(crate) const MAX_ZEROS: u64 = 1 << 40;

/// The length limit of a chain in which each value is an alias of the next, or each global value is
/// made from the next. The verifier and Cranelift's reader follow the whole chain for each of its
/// members.
pub(crate) const MAX_CHAIN: usize = 1000;

/// The largest number of names such as `u0:1` in a function. Cranelift's reader compares each name
/// with those before it.
pub(crate) const MAX_NAMES: usize = 1 << 14;
