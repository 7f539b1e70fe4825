//! Tables of sections whose code is next to each other, for unwinders that search one registration
//! after the other.
//!
//! A *run* is a table of sections in order of addresses, registered at once. Runs do not overlap.
//! New code that comes after all other is in tables of its own at first (see `tail.rs`), which then
//! become a run. When there are [`WAYS`] small runs next to each other, they are joined, and so on
//! with larger ones, as digits carry in a counter. So a section is registered four times at most
//! while more code comes after it. A run from which a section is removed is split there, and so is
//! one that gets code in a gap. So a place that is used and freed again and again costs little,
//! however large the runs around it are.
//!
//! # Other threads
//!
//! Other threads unwind meanwhile. So what changes is registered in its new form before the old one
//! is taken back, in order of addresses. libgcc 12 sorts a table at the first lookup that reaches
//! it. Of the sorted tables it searches only the last one that begins at or before a pc, and then
//! all that are not sorted yet. Of tables that begin at one address, the one that was sorted first
//! comes first. So a table that is replaced by a longer one serves until it goes, and so does one
//! that is split, if it is sorted before its parts are, and these are added from the last to the
//! first. Of tables that are joined the first has to go first: if a later one went before it, its
//! code would be searched in the first.

use std::collections::BTreeMap;
use std::ops::Range;

use super::section::{self, Section, first_word};
use super::tail::Tail;

/// The most sections of a table.
pub(super) const MAX: usize = 256;

/// How many runs are joined, together with the smaller ones between them: those with less than 8
/// sections, with less than 64, and with more.
const WAYS: [usize; 3] = [8, 8, 4];

/// A run with at most so many sections is not split.
const SMALL: usize = 32;

/// The unwinder, as it is told about tables.
pub(super) trait Tables {
    /// Registers a table, which ends with a null.
    ///
    /// # Safety
    ///
    /// The sections are as `Registration::new` requires it. The table stays until it is removed.
    unsafe fn add(&mut self, table: &[*const u8]);

    /// Whether tables are looked up when they are added, so that no later lookup sorts them.
    fn sorts_at_once(&self) -> bool;

    /// Looks an address up, so that the unwinder sorts the table that has it.
    fn look_up(&mut self, pc: usize);

    /// Takes a table back.
    ///
    /// # Safety
    ///
    /// It was added, and not removed.
    unsafe fn remove(&mut self, table: &[*const u8]);
}

/// A table that is registered.
#[derive(Debug)]
struct Run {
    region: Range<usize>,
    /// In order of addresses; never empty.
    sections: Vec<Section>,
    table: Box<[*const u8]>,
}

// SAFETY: addresses, which belong to no thread.
unsafe impl Send for Run {}

impl Run {
    fn start(&self) -> usize {
        self.sections[0].code.start
    }

    fn end(&self) -> usize {
        self.sections.last().map_or(0, |last| last.code.end)
    }
}

/// All tables.
#[derive(Debug)]
pub(super) struct Runs {
    /// The runs, by the first address of their code.
    runs: BTreeMap<usize, Run>,
    /// The newest sections. No run is between them.
    tail: Tail,
}

impl Runs {
    pub(super) const fn new() -> Self {
        Self { runs: BTreeMap::new(), tail: Tail::new() }
    }

    /// Returns the number of tables.
    pub(super) fn len(&self) -> usize {
        self.runs.len() + self.tail.len()
    }

