//! Thread-local data of code that the dynamic linker does not know: of images that this crate's
//! loader maps, and of code in memory.
//!
//! Code finds thread-local data as in any shared object: it calls a function with the address of
//! two words, and gets the address of its thread's copy (the general dynamic model of ELF). Here
//! the function is [`ThreadLocals::resolver`], and the words are the number of a registration and
//! an offset in its block. A thread's block is made when the thread first asks for it: the initial
//! content, then zeros. It is freed when the thread ends or the registration is dropped, whichever
//! comes first.
//!
//! A number is an index, of which there are as many as registrations at one time, and a generation,
//! which is never used again. Each thread has a table of blocks by index. So the fast path compares
//! a number and adds an offset, and what is left in a table of a dropped registration is never
//! used.
//!
//! All registrations are behind one lock, which is taken when a block is made or freed. After a
//! thread has destroyed its thread-local values, it may still run code that asks for a block; such
//! a block is freed only with its registration.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::ptr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kiln_globals::{KeyRef, Near, Resolve, SlotKey, Unresolved};

/// The second word counts from this distance after the start of a block.
const BIAS: u64 = if cfg!(target_arch = "riscv64") { 0x800 } else { 0 };

/// The initial content of thread-local data, in memory.
#[derive(Clone, Copy, Debug)]
pub struct ThreadLocalData {
    /// The address of the first byte.
    pub start: *const u8,
    /// Number of bytes of initial content.
    pub len: usize,
    /// Number of bytes of a block; zeros follow the initial content.
    pub size: usize,
    /// The alignment of a block, a power of two, in bytes.
    pub align: usize,
}

// SAFETY: an address, which belongs to no thread.
unsafe impl Send for ThreadLocalData {}

/// Thread-local data that code in this process uses. Dropping it frees the blocks of all threads.
#[derive(Debug)]
pub struct ThreadLocals {
    number: u64,
}

/// A registration.
struct Entry {
    generation: u32,
    data: Option<ThreadLocalData>,
    /// The block of each thread that has one, by the number of the thread.
    blocks: BTreeMap<u64, Block>,
}

/// A block, which only its thread uses.
struct Block(*mut u8);

// SAFETY: whoever frees it makes sure that its thread does not use it any more.
unsafe impl Send for Block {}

struct Registry {
    entries: Vec<Entry>,
    /// The indices of entries without data.
    free: Vec<u32>,
    /// The indices by the address of the data.
    by_address: BTreeMap<usize, u32>,
}

static REGISTRY: Mutex<Registry> =
    Mutex::new(Registry { entries: Vec::new(), free: Vec::new(), by_address: BTreeMap::new() });

/// The number of registrations.
static COUNT: AtomicUsize = AtomicUsize::new(0);

fn registry() -> MutexGuard<'static, Registry> {
    // It is consistent whenever something can panic.
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A block in the table of a thread.
#[derive(Clone, Copy)]
struct Slot {
    /// The number of the registration; 0 for none.
    number: u64,
    block: *mut u8,
}

const EMPTY: Slot = Slot { number: 0, block: ptr::null_mut() };

/// The table of a thread.
struct Table {
    /// The number of the thread.
    thread: u64,
    slots: Vec<Slot>,
}

thread_local! {
    /// The slots of this thread's table, for the fast path: it has no destructor, so to read it is
    /// one instruction, and always possible.
    static SLOTS: Cell<(*const Slot, usize)> = const { Cell::new((ptr::null(), 0)) };
    static TABLE: Owned = const { Owned(RefCell::new(None)) };
}

/// The table of a thread, and its end.
struct Owned(RefCell<Option<Table>>);

impl Drop for Owned {
    fn drop(&mut self) {
        let Some(table) = self.0.take() else { return };
        SLOTS.set((ptr::null(), 0));
        let mut registry = registry();
        for slot in &table.slots {
            let Some(entry) = registry.entry(slot.number) else { continue };
            if let (Some(Block(block)), Some(data)) = (entry.blocks.remove(&table.thread), entry.data) {
                // SAFETY: it was allocated so, and its thread has forgotten it.
                unsafe { dealloc(block, data.layout()) };
            }
        }
    }
}

