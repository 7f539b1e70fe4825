//! Binds an image: sets permissions, applies relocations, fills slots, and writes addresses into
//! code.

use std::ops::Range;
#[cfg(feature = "trap")]
use std::sync::PoisonError;
use std::sync::{Arc, Mutex, OnceLock};

use kiln_debug::gdb;
use kiln_debug::unwind::{Registration, Rows};
use kiln_globals::SlotKey;

use super::function::{FunctionRef, Owner};
use super::map::{Access, Reservation};
use super::mapped::Mapped;
use super::origin::Origin;
use super::overridden::{Kept, Overridden};
use super::thread_locals::{ThreadLocalData, ThreadLocals};
use crate::elf64::{RELA, rela_info};
use crate::error::LoadError;
use crate::note::Span;
use crate::patch_list::{PATCH_LEN, Patch, PatchValue};
use crate::read::{PackedPlaces, Segment, ThreadLocalPlace, is_section};

/// The unwind rows of an image are not whole, or about something else than its code.
#[derive(Clone, Copy, Debug)]
struct NotRowsError;

/// Says what is done with unwind rows when an address of an image is given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unwind {
    /// Nothing.
    Not,
    /// They are checked if that is needed, and registered.
    Checked,
    /// They are registered.
    Trusted,
}

/// An image that is ready to be called.
///
/// Functions and addresses taken from it are valid as long as it lives; dropping it unmaps
/// everything. Keep it where it outlives all callers, if necessary in a static.
#[derive(Debug)]
pub struct Loaded {
    /// The code that it has for functions of its bases. Taken back before anything else.
    pub(super) overrides: Vec<Box<dyn Kept>>,
    /// The images that it is a layer on, and theirs, in order. They stay as long as it does.
    pub(super) bases: Vec<Arc<Self>>,
    /// The code of layers for its own replaceable functions.
    pub(super) overridden: Mutex<Overridden>,
    /// The values of the external slots, if they are not in memory.
    pub(super) unstored: Box<[usize]>,
    /// The name of its file, by which layers name it.
    pub(super) name: Box<str>,
    /// Taken back before the memory is: fields are dropped in order. An error if the rows are not
    /// whole.
    unwind_rows: OnceLock<Result<Option<Registration>, NotRowsError>>,
    /// Says what is done with the rows when an address of code is given out.
    unwind: Unwind,
    /// As above.
    pub(super) debugger: Mutex<Option<gdb::Registration>>,
    /// As above.
    #[cfg(feature = "trap")]
    traps: Mutex<Option<super::trap::Traps>>,
    /// As above.
    pub(super) thread_locals: Option<ThreadLocals>,
    pub(super) mapped: Mapped,
    /// The file, if it is mapped itself.
    pub(super) origin: Option<Origin>,
}

impl Owner for Loaded {
    /// Rows that are not whole are not registered if the unwinder would follow them to unwind other
    /// code.
    fn give_out(&self) {
        self.register(self.unwind);
    }

    unsafe fn prepare_calls(&self) {
        self.register(Unwind::Trusted);
    }
}

impl Loaded {
    /// Makes a mapped image callable. `addresses` are the values of its external slots, in order,
    /// and `level` is the number of the level of the processor whose code is called.
    pub(super) fn bind(
        mut mapped: Mapped,
        addresses: &[usize],
        level: u32,
        unwind: Unwind,
    ) -> Result<Self, LoadError> {
        let page = rustix::param::page_size();
        let Mapped { memory, segments, .. } = &mut mapped;
        segments.iter().filter(|segment| segment.is_writable()).for_each(|segment| {
            clear_end(memory, segment, page);
        });
        let mut loaded = Self {
            overrides: Vec::new(),
            bases: Vec::new(),
            overridden: Mutex::default(),
            unstored: Box::default(),
            name: Box::default(),
            unwind_rows: OnceLock::new(),
            unwind,
            debugger: Mutex::default(),
            #[cfg(feature = "trap")]
            traps: Mutex::default(),
            thread_locals: None,
            mapped,
            origin: None,
        };
        loaded.relocate()?;
        loaded.choose(level)?;
        loaded.register_thread_locals()?;
        loaded.fill(addresses)?;
        loaded.patch(addresses)?;
        let Mapped { memory, segments, .. } = &mut loaded.mapped;
        for segment in segments.iter().filter(|segment| segment.relro) {
            let pages = segment.start as usize / page * page..(segment.end() as usize).next_multiple_of(page);
            memory.protect(pages, Access::Read).map_err(LoadError::io("seal"))?;
        }
        Ok(loaded)
    }

