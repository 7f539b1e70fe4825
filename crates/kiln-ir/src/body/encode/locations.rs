//! Source locations as runs of instructions.

use cranelift_codegen::ir::{RelSourceLoc, SourceLoc};

use crate::body::wire::{ByteWriter, zigzag};

/// Source locations as runs of instructions that have the same location.
///
/// A run is two integers. The first is 1 more than the number of instructions since the last run
/// started; a 0 in its place ends the list. The second is 0 for no location, or else 1 more than
/// the zigzag-encoded distance from the last location.
#[derive(Default)]
pub(super) struct LocationRuns {
    pub(super) runs: ByteWriter,
    /// The number of the first instruction of the last run, and its location.
    last: (usize, RelSourceLoc),
    /// The last location that was present.
    before: i64,
}

impl LocationRuns {
    /// Removes all runs.
    pub(super) fn clear(&mut self) {
        let Self { runs, last, before } = self;
        runs.0.clear();
        (*last, *before) = Default::default();
    }

    /// Adds the location of the instruction with this number.
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

/// Returns a relative location as a number: the absolute location that it stands for with base 0.
#[inline]
pub(super) fn relative(location: RelSourceLoc) -> u32 {
    location.expand(SourceLoc::new(0)).bits()
}