impl ThreadLocalData {
    /// Returns the layout of a block.
    ///
    /// # Panics
    ///
    /// If there is no such layout.
    fn layout(&self) -> Layout {
        Layout::from_size_align(self.size.max(1), self.align).expect("the size of a block")
    }
}

impl Registry {
    /// Returns the entry with this number, if it is still registered.
    fn entry(&mut self, number: u64) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(number as u32 as usize)?;
        (u64::from(entry.generation) == number >> 32 && entry.data.is_some()).then_some(entry)
    }
}

impl ThreadLocals {
    /// Whether code of this machine finds thread-local data through
    /// [`resolver`](Self::resolver): on x86-64 and riscv64. On aarch64 and s390x, code calls a
    /// function with conventions of its own, which this crate does not have.
    pub const SUPPORTED: bool = cfg!(any(target_arch = "x86_64", target_arch = "riscv64"));

    /// Registers thread-local data. Its content is read when a thread first uses it.
    ///
    /// # Panics
    ///
    /// If a block is too large for an address space, its alignment is not a power of two, or there
    /// is less of it than initial content.
    ///
    /// # Safety
    ///
    /// The initial content must be readable and unchanged until this is dropped. When it is
    /// dropped, no thread may use its data any more.
    pub unsafe fn new(data: ThreadLocalData) -> Self {
        let _ = data.layout();
        assert!(data.len <= data.size, "a block has room for its initial content");
        let mut registry = registry();
        let Registry { entries, free, by_address } = &mut *registry;
        let index = free.pop().unwrap_or_else(|| {
            entries.push(Entry { generation: 0, data: None, blocks: BTreeMap::new() });
            entries.len() as u32 - 1
        });
        let entry = &mut entries[index as usize];
        entry.generation += 1;
        entry.data = Some(data);
        by_address.insert(data.start.addr(), index);
        COUNT.fetch_add(1, Ordering::Release);
        Self { number: u64::from(entry.generation) << 32 | u64::from(index) }
    }

    /// Whether there is a registration in this process.
    pub fn exist() -> bool {
        COUNT.load(Ordering::Acquire) > 0
    }

    /// Returns the two words by which code finds the byte at `offset` of its thread's block.
    pub fn words(&self, offset: u64) -> [u64; 2] {
        Self::words_of(self.number, offset)
    }

    /// Returns the words for the data whose initial content is at `address`, of any registration,
    /// or `None` if there is none.
    pub fn words_at(address: u64) -> Option<[u64; 2]> {
        let registry = registry();
        let address = usize::try_from(address).ok()?;
        let (&start, &index) = registry.by_address.range(..=address).next_back()?;
        let entry = &registry.entries[index as usize];
        let offset = address - start;
        // An empty object may be at the end.
        let number = u64::from(entry.generation) << 32 | u64::from(index);
        (offset <= entry.data?.size).then(|| Self::words_of(number, offset as u64))
    }

    fn words_of(number: u64, offset: u64) -> [u64; 2] {
        [number, offset.wrapping_sub(BIAS)]
    }

    /// Returns the address of the byte at `offset` of this thread's block, or `None` if the block
    /// is shorter, or there is no memory for it.
    pub fn address(&self, offset: u64) -> Option<*mut u8> {
        let size = registry().entry(self.number)?.data?.size;
        let offset = usize::try_from(offset).ok().filter(|offset| *offset <= size)?;
        Some(find_block(self.number)?.wrapping_add(offset))
    }

    /// Returns this thread's copy of the data whose initial content is at `initial`, of any
    /// registration, or `None` if there is none, or no memory for it.
    pub fn address_of(initial: *const u8) -> Option<*mut u8> {
        let [number, offset] = Self::words_at(initial.addr() as u64)?;
        Some(find_block(number)?.wrapping_add(offset.wrapping_add(BIAS) as usize))
    }