    /// Registers a section whose code is in `region`.
    ///
    /// # Safety
    ///
    /// As for [`Tables::add`].
    pub(super) unsafe fn add(&mut self, section: Section, region: Range<usize>, unwinder: &mut impl Tables) {
        let start = section.code.start;
        if self.tail.is_empty() || !self.tail.takes(&section, &region) {
            // SAFETY: the sections were registered, as the caller promised then.
            unsafe { self.end_tail(unwinder) };
            if self.before(start).is_some_and(|run| run.end() > start) {
                // SAFETY: the caller promises it of the new section.
                unsafe { self.add_in_gap(section, &region, unwinder) };
                return;
            }
            let limit = self.runs.range(start..).next().map_or(usize::MAX, |(&after, _)| after);
            self.tail.begin(region, limit);
        }
        // SAFETY: the caller promises it. The table stays until the section is removed or in a run.
        unsafe { unwinder.add(self.tail.push(section)) };
        if unwinder.sorts_at_once() {
            unwinder.look_up(start);
        }
        if self.tail.is_full() {
            // SAFETY: the sections were registered, as the caller promised then.
            unsafe { self.end_tail(unwinder) };
        }
    }

    /// Makes a run of the newest sections.
    ///
    /// # Safety
    ///
    /// They were registered, as for [`Tables::add`].
    unsafe fn end_tail(&mut self, unwinder: &mut impl Tables) {
        if self.tail.is_empty() {
            return;
        }
        let region = self.tail.region();
        let (mut sections, mut old) = (self.tail.sections().cloned().collect(), Vec::new());
        self.join(&mut sections, &mut old, &region);
        // SAFETY: the caller promises it, and did so of what is joined.
        unsafe { self.exchange(old, vec![sections], &region, true, unwinder) };
    }

    /// Registers a section whose code is in a gap of a run.
    ///
    /// # Safety
    ///
    /// As for [`Tables::add`].
    unsafe fn add_in_gap(&mut self, section: Section, region: &Range<usize>, unwinder: &mut impl Tables) {
        let start = section.code.start;
        let Some(run) = self.before(start).map(Run::start).and_then(|key| self.runs.remove(&key)) else {
            return;
        };
        // Sorted first, it serves until it goes.
        unwinder.look_up(run.start());
        let position = run.sections.partition_point(|known| known.code.start < start);
        let mut first = run.sections.clone();
        let new = if first.len() < SMALL {
            first.insert(position, section);
            vec![first]
        } else {
            let second = first.split_off(position);
            vec![first, vec![section], second]
        };
        // SAFETY: the caller promises it of the new section, and did so of the others.
        unsafe { self.exchange(vec![run], new, region, false, unwinder) };
    }

    /// Takes the section back whose code begins at `start`.
    ///
    /// # Safety
    ///
    /// As for [`Tables::remove`].
    pub(super) unsafe fn remove(&mut self, start: usize, unwinder: &mut impl Tables) {
        if let Some(table) = self.tail.remove(start) {
            // SAFETY: it was added.
            unsafe { unwinder.remove(table) };
            return;
        }
        let Some(key) = self.before(start).map(Run::start) else { return };
        let Some(run) = self.runs.remove(&key) else { return };
        let Some(position) = run.sections.iter().position(|section| section.code.start == start) else {
            self.runs.insert(key, run);
            return;
        };
        // Sorted first, it serves until it goes.
        unwinder.look_up(run.start());
        let region = run.region.clone();
        let mut first = run.sections[..position].to_vec();
        let mut second = run.sections[position + 1..].to_vec();
        let new = if first.len() + second.len() <= SMALL {
            first.append(&mut second);
            vec![first]
        } else {
            // What is near is in small runs, since what is removed next is often a neighbour.
            let near = first.split_off(first.len().saturating_sub(SMALL));
            let far = second.split_off(second.len().min(SMALL));
            vec![first, near, second, far]
        };
        // SAFETY: the sections were registered, as the caller promised then.
        unsafe { self.exchange(vec![run], new, &region, false, unwinder) };
    }

    /// Returns the last run that begins at or before an address.
    fn before(&self, address: usize) -> Option<&Run> {
        self.runs.range(..=address).next_back().map(|(_, run)| run)
    }

