//! Four entries of a stream at once.
//!
//! Most entries of the streams of source locations and of traps have two bytes: a length or a step,
//! and a difference or a code. Four of them are a word of 8 bytes, in lanes of 16 bits. All sums of
//! the first lanes are one multiplication, and how many of these are at most a number is one
//! subtraction. So a lookup does not branch at each entry, which a processor cannot foresee.

/// A one in each lane.
const ONES: u64 = 0x0001_0001_0001_0001;
/// The highest bit of each lane.
const HIGHEST: u64 = ONES << 15;
/// The most that a lane may be compared with.
const MOST: u32 = 0x7fff;

/// Added to each difference.
const BIAS: u64 = 0x40;

/// Four sums: of the first lane, of the first two, and so on.
#[derive(Clone, Copy)]
struct Sums(u64);

impl Sums {
    /// Adds up lanes. The sum of all must be below 2^16.
    #[inline]
    fn of(lanes: u64) -> Self {
        Self(lanes.wrapping_mul(ONES))
    }

    #[inline]
    fn last(self) -> u32 {
        (self.0 >> 48) as u32
    }

    #[inline]
    fn get(self, lane: u32) -> u16 {
        (self.0 >> (16 * lane)) as u16
    }

    /// Returns how many of them are at most `limit`, if they ascend. All must be below 2^15.
    #[inline]
    fn up_to(self, limit: u32) -> u32 {
        let limit = u64::from(limit.min(MOST));
        (((limit * ONES) | HIGHEST).wrapping_sub(self.0) & HIGHEST).count_ones()
    }
}

/// Four source locations that follow each other without gaps.
pub(super) struct SourceGroup {
    ends: Sums,
    locations: Sums,
}

impl SourceGroup {
    /// Reads the entries at the start of a stream; `None` if one of them has another form.
    #[inline]
    pub(super) fn read(stream: &[u8]) -> Option<Self> {
        let word = u64::from_le_bytes(*stream.first_chunk()?);
        // A head of one byte without a gap, and a difference of one byte.
        if word & (0x8081 * ONES) != 0 {
            return None;
        }
        let lens = (word >> 1) & (0x3f * ONES);
        let codes = word >> 8;
        // Zigzag: the complement of the half if it is odd. No lane may be negative, so `BIAS` is
        // added, which is the highest of the seven bits.
        let differences = ((codes >> 1) & (0x3f * ONES)) ^ ((codes & ONES) * 0x7f) ^ (BIAS * ONES);
        Some(Self { ends: Sums::of(lens), locations: Sums::of(differences) })
    }

    /// Returns the end of the last entry, from the start of the first.
    #[inline]
    pub(super) fn len(&self) -> u32 {
        self.ends.last()
    }

    /// Returns the difference of the last location from the one before the first.
    #[inline]
    pub(super) fn difference(&self) -> i32 {
        self.sum(3)
    }

    /// Returns the difference for the entry that has a byte at `offset`, which is below `len`.
    #[inline]
    pub(super) fn difference_at(&self, offset: u32) -> i32 {
        self.sum(self.ends.up_to(offset).min(3))
    }

    #[inline]
    fn sum(&self, lane: u32) -> i32 {
        i32::from(self.locations.get(lane)) - (BIAS as i32) * (lane as i32 + 1)
    }
}

/// Four traps.
pub(super) struct TrapGroup {
    offsets: Sums,
    word: u64,
}

impl TrapGroup {
    /// Reads the entries at the start of a stream; `None` if one of them has another form.
    #[inline]
    pub(super) fn read(stream: &[u8]) -> Option<Self> {
        let word = u64::from_le_bytes(*stream.first_chunk()?);
        if word & (0x80 * ONES) != 0 {
            return None;
        }
        Some(Self { offsets: Sums::of(word & (0x7f * ONES)), word })
    }

    /// Returns the offset of the last one, from the one before the first.
    #[inline]
    pub(super) fn len(&self) -> u32 {
        self.offsets.last()
    }

    /// Returns the code of the first one at `offset`, which is at most `len`.
    #[inline]
    pub(super) fn at(&self, offset: u32) -> Option<u8> {
        let before = match offset.checked_sub(1) {
            Some(limit) => self.offsets.up_to(limit).min(3),
            None => 0,
        };
        let code = (self.word >> (16 * before + 8)) as u8;
        (u32::from(self.offsets.get(before)) == offset).then_some(code)
    }
}

/// The number of entries of a group.
pub(super) const ENTRIES: usize = 4;
/// The number of bytes of a group.
pub(super) const BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that are the same in each run.
    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        *state >> 20
    }

    /// All lengths and differences, alone and with others, give what adding one by one gives.
    #[test]
    fn groups_say_what_their_entries_say() {
        let mut state = 1;
        for round in 0..20_000_u64 {
            let large = round % 3 == 0;
            let bytes: [u8; 8] = std::array::from_fn(|at| match (large, at % 2) {
                (true, 0) => 0x7e,
                (true, _) => 0x7e + (round % 2) as u8,
                (_, 0) => (random(&mut state) % 0x40 * 2) as u8,
                _ => (random(&mut state) % 0x80) as u8,
            });
            let group = SourceGroup::read(&bytes).unwrap();
            let (mut end, mut location, mut at) = (0, 0, 0);
            for [head, code] in bytes.as_chunks().0 {
                let code = i32::from(*code);
                location += (code >> 1) ^ -(code & 1);
                end += u32::from(head >> 1);
                while at < end {
                    assert_eq!(group.difference_at(at), location, "{at} of {bytes:?}");
                    at += 1;
                }
            }
            assert_eq!((group.len(), group.difference()), (end, location), "{bytes:?}");

            let traps: [u8; 8] = std::array::from_fn(|at| match (large, at % 2) {
                (true, 0) => 0x7f,
                (_, 0) => (random(&mut state) % 0x80 * (random(&mut state) % 2)) as u8,
                _ => random(&mut state) as u8,
            });
            let group = TrapGroup::read(&traps).unwrap();
            let (mut offset, mut codes) = (0, std::collections::BTreeMap::new());
            for [step, code] in traps.as_chunks().0 {
                offset += u32::from(*step);
                codes.entry(offset).or_insert(*code);
            }
            assert_eq!(group.len(), offset);
            (0..=offset)
                .for_each(|at| assert_eq!(group.at(at), codes.get(&at).copied(), "{at} of {traps:?}"));
        }
    }

    #[test]
    fn other_entries_are_no_group() {
        let good = [2, 2, 2, 2, 2, 2, 2, 2];
        assert!(SourceGroup::read(&good).is_some() && TrapGroup::read(&good).is_some());
        assert!(SourceGroup::read(&good[..7]).is_none() && TrapGroup::read(&good[..7]).is_none());
        for at in 0..8 {
            let with = |value| {
                let mut bytes = good;
                bytes[at] = value;
                (SourceGroup::read(&bytes).is_some(), TrapGroup::read(&bytes).is_some())
            };
            assert_eq!(with(0x82), (false, at % 2 == 1), "a longer number at {at}");
            assert_eq!(with(3), (at % 2 == 1, true), "a gap at {at}");
        }
    }
}
