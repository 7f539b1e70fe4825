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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not taken from the system.
    Absent,
    /// Taken from the system, and zero.
    Clean,
    /// Used.
    Used,
}

impl Pages {
    pub(super) fn new(size: usize, page: usize, step: usize) -> Self {
        Self { states: Vec::new(), page, size, step: step.next_multiple_of(page) }
    }

    /// Prepares the pages of `bytes` for use. `commit` takes whole pages from the system. Returns
    /// the parts of `bytes` that must be zeroed.
    pub(super) fn touch(
        &mut self,
        bytes: Range<usize>,
        commit: &dyn Fn(Range<usize>) -> Result<(), Refused>,
    ) -> Result<Vec<Range<usize>>, Refused> {
        self.take(bytes.clone(), commit)?;
        let mut dirty: Vec<Range<usize>> = Vec::new();
        for page in bytes.start / self.page..bytes.end.div_ceil(self.page) {
            if self.states[page] != State::Used {
                self.states[page] = State::Used;
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

    /// Takes the absent pages of `bytes` from the system, and some after them.
    fn take(
        &mut self,
        bytes: Range<usize>,
        commit: &dyn Fn(Range<usize>) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        let end = bytes.end.div_ceil(self.page);
        let mut first = bytes.start / self.page;
        while first < end {
            if self.state(first) != State::Absent {
                first += 1;
                continue;
            }
            let most = end.max(first + self.step / self.page).min(self.size / self.page);
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
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn pages_are_taken_in_steps_and_zeroed_when_they_are_used_again() {
        let calls = RefCell::new(Vec::new());
        let commit = |pages: Range<usize>| {
            calls.borrow_mut().push(pages);
            Ok(())
        };
        let mut pages = Pages::new(0x9000, 0x1000, 0x4000);
        assert_eq!(pages.touch(8..16, &commit).unwrap(), []);
        assert_eq!(pages.touch(0x20..0x30, &commit).unwrap(), [0x20..0x30]);
        assert_eq!(pages.touch(0x0ff8..0x2008, &commit).unwrap(), [0x0ff8..0x1000]);
        assert_eq!(pages.touch(0x1000..0x1008, &commit).unwrap(), [0x1000..0x1008]);
        assert_eq!(pages.touch(0x3ff8..0x8ff8, &commit).unwrap(), []);
        assert_eq!(*calls.borrow(), [0..0x4000, 0x4000..0x9000]);
    }

    #[test]
    fn a_refused_call_changes_nothing() {
        let mut pages = Pages::new(0x9000, 0x1000, 0x1000);
        let refuse = |_| {
            Err(Refused { call: "mprotect", purpose: "", source: std::io::ErrorKind::OutOfMemory.into() })
        };
        assert!(pages.touch(0..0x2000, &refuse).is_err());
        assert_eq!(pages.touch(0..0x2000, &|_| Ok(())).unwrap(), []);
    }
}
