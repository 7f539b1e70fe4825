//! A stream with its checkpoints, and the entries of each kind of stream.

use super::cursor::Cursor;
use super::format::{CHECKPOINT, Checkpoint, STRIDE, checkpoints};
use super::group::{self, SourceGroup, TrapGroup};

/// A stream with its checkpoints.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    checkpoints: &'a [Checkpoint],
    stream: &'a [u8],
}

/// The state of the reader of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: Cursor<'a>,
    /// The last offset of the entry before, from the start of the function; the last location, of
    /// lines.
    offset: u32,
    /// The location or the line of the entry before, or the number of handlers of all entries
    /// before.
    pub(super) extra: u32,
    /// The number of entries that may be read: no lookup takes longer, whatever the bytes are.
    budget: usize,
}

/// A source location: a range of code, from the start of the function.
pub(super) struct Source {
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) location: u32,
}

/// A line: the place that source locations from `location` on stand for.
pub(super) struct LineEntry {
    pub(super) location: u32,
    pub(super) file: u32,
    pub(super) line: u32,
    pub(super) column: u32,
}

/// A call: its return offset from the start of the function.
pub(super) struct CallEntry {
    pub(super) offset: u32,
    pub(super) frame_offset: Option<u32>,
    /// Number of the first of its handlers.
    pub(super) first_handler: u32,
    pub(super) handlers: u32,
}

/// A stack map: the return offset from the start of the function.
pub(super) struct MapEntry<'a> {
    pub(super) offset: u32,
    pub(super) span: u32,
    pub(super) roots: &'a [u8],
}

impl<'a> Part<'a> {
    /// Reads a part whose stream has `len` bytes.
    pub(super) fn read(cursor: &mut Cursor<'a>, len: usize) -> Option<Self> {
        Some(Self { checkpoints: cursor.records(checkpoints(len))?, stream: cursor.bytes(len)? })
    }

    /// Returns the bytes of a part whose stream has `len` bytes.
    pub(super) fn len(len: usize) -> usize {
        len.saturating_add(CHECKPOINT.saturating_mul(checkpoints(len)))
    }

    /// Returns the bytes of the stream, and those of its checkpoints.
    pub(super) fn lens(&self) -> (usize, usize) {
        (self.stream.len(), size_of_val(self.checkpoints))
    }

    /// Returns a reader of the whole stream, without a limit.
    pub(super) fn whole(&self, extra: u32) -> Reader<'a> {
        Reader::whole(self.stream, extra)
    }

    /// Returns a reader at the last checkpoint before which all offsets are `early`. `guess` is
    /// where it may be, see [`Guess`]; `extra` is the value at the start of the stream.
    #[inline]
    pub(super) fn seek(&self, extra: u32, guess: Guess, early: impl Fn(u32) -> bool) -> Option<Reader<'a>> {
        self.seek_back(extra, guess, early, 0)
    }

    /// As [`seek`](Self::seek), but `back` checkpoints before that one: the last early entry may be
    /// the one before a checkpoint.
    #[inline]
    pub(super) fn seek_back(
        &self,
        extra: u32,
        guess: Guess,
        early: impl Fn(u32) -> bool,
        back: usize,
    ) -> Option<Reader<'a>> {
        let after = guess.search(self.checkpoints, |checkpoint| early(checkpoint.offset.get()));
        let at = after.checked_sub(1 + back);
        let (position, offset, extra) = match at.and_then(|at| self.checkpoints.get(at)) {
            Some(at) => (at.position.get(), at.offset.get(), at.extra.get()),
            None => (0, 0, extra),
        };
        let rest = self.stream.get(usize::try_from(position).ok()?..)?;
        Some(Reader { rest: Cursor(rest), offset, extra, budget: STRIDE })
    }
}

