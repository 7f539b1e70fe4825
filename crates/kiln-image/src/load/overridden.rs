//! The books of a loaded image about the code that others have for its functions, see `overrides`.

use std::collections::BTreeMap;

/// The codes of each function that others have, by the offset of its slot. The first is the image's
/// own, and the last is in force.
#[derive(Debug, Default)]
pub(super) struct Overridden(pub(super) BTreeMap<usize, Vec<Code>>);

/// The code of somebody.
#[derive(Clone, Copy, Debug)]
pub(super) struct Code {
    /// The number of the [`Override`](super::Override); 0 for the image itself.
    pub(super) owner: u64,
    pub(super) address: usize,
}

/// Something that a loaded image keeps until it is dropped: its code for functions of its bases.
pub(super) trait Kept: std::fmt::Debug + Send + Sync {}
