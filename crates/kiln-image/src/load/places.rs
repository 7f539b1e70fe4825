//! The places in the code of a loaded image.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::code::{CodeTables, Location};

/// The code of a loaded image, and what leads to places in it.
#[derive(Clone, Debug)]
pub(super) struct Places<'a> {
    /// The addresses of the code.
    pub(super) text: Range<u64>,
    pub(super) tables: CodeTables<'a>,
    pub(super) slots: &'a [AtomicU64],
}

impl<'a> Places<'a> {
    /// Finds an instruction.
    #[inline]
    pub(super) fn find(&self, address: u64) -> Option<Location<'a>> {
        if !self.text.contains(&address) {
            return None;
        }
        let found = Location::find(self.tables, self.text.start, address)?;
        if found.is_stub() { Some(self.through(&found).unwrap_or(found)) } else { Some(found) }
    }

    /// Finds the call that returns to an address.
    pub(super) fn find_call(&self, address: u64) -> Option<Location<'a>> {
        // The end may be a return address.
        if !(self.text.start..=self.text.end).contains(&address) {
            return None;
        }
        Location::find_call(self.tables, self.text.start, address)
    }

    /// Finds the function of the image to which the stub of a replaceable function leads.
    #[cold]
    fn through(&self, stub: &Location<'a>) -> Option<Location<'a>> {
        let slot = self.slots.get(stub.function().slot()? as usize)?;
        let target = slot.load(Ordering::Acquire);
        let inside = self.text.contains(&target);
        inside.then(|| Location::find_through_stub(self.tables, self.text.start, target))?
    }
}