    /// Checks the unwind rows, and registers them with the unwinder of the process, if that has not
    /// been done. Panics and exceptions then unwind through the image's code, and backtraces go
    /// through it. This takes time in proportion to the number of functions.
    ///
    /// By default, rows are registered when an address of the image is given out first: before
    /// that, nobody can run its code. [`FunctionRef::typed`] registers them without reading them,
    /// because its caller trusts the file, so that takes the same time for any number of functions.
    /// Whoever takes an address in another way may only look at it. If the unwinder looks at an
    /// image's rows only to unwind its code (libgcc from version 13 on does), they are not read
    /// then, either. Other unwinders read all rows of a process at any panic, so the rows are
    /// checked first, unless [`Image::trust_unwind_rows`](super::Image::trust_unwind_rows) says
    /// that they are right.
    ///
    /// # Errors
    ///
    /// [`LoadError::Malformed`] if the rows are not whole. Then this function does not register
    /// them.
    pub fn register_unwind_rows(&self) -> Result<(), LoadError> {
        let start = self.mapped.tables().note.head.eh_frame.start.get();
        let error = |NotRowsError| LoadError::malformed("unwind rows that unwinders cannot follow", start);
        self.check_rows().map_err(error)?;
        let rows = self.unwind_rows.get_or_init(|| self.registration(Unwind::Checked));
        rows.as_ref().map(drop).map_err(|error_| error(*error_))
    }

    /// Registers the rows, unless that has been done or is not wanted.
    fn register(&self, unwind: Unwind) {
        if self.unwind != Unwind::Not {
            // Whoever wants to know about rows that are not whole asks `register_unwind_rows`.
            self.unwind_rows.get_or_init(|| self.registration(unwind)).as_ref().ok();
        }
    }

    /// Checks that the unwind rows are whole, and about code of the image.
    fn check_rows(&self) -> Result<(), NotRowsError> {
        let head = self.mapped.tables().note.head;
        let text = head.text.start.get()..head.text.start.get().saturating_add(head.text.len.get());
        let bytes = self.mapped.unwind_rows();
        // A section of 4 bytes has no entries, only the zero length that ends it.
        let right = bytes.len() <= 4 || is_section(bytes, head.eh_frame.start.get(), &text);
        if right { Ok(()) } else { Err(NotRowsError) }
    }

    fn registration(&self, unwind: Unwind) -> Result<Option<Registration>, NotRowsError> {
        let bytes = self.mapped.unwind_rows();
        if bytes.len() <= 4 {
            return Ok(None);
        }
        let code = self.code();
        let code = code.start as usize..code.end as usize;
        let rows = Rows { section: bytes.as_ptr(), region: self.mapped.memory.addresses(), code };
        // SAFETY: the section is in the segment that is never written, at a fixed distance from the
        // code, and stays mapped until the registration is dropped, which comes first. Nobody else
        // registers rows for the code, and nobody else has code in the reservation. Whoever runs
        // the code trusts the file, see `FunctionRef::typed`, and the file must not change
        // meanwhile, see `Image::open`.
        if let Some(unread) = unsafe { Registration::unread(rows.clone()) } {
            return Ok(Some(unread));
        }
        if unwind != Unwind::Trusted {
            self.check_rows()?;
        }
        // SAFETY: as above, and the section was just checked, or the caller of
        // `Image::trust_unwind_rows` or `FunctionRef::typed` promised what the check would find.
        Ok(Some(unsafe { Registration::new(rows) }))
    }

