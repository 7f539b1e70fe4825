//! Reading packed relative relocations. The writer's `relr` describes the format.

use super::number::Numbers;

/// Number of words that an entry with bits is about.
const BITS: u64 = 63;

/// A position in a table. It gives the places of the pointers, from the load address on, in order
/// of the table. They are untrusted, and there are at most 63 for each word.
#[derive(Default)]
pub(crate) struct PackedPlaces {
    /// The next word's place in the table.
    at: usize,
    /// Bits that are left of an entry, and the address of the lowest.
    bits: u64,
    address: u64,
    /// The address that the next entry with bits begins at.
    next: u64,
    /// The address that the image is made for.
    base: u64,
}

impl PackedPlaces {
    /// Returns the start of the table of an image that is made for the address `base`, or for 0.
    pub(crate) fn new(base: u64) -> Self {
        Self { base, ..Self::default() }
    }

    /// Returns the next place, or `None` at the end of the table, which must be the same each
    /// time.
    pub(crate) fn next(&mut self, table: Numbers<'_>) -> Option<u64> {
        loop {
            if self.bits != 0 {
                let address = self.address.wrapping_add(8 * u64::from(self.bits.trailing_zeros()));
                self.bits &= self.bits - 1;
                return Some(address.wrapping_sub(self.base));
            }
            let word = table.u64(self.at)?;
            self.at += 8;
            if word & 1 == 0 {
                self.next = word.wrapping_add(8);
                return Some(word.wrapping_sub(self.base));
            }
            (self.bits, self.address) = (word >> 1, self.next);
            self.next = self.next.wrapping_add(8 * BITS);
        }
    }
}
