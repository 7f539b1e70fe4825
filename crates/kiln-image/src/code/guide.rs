//! A guide: a table that says about where an offset is in a list of records that are sorted by
//! offsets. So a search looks at a few records next to each other, however many there are, and not
//! at one in each part of the list, which is a miss of the cache each time.
//!
//! The guide of a list of `n` records has a number for each [`EACH`] of them, or none if there are
//! fewer than [`FEWEST`]. Number `k` is that of the last record which begins at or before
//! `k << shift`, or 0. The shift is the smallest with which all offsets of records have a number.
//!
//! Numbers of hostile bytes may be any: what is searched is inside the list, and the result may be
//! wrong, as with records in the wrong order.

use std::ops::Range;

use zerocopy::little_endian::U32;

use super::cursor::Cursor;

/// The number of records for each number.
const EACH: usize = 2;
/// The fewest records that have a guide.
const FEWEST: usize = 8;

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guide<'a> {
    shift: u32,
    numbers: &'a [U32],
}

/// Returns the count of numbers for so many records.
fn numbers(records: usize) -> usize {
    if records < FEWEST { 0 } else { records / EACH }
}

/// Returns the length of the guide of so many records: the shift, and the numbers.
#[cfg(feature = "link")]
pub(super) fn len(records: usize) -> usize {
    match numbers(records) {
        0 => 0,
        count => 4 + 4 * count,
    }
}

/// Writes the guide of records with these offsets, which ascend.
#[cfg(feature = "link")]
pub(super) fn write(offsets: impl ExactSizeIterator<Item = u32> + Clone, out: &mut [u8]) {
    let count = numbers(offsets.len());
    if count == 0 {
        return;
    }
    let (Some(last), Some((head, out))) = (offsets.clone().last(), out.split_first_chunk_mut::<4>()) else {
        return;
    };
    let shift: u32 = (0..32).find(|shift| ((last >> shift) as usize) < count).unwrap_or(31);
    *head = shift.to_le_bytes();
    let mut records = offsets.enumerate().peekable();
    let mut number = 0;
    for (k, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let at = (k as u64) << shift;
        while let Some((next, _)) = records.next_if(|&(_, offset)| u64::from(offset) <= at) {
            number = next as u32;
        }
        *out = number.to_le_bytes();
    }
}

impl<'a> Guide<'a> {
    /// Reads the guide of so many records.
    pub(super) fn read(cursor: &mut Cursor<'a>, records: usize) -> Option<Self> {
        match numbers(records) {
            0 => Some(Self { shift: 0, numbers: &[] }),
            count => {
                let shift = u32::from_le_bytes(*cursor.bytes(4)?.first_chunk()?);
                Some(Self { shift, numbers: cursor.records(count)? })
            }
        }
    }

    /// Returns a range of the `count` records that has the last one which begins at or before
    /// `offset`, if there is one.
    #[inline]
    pub(super) fn around(&self, offset: u32, count: usize) -> Range<usize> {
        let Some(last) = self.numbers.len().checked_sub(1) else { return 0..count };
        let at = (offset.checked_shr(self.shift).unwrap_or(0) as usize).min(last);
        let start = (self.numbers[at].get() as usize).min(count);
        let end = self.numbers.get(at + 1).map_or(count, |next| (next.get() as usize).saturating_add(1));
        start..end.clamp(start, count)
    }
}

#[cfg(all(test, feature = "link"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_around_has_the_record() {
        let mut random = 1_u64;
        let mut next = |limit: u64| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) % limit
        };
        for count in (0..40).chain([100, 1000]) {
            for step in [1, 2, 50, 4000] {
                let mut at = next(step) as u32;
                let mut offsets = Vec::new();
                for _ in 0..count {
                    offsets.push(at);
                    // Now and then a large one.
                    at += 1 + next(step) as u32 + if next(20) == 0 { 100 * step as u32 } else { 0 };
                }
                let mut bytes = vec![0; len(count)];
                write(offsets.iter().copied(), &mut bytes);
                let mut cursor = Cursor(&bytes);
                let guide = Guide::read(&mut cursor, count).unwrap();
                assert!(cursor.0.is_empty());
                let (mut total, mut asked) = (0, 0);
                for offset in (0..at + 10).step_by(1 + at as usize / 5000).chain([u32::MAX]) {
                    let range = guide.around(offset, count);
                    let after = offsets.partition_point(|&start| start <= offset);
                    let found =
                        range.start + offsets[range.clone()].partition_point(|&start| start <= offset);
                    assert!(after == found || after == 0 && found == range.start, "{offset} of {offsets:?}");
                    (total, asked) = (total + range.len(), asked + 1);
                }
                assert!(count < FEWEST || total <= 8 * asked, "{total} of {asked}, {count} {step}");
            }
        }
    }
}