    /// Writes the pointers that are the load address plus a constant. They are right already if the
    /// image is at the address that it is made for: then no page of them is touched.
    fn relocate(&mut self) -> Result<(), LoadError> {
        let made_for = self.mapped.made_for();
        let bias = (self.mapped.memory.base() as u64).wrapping_sub(made_for);
        if bias == 0 {
            return Ok(());
        }
        let count = self.mapped.tables().note.head.relative_count.get() as usize;
        let expected = rela_info(0, self.mapped.arch.relative_reloc());
        for index in 0..count {
            let table = self.mapped.rela();
            let bad = || LoadError::malformed("bad relative relocation", (index * RELA) as u64);
            let number = |field: usize| table.u64(index * RELA + 8 * field).ok_or_else(bad);
            let (address, info, addend) = (number(0)?, number(1)?, number(2)?);
            let place = self.writable(address.wrapping_sub(made_for), 8);
            let offset = place.filter(|_| info == expected).ok_or_else(bad)?;
            // SAFETY: `writable` found the 8 bytes in a segment that is mapped writable.
            unsafe { self.mapped.memory.write(offset, &bias.wrapping_add(addend).to_ne_bytes()) };
        }
        // And those that are relative to what is in their place.
        let mut places = PackedPlaces::new(made_for);
        while let Some(address) = places.next(self.mapped.relr()) {
            let bad = || LoadError::malformed("bad packed relocation of", address);
            let offset = self.writable(address, 8).ok_or_else(bad)?;
            // SAFETY: as above.
            unsafe { self.mapped.memory.add(offset, bias) };
        }
        Ok(())
    }

    /// Writes the slots of functions that have another body for a level than for the lowest.
    fn choose(&mut self, level: u32) -> Result<(), LoadError> {
        let base = self.mapped.memory.base() as u64;
        for index in 0..self.mapped.tables().note.versions_for(level).len() {
            let Some(&version) = self.mapped.tables().note.versions_for(level).get(index) else { break };
            let (slot, code) = (version.slot.get(), version.code.get());
            let bad = || LoadError::malformed("a misplaced slot of", slot);
            let offset = self.writable(slot, 8).ok_or_else(bad)?;
            // SAFETY: `writable` found the 8 bytes in a segment that is mapped writable.
            unsafe { self.mapped.memory.write(offset, &base.wrapping_add(code).to_ne_bytes()) };
        }
        Ok(())
    }

    /// Registers the thread-local data, and writes the number of the registration into the first of
    /// the two words by which code finds each object.
    fn register_thread_locals(&mut self) -> Result<(), LoadError> {
        let Some(ThreadLocalPlace { content, size, align }) = self.mapped.thread_local else {
            return Ok(());
        };
        if !ThreadLocals::SUPPORTED {
            return Err(LoadError::ThreadLocal { host: std::env::consts::ARCH });
        }
        let (len, size, align) = (content.len.get() as usize, size as usize, align as usize);
        let data = ThreadLocalData { start: self.range(content).start, len, size, align };
        // SAFETY: the content is in a segment that nobody writes once this image is bound, and no
        // thread uses a block before that. It stays mapped until the registration is dropped, which
        // comes first; then nobody runs the image's code any more, see `Loaded`.
        let locals = unsafe { ThreadLocals::new(data) };
        let [number, _] = locals.words(0);
        self.thread_locals = Some(locals);
        let expected = rela_info(0, self.mapped.arch.thread_local_reloc());
        let mut at = self.mapped.tables().note.head.relative_count.get() as usize * RELA;
        while let Some((address, info)) = {
            let table = self.mapped.rela();
            table.u64(at).zip(table.u64(at + 8))
        } {
            at += RELA;
            if info == expected {
                let bad = || LoadError::malformed("bad thread-local relocation of", address);
                let place = self.writable(address.wrapping_sub(self.mapped.made_for()), 8);
                let offset = place.ok_or_else(bad)?;
                // SAFETY: `writable` found the 8 bytes in a segment that is mapped writable.
                unsafe { self.mapped.memory.write(offset, &number.to_ne_bytes()) };
            }
        }
        Ok(())
    }

    /// Fills the slot array, and the pointers in data that are the value of a slot plus a
    /// constant.
    fn fill(&mut self, addresses: &[usize]) -> Result<(), LoadError> {
        let head = self.mapped.tables().note.head;
        let array = head.slot_array.start.get();
        let len = size_of_val(addresses) as u64;
        // If no code reads them, they are not in memory, and the array has only the internal ones.
        let is_stored = head.slot_array.len.get() > 8 * head.internal_slots.get();
        if len > 0 && is_stored {
            let bad = || LoadError::malformed("a misplaced slot array", array);
            let offset = self.writable(array, len).ok_or_else(bad)?;
            let bytes = zerocopy::IntoBytes::as_bytes(addresses);
            // SAFETY: `writable` found `len` bytes in a segment that is mapped writable.
            unsafe { self.mapped.memory.write(offset, bytes) };
        } else {
            self.unstored = addresses.into();
        }
        for index in 0..self.mapped.tables().note.symbolic().len() {
            let Some(&record) = self.mapped.tables().note.symbolic().get(index) else { break };
            let bad = || LoadError::malformed("bad symbolic pointer to", record.address.get());
            let slot = *addresses.get(record.slot.get() as usize).ok_or_else(bad)?;
            let word = (slot as u64).wrapping_add_signed(record.addend.get());
            let offset = self.writable(record.address.get(), 8).ok_or_else(bad)?;
            // SAFETY: `writable` found the 8 bytes in a segment that is mapped writable.
            unsafe { self.mapped.memory.write(offset, &word.to_ne_bytes()) };
        }
        Ok(())
    }