    /// Returns the number of threads that have a block.
    pub fn block_count(&self) -> usize {
        registry().entry(self.number).map_or(0, |entry| entry.blocks.len())
    }

    /// Returns the address of the function that code calls instead of `__tls_get_addr` of the
    /// dynamic linker.
    pub fn resolver() -> usize {
        address as *const () as usize
    }
}

/// The routine that code calls to find thread-local data.
const ROUTINE: &str = "__tls_get_addr";

/// Gives code [`ThreadLocals::resolver`], and what a client's resolver finds for everything else.
#[derive(Clone, Copy)]
pub struct WithThreadLocals<'r>(pub &'r dyn Resolve);

impl fmt::Debug for WithThreadLocals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WithThreadLocals").finish_non_exhaustive()
    }
}

impl WithThreadLocals<'_> {
    /// Whether this is the key of the routine that finds thread-local data.
    pub(super) fn is_routine(key: KeyRef<'_>) -> bool {
        ThreadLocals::SUPPORTED && key == KeyRef::Routine(ROUTINE)
    }
}

impl Resolve for WithThreadLocals<'_> {
    fn resolve(&self, key: &SlotKey, expected: Option<&str>) -> Result<usize, Unresolved> {
        match Self::is_routine(key.borrowed()) {
            true => Ok(ThreadLocals::resolver()),
            false => self.0.resolve(key, expected),
        }
    }

    fn resolve_ref(&self, key: KeyRef<'_>, expected: Option<&str>) -> Result<usize, Unresolved> {
        match Self::is_routine(key) {
            true => Ok(ThreadLocals::resolver()),
            false => self.0.resolve_ref(key, expected),
        }
    }

    fn resolve_near(
        &self,
        key: KeyRef<'_>,
        expected: Option<&str>,
        near: &mut Near,
    ) -> Result<usize, Unresolved> {
        match Self::is_routine(key) {
            true => Ok(ThreadLocals::resolver()),
            false => self.0.resolve_near(key, expected, near),
        }
    }
}

impl Drop for ThreadLocals {
    fn drop(&mut self) {
        let mut registry = registry();
        let Some(entry) = registry.entry(self.number) else { return };
        let (data, blocks) = (entry.data.take(), std::mem::take(&mut entry.blocks));
        let is_last = entry.generation == u32::MAX;
        let Some(data) = data else { return };
        for Block(block) in blocks.into_values() {
            // SAFETY: it was allocated so, and no thread uses it any more, as the caller of `new`
            // promised.
            unsafe { dealloc(block, data.layout()) };
        }
        registry.by_address.remove(&data.start.addr());
        COUNT.fetch_sub(1, Ordering::Release);
        if !is_last {
            registry.free.push(self.number as u32);
        }
    }
}

/// Returns the address of a byte in this thread's block. Compiled code calls it.
///
/// # Safety
///
/// The words are those of a registration that exists.
unsafe extern "C" fn address(words: *const [u64; 2]) -> *mut u8 {
    // SAFETY: the caller passes the address of two words.
    let [number, offset] = unsafe { *words };
    let block = find_block(number).unwrap_or_else(|| handle_alloc_error(Layout::new::<u8>()));
    block.wrapping_add(offset.wrapping_add(BIAS) as usize)
}

/// Returns this thread's block of the registration with this number, or `None` if there is no
/// memory for it.
fn find_block(number: u64) -> Option<*mut u8> {
    let (slots, len) = SLOTS.get();
    let index = number as u32 as usize;
    if index < len {
        // SAFETY: `SLOTS` has the slots of this thread's table, which only this thread changes.
        let slot = unsafe { *slots.add(index) };
        if slot.number == number {
            return Some(slot.block);
        }
    }
    make_block(number)
}

