//! Finding a place in the code of a loaded image.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::bind::Loaded;
use crate::code::{CodeTables, Location};

impl Loaded {
    /// Returns the code tables. `None` if the image has no functions.
    pub fn code_tables(&self) -> Option<CodeTables<'_>> {
        CodeTables::read(self.mapped.code_tables())
    }

    /// Finds the instruction at an address: its function, module, source location, and what else is
    /// known about it. `None` if the address is in no function or stub of the image. In the stub of
    /// a replaceable function, the function is found that it leads to, see [`Location::is_stub`].
    ///
    /// This allocates nothing, takes no lock, makes no system call, and is safe in a signal
    /// handler. Comparison H of `benches/peers` measures how long it takes.
    pub fn locate(&self, address: *const u8) -> Option<Location<'_>> {
        self.places()?.find(address as u64)
    }

    /// Finds the call that returns to an address, as [`locate`](Self::locate) finds an instruction.
    /// Return addresses are what a walk over a stack finds, in all frames but the innermost.
    pub fn locate_call(&self, return_address: *const u8) -> Option<Location<'_>> {
        self.places()?.find_call(return_address as u64)
    }

    /// Returns what is needed to find places.
    #[inline]
    pub(super) fn places(&self) -> Option<Places<'_>> {
        let head = self.mapped.head();
        let (code, array) = (self.range(head.text), head.slot_array);
        let slots = match array.len.get() as usize / size_of::<AtomicU64>() {
            0 => &[][..],
            // SAFETY: `View` has found the slot array in a segment that is writable, and aligned.
            // Once the image is bound, which has made the segment writable, slots change in atomic
            // operations only.
            count => unsafe { std::slice::from_raw_parts(self.range(array).start.cast(), count) },
        };
        let text = code.start as u64..code.end as u64;
        Some(Places { text, tables: CodeTables::read(self.mapped.code_tables())?, slots })
    }
}

/// The code of a loaded image, and what leads to places in it.
#[derive(Clone, Debug)]
pub(super) struct Places<'a> {
    /// The addresses of the code.
    pub(super) text: Range<u64>,
    tables: CodeTables<'a>,
    slots: &'a [AtomicU64],
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
