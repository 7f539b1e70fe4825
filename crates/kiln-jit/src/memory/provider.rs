//! Memory for a `cranelift_jit::JITModule`.
//!
//! Such a module writes code and constants to the address at which they are used, and says later
//! that it has finished. So they get whole pages that are writable there until then. What is
//! allocated in between shares these pages.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use cranelift_jit::{BranchProtection, JITMemoryKind, JITMemoryProvider};
use cranelift_module::{ModuleError, ModuleResult};

use super::boundary::starts_at_boundary;
use super::cache;
use super::core::Taken;
use super::error::{MemoryError, Region};
use super::handle::Memory;
use crate::error::JitError;

/// Lets a `JITModule` take its memory from a [`Memory`]: pass it to `JITBuilder::memory_provider`.
///
/// The module's memory is freed by `JITModule::free_memory`, and also when the module is dropped.
/// Then nothing in it may be used.
///
/// Pages become executable after they were writable, so this does not work under `PR_SET_MDWE`, and
/// allocating code fails there. A [`Jit`](crate::Jit) works there.
#[derive(Debug)]
pub struct MemoryProvider {
    memory: Arc<Memory>,
    /// Open pages of code, and of read-only data. The last ones have room.
    open: [Vec<Open>; 2],
    /// The blocks that are freed when the module is dropped.
    finished: Vec<(Region, Range<usize>)>,
    /// Pages of code with branch protection, which are made ordinary again when they are freed.
    protected: bool,
}

/// Pages that are not finished.
#[derive(Debug)]
struct Open {
    pages: Range<usize>,
    /// The end of what was allocated of them.
    end: usize,
}

/// Bytes of pages that are opened at once. What is left of them is given back.
const STEP: u64 = 64 << 10;

impl MemoryProvider {
    /// Returns a provider of blocks of `memory`.
    pub fn new(memory: Arc<Memory>) -> Self {
        Self { memory, open: [Vec::new(), Vec::new()], finished: Vec::new(), protected: false }
    }

    /// Allocates from open pages.
    fn allocate_open(&mut self, region: Region, len: u64, align: usize) -> Result<*mut u8, MemoryError> {
        let views = &self.memory.core.views;
        let room = |open: &Open| {
            let fits = |start: usize| {
                let start = start.next_multiple_of(align);
                let address = views.address(region, start) as u64;
                let end = start as u64 + len;
                let good = end <= open.pages.end as u64
                    && !(region == Region::Code && starts_at_boundary(address, 1, |offset| offset == 0));
                good.then_some(start)
            };
            fits(open.end).or_else(|| fits(open.end + 1))
        };
        let all = &mut self.open[region as usize];
        if let Some(open) = all.last_mut()
            && let Some(start) = room(open)
        {
            open.end = start + len as usize;
            return Ok(views.address(region, start));
        }
        let more = len.saturating_add(align as u64);
        let Taken { range: pages, dirty } =
            self.memory.core.open(region, more.max(STEP)).or_else(|_| self.memory.core.open(region, more))?;
        for part in dirty {
            // SAFETY: a part of pages that were just taken for this caller and are writable.
            unsafe { views.address(region, part.start).write_bytes(0, part.len()) };
        }
        let mut open = Open { end: pages.start, pages };
        let start = room(&open).expect("room for `len` bytes at any alignment");
        open.end = start + len as usize;
        all.push(open);
        Ok(views.address(region, start))
    }

    /// Makes everything that was allocated usable, and gives back what was not allocated.
    fn finish(&mut self, branch_protection: BranchProtection) -> Result<(), MemoryError> {
        let core = &self.memory.core;
        for region in [Region::Code, Region::ReadOnly] {
            while let Some(Open { pages, end }) = self.open[region as usize].last() {
                let rest = end.next_multiple_of(core.page)..pages.end;
                let used = pages.start..rest.start;
                // SAFETY: whoever says that it has finished does not write any more.
                unsafe { core.close(region, pages.clone()) }?;
                if !rest.is_empty() {
                    // SAFETY: nobody knows these pages.
                    unsafe { core.give(region, rest, false) };
                }
                self.open[region as usize].pop();
                self.finished.push((region, used.clone()));
                if region == Region::Code {
                    let start = core.views.address(region, used.start);
                    // SAFETY: the pages are in use, so they are mapped.
                    unsafe { cache::publish(start, start, used.len()) }?;
                    if branch_protection == BranchProtection::BTI {
                        self.protected = true;
                        // SAFETY: the pages are executable, and nobody runs them yet.
                        unsafe { core.views.protect_branches(used) }?;
                    }
                }
            }
        }
        cache::flush_pipelines()
    }

    /// Frees everything that was allocated.
    ///
    /// # Safety
    ///
    /// Nobody uses it.
    unsafe fn free(&mut self) {
        let core = &self.memory.core;
        for region in [Region::Code, Region::ReadOnly] {
            for open in self.open[region as usize].drain(..) {
                // SAFETY: the caller promises that nobody uses it. Pages that cannot be closed are
                // lost: other code could not run in them.
                unsafe {
                    if core.close(region, open.pages.clone()).is_ok() {
                        core.give(region, open.pages, false);
                    }
                }
            }
        }
        for (region, range) in self.finished.drain(..) {
            // SAFETY: the caller promises that nobody uses it. Other code may have no targets of
            // branches that are marked, so such protection ends.
            unsafe {
                if !(self.protected && region == Region::Code) || core.close(region, range.clone()).is_ok() {
                    core.give(region, range, false);
                }
            }
        }
    }
}

impl JITMemoryProvider for MemoryProvider {
    fn allocate(&mut self, size: usize, align: u64, kind: JITMemoryKind) -> io::Result<*mut u8> {
        let region = match kind {
            JITMemoryKind::Executable => Region::Code,
            JITMemoryKind::ReadOnly => Region::ReadOnly,
            JITMemoryKind::Writable => Region::Data,
        };
        // An empty object has an address too.
        let len = size.max(1) as u64;
        let limit = self.memory.core.page as u64;
        if align > limit || !align.is_power_of_two() {
            return Err(io::Error::other(JitError::Alignment { align, limit }));
        }
        if region != Region::Data {
            return self.allocate_open(region, len, align as usize).map_err(io::Error::other);
        }
        let block = self.memory.allocate(region, len, align).map_err(io::Error::other)?;
        self.finished.push(self.memory.core.locate(block.address as usize, block.len));
        Ok(block.address)
    }

    unsafe fn free_memory(&mut self) {
        // SAFETY: the caller promises that nobody uses it.
        unsafe { self.free() };
    }

    fn finalize(&mut self, branch_protection: BranchProtection) -> ModuleResult<()> {
        self.finish(branch_protection)
            .map_err(|error| ModuleError::Allocation { err: io::Error::other(error) })
    }
}

impl Drop for MemoryProvider {
    fn drop(&mut self) {
        // SAFETY: addresses were given out to be used only while the module lives.
        unsafe { self.free() };
    }
}
