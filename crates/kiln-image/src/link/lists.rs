//! Lists of what a link knows about modules and symbols.
//!
//! A session that links one function after the other makes all of them for each, with one or two
//! entries. So the first entries are in the list itself, and take no memory from the heap.

use smallvec::SmallVec;

/// A list with an entry for each module.
pub(crate) type PerModule<T> = SmallVec<[T; 1]>;

/// A list with an entry for each symbol, or for each function.
pub(crate) type PerSymbol<T> = SmallVec<[T; 3]>;
