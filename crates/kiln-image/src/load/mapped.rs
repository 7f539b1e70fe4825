//! A mapped image: its memory, and what was found when it was checked.

use std::ops::Range;
use std::sync::OnceLock;

use kiln_globals::SlotKey;

use super::map::Reservation;
use crate::arch::Arch;
use crate::note::{Note, PREFIX_LEN};
use crate::read::{DynamicSymbol, Found, Segment, Tables};

/// The mapping and the results of its checks, shared by the unbound and the bound state.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) memory: Reservation,
    pub(super) arch: Arch,
    pub(super) segments: Vec<Segment>,
    /// The note's range of the file.
    pub(super) note: Range<usize>,
    /// Length of the first segment, which is never written.
    pub(super) readable: usize,
    /// The keys of the external slots, read when they are first needed.
    pub(super) slots: OnceLock<Box<[SlotKey]>>,
    /// The indices of the exports in order of their names, sorted when a look-up first needs them.
    pub(super) sorted: OnceLock<Box<[u32]>>,
}

impl Mapped {
    /// Returns the tables in the first segment, which is never written.
    pub(super) fn tables(&self) -> Tables<'_> {
        // SAFETY: the first segment stays readable as long as `memory` lives; only writable
        // segments are written, and segments do not overlap.
        let bytes = unsafe { self.memory.bytes(self.readable) };
        let body = &bytes[self.note.start + PREFIX_LEN..self.note.end];
        let note = Note::again(body).expect("the note was checked when the image was mapped");
        Tables { bytes, endian: self.arch.endian(), note }
    }

    /// Finds an export.
    pub(super) fn lookup(&self, name: &str) -> Option<DynamicSymbol> {
        let tables = self.tables();
        match tables.lookup(name) {
            Found::Export(symbol) => Some(symbol),
            Found::Nothing => None,
            Found::LongChain => {
                tables.lookup_sorted(self.sorted.get_or_init(|| tables.sorted_exports()), name)
            }
        }
    }

    /// Returns the keys of the external slots, or an empty list if a record is invalid.
    /// `Image::bind` refuses such an image.
    pub(super) fn slots(&self) -> &[SlotKey] {
        self.slots.get_or_init(|| self.tables().slot_keys().unwrap_or_default().into())
    }
}
