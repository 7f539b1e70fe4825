//! The newest sections, in order of addresses, each registered by itself.
//!
//! Most code comes after what came before. Then a section is added here, without an allocation and
//! without a look at other tables, and every [`TAIL`] sections become a run.

use std::ops::Range;

use super::section::{Section, first_word};

/// The most sections.
pub(super) const TAIL: usize = 16;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Tail {
    region: Range<usize>,
    /// The first address of the table after these sections.
    limit: usize,
    /// In order of addresses.
    singles: Vec<Single>,
    /// The tables of all of them. They do not move while they are registered.
    tables: Option<Box<[Table; TAIL]>>,
    /// A bit for each table that is in use.
    used: u16,
}

#[derive(Debug)]
struct Single {
    section: Section,
    /// The number of its table.
    table: usize,
}

/// A section and the null at the end. What comes before it is used for addresses that libgcc would
/// take for the end.
#[derive(Clone, Copy, Debug)]
struct Table([*const u8; 3]);

// SAFETY: addresses, which belong to no thread.
unsafe impl Send for Table {}

impl Table {
    const EMPTY: Self = Self([std::ptr::null(); 3]);

    /// Returns the part that is registered.
    fn registered(&self) -> &[*const u8] {
        &self.0[usize::from(self.0[0].is_null())..]
    }
}

impl Tail {
    pub(super) const fn new() -> Self {
        Self { region: 0..0, limit: 0, singles: Vec::new(), tables: None, used: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.singles.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.singles.is_empty()
    }

    /// Whether there is no more room.
    pub(super) fn is_full(&self) -> bool {
        self.singles.len() == TAIL
    }

    pub(super) fn region(&self) -> Range<usize> {
        self.region.clone()
    }

    /// Returns the sections, in order of addresses.
    pub(super) fn sections(&self) -> impl Iterator<Item = &Section> {
        self.singles.iter().map(|single| &single.section)
    }

    /// Begins anew, with code in `region` that ends at `limit` at the latest. It must be empty.
    pub(super) fn begin(&mut self, region: Range<usize>, limit: usize) {
        debug_assert!(self.is_empty());
        (self.region, self.limit) = (region, limit);
    }

    /// Whether a section comes after all others, and before the next table.
    pub(super) fn takes(&self, section: &Section, region: &Range<usize>) -> bool {
        let code = &section.code;
        self.region == *region
            && code.end <= self.limit
            && self.singles.last().is_none_or(|last| last.section.code.end <= code.start)
    }

    /// Adds a section that it [takes](Self::takes). Returns the table that is to be registered.
    pub(super) fn push(&mut self, section: Section) -> &[*const u8] {
        let number = self.used.trailing_ones() as usize;
        let table = &mut self.tables.get_or_insert_with(|| Box::new([Table::EMPTY; TAIL]))[number];
        self.used |= 1 << number;
        let before =
            if first_word(section.address) == 0 { super::section::empty() } else { std::ptr::null() };
        table.0 = [before, section.address, std::ptr::null()];
        self.singles.push(Single { section, table: number });
        table.registered()
    }

    /// Takes the section out whose code begins at `start`. Returns its table, which must be taken
    /// back before another section is added.
    pub(super) fn remove(&mut self, start: usize) -> Option<&[*const u8]> {
        let position = self.singles.binary_search_by_key(&start, |single| single.section.code.start).ok()?;
        let number = self.singles.remove(position).table;
        self.used &= !(1 << number);
        self.tables.as_ref().map(|tables| tables[number].registered())
    }

    /// Returns the first address and the table of each section, in order.
    pub(super) fn tables(&self) -> impl Iterator<Item = (usize, &[*const u8])> {
        self.tables.iter().flat_map(|tables| {
            let table = |single: &Single| (single.section.code.start, tables[single.table].registered());
            self.singles.iter().map(table)
        })
    }

    /// Forgets all sections.
    pub(super) fn clear(&mut self) {
        self.singles.clear();
        self.used = 0;
    }
}
