//! The pages of a region: which were taken from the system, and which have been used.
//!
//! A page that the system just provided is zero. A page that was used must be zeroed before it is
//! used again.

use std::ops::Range;

use super::system::Refused;

/// The state of each page of a region, up to the last that was taken from the system.
#[derive(Debug)]
pub(super) struct Pages {
    states: Vec<State>,
    page: usize,
    /// The size of the region, in bytes.
    size: usize,
    /// Bytes to take from the system at once, so that few calls are needed.
    step: usize,
    used: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not taken from the system.
    Absent,
    /// Taken from the system, and zero.
    Clean,
    /// Used, for the first time after this number of forks.
    Used { since: u32 },
}

/// The number of pages that are taken at first.
const FIRST: usize = 4;

/// Takes whole pages from the system or gives them back.
pub(super) type Call<'c> = &'c dyn Fn(Range<usize>) -> Result<(), Refused>;

impl Pages {
    /// Returns the pages of a region of `size` bytes; nothing is taken yet.
    pub(super) fn new(size: usize, page: usize, step: usize) -> Self {
        Self { states: Vec::new(), page, size, step: step.next_multiple_of(page), used: 0 }
    }

    /// Prepares the pages of `bytes` for use, after `forks` forks. `commit` takes pages from the
    /// system. Returns the parts of `bytes` that must be zeroed, if `zeroed` says that they have to
    /// be zero.
    pub(super) fn touch(
        &mut self,
        bytes: Range<usize>,
        forks: u32,
        zeroed: bool,
        commit: Call<'_>,
    ) -> Result<Vec<Range<usize>>, Refused> {
        self.take(bytes.clone(), commit)?;
        let mut dirty: Vec<Range<usize>> = Vec::new();
        for page in self.pages(&bytes) {
            if !matches!(self.states[page], State::Used { .. }) {
                self.states[page] = State::Used { since: forks };
                self.used += 1;
                continue;
            }
            if !zeroed {
                continue;
            }
            let part = bytes.start.max(page * self.page)..bytes.end.min((page + 1) * self.page);
            match dirty.last_mut().filter(|last| last.end == part.start) {
                Some(last) => last.end = part.end,
                None => dirty.push(part),
            }
        }
        Ok(dirty)
    }

    /// Returns the numbers of the pages that `bytes` are in.
    fn pages(&self, bytes: &Range<usize>) -> Range<usize> {
        bytes.start / self.page..bytes.end.div_ceil(self.page)
    }

    /// Takes the absent pages of `bytes` from the system, and some after them.
    pub(super) fn take(&mut self, bytes: Range<usize>, commit: Call<'_>) -> Result<(), Refused> {
        let Range { start: mut first, end } = self.pages(&bytes);
        while first < end {
            if self.state(first) != State::Absent {
                first += 1;
                continue;
            }
            // A memory with little in it takes little.
            let step = (self.step / self.page).min(self.states.len().max(FIRST));
            let most = end.max(first + step).min(self.size / self.page);
            let last = (first..most).find(|&page| self.state(page) != State::Absent).unwrap_or(most);
            commit(first * self.page..last * self.page)?;
            if self.states.len() < last {
                self.states.resize(last, State::Absent);
            }
            self.states[first..last].fill(State::Clean);
            first = last;
        }
        Ok(())
    }

    fn state(&self, page: usize) -> State {
        self.states.get(page).copied().unwrap_or(State::Absent)
    }

    /// Returns the number of bytes in pages that are used, or were and may not be zero.
    pub(super) fn used(&self) -> usize {
        self.used * self.page
    }

    /// Returns the ranges of used pages.
    pub(super) fn used_ranges(&self) -> impl Iterator<Item = Range<usize>> {
        let is_used = |state: &State| matches!(state, State::Used { .. });
        let mut first = 0;
        self.states.chunk_by(move |a, b| is_used(a) == is_used(b)).filter_map(move |run| {
            let start = first;
            first += run.len();
            is_used(&run[0]).then_some(start * self.page..first * self.page)
        })
    }

    /// Divides `bytes` by the number of forks after which their pages were first used.
    pub(super) fn by_age(&self, bytes: Range<usize>) -> Vec<(u32, Range<usize>)> {
        let mut parts: Vec<(u32, Range<usize>)> = Vec::new();
        for page in self.pages(&bytes) {
            let State::Used { since } = self.state(page) else { continue };
            let part = bytes.start.max(page * self.page)..bytes.end.min((page + 1) * self.page);
            match parts.last_mut().filter(|(age, last)| *age == since && last.end == part.start) {
                Some((_, last)) => last.end = part.end,
                None => parts.push((since, part)),
            }
        }
        parts
    }

