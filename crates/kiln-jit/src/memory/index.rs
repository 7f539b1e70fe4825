//! Finds the block of code that holds an address, without a lock.
//!
//! A bitmap over the region of code has a bit for each 16 bytes: "a block begins here that can be
//! looked up". A second bitmap has a bit for each word of the first that is not zero, a third for
//! the second, and so on, up to a bitmap of one word. So the last block that begins at or before an
//! address is found in at most two steps a level, five levels at most, however long blocks are.
//!
//! Bits are set and cleared under the lock of the region of code, so a word and its bit one level
//! up agree outside of it. Readers take no lock. A block is found by whoever learns of it after its
//! bit was set. Whoever finds it must keep it from being freed: see [`Memory::locate`].
//!
//! Blocks that nobody asks about have no bit, for example stubs. An address in one leads to the
//! block before it, whose length says that it does not hold the address.
//!
//! The bitmaps are mapped as a whole, and take memory as they are written: one byte for each 128
//! bytes of code. A child of `fork` has a copy of its own.
//!
//! [`Memory::locate`]: super::Memory::locate

use std::sync::atomic::{AtomicU64, Ordering};

use super::system::{Refused, System};

/// Bytes of code for each bit. Blocks that can be looked up begin at a multiple of it.
pub(super) const CELL: usize = 16;

/// The most levels: enough for a region of 2 GiB.
const LEVELS: usize = 5;

/// The bitmaps.
#[derive(Debug)]
pub(super) struct Index {
    words: *const AtomicU64,
    /// The number of words of all levels.
    len: usize,
    /// The first word of each level, and the number of its words; 0 for levels that do not exist.
    levels: [(usize, usize); LEVELS],
}

// SAFETY: the words are atomics, in memory that belongs to no thread.
unsafe impl Send for Index {}
// SAFETY: as above.
unsafe impl Sync for Index {}

/// The bits of a word up to and including this one.
fn up_to(bit: usize) -> u64 {
    u64::MAX >> (63 - bit % 64)
}

impl Index {
    /// Maps the bitmaps for a region of `size` bytes.
    pub(super) fn new(system: &System, size: usize) -> Result<Self, Refused> {
        let mut levels = [(0, 0); LEVELS];
        let (mut len, mut bits) = (0, size.div_ceil(CELL));
        for level in &mut levels {
            let words = bits.div_ceil(64).max(1);
            *level = (len, words);
            len += words;
            bits = words;
            if words == 1 {
                break;
            }
        }
        assert!(bits == 1, "a region of at most 2 GiB");
        let words = system.zeroed(8 * len)?.cast();
        Ok(Self { words, len, levels })
    }

    /// Returns a word of a level.
    fn word(&self, level: usize, number: usize) -> &AtomicU64 {
        let (first, len) = self.levels[level];
        assert!(number < len, "a word of the level");
        // SAFETY: the word is one of the `len` words that `new` mapped: those of all levels follow
        // each other. It is aligned, readable and writable until `drop`.
        unsafe { &*self.words.add(first + number) }
    }

    fn level_count(&self) -> usize {
        self.levels.iter().filter(|(_, len)| *len > 0).count()
    }

    /// Makes the block that begins at this offset of the region findable. The region is locked.
    pub(super) fn set(&self, offset: usize) {
        assert!(offset.is_multiple_of(CELL), "a block that begins with a cell");
        let mut bit = offset / CELL;
        for level in 0..self.level_count() {
            // Whoever finds the bit sees what was written before.
            let before = self.word(level, bit / 64).fetch_or(1 << (bit % 64), Ordering::Release);
            if before != 0 {
                return;
            }
            bit /= 64;
        }
    }

    /// Takes the block that begins at this offset back, if it can be found. The region is locked.
    pub(super) fn clear(&self, offset: usize) {
        if !offset.is_multiple_of(CELL) {
            return;
        }
        let mut bit = offset / CELL;
        for level in 0..self.level_count() {
            let mask = 1 << (bit % 64);
            let before = self.word(level, bit / 64).fetch_and(!mask, Ordering::Release);
            if before != mask {
                // Another block is in the word, or there was no bit.
                return;
            }
            bit /= 64;
        }
    }

    /// Returns the offset of the last block that begins at or before `offset`. This takes no lock
    /// and makes no system call. Each step goes to smaller offsets, so it ends whatever others do.
    pub(super) fn find(&self, offset: usize) -> Option<usize> {
        let count = self.level_count();
        // The last bit at this level that may be taken, with everything before it.
        let mut bit = offset / CELL;
        let mut level = 0;
        loop {
            let word = self.word(level, bit / 64).load(Ordering::Acquire) & up_to(bit);
            if word != 0 {
                bit = bit / 64 * 64 + (63 - word.leading_zeros() as usize);
                if level == 0 {
                    return Some(bit * CELL);
                }
                // Down: all bits of the word that this bit stands for.
                level -= 1;
                bit = 64 * bit + 63;
                continue;
            }
            // Up: the bits before that of this word. There are none before the first word.
            bit = (bit / 64).checked_sub(1)?;
            level += 1;
            if level == count {
                return None;
            }
        }
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        // SAFETY: `new` mapped the words, and references to them borrow this.
        unsafe { System::default().unmap(self.words.cast_mut().cast(), 8 * self.len) };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_last_block_before_an_address_is_found() {
        for size in [CELL, 1000, 64 << 10, 3 << 20, 1 << 31] {
            let index = Index::new(&System::default(), size).unwrap();
            let (mut random, cells) = (1_u64, (size / CELL) as u64);
            let mut next = |limit: u64| {
                random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (random >> 20) % limit
            };
            let mut model = BTreeSet::new();
            for _ in 0..20_000 {
                // Near each other, or anywhere.
                let range = if next(2) == 0 { cells } else { cells.min(300) };
                let offset = CELL * next(range) as usize;
                match next(3) {
                    0 => {
                        index.set(offset);
                        model.insert(offset);
                    }
                    1 => {
                        index.clear(offset);
                        model.remove(&offset);
                    }
                    _ => {
                        let place = offset + next(CELL as u64) as usize;
                        let expected = model.range(..=place).next_back();
                        assert_eq!(index.find(place), expected.copied(), "{place} of {size}");
                    }
                }
            }
            model.iter().for_each(|&offset| index.clear(offset));
            let word = |number| index.word(index.level_count() - 1, number).load(Ordering::Relaxed);
            assert_eq!((index.find(size - 1), word(0)), (None, 0), "summaries are clear, too");
        }
    }

    #[test]
    fn blocks_that_stay_are_found_while_others_come_and_go() {
        let index = Index::new(&System::default(), 64 << 20).unwrap();
        // A neighbour in the same word, and one far before, whose summaries others change.
        for stays in [CELL * 70, CELL * 64 * 64 * 3] {
            index.set(stays);
        }
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..200_000 {
                    let other = CELL * [71, 64, 64 * 64 * 3 + 1, 64 * 64 * 4, 64 * 65][round % 5];
                    index.set(other);
                    index.clear(other);
                }
                done.store(true, Ordering::Relaxed);
            });
            while !done.load(Ordering::Relaxed) {
                assert_eq!(index.find(CELL * 70 + 15), Some(CELL * 70));
                let far = index.find(CELL * 64 * 64 * 5).unwrap();
                assert!(far >= CELL * 64 * 64 * 3, "{far}");
                assert_eq!(index.find(CELL * 64 * 64 * 3), Some(CELL * 64 * 64 * 3));
            }
        });
    }
}
