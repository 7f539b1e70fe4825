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
    /// Returns the new number of an entity, or `None` if it has none yet and `exists` says that
    /// there is no such entity.
    #[inline]
    pub(super) fn number(&mut self, old: usize, exists: impl FnOnce() -> bool) -> Option<u64> {
        match self.numbers.get(old) {
            Some(&number) if number != NONE => Some(u64::from(number)),
            _ => exists().then(|| self.add(old)),
        }
    }

    /// Returns the new number of something that the caller numbered.
    pub(super) fn given(&mut self, old: usize) -> u64 {
        match self.numbers.get(old) {
            Some(&number) if number != NONE => u64::from(number),
            _ => self.add(old),
        }
    }

    fn add(&mut self, old: usize) -> u64 {
        if old >= self.numbers.len() {
            self.numbers.resize(old + 1, NONE);
        }
        let number = self.order.len() as u32;
        self.numbers[old] = number;
        self.order.push(old as u32);
        u64::from(number)
    }

    pub(super) fn clear(&mut self) {
        for old in self.order.drain(..) {
            self.numbers[old as usize] = NONE;
        }
    }
}
