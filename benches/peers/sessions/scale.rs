//! The sizes of the rows, so that a short run stays short.

/// The sizes of all rows, in proportion to the number of adds of the longest one.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    /// Functions that are added to one session, one by one.
    pub(crate) adds: usize,
}

impl Scale {
    /// The number of times that something is done in a turn whose time is divided by it.
    pub(super) fn repeats(self) -> usize {
        (self.adds / 200).clamp(20, 500)
    }

    /// The number of functions that are published at once.
    pub(super) fn batch(self) -> usize {
        (self.adds / 5).max(100)
    }

    /// The number of rounds of publishing and removing.
    pub(super) fn rounds(self) -> usize {
        (self.adds * 10).max(10_000)
    }

    /// The number of adds at the beginning and at the end of the growth that are compared.
    pub(super) fn group(self) -> usize {
        (self.adds / 100).max(10)
    }
}