/// The likely place of a checkpoint: as far in the list as the offset is in the function. Entries
/// of a function are about equally dense, so the search begins a few checkpoints off, which are on
/// one or two lines of the cache, however long the list is.
#[derive(Clone, Copy)]
pub(super) struct Guess {
    offset: u32,
    len: u32,
}

impl Guess {
    /// Makes a guess for an offset in a function of `len` bytes.
    pub(super) fn new(offset: u32, len: u32) -> Self {
        Self { offset, len }
    }

    /// Makes no guess: the search begins in the middle.
    pub(super) fn none() -> Self {
        Self { offset: 1, len: 2 }
    }

    /// Returns the number of records before which, and of which, `early` is true, as
    /// [`partition_point`](slice::partition_point).
    #[inline]
    fn search<T>(self, records: &[T], early: impl Fn(&T) -> bool) -> usize {
        let count = records.len();
        let guess = (u64::from(self.offset) * count as u64 / u64::from(self.len.max(1))) as usize;
        let (before, after) = records.split_at(guess.min(count));
        let is_early = |record: Option<&T>| record.is_some_and(&early);
        // The distance from the guess doubles, until the result is in between.
        let mut step = 1;
        let (low, high) = if is_early(after.first()) {
            while is_early(after.get(step)) {
                step *= 2;
            }
            (before.len() + step / 2 + 1, before.len() + step.min(after.len()))
        } else {
            while step <= before.len() && !early(&before[before.len() - step]) {
                step *= 2;
            }
            (before.len().saturating_sub(step), before.len() - step / 2)
        };
        low + records[low..high].partition_point(&early)
    }
}

impl<'a> Reader<'a> {
    /// Returns a reader of a stream from its start, without a limit.
    pub(super) fn whole(stream: &'a [u8], extra: u32) -> Self {
        Self { rest: Cursor(stream), offset: 0, extra, budget: usize::MAX }
    }

    /// Returns the number of bytes that are left, and the last offset that was read.
    #[cfg(feature = "link")]
    pub(super) fn state(&self) -> (usize, u32) {
        (self.rest.0.len(), self.offset)
    }

    fn start(&mut self) -> Option<()> {
        self.budget = self.budget.checked_sub(1)?;
        Some(())
    }

    #[inline]
    fn step(&mut self, step: u32) -> Option<u32> {
        self.offset = self.offset.checked_add(step)?;
        Some(self.offset)
    }

    /// Reads a trap: its offset, and its code.
    #[inline]
    pub(super) fn trap(&mut self) -> Option<(u32, u8)> {
        self.start()?;
        let step = self.rest.uint()?;
        Some((self.step(step)?, self.rest.byte()?))
    }

    /// Returns the location of the range that has a byte at `offset`, which no range before this
    /// one has or comes after.
    #[inline]
    pub(super) fn find_source(mut self, offset: u32) -> Option<u32> {
        loop {
            if let Some(group) = SourceGroup::read(self.rest.0) {
                let end = self.offset.checked_add(group.len())?;
                if offset < end {
                    let inside = offset.checked_sub(self.offset)?;
                    return Some(self.extra.wrapping_add_signed(group.difference_at(inside)));
                }
                self.extra = self.extra.wrapping_add_signed(group.difference());
                self.skip(end)?;
                continue;
            }
            let source = self.source()?;
            if offset < source.end {
                return (source.start <= offset).then_some(self.extra);
            }
        }
    }

    /// Returns the code of the first trap at `offset`, which no trap before this one comes after.
    #[inline]
    pub(super) fn find_trap(mut self, offset: u32) -> Option<u8> {
        loop {
            if let Some(group) = TrapGroup::read(self.rest.0) {
                let last = self.offset.checked_add(group.len())?;
                if offset <= last {
                    return group.at(offset.checked_sub(self.offset)?);
                }
                self.skip(last)?;
                continue;
            }
            let (at, code) = self.trap()?;
            if at >= offset {
                return (at == offset).then_some(code);
            }
        }
    }

