//! Finds the code that an address is in, without a lock.
//!
//! A block of code that can be looked up begins with a header, which leads to its code tables. The
//! index of the memory finds the block. It is found from when its code is complete until it is
//! removed: removal takes it out of the index before anything else.
//!
//! A block of *jumps* has no tables: stubs, or entries that count. Each jump has a word of data
//! with the address that it leads to, so what is found is the function there.
//!
//! Whoever looks an address up holds a guard of the memory. Ranges of code and read-only data that
//! are given back wait for the guards from before, so what was found can be read as long as the
//! guard lives, whichever [`Jit`](crate::Jit) the code belongs to.

use kiln_image::code::{CodeTables, Location};

use std::sync::atomic::{AtomicU64, Ordering};

use super::error::Region;
use super::handle::{Block, Memory};
use crate::epoch::Guard;

/// The start of a block of code that can be looked up. All addresses in it are where memory is
/// executed or read.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct BlockHeader {
    /// The address of the code tables, and their length; of jumps, that of their records.
    pub(crate) tables: u64,
    /// The number of the [`Jit`](crate::Jit) that the code belongs to.
    pub(crate) owner: u64,
    pub(crate) tables_len: u32,
    /// The offset of the code in the block.
    pub(crate) text: u32,
    /// The number of the unit's first module; of jumps, their number.
    pub(crate) first_module: u32,
    /// The way from a jump to its word.
    pub(crate) jumps: JumpShape,
}

/// The distances of jumps and of the words with their targets, in bytes.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct JumpShape {
    /// From one jump to the next; 0 in a block of functions.
    pub(crate) code: u8,
    /// From one record of data to the next.
    pub(crate) data: u8,
    /// From the start of a record to the word with the target.
    pub(crate) target: u8,
    pub(crate) reserved: u8,
}

/// The jumps that may follow each other: a stub, and an entry that counts.
const MOST_JUMPS: usize = 2;

impl BlockHeader {
    /// Writes the header at the start of a block.
    pub(crate) fn write(&self, block: &mut [u8]) {
        let Self { tables, owner, tables_len, text, first_module, jumps } = self;
        let words = [tables.to_ne_bytes(), owner.to_ne_bytes()];
        let halves = [tables_len, text, first_module].map(|half| half.to_ne_bytes());
        block[..16].copy_from_slice(words.as_flattened());
        block[16..28].copy_from_slice(halves.as_flattened());
        block[28..32].copy_from_slice(&[jumps.code, jumps.data, jumps.target, jumps.reserved]);
    }

    /// Makes the header of a block of so many jumps, which follow the header. Their records begin
    /// at the address `data`.
    pub(crate) fn of_jumps(data: u64, count: u32, jumps: JumpShape) -> Self {
        Self { tables: data, owner: 0, tables_len: 0, text: HEADER as u32, first_module: count, jumps }
    }

    /// Returns the address to which the jump leads that is `offset` bytes after the start of the
    /// block. `None` if there is none.
    ///
    /// # Safety
    ///
    /// The header is that of a block of jumps. Its data is mapped.
    unsafe fn target(&self, offset: u64) -> Option<u64> {
        let JumpShape { code, data, target, .. } = self.jumps;
        let number = offset.checked_sub(self.text.into())?.checked_div(code.into())?;
        if number >= u64::from(self.first_module) {
            return None;
        }
        let word = self.tables + number * u64::from(data) + u64::from(target);
        // SAFETY: the caller promises it: there are so many records, of words that are written as a
        // whole.
        Some(unsafe { AtomicU64::from_ptr(word as *mut u64) }.load(Ordering::Acquire))
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
    /// `None` in an image.
    first_module: Option<u32>,
    _guard: Option<Guard<'m>>,
}

impl<'m> Located<'m> {
    /// Returns the function, and what is known about the instruction. Its module numbers are those
    /// of the unit.
    pub fn location(&self) -> Location<'_> {
        self.location
    }

    /// Returns the number of the module among all that were ever linked by its [`Jit`](crate::Jit),
    /// as in errors. `None` in a stub that all modules of a unit share, and in an image.
    pub fn module(&self) -> Option<usize> {
        Some(self.first_module? as usize + self.location.module()? as usize)
    }

    /// Returns a place in an image that the program is linked on, which stays loaded.
    pub(crate) fn in_image(location: Location<'m>) -> Self {
        Self { location, owner: u64::MAX, first_module: None, _guard: None }
    }
}

impl BlockHeader {
    /// Finds an address in the functions of the block, whose header this is.
    ///
    /// # Safety
    ///
    /// The tables stay as they are while `guard` lives.
    unsafe fn found<'m>(
        &self,
        block: u64,
        address: u64,
        find: impl Fn(CodeTables<'m>, u64, u64) -> Option<Location<'m>>,
        guard: Guard<'m>,
    ) -> Option<Located<'m>> {
        let text = block + u64::from(self.text);
        // If the address is not in this block but after it, no function in the tables has it.
        let (tables, len) = (self.tables as *const u8, self.tables_len as usize);
        // SAFETY: the caller promises it, and the result keeps the guard.
        let tables = unsafe { std::slice::from_raw_parts(tables, len) };
        let location = find(CodeTables::read(tables)?, text, address)?;
        let (owner, first_module) = (self.owner, Some(self.first_module));
        Some(Located { location, owner, first_module, _guard: Some(guard) })
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
    /// memory. `None` if the address is in no function. In the stub of a replaceable function, the
    /// function is found that it leads to: see [`Location::is_stub`].
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
        find: impl Fn(CodeTables<'m>, u64, u64) -> Option<Location<'m>>,
    ) -> Option<Located<'m>> {
        let inside = usize::try_from(address.checked_sub(before)?).ok()?;
        let offset = self.core.views.find_code(inside)?;
        let guard = self.core.lookups.enter_at(number_of_thread());
        let start = self.core.index.find(offset)?;
        let block = self.core.views.address(Region::Code, start);
        // SAFETY: a block that is in the index begins with a header, is readable, and does not
        // change. It was taken out of the index before it was given back, and ranges that are given
        // back wait for `guard`, which was made before the index was read.
        let header = unsafe { block.cast::<BlockHeader>().read() };
        if header.jumps.code != 0 {
            // No call returns to a stub.
            return if before == 0 { self.look_through(header, block as u64, address, guard) } else { None };
        }
        // SAFETY: as above: the tables are those of the block, are given back with it or after it,
        // and never change. They live as long as the guard.
        unsafe { header.found(block as u64, address, find, guard) }
    }

    /// Finds the function that a jump leads to.
    fn look_through<'m>(
        &'m self,
        mut header: BlockHeader,
        mut block: u64,
        mut address: u64,
        guard: Guard<'m>,
    ) -> Option<Located<'m>> {
        for _ in 0..MOST_JUMPS {
            // SAFETY: the block was found, and `guard` keeps it and its data, as in `look_up`.
            address = unsafe { header.target(address - block) }?;
            let start = self.core.index.find(self.core.views.find_code(usize::try_from(address).ok()?)?)?;
            let found = self.core.views.address(Region::Code, start);
            block = found as u64;
            // SAFETY: as in `look_up`.
            header = unsafe { found.cast::<BlockHeader>().read() };
            if header.jumps.code == 0 {
                // SAFETY: as in `look_up`.
                return unsafe { header.found(block, address, Location::find_through_stub, guard) };
            }
        }
        None
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