    /// Writes the addresses in code. The pages that have some become a private copy of those of the
    /// file. They are never writable and executable at once, and executable again at the end.
    ///
    /// Measured and left out: to read the list twice instead of keeping what it says, and to make
    /// the copies of neighbouring pages at once (`MADV_POPULATE_WRITE`). For 20,000 patches both
    /// took 10 % longer.
    fn patch(&mut self, addresses: &[usize]) -> Result<(), LoadError> {
        let tables = self.mapped.tables();
        let code = tables.note.head.text.start.get();
        let base = self.mapped.memory.base() as u64;
        let bad = |what| LoadError::malformed(what, self.mapped.patches_start());
        let mut words = Vec::new();
        // Everything is checked before anything is written.
        for patch in tables.patches() {
            let Patch { offset, value } = patch.map_err(bad)?;
            let word = match value {
                PatchValue::Image(distance) => base.wrapping_add(distance),
                PatchValue::Slot { slot, addend } => {
                    let slot = usize::try_from(slot).ok().and_then(|slot| addresses.get(slot));
                    (*slot.ok_or_else(|| bad("a patch with an unknown slot"))? as u64).wrapping_add(addend)
                }
            };
            // `View` has found the code, and a patch is inside of it.
            words.push(((code + offset) as usize, word));
        }
        let (Some(first), Some(last)) = (words.first(), words.last()) else { return Ok(()) };
        let page = rustix::param::page_size();
        let pages = first.0 / page * page..(last.0 + PATCH_LEN as usize).next_multiple_of(page);
        let fail = |call| move |source| LoadError::Patch { call, source };
        let memory = &mut self.mapped.memory;
        memory.protect(pages.clone(), Access::ReadWrite).map_err(fail("mprotect(PROT_READ | PROT_WRITE)"))?;
        for (offset, word) in words {
            // SAFETY: the bytes are code, which `View` has found in the file's part of a segment
            // that holds nothing that the loader reads, and whose pages were just made writable.
            // Nobody runs the code before the image is bound.
            unsafe { memory.write(offset, &word.to_ne_bytes()) };
        }
        // `PR_SET_MDWE` forbids this, but not to map a file of code.
        if let Err(refused) = memory.protect(pages.clone(), Access::ReadExecute) {
            let copied = memory.execute_copy(pages);
            return copied.map_err(|(call, source)| LoadError::PatchedCode { refused, call, source });
        }
        Ok(())
    }

    /// Returns the offset of `address` in the mapping, or `None` unless one writable segment holds
    /// the `len` bytes from there.
    pub(super) fn writable(&self, address: u64, len: u64) -> Option<usize> {
        let end = address.checked_add(len)?;
        let fits = |s: &&Segment| s.is_writable() && address >= s.start && end <= s.end();
        self.mapped.segments.iter().find(fits).map(|_| address as usize)
    }