/// Makes this thread's block.
#[cold]
#[inline(never)]
fn make_block(number: u64) -> Option<*mut u8> {
    static THREADS: AtomicU64 = AtomicU64::new(0);
    let new = || Table { thread: THREADS.fetch_add(1, Ordering::Relaxed), slots: Vec::new() };
    let made = TABLE.try_with(|owned| {
        let mut table = owned.0.borrow_mut();
        add_block(table.get_or_insert_with(new), number)
    });
    // This thread's values are gone, so nobody would free a table.
    made.unwrap_or_else(|_| add_block(Box::leak(Box::new(new())), number))
}

/// Makes a block and adds it to the table of this thread.
fn add_block(table: &mut Table, number: u64) -> Option<*mut u8> {
    let index = number as u32 as usize;
    // Before the lock, because this may fail.
    if table.slots.len() <= index {
        table.slots.resize(index + 1, EMPTY);
    }
    let mut registry = registry();
    let Some((entry, data)) = registry.entry(number).and_then(|entry| entry.data.map(|data| (entry, data)))
    else {
        // Code of something that was removed runs.
        drop(registry);
        panic!("thread-local data is used after its code was removed");
    };
    let layout = data.layout();
    // SAFETY: the size is not 0. The initial content is readable, as the caller of `new` promised,
    // and the block has room for it.
    let block = unsafe {
        let block = alloc_zeroed(layout);
        if block.is_null() {
            return None;
        }
        ptr::copy_nonoverlapping(data.start, block, data.len);
        block
    };
    entry.blocks.insert(table.thread, Block(block));
    table.slots[index] = Slot { number, block };
    SLOTS.set((table.slots.as_ptr(), table.slots.len()));
    Some(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    static CONTENT: [u8; 5] = [1, 2, 3, 4, 5];

    fn register() -> ThreadLocals {
        let data = ThreadLocalData { start: CONTENT.as_ptr(), len: 5, size: 40, align: 64 };
        // SAFETY: the content is static, and tests use no block after the registration is dropped.
        unsafe { ThreadLocals::new(data) }
    }

    /// Returns what code would get.
    fn ask(locals: &ThreadLocals, offset: u64) -> *mut u8 {
        let words = locals.words(offset);
        // SAFETY: the words of a registration.
        unsafe { address(&words) }
    }

    #[test]
    fn each_thread_has_a_copy_until_it_ends() {
        let locals = register();
        let check = || {
            let start = ask(&locals, 0);
            assert!(start.addr().is_multiple_of(64));
            // SAFETY: this thread's block, which has 40 bytes.
            let bytes = unsafe { std::slice::from_raw_parts_mut(start, 40) };
            assert!(bytes.starts_with(&CONTENT) && bytes[5..].iter().all(|byte| *byte == 0));
            bytes.fill(9);
            assert_eq!((ask(&locals, 0), ask(&locals, 7)), (start, start.wrapping_add(7)));
            assert_eq!(locals.address(3), Some(start.wrapping_add(3)));
            start.addr()
        };
        let own = check();
        let barrier = std::sync::Barrier::new(9);
        let others = std::thread::scope(|scope| {
            let run = || {
                let start = check();
                barrier.wait();
                barrier.wait();
                start
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(run)).collect();
            barrier.wait();
            assert_eq!(locals.block_count(), 9);
            barrier.wait();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect::<std::collections::BTreeSet<_>>()
        });
        assert!(others.len() == 8 && !others.contains(&own));
        assert_eq!(locals.block_count(), 1);
        assert_eq!(locals.address(41), None);
    }

    #[test]
    fn what_is_dropped_is_never_found_again() {
        let first = register();
        let old = first.words(0);
        ask(&first, 0);
        drop(first);
        let second = register();
        assert_ne!(second.words(0)[0], old[0]);
        // SAFETY: this thread's block.
        assert_eq!(unsafe { *ask(&second, 1) }, 2);
        assert_eq!(second.block_count(), 1);
    }
}
