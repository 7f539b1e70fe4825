//! Source locations as runs of instructions.

use cranelift_codegen::ir::{RelSourceLoc, SourceLoc};

use crate::body::wire::{ByteWriter, zigzag};

/// Runs of instructions of one source location: how many instructions further it changes, and how far from the one before, plus 1; 0
/// to none. (0 in place of the first ends the list.)
#[derive(Default)]
pub(super) struct LocationRuns {
    pub(super) runs: ByteWriter,
    /// Number of the first instruction of the last run, and its location.
    last: (usize, RelSourceLoc),
    /// The last location that is not none.
    before: i64,
}

impl LocationRuns {
    /// Removes all runs.
    pub(super) fn clear(&mut self) {
        let Self { runs, last, before } = self;
        runs.0.clear();
        (*last, *before) = Default::default();
    }

    /// The location of the instruction with this number.
    #[inline]
    pub(super) fn push(&mut self, number: usize, location: RelSourceLoc) {
        if location == self.last.1 {
            return;
        }
        let further = (number - self.last.0 + 1) as u64;
        let distance = if location == RelSourceLoc::default() {
            0
        } else {
            let bits = i64::from(relative(location));
            1 + zigzag(bits - std::mem::replace(&mut self.before, bits))
        };
        self.runs.uints([further, distance]);
        self.last = (number, location);
    }
}

/// A relative location as a number. Relative to 0 it is itself.
#[inline]
pub(super) fn relative(location: RelSourceLoc) -> u32 {
    location.expand(SourceLoc::new(0)).bits()
}
