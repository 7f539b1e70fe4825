//! Finding a place in the code of a loaded image.

use super::bind::Loaded;
use crate::code::{CodeTables, Location};

impl Loaded {
    /// Returns the code tables. `None` if the image has no functions.
    pub fn code_tables(&self) -> Option<CodeTables<'_>> {
        self.mapped.tables().code_tables()
    }

    /// Finds the instruction at an address: its function, module, source location, and what else is
    /// known about it. `None` if the address is in no function of the image.
    ///
    /// This allocates nothing, takes no lock, makes no system call, and is safe in a signal
    /// handler. It takes about 50 ns; reading source location and trap takes a few hundred more.
    pub fn locate(&self, address: *const u8) -> Option<Location<'_>> {
        self.find(address, Location::find)
    }

    /// Finds the call that returns to an address, as [`locate`](Self::locate) finds an instruction.
    /// Return addresses are what a walk over a stack finds, in all frames but the innermost.
    pub fn locate_call(&self, return_address: *const u8) -> Option<Location<'_>> {
        self.find(return_address, Location::find_call)
    }

    fn find<'a>(
        &'a self,
        address: *const u8,
        find: fn(CodeTables<'a>, u64, u64) -> Option<Location<'a>>,
    ) -> Option<Location<'a>> {
        let text = self.code();
        // The end may be a return address.
        if !(text.start..=text.end).contains(&address) {
            return None;
        }
        find(self.code_tables()?, text.start as u64, address as u64)
    }
}