    /// Returns the exported function `name`, or `None` if nothing with this name is exported, if
    /// it is data, or if the image does not record its type. [`address`](Self::address) also finds
    /// data, and functions without a recorded type.
    pub fn function(&self, name: &str) -> Option<FunctionRef<'_>> {
        let tables = self.mapped.tables();
        let symbol = self.mapped.lookup(name).filter(|symbol| symbol.is_function())?;
        let signature = self.mapped.signature(symbol.index, name.as_bytes())?;
        let name = tables.name(&symbol, name.len())?;
        let code = self.executable(symbol.value)?;
        // SAFETY: the address is in executable memory, which stays mapped while `self` lives, and
        // the image records this type for it.
        Some(unsafe { FunctionRef::owned(name, code, signature, self) })
    }

    /// Returns every exported function whose type the image records, in order of the dynamic symbol
    /// table.
    pub fn functions(&self) -> impl Iterator<Item = FunctionRef<'_>> {
        let tables = self.mapped.tables();
        tables.exports().flatten().filter(|(_, symbol, _)| symbol.is_function()).filter_map(
            move |(index, symbol, name)| {
                let signature = self.mapped.signature(index, name)?;
                let (name, code) = (std::str::from_utf8(name).ok()?, self.executable(symbol.value)?);
                // SAFETY: as in `function`.
                Some(unsafe { FunctionRef::owned(name, code, signature, self) })
            },
        )
    }

    /// Returns the address that is `value` bytes after the load address, if it is in an executable
    /// segment.
    pub(super) fn executable(&self, value: u64) -> Option<*const u8> {
        let fits = |s: &&Segment| s.is_executable() && (s.start..s.end()).contains(&value);
        self.mapped.segments.iter().find(fits)?;
        Some(self.mapped.memory.base().wrapping_add(value as usize))
    }

    /// Returns the address of the exported function or data object `name`, or `None` if there is
    /// no such export. Of thread-local data, it is the address of this thread's copy, which ends
    /// with the thread.
    pub fn address(&self, name: &str) -> Option<*const u8> {
        let Some(symbol) = self.mapped.lookup(name) else {
            return self.mapped.is_start(name).then(|| self.mapped.memory.base());
        };
        self.give_out();
        if symbol.is_thread_local() {
            return self.thread_locals.as_ref()?.address(symbol.value).map(<*mut u8>::cast_const);
        }
        let end = self.mapped.segments.last().map_or(0, Segment::end);
        (symbol.value <= end).then(|| self.mapped.memory.base().wrapping_add(symbol.value as usize))
    }

    /// Registers the code with `kiln-trap`, the first time, so that it catches traps in it, throws
    /// exceptions to its handlers, and names its functions in backtraces. It is taken back when the
    /// image is dropped.
    ///
    /// # Errors
    ///
    /// [`RegisterError`](kiln_trap::RegisterError) if too many ranges are registered.
    #[cfg(feature = "trap")]
    pub fn catch_traps(&self) -> Result<(), kiln_trap::RegisterError> {
        let mut traps = self.traps.lock().unwrap_or_else(PoisonError::into_inner);
        if let (None, Some(places)) = (&*traps, self.places()) {
            // SAFETY: all is mapped until the image is dropped, which drops this first.
            *traps = Some(unsafe { super::trap::Traps::register(places) }?);
        }
        Ok(())
    }

    /// Returns the keys of the external slots, in order of the slot array.
    pub fn slots(&self) -> &[SlotKey] {
        self.mapped.slots()
    }

    /// Returns the load address.
    pub fn base(&self) -> *const u8 {
        self.give_out();
        self.mapped.memory.base()
    }

    /// Returns the address range of the code, which is empty if there is none.
    pub fn text(&self) -> Range<*const u8> {
        self.give_out();
        self.code()
    }

    /// Returns the same for this crate's own purposes.
    pub(super) fn code(&self) -> Range<*const u8> {
        self.range(self.mapped.head().text)
    }

    /// Returns the address range of `.eh_frame`, which ends with four zero bytes, as
    /// `__register_frame` requires, or `None` if the image has no unwind information. See
    /// [`register_unwind_rows`](Self::register_unwind_rows).
    pub fn eh_frame(&self) -> Option<Range<*const u8>> {
        let span = self.mapped.tables().note.head.eh_frame;
        (span.len.get() > 0).then(|| self.range(span))
    }

    pub(super) fn range(&self, span: Span) -> Range<*const u8> {
        let start = self.mapped.memory.base().wrapping_add(span.start.get() as usize);
        start..start.wrapping_add(span.len.get() as usize)
    }
}

/// Clears the zeroed data of a writable segment that is in the last page of the bytes of the file.
/// The pages after that are zeroed already.
fn clear_end(memory: &mut Reservation, segment: &Segment, page: usize) {
    if segment.file_len > 0 && segment.mem_len > segment.file_len {
        let file_end = (segment.start + segment.file_len) as usize;
        // SAFETY: these pages are mapped writable.
        unsafe { memory.clear(file_end..file_end.next_multiple_of(page)) };
    }
}