    /// Joins sections with runs around them, which move to `old`, as long as there are enough.
    fn join(&mut self, sections: &mut Vec<Section>, old: &mut Vec<Run>, region: &Range<usize>) {
        loop {
            let (start, class) = (sections[0].code.start, size_class(sections.len()));
            let (mut sum, mut count) = (sections.len(), 1);
            let mut fits = |run: &Run| {
                let len = run.sections.len();
                let fits = run.region == *region && size_class(len) <= class && sum + len <= MAX;
                if fits {
                    sum += len;
                    count += usize::from(size_class(len) == class);
                }
                fits
            };
            let before = self.runs.range(..start).rev().take_while(|(_, run)| fits(run)).count();
            let after = self.runs.range(start..).take_while(|(_, run)| fits(run)).count();
            if count < WAYS[class] {
                return;
            }
            let mut keys: Vec<usize> =
                self.runs.range(..start).rev().take(before).map(|(&key, _)| key).collect();
            keys.reverse();
            keys.extend(self.runs.range(start..).take(after).map(|(&key, _)| key));
            let new = std::mem::replace(sections, Vec::with_capacity(sum));
            for (position, run) in keys.into_iter().filter_map(|key| self.runs.remove(&key)).enumerate() {
                if position == before {
                    sections.extend_from_slice(&new);
                }
                sections.extend_from_slice(&run.sections);
                old.push(run);
            }
            if after == 0 {
                sections.extend_from_slice(&new);
            }
        }
    }

    /// Registers `new` runs, then takes `old` ones back. If `ends_tail`, the sections of the tail
    /// are in a new run, and their own tables go too.
    ///
    /// # Safety
    ///
    /// As for [`Tables`].
    unsafe fn exchange(
        &mut self,
        old: Vec<Run>,
        new: Vec<Vec<Section>>,
        region: &Range<usize>,
        ends_tail: bool,
        unwinder: &mut impl Tables,
    ) {
        let mut starts = Vec::new();
        // The last first: a pc is searched in the part that begins before it, and until that is
        // there, in the whole.
        for sections in new.into_iter().rev().filter(|sections| !sections.is_empty()) {
            let run = Run { region: region.clone(), table: table(&sections), sections };
            // SAFETY: the caller promises it. The run keeps the table.
            unsafe { unwinder.add(&run.table) };
            starts.push(run.start());
            self.runs.insert(run.start(), run);
        }
        let runs = old.iter().map(|run| (run.start(), &*run.table));
        let singles = self.tail.tables().filter(|_| ends_tail);
        let mut gone: Vec<_> = runs.chain(singles).collect();
        gone.sort_unstable_by_key(|(start, _)| *start);
        for (_, table) in gone {
            // SAFETY: it was added when the run was made, or the section came to the tail.
            unsafe { unwinder.remove(table) };
        }
        if ends_tail {
            self.tail.clear();
        }
        if unwinder.sorts_at_once() {
            starts.into_iter().for_each(|start| unwinder.look_up(start));
        }
    }

    /// Looks all tables up, so that none is sorted later.
    pub(super) fn sort(&self, unwinder: &mut impl Tables) {
        let single = |section: &Section| section.code.start;
        self.runs
            .keys()
            .copied()
            .chain(self.tail.sections().map(single))
            .for_each(|start| unwinder.look_up(start));
    }
}

/// Returns the class of a run by its number of sections, which is an index of [`WAYS`].
fn size_class(len: usize) -> usize {
    match len {
        0..8 => 0,
        8..64 => 1,
        _ => 2,
    }
}

/// Returns the addresses of sections, with a null at the end.
fn table(sections: &[Section]) -> Box<[*const u8]> {
    let mut table = Vec::with_capacity(sections.len() + 2);
    if sections.first().is_some_and(|section| first_word(section.address) == 0) {
        table.push(section::empty());
    }
    table.extend(sections.iter().map(|section| section.address));
    table.push(std::ptr::null());
    table.into()
}

#[cfg(test)]
mod tests;
