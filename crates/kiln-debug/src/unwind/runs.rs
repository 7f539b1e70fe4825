//! Tables of sections whose code is next to each other, for unwinders that search one registration
//! after the other.
//!
//! A *run* is a table of sections in order of addresses, registered at once. Runs do not overlap.
//! New code forms a run of its own, which is joined with a neighbour that is not larger, as digits
//! carry in a binary counter. So a section is registered again about log2([`MAX`]) times while
//! more code comes after it, and after that never. A run from which a section is removed is split,
//! so that the place can be used and freed again and again at a cost that does not depend on what
//! is around it, unless the run is small.
//!
//! # Other threads
//!
//! Other threads unwind meanwhile. So what changes is registered in its new form before the old one
//! is taken back, in order of addresses. libgcc 12 searches in what it has sorted only the last
//! table that begins at or before a pc, then in all that it has not sorted yet. Of tables that
//! begin at one address the older one comes first. That gives: a table that is replaced by a longer
//! one serves until it goes, and so does one that is split; of two that are joined the first has to
//! go first, for if the second went first, its code would be searched in the first.

use std::collections::BTreeMap;
use std::ops::Range;

/// The most sections of a table.
pub(super) const MAX: usize = 128;

/// Up to this size, runs are joined whatever their sizes are, and keep gaps.
const SMALL: usize = 16;

/// The unwinder, as it is told about tables.
pub(super) trait Tables {
    /// Registers a table, which ends with a null.
    ///
    /// # Safety
    ///
    /// The sections are as `Registration::new` requires it. The table stays until it is removed.
    unsafe fn add(&mut self, table: &[*const u8]);

    /// Looks an address up, so that the unwinder sorts the table that has it.
    fn look_up(&mut self, pc: usize);

    /// Takes a table back.
    ///
    /// # Safety
    ///
    /// It was added, and not removed.
    unsafe fn remove(&mut self, table: &[*const u8]);
}

/// A section of rows, and the code that it describes.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) code: Range<usize>,
    pub(super) address: *const u8,
}

// SAFETY: two addresses, which belong to no thread.
unsafe impl Send for Section {}

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

/// All tables, by the first address of their code.
#[derive(Debug)]
pub(super) struct Runs(BTreeMap<usize, Run>);

impl Runs {
    pub(super) const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Returns the number of tables.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Registers a section whose code is in `region`.
    ///
    /// # Safety
    ///
    /// As for [`Tables::add`].
    pub(super) unsafe fn add(&mut self, section: Section, region: Range<usize>, unwinder: &mut impl Tables) {
        let start = section.code.start;
        let gap = self.before(start).filter(|run| run.end() > start).map(Run::start);
        let (new, old) = match gap.and_then(|key| self.0.remove(&key)) {
            // The code is in a gap of a run.
            Some(run) => {
                let position = run.sections.partition_point(|known| known.code.start < start);
                let mut first = run.sections.clone();
                let second = if first.len() < MAX { Vec::new() } else { first.split_off(position) };
                first.insert(position, section);
                (vec![first, second], vec![run])
            }
            None => {
                let (mut sections, mut old) = (vec![section], Vec::new());
                self.join(&mut sections, &mut old, &region);
                (vec![sections], old)
            }
        };
        // SAFETY: the caller promises it of the new section, and did so of the others.
        unsafe { self.exchange(old, new, &region, unwinder) };
    }

    /// Takes the section back whose code begins at `start`.
    ///
    /// # Safety
    ///
    /// As for [`Tables::remove`].
    pub(super) unsafe fn remove(&mut self, start: usize, unwinder: &mut impl Tables) {
        let Some(key) = self.before(start).map(Run::start) else { return };
        let Some(run) = self.0.remove(&key) else { return };
        let Some(position) = run.sections.iter().position(|section| section.code.start == start) else {
            self.0.insert(key, run);
            return;
        };
        let region = run.region.clone();
        let mut first = run.sections[..position].to_vec();
        let mut second = run.sections[position + 1..].to_vec();
        let mut old = vec![run];
        if first.len() + second.len() <= SMALL {
            first.append(&mut second);
            if !first.is_empty() {
                self.join(&mut first, &mut old, &region);
            }
        }
        // SAFETY: the sections were registered, as the caller promised then.
        unsafe { self.exchange(old, vec![first, second], &region, unwinder) };
    }

    /// Returns the last run that begins at or before an address.
    fn before(&self, address: usize) -> Option<&Run> {
        self.0.range(..=address).next_back().map(|(_, run)| run)
    }

    /// Joins sections with the runs around them, which move to `old`.
    fn join(&mut self, sections: &mut Vec<Section>, old: &mut Vec<Run>, region: &Range<usize>) {
        loop {
            let (len, start) = (sections.len(), sections[0].code.start);
            let fits = |(&key, run): (&usize, &Run)| {
                let sum = len + run.sections.len();
                let fits = run.region == *region && sum <= MAX && (run.sections.len() <= len || sum <= SMALL);
                fits.then_some(key)
            };
            let before = self.0.range(..start).next_back().and_then(fits);
            let after = self.0.range(start..).next().and_then(fits);
            let Some(run) = before.or(after).and_then(|key| self.0.remove(&key)) else { return };
            if run.start() < start {
                sections.splice(..0, run.sections.iter().cloned());
            } else {
                sections.extend(run.sections.iter().cloned());
            }
            old.push(run);
        }
    }

    /// Registers `new` runs, then takes `old` ones back.
    ///
    /// # Safety
    ///
    /// As for [`Tables`].
    unsafe fn exchange(
        &mut self,
        mut old: Vec<Run>,
        new: Vec<Vec<Section>>,
        region: &Range<usize>,
        unwinder: &mut impl Tables,
    ) {
        let mut starts = Vec::new();
        for sections in new.into_iter().filter(|sections| !sections.is_empty()) {
            let run = Run { region: region.clone(), table: table(&sections), sections };
            // SAFETY: the caller promises it. The run keeps the table.
            unsafe { unwinder.add(&run.table) };
            starts.push(run.start());
            self.0.insert(run.start(), run);
        }
        old.sort_unstable_by_key(Run::start);
        for run in old {
            // SAFETY: it was added when the run was made.
            unsafe { unwinder.remove(&run.table) };
        }
        starts.into_iter().for_each(|start| unwinder.look_up(start));
    }
}

/// Returns the addresses of sections, with a null at the end.
fn table(sections: &[Section]) -> Box<[*const u8]> {
    /// A section without rows.
    static EMPTY: [u32; 2] = [0; 2];
    let mut table = Vec::with_capacity(sections.len() + 2);
    // libgcc ignores what begins with a word of 32 zero bits, because it takes it for the end of a
    // section. An address of a table may have them.
    if sections.first().is_some_and(|section| first_word(section.address) == 0) {
        table.push(EMPTY.as_ptr().cast());
        if first_word(table[0]) == 0 {
            table[0] = EMPTY[1..].as_ptr().cast();
        }
    }
    table.extend(sections.iter().map(|section| section.address));
    table.push(std::ptr::null());
    table.into()
}

/// Returns the first 32 bits of an address in memory.
fn first_word(address: *const u8) -> u32 {
    let [a, b, c, d, ..] = address.addr().to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests;