    /// Says that pages that were not used are not ours any more.
    pub(super) fn forget_clean(&mut self) {
        for state in self.states.iter_mut().filter(|state| **state == State::Clean) {
            *state = State::Absent;
        }
    }

    /// Gives used pages that are inside `free` back to the system, at most `budget` bytes of them,
    /// and returns how many. `stay` says that such pages remain ours and are zero. Pages that the
    /// system does not take are kept.
    pub(super) fn discard(&mut self, free: Range<usize>, budget: usize, stay: bool, call: Call<'_>) -> usize {
        let end = (free.end / self.page).min(self.states.len());
        let mut first = free.start.div_ceil(self.page);
        let mut done = 0;
        while first < end && done < budget {
            let is_used = |state: &State| matches!(state, State::Used { .. });
            let most = end.min(first + (budget - done).div_ceil(self.page));
            let Some(start) = self.states[first..end].iter().position(is_used).map(|n| first + n) else {
                break;
            };
            let most = most.max(start + 1);
            let run = self.states[start..most].iter().take_while(|state| is_used(state)).count();
            first = start + run;
            if call(start * self.page..first * self.page).is_err() {
                break;
            }
            self.states[start..first].fill(if stay { State::Clean } else { State::Absent });
            self.used -= run;
            done += run * self.page;
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const NONE: [Range<usize>; 0] = [];

    fn one(range: Range<usize>) -> Vec<Range<usize>> {
        std::iter::once(range).collect()
    }

    #[test]
    fn pages_are_taken_in_steps_and_zeroed_when_they_are_used_again() {
        let calls = RefCell::new(Vec::new());
        let commit = |pages: Range<usize>| {
            calls.borrow_mut().push(pages);
            Ok(())
        };
        let mut pages = Pages::new(0x9000, 0x1000, 0x4000);
        assert_eq!(pages.touch(8..16, 0, true, &commit).unwrap(), NONE);
        assert_eq!(pages.touch(0x20..0x30, 0, true, &commit).unwrap(), one(0x20..0x30));
        assert_eq!(pages.touch(0x0ff8..0x2008, 0, true, &commit).unwrap(), one(0x0ff8..0x1000));
        assert_eq!(pages.touch(0x1000..0x1008, 0, true, &commit).unwrap(), one(0x1000..0x1008));
        assert_eq!(pages.touch(0x3ff8..0x8ff8, 0, true, &commit).unwrap(), NONE);
        assert_eq!(*calls.borrow(), [0..0x4000, 0x4000..0x9000]);
    }

    #[test]
    fn a_refused_call_changes_nothing() {
        let mut pages = Pages::new(0x9000, 0x1000, 0x1000);
        let refuse = |_| {
            Err(Refused { call: "mprotect", purpose: "", source: std::io::ErrorKind::OutOfMemory.into() })
        };
        assert!(pages.touch(0..0x2000, 0, true, &refuse).is_err());
        assert_eq!(pages.touch(0..0x2000, 0, true, &|_| Ok(())).unwrap(), NONE);
        assert_eq!(pages.discard(0..0x2000, usize::MAX, false, &refuse), 0);
        assert_eq!(pages.used(), 0x2000);
    }

    #[test]
    fn free_pages_go_back_in_pieces() {
        for stay in [false, true] {
            let calls = RefCell::new(Vec::new());
            let call = |pages: Range<usize>| {
                calls.borrow_mut().push(pages);
                Ok(())
            };
            let mut pages = Pages::new(0x9000, 0x1000, 0x1000);
            pages.touch(0..0x4000, 0, true, &call).unwrap();
            pages.touch(0x5000..0x8000, 0, true, &call).unwrap();
            calls.borrow_mut().clear();
            // Pages 1 to 6 are whole and free.
            assert_eq!(pages.discard(0x800..0x7800, 0x2000, stay, &call), 0x2000);
            assert_eq!(pages.discard(0x800..0x7800, usize::MAX, stay, &call), 0x3000);
            assert_eq!(pages.discard(0x800..0x7800, usize::MAX, stay, &call), 0);
            assert_eq!(*calls.borrow(), [0x1000..0x3000, 0x3000..0x4000, 0x5000..0x7000]);
            assert_eq!(pages.used(), 0x2000);
            calls.borrow_mut().clear();
            let dirty = pages.touch(0..0x3000, 0, true, &call).unwrap();
            assert_eq!(dirty.len(), 1);
            assert_eq!(dirty[0], 0..0x1000);
            assert_eq!(calls.borrow().len(), usize::from(!stay));
        }
    }
}
