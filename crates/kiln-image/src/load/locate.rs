//! Finding a place in the code of a loaded image.

use std::sync::atomic::AtomicU64;

use super::bind::Loaded;
use super::places::Places;
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
        let code = self.code();
        let text = code.start as u64..code.end as u64;
        let tables = CodeTables::read(self.mapped.code_tables())?;
        Some(Places { text, tables, slots: self.stored_slots() })
    }

    /// Returns the slots that are in memory.
    #[inline]
    pub(super) fn stored_slots(&self) -> &[AtomicU64] {
        let array = self.mapped.head().slot_array;
        match array.len.get() as usize / size_of::<AtomicU64>() {
            0 => &[],
            // SAFETY: `View` has found the slot array in a segment that is writable, and aligned.
            // Once the image is bound, which has made the segment writable, slots change in atomic
            // operations only.
            count => unsafe { std::slice::from_raw_parts(self.range(array).start.cast(), count) },
        }
    }
}
