//! The free ranges of a region, as numbers: which are free, and which one is taken next.
//!
//! A range that is given back is joined with its free neighbours at once, so two free ranges never
//! touch. The range after the last used byte is not in the tables: most regions only grow, and
//! then taking a range costs an addition. Everything else is a few operations on balanced trees.
//! Among the ranges that are large enough the smallest is taken, and of those the first.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Free ranges of `0..end`.
#[derive(Debug)]
pub(super) struct Ranges {
    /// Start and end of each free range before `top`.
    by_start: BTreeMap<usize, usize>,
    /// Length and start of the same ranges.
    by_len: BTreeSet<(usize, usize)>,
    /// The range from here to `end` is free, and the byte before is used.
    top: usize,
    end: usize,
    /// The sum of the lengths of all ranges in the tables.
    in_tables: usize,
}

impl Ranges {
    /// Returns `0..end`, all of it free.
    pub(super) fn new(end: usize) -> Self {
        Self { by_start: BTreeMap::new(), by_len: BTreeSet::new(), top: 0, end, in_tables: 0 }
    }

    /// Takes `len` bytes whose start is a multiple of `align`, a power of two. Returns the start,
    /// or `None` if no free range is large enough.
    pub(super) fn take(&mut self, len: usize, align: usize) -> Option<usize> {
        if let Some((range, start)) = self.find(len, align) {
            self.remove(range.clone());
            self.insert(range.start..start);
            self.insert(start + len..range.end);
            return Some(start);
        }
        let start = self.top.next_multiple_of(align);
        let end = start.checked_add(len).filter(|&end| end <= self.end)?;
        let gap = self.top..start;
        self.top = end;
        self.insert(gap);
        Some(start)
    }

    /// Returns a range of the tables that has room, and the start of that room.
    fn find(&self, len: usize, align: usize) -> Option<(Range<usize>, usize)> {
        // The smallest that is long enough may be badly aligned; a longer one always has room.
        [len, len.checked_add(align - 1)?].into_iter().find_map(|at_least| {
            let &(found, start) = self.by_len.range((at_least, 0)..).next()?;
            let aligned = start.next_multiple_of(align);
            (aligned + len <= start + found).then_some((start..start + found, aligned))
        })
    }

    /// Gives a range back, and returns the free range that it is part of now.
    ///
    /// # Panics
    ///
    /// If a part of it is free already: then the owner of the range gave it back twice, and its
    /// memory may have two owners.
    pub(super) fn give(&mut self, range: Range<usize>) -> Range<usize> {
        assert!(range.end <= self.top, "{range:?} is not in use");
        let before = self.by_start.range(..=range.start).next_back().map(|(&start, &end)| start..end);
        let after = self.by_start.range(range.start..).next().map(|(&start, &end)| start..end);
        assert!(before.as_ref().is_none_or(|before| before.end <= range.start), "{range:?} is free");
        assert!(after.as_ref().is_none_or(|after| range.end <= after.start), "{range:?} is free");
        if range.is_empty() {
            return range;
        }
        let mut joined = range;
        if let Some(before) = before.filter(|before| before.end == joined.start) {
            joined.start = before.start;
            self.remove(before);
        }
        if let Some(after) = after.filter(|after| after.start == joined.end) {
            joined.end = after.end;
            self.remove(after);
        }
        if joined.end == self.top {
            self.top = joined.start;
            joined.end = self.end;
        } else {
            self.insert(joined.clone());
        }
        joined
    }

    fn insert(&mut self, range: Range<usize>) {
        if !range.is_empty() {
            self.in_tables += range.len();
            self.by_len.insert((range.len(), range.start));
            self.by_start.insert(range.start, range.end);
        }
    }

    fn remove(&mut self, range: Range<usize>) {
        self.in_tables -= range.len();
        self.by_len.remove(&(range.len(), range.start));
        self.by_start.remove(&range.start);
    }

    /// Returns the number of free bytes.
    pub(super) fn free(&self) -> usize {
        self.in_tables + (self.end - self.top)
    }

    /// Returns the number of bytes in the largest free range.
    pub(super) fn largest(&self) -> usize {
        self.by_len.last().map_or(0, |&(len, _)| len).max(self.end - self.top)
    }

    /// Returns the free ranges of at least `len` bytes; the last is the one up to the end.
    pub(super) fn at_least(&self, len: usize) -> impl Iterator<Item = Range<usize>> {
        let tables = self.by_len.range((len, 0)..).map(|&(len, start)| start..start + len);
        tables.chain((self.end - self.top >= len).then_some(self.top..self.end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_are_given_back_in_any_order_become_one_range() {
        // 7919 is prime, so this visits every cell once.
        let cells = 4096;
        let mut ranges = Ranges::new(8 * cells + 64);
        assert_eq!(ranges.take(8 * cells, 8), Some(0));
        assert_eq!(ranges.take(8, 8), Some(8 * cells));
        for n in 0..cells {
            let start = 8 * (n * 7919 % cells);
            ranges.give(start..start + 8);
            assert_eq!(ranges.free(), 8 * (n + 1) + 56);
        }
        assert_eq!(ranges.largest(), 8 * cells);
        assert_eq!(ranges.by_start.len(), 1);
        assert_eq!(ranges.take(8 * cells, 8), Some(0));
    }

    #[test]
    fn what_is_taken_is_aligned_and_disjoint() {
        let mut ranges = Ranges::new(1 << 20);
        let mut owner = vec![0_u8; 1 << 20];
        let mut live = Vec::new();
        let mut random = 1_u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) % below
        };
        for _ in 0..50_000 {
            if next(2) == 0 || live.is_empty() {
                let len = 8 * (1 + next(64)) as usize;
                let align = 1 << (3 + next(10));
                let Some(start) = ranges.take(len, align) else { continue };
                assert_eq!(start % align, 0);
                assert!(owner[start..start + len].iter().all(|&used| used == 0), "{start} {len}");
                owner[start..start + len].fill(1);
                live.push(start..start + len);
            } else {
                let range = live.swap_remove(next(live.len() as u64) as usize);
                owner[range.clone()].fill(0);
                ranges.give(range);
            }
            let used: usize = live.iter().map(Range::len).sum();
            assert_eq!(ranges.free(), (1 << 20) - used);
        }
        for range in live {
            ranges.give(range);
        }
        assert_eq!((ranges.top, ranges.by_start.len(), ranges.by_len.len()), (0, 0, 0));
    }

    #[test]
    fn a_full_region_refuses() {
        let mut ranges = Ranges::new(64);
        assert_eq!(ranges.take(72, 8), None);
        assert_eq!(ranges.take(8, 8), Some(0));
        assert_eq!(ranges.take(48, 32), None);
        assert_eq!(ranges.take(32, 32), Some(32));
        assert_eq!((ranges.take(32, 8), ranges.largest()), (None, 24));
        assert_eq!((ranges.take(24, 8), ranges.free()), (Some(8), 0));
        assert_eq!(ranges.take(usize::MAX, 8), None);
    }

    #[test]
    #[should_panic(expected = "is free")]
    fn giving_back_twice_is_noticed() {
        let mut ranges = Ranges::new(64);
        ranges.take(32, 8);
        ranges.give(8..16);
        ranges.give(0..16);
    }
}