    /// Skips a group, at the end of which the last offset is `offset`.
    #[inline]
    fn skip(&mut self, offset: u32) -> Option<()> {
        self.budget = self.budget.checked_sub(group::ENTRIES)?;
        self.rest.bytes(group::BYTES)?;
        self.offset = offset;
        Some(())
    }

    pub(super) fn call(&mut self) -> Option<CallEntry> {
        self.start()?;
        let step = self.rest.uint()?;
        let offset = self.step(step)?;
        let frame_offset = self.rest.uint()?.checked_sub(1);
        let (first_handler, handlers) = (self.extra, self.rest.uint()?);
        self.extra = first_handler.checked_add(handlers)?;
        Some(CallEntry { offset, frame_offset, first_handler, handlers })
    }

    pub(super) fn map(&mut self) -> Option<MapEntry<'a>> {
        self.start()?;
        let step = self.rest.uint()?;
        Some(MapEntry { offset: self.step(step)?, span: self.rest.uint()?, roots: self.rest.text()? })
    }

    #[inline]
    pub(super) fn source(&mut self) -> Option<Source> {
        self.start()?;
        // Most entries have two bytes, and no gap.
        if let [head @ ..0x80, code @ ..0x80, ref rest @ ..] = *self.rest.0
            && head & 1 == 0
        {
            self.rest = Cursor(rest);
            let (start, end) = (self.offset, self.step((head >> 1).into())?);
            self.differ(code.into());
            return Some(Source { start, end, location: self.extra });
        }
        let head = self.rest.uint()?;
        let gap = if head & 1 == 0 { 0 } else { self.rest.uint()? };
        let start = self.step(gap)?;
        let end = self.step(head >> 1)?;
        Some(Source { start, end, location: self.differing()? })
    }

    pub(super) fn line(&mut self) -> Option<LineEntry> {
        self.start()?;
        let step = self.rest.uint()?;
        let (location, file) = (self.step(step)?, self.rest.uint()?);
        Some(LineEntry { location, file, line: self.differing()?, column: self.rest.uint()? })
    }

    /// Reads a zigzag-encoded difference from the entry before.
    #[inline]
    fn differing(&mut self) -> Option<u32> {
        let code = self.rest.uint()?;
        self.differ(code);
        Some(self.extra)
    }

    #[inline]
    fn differ(&mut self, code: u32) {
        let difference = (code >> 1) as i32 ^ -((code & 1) as i32);
        self.extra = self.extra.wrapping_add_signed(difference);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_find_what_a_binary_search_finds() {
        for count in (0..20_u32).chain([63, 64, 65, 1000]) {
            let records: Vec<u32> = (0..count).map(|number| number * number).collect();
            let len = count * count + 1;
            for offset in (0..=len).step_by(1 + len as usize / 500) {
                let expected = records.partition_point(|&record| record <= offset);
                // Also guesses that are far off, and those of hostile lengths.
                for guess in [
                    Guess::new(offset, len),
                    Guess::none(),
                    Guess::new(0, len),
                    Guess::new(len, len),
                    Guess::new(u32::MAX, 0),
                ] {
                    assert_eq!(
                        guess.search(&records, |&record| record <= offset),
                        expected,
                        "{offset} {len}"
                    );
                }
            }
        }
    }

    #[test]
    fn guesses_end_in_records_without_order() {
        let records: Vec<u32> = (0..1000_u32).map(|number| number.wrapping_mul(2_654_435_761)).collect();
        for offset in (0..u32::MAX - 1_000_000).step_by(1_000_000) {
            let looked_at = std::cell::Cell::new(0);
            let found = Guess::new(offset, u32::MAX).search(&records, |&record| {
                looked_at.set(looked_at.get() + 1);
                record <= offset
            });
            assert!(found <= records.len() && looked_at.get() < 30, "{} looks", looked_at.get());
        }
    }
}
