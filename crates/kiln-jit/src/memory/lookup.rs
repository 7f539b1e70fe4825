//! Finds the code that an address is in, without a lock.
//!
//! A block of code that can be looked up begins with a header, which leads to its code tables. The
//! index of the memory finds the block. It is found from when its code is complete until it is
//! removed: removal takes it out of the index before anything else.
//!
//! Whoever looks an address up holds a guard of the memory. Ranges of code and read-only data that
//! are given back wait for the guards from before, so what was found can be read as long as the
//! guard lives, whichever [`Jit`](crate::Jit) the code belongs to.

use kiln_image::code::{CodeTables, Location};

use super::error::Region;
use super::handle::{Block, Memory};
use crate::epoch::Guard;

/// The start of a block of code that can be looked up. All addresses in it are where memory is
/// executed or read.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct BlockHeader {
    /// The address of the code tables, and their length.
    pub(crate) tables: u64,
    /// The number of the [`Jit`](crate::Jit) that the code belongs to.
    pub(crate) owner: u64,
    pub(crate) tables_len: u32,
    /// The offset of the code in the block.
    pub(crate) text: u32,
    /// The number of the unit's first module.
    pub(crate) first_module: u32,
    pub(crate) reserved: u32,
}

impl BlockHeader {
    /// Writes the header at the start of a block.
    pub(crate) fn write(&self, block: &mut [u8]) {
        let Self { tables, owner, tables_len, text, first_module, reserved } = self;
        let words = [tables.to_ne_bytes(), owner.to_ne_bytes()];
        let halves = [tables_len, text, first_module, reserved].map(|half| half.to_ne_bytes());
        block[..16].copy_from_slice(words.as_flattened());
        block[16..32].copy_from_slice(halves.as_flattened());
    }
}

/// The number of bytes of a header.
pub(crate) const HEADER: u64 = size_of::<BlockHeader>() as u64;

/// A place in code that is in memory. While this lives, the memory of all code that is removed
/// stays as it is, so drop it soon.
#[derive(Debug)]
pub struct Located<'m> {
    location: Location<'m>,
    pub(crate) owner: u64,
    first_module: u32,
    _guard: Guard<'m>,
}

impl Located<'_> {
    /// Returns the function, and what is known about the instruction. Its module numbers are those
    /// of the unit.
    pub fn location(&self) -> Location<'_> {
        self.location
    }

    /// Returns the number of the module among all that were ever linked by its [`Jit`](crate::Jit),
    /// as in errors.
    pub fn module(&self) -> usize {
        self.first_module as usize + self.location.module() as usize
    }
}

/// Returns a number that differs for threads that run at once, so that their guards are seldom
/// counted in the same place. A thread-local variable would not be safe in a signal handler.
fn number_of_thread() -> usize {
    let local = 0_u8;
    let stack = std::ptr::from_ref(&local).addr();
    (stack >> 12) ^ (stack >> 16) ^ (stack >> 21)
}

impl Memory {
    /// Finds the instruction at an address, in the code of any [`Jit`](crate::Jit) that uses this
    /// memory. `None` if the address is in no function: stubs are in none.
    ///
    /// This allocates nothing, takes no lock, makes no system call, and is safe in a signal
    /// handler.
    pub fn locate(&self, address: *const u8) -> Option<Located<'_>> {
        self.look_up(address as u64, 0, Location::find)
    }

    /// Finds the call that returns to an address, as [`locate`](Self::locate) finds an instruction.
    /// Return addresses are what a walk over a stack finds, in all frames but the innermost.
    pub fn locate_call(&self, return_address: *const u8) -> Option<Located<'_>> {
        self.look_up(return_address as u64, 1, Location::find_call)
    }

    /// Returns the addresses that code of this memory may have.
    pub fn code_addresses(&self) -> std::ops::Range<*const u8> {
        let start = self.core.views.address(Region::Code, 0).cast_const();
        start..start.wrapping_add(self.core.views.size(Region::Code))
    }

    /// Finds what is `before` bytes before an address.
    fn look_up<'m>(
        &'m self,
        address: u64,
        before: u64,
        find: fn(CodeTables<'m>, u64, u64) -> Option<Location<'m>>,
    ) -> Option<Located<'m>> {
        let inside = usize::try_from(address.checked_sub(before)?).ok()?;
        let (Region::Code, offset) = self.core.views.find(inside)? else { return None };
        let guard = self.core.lookups.enter_at(number_of_thread());
        let start = self.core.index.find(offset)?;
        let block = self.core.views.address(Region::Code, start);
        // SAFETY: a block that is in the index begins with a header, is readable, and does not
        // change. It was taken out of the index before it was given back, and ranges that are given
        // back wait for `guard`, which was made before the index was read.
        let header = unsafe { block.cast::<BlockHeader>().read() };
        let text = block as u64 + u64::from(header.text);
        // If the address is not in this block but after it, no function in the tables has it.
        let (tables, len) = (header.tables as *const u8, header.tables_len as usize);
        // SAFETY: as above: the tables are those of the block, are given back with it or after it,
        // and never change. They live as long as the guard, which the result keeps.
        let tables = unsafe { std::slice::from_raw_parts(tables, len) };
        let location = find(CodeTables::read(tables)?, text, address)?;
        let (owner, first_module) = (header.owner, header.first_module);
        Some(Located { location, owner, first_module, _guard: guard })
    }

    /// Makes a block findable by addresses in it.
    ///
    /// # Safety
    ///
    /// It is published, begins with a header whose tables are published too, and stays unchanged
    /// until it is [hidden](Self::hide).
    pub(crate) unsafe fn show(&self, block: Block) {
        let (region, range) = self.core.locate(block.address() as usize, block.len);
        assert_eq!(region, Region::Code, "only code has headers");
        let _locked = self.core.lock(Region::Code);
        self.core.index.set(range.start);
    }

    /// Takes a block out of the index, if it is there.
    pub(crate) fn hide(&self, block: Block) {
        if block.len > 0 {
            let (_, range) = self.core.locate(block.address() as usize, block.len);
            let _locked = self.core.lock(Region::Code);
            self.core.index.clear(range.start);
        }
    }
}
