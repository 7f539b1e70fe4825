//! Tables of sections whose code is next to each other, for unwinders that search one registration
//! after the other.
//!
//! A *run* is a table of sections in order of addresses, registered at once. Runs do not overlap.
//! New code forms a run of its own. When there are [`WAYS`] small runs next to each other, they are
//! joined, and so on with larger ones, as digits carry in a counter. So a section is registered
//! four times at most while more code comes after it. A run from which a section is removed is
//! split there, and so is one that gets code in a gap. So a place that is used and freed again and
//! again costs little, however large the runs around it are.
//!
//! # Other threads
//!
//! Other threads unwind meanwhile. So what changes is registered in its new form before the old one
//! is taken back, in order of addresses. libgcc 12 sorts a table at the first lookup that reaches
//! it. Of the sorted tables it searches only the last one that begins at or before a pc, and then
//! all that are not sorted yet. Of tables that begin at one address, the one that was sorted first
//! comes first. So each table is looked up, which sorts it, before anything else changes. Then a
//! table that is replaced by a longer one serves until it goes, and so does one that is split. Of
//! tables that are joined the first has to go first: if a later one went before it, its code would
//! be searched in the first.

use std::collections::BTreeMap;
use std::ops::Range;

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
                let new = if first.len() < SMALL {
                    first.insert(position, section);
                    vec![first]
                } else {
                    let second = first.split_off(position);
                    vec![first, vec![section], second]
                };
                (new, vec![run])
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
        unsafe { self.exchange(vec![run], new, &region, unwinder) };
    }

    /// Returns the last run that begins at or before an address.
    fn before(&self, address: usize) -> Option<&Run> {
        self.0.range(..=address).next_back().map(|(_, run)| run)
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
            let before = self.0.range(..start).rev().take_while(|(_, run)| fits(run)).count();
            let after = self.0.range(start..).take_while(|(_, run)| fits(run)).count();
            if count < WAYS[class] {
                return;
            }
            let mut keys: Vec<usize> =
                self.0.range(..start).rev().take(before).map(|(&key, _)| key).collect();
            keys.reverse();
            keys.extend(self.0.range(start..).take(after).map(|(&key, _)| key));
            let new = std::mem::replace(sections, Vec::with_capacity(sum));
            for (position, run) in keys.into_iter().filter_map(|key| self.0.remove(&key)).enumerate() {
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
