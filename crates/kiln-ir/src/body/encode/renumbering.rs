//! Numbers entities in order of first use.

/// Marks an entity that has no new number.
pub(super) const NONE: u32 = u32::MAX;

/// Gives numbers in order of first use.
#[derive(Default)]
pub(super) struct Renumbering {
    /// The new number of each old number, or [`NONE`].
    numbers: Vec<u32>,
    /// The old number of each new number.
    pub(super) order: Vec<u32>,
}

impl Renumbering {
    #[inline]
    pub(super) fn number(&mut self, old: usize) -> u64 {
        if old >= self.numbers.len() {
            self.numbers.resize(old + 1, NONE);
        }
        if self.numbers[old] == NONE {
            self.numbers[old] = self.order.len() as u32;
            self.order.push(old as u32);
        }
        u64::from(self.numbers[old])
    }

    pub(super) fn clear(&mut self) {
        for old in self.order.drain(..) {
            self.numbers[old as usize] = NONE;
        }
    }
}
