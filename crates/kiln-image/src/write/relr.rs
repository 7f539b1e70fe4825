//! `.relr.dyn`: packed relocations of pointers at the program itself.
//!
//! The table must be measured before addresses are known, because it is in front of what it is
//! about. So each area is packed by itself, in offsets: the result has the same length wherever the
//! area is. What a pointer is relative to the load address is in the pointer's place in the file.
//!
//! Format: "Generic ABI, proposal for a new section type SHT_RELR" (gABI, draft of 2024, section
//! "Relative Relocation Table"). An even word is the address of a pointer. An odd word after it has
//! a bit for each of the next 63 words of memory.

use crate::link::{Addresses, Area, Layout};

/// Number of words that an entry with bits is about.
const BITS: u64 = 63;

/// The packed relocations of an image, as offsets in areas.
#[derive(Debug, Default)]
pub(super) struct PackedRelocations {
    /// Words of the table. One that is even is an offset in the area that follows it here.
    words: Vec<(u64, Area)>,
}

impl PackedRelocations {
    /// Packs pointers at these places, which are sorted, and all of which `is_packable` accepts.
    pub(super) fn new(places: &[(Area, u64)]) -> Self {
        let mut words = Vec::new();
        let mut rest = places;
        while let Some((&(area, first), after)) = rest.split_first() {
            words.push((first, area));
            rest = after;
            let mut start = first + 8;
            loop {
                let window = rest.iter().take_while(|(of, offset)| *of == area && *offset < start + 8 * BITS);
                let mut bits = 0;
                let mut count = 0;
                for (_, offset) in window {
                    bits |= 1 << ((offset - start) / 8 + 1);
                    count += 1;
                }
                if count == 0 {
                    break;
                }
                words.push((bits | 1, area));
                rest = &rest[count..];
                start += 8 * BITS;
            }
        }
        Self { words }
    }

    /// Returns the length of the table in bytes.
    pub(super) fn len(&self) -> usize {
        8 * self.words.len()
    }

    /// Returns the words of the table.
    pub(super) fn words(&self, addresses: &Addresses) -> impl Iterator<Item = u64> {
        self.words.iter().map(|&(word, area)| if word & 1 == 0 { addresses[area] + word } else { word })
    }
}

/// Returns whether a pointer can be packed: if its address is a multiple of 8 wherever its area is.
pub(super) fn is_packable(layout: &Layout, area: Area, offset: u64) -> bool {
    // Relocated data and slots begin at a page.
    let aligned = matches!(area, Area::Relro | Area::Slots) || layout[area].align.is_multiple_of(8);
    aligned && offset.is_multiple_of(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The addresses that a dynamic linker finds, by the rules of the format.
    fn unpack(words: impl Iterator<Item = u64>) -> Vec<u64> {
        let (mut found, mut next) = (Vec::new(), 0);
        for word in words {
            if word & 1 == 0 {
                found.push(word);
                next = word + 8;
            } else {
                found.extend((0..63).filter(|bit| word >> (bit + 1) & 1 == 1).map(|bit| next + 8 * bit));
                next += 8 * 63;
            }
        }
        found
    }

    #[test]
    fn what_is_packed_is_found_again() {
        let mut addresses = Addresses::default();
        (addresses[Area::Relro], addresses[Area::Data]) = (0x2000, 0x5000);
        let cases: [&[(Area, u64)]; 5] = [
            &[],
            &[(Area::Relro, 0)],
            &[(Area::Relro, 0), (Area::Relro, 8), (Area::Relro, 8 * 63), (Area::Relro, 8 * 64)],
            &[(Area::Relro, 8), (Area::Relro, 8 * 200), (Area::Data, 0), (Area::Data, 8 * 63)],
            &[(Area::Data, 0), (Area::Data, 8 * 64), (Area::Data, 8 * 65), (Area::Data, 8 * 127)],
        ];
        let many: Vec<_> = (0..1000).filter(|n| n * n % 7 < 3).map(|n| (Area::Data, 8 * n)).collect();
        for places in cases.into_iter().chain([&*many]) {
            let packed = PackedRelocations::new(places);
            let expected: Vec<_> = places.iter().map(|&(area, offset)| addresses[area] + offset).collect();
            assert_eq!(unpack(packed.words(&addresses)), expected, "{places:?}");
        }
        assert!(PackedRelocations::new(&many).len() < many.len());
    }
}
