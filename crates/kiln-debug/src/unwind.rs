//! Registers unwind rows with the unwinder of the process, and takes them back.
//!
//! Three unwinders are in use, and each wants something else (`unwind/system.rs`):
//!
//! | unwinder | registered | a lookup costs |
//! |---|---|---|
//! | libgcc 13 and later | each section: its code is one range in a tree | a search in the tree |
//! | libgcc up to 12 | tables of many sections (`unwind/runs.rs`) | a list of tables, one by one |
//! | LLVM's libunwind | each row description (FDE) | a list of all of them, one by one |
//!
//! Up to libgcc 12 a lookup walks over all that was registered. Sections that are next to each
//! other are therefore joined in tables of up to 256 sections. A later libgcc is not given tables:
//! it finds code by the range of a registration, and a table that changes would have to go for a
//! moment, in which other threads could not unwind through its code. Of some ranges it loses a
//! part, so they are registered in pieces (`unwind/pieces.rs`).
//!
//! # Signal handlers
//!
//! A profiler that unwinds in a signal handler calls [`prepare_for_signals`] first. Without it, two
//! things could go wrong. The handler may interrupt a thread that registers rows: then the unwinder
//! holds a lock, for which the handler waits for ever. And libgcc up to 12 sorts rows at the first
//! lookup that needs them, with memory from `malloc`, which a signal handler must not call.
//! After that call, no signal is delivered to a thread while it registers, and rows are sorted
//! while they are registered. This takes two system calls for each registration, and for large
//! units most of its time, so it is not done unless it is asked for.
//!
//! What is left are the lock of libgcc up to 12 and the memory that it allocates while it holds it.
//! A handler waits for ever if it unwinds on a thread that is unwinding already, or that it
//! interrupted in `malloc` or `free` while another thread registers rows. So with that unwinder a
//! handler takes no sample if it interrupted the C library or libgcc, and tells this by the program
//! counter, as profilers do whose own work allocates. [`lookups_allocate`] tells whether it is
//! there. Later versions neither lock nor allocate when they look for rows.

mod calls;
mod pieces;
mod plain;
mod runs;
mod section;
mod signals;
mod system;
mod tail;
mod unread;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::Ordering;

use self::pieces::Piece;
pub(crate) use self::plain::section;
use self::runs::Runs;
use self::section::Section;
use self::signals::{Blocked, IN_SIGNALS};
use self::system::System;
use self::unread::Front;
use crate::lock::ForkLock;

/// Unwind rows of code that is in memory.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The address of the rows: a section `.eh_frame` that is relocated to where it lies, and ends
    /// with a length of zero.
    pub section: *const u8,
    /// The addresses of the code that the rows describe, all of it.
    pub code: Range<usize>,
    /// A range of addresses around the code in which nobody else has code. Rows within one such
    /// range may be registered together. The code's own range is always right.
    pub region: Range<usize>,
}

/// Rows that the unwinder knows. Dropping it takes them back.
#[derive(Debug)]
pub struct Registration {
    code: Range<usize>,
    section: *const u8,
    /// The section that was registered instead, if this one was not read.
    front: Option<Front>,
}

// SAFETY: the registry belongs to the process, not to a thread.
unsafe impl Send for Registration {}
// SAFETY: as above, and a shared registration does nothing.
unsafe impl Sync for Registration {}

/// All that is registered, for all users of this crate.
static REGISTRY: ForkLock<Registry> =
    ForkLock::new(Registry { system: None, runs: Runs::new(), pieces: BTreeMap::new() });

#[derive(Debug)]
struct Registry {
    /// Found out when something is registered first.
    system: Option<System>,
    /// Used only up to libgcc 12.
    runs: Runs,
    /// The pieces of sections that are registered in pieces, by the address of the section. Used
    /// only from libgcc 13 on.
    pieces: BTreeMap<usize, Vec<Piece>>,
}

impl Registration {
    /// Registers rows. Panics and exceptions unwind through the code from now on, and backtraces
    /// show it. Sections without rows are ignored.
    ///
    /// # Safety
    ///
    /// `rows.section` must be as [`Rows::section`] says, and describe nothing outside `rows.code`.
    /// Nobody else may have registered rows for this code, or have code in `rows.region`. The
    /// section must stay readable and unchanged until the registration is dropped.
    pub unsafe fn new(rows: Rows) -> Self {
        let Rows { section, code, region } = rows;
        let registration = Self { code, section, front: None };
        if registration.is_empty() {
            return registration;
        }
        let mut registry = REGISTRY.lock();
        let blocked = blocked_if_needed();
        let Registry { system, runs, pieces } = &mut *registry;
        // SAFETY: the caller promises what the section is.
        unsafe {
            match system.get_or_insert_with(System::find) {
                System::Ranges(unwinder) => {
                    let new = unwinder.add(section, &registration.code);
                    if !new.is_empty() {
                        pieces.insert(section.addr(), new);
                    }
                }
                System::Tables(unwinder) => {
                    let section = Section { code: registration.code.clone(), address: section };
                    runs.add(section, region, unwinder);
                }
                System::Frames => system::each_frame(section, calls::add),
            }
        }
        drop(blocked);
        registration
    }

    /// Does the same without reading the rows (`unwind/unread.rs`), or returns `None` if the
    /// unwinder does not allow that or would lose a part of the code, or if signal handlers unwind
    /// (see [`prepare_for_signals`], which leaves such rows as they are). libgcc from version 13 on
    /// allows it. Time and memory do not
    /// depend on the number of rows; the first panic, exception or backtrace through the code reads
    /// and sorts them.
    ///
    /// # Safety
    ///
    /// As for [`new`](Self::new), but the section need not be well formed as long as no unwinder
    /// looks for an address in `rows.code`. That happens only while code in it runs or waits for
    /// what it called, so whoever runs the code vouches for its rows, too. Nobody runs it any more
    /// when the registration is dropped.
    pub unsafe fn unread(rows: Rows) -> Option<Self> {
        let Rows { section, code, region } = rows;
        let mut registry = REGISTRY.lock();
        let System::Ranges(unwinder) = registry.system.get_or_insert_with(System::find) else { return None };
        let find = unwinder.find_without_reading()?;
        if code.is_empty() || IN_SIGNALS.load(Ordering::Relaxed) {
            return None;
        }
        // SAFETY: the caller promises it.
        let front = unsafe { Front::register(section, code.clone(), region.start, find) }?;
        Some(Self { code, section, front: Some(front) })
    }

    /// Whether there are no rows: the section has only the zero that ends it.
    fn is_empty(&self) -> bool {
        // SAFETY: a section has at least the length that ends it.
        self.code.is_empty() || unsafe { self.section.cast::<u32>().read_unaligned() } == 0
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if self.front.is_none() && self.is_empty() {
            return;
        }
        let mut registry = REGISTRY.lock();
        let blocked = blocked_if_needed();
        if let Some(front) = &self.front {
            // SAFETY: it was registered, and nobody runs the code, as the caller of `unread`
            // promised.
            unsafe { front.remove() };
            return;
        }
        let Registry { system, runs, pieces } = &mut *registry;
        // SAFETY: `new` registered the section or its pieces, which are unchanged and readable.
        unsafe {
            match system {
                Some(System::Ranges(_)) => match pieces.remove(&self.section.addr()) {
                    Some(pieces) => {
                        pieces.iter().for_each(|piece| calls::remove(piece.as_ptr().cast()));
                    }
                    None => calls::remove(self.section),
                },
                Some(System::Tables(unwinder)) => runs.remove(self.code.start, unwinder),
                Some(System::Frames) => system::each_frame(self.section, calls::remove),
                None => {}
            }
        }
        drop(blocked);
    }
}

/// Keeps signals away, if their handlers may unwind. The registry is locked.
fn blocked_if_needed() -> Option<Blocked> {
    IN_SIGNALS.load(Ordering::Relaxed).then(Blocked::all)
}

/// Prepares for signal handlers that unwind, or call `backtrace`: those of a sampling profiler in
/// this process. Call it before such a handler is installed. It is for the whole process and for
/// good, and takes time for what was registered before. See the module's documentation, also for
/// the samples that a handler must not take if [`lookups_allocate`].
pub fn prepare_for_signals() {
    let mut registry = REGISTRY.lock();
    IN_SIGNALS.store(true, Ordering::Relaxed);
    let blocked = blocked_if_needed();
    let Registry { system, runs, .. } = &mut *registry;
    if let System::Tables(unwinder) = system.get_or_insert_with(System::find) {
        runs.sort(unwinder);
    }
    drop(blocked);
}

/// Whether the unwinder of this process locks and allocates when it looks for rows, as libgcc up to
/// 12 does. If so, a signal handler must not unwind where it interrupted the C library or libgcc.
pub fn lookups_allocate() -> bool {
    method() == Method::Tables
}

/// The way in which the unwinder of this process is told about rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Method {
    /// Section by section: libgcc from version 13 on.
    Ranges,
    /// In tables of many sections: libgcc up to version 12.
    Tables,
    /// Function by function: LLVM's libunwind.
    Frames,
}

/// Returns how the unwinder of this process is told about rows.
pub fn method() -> Method {
    match REGISTRY.lock().system.get_or_insert_with(System::find) {
        System::Ranges(_) => Method::Ranges,
        System::Tables(_) => Method::Tables,
        System::Frames => Method::Frames,
    }
}

/// Returns the number of tables that are registered, which a lookup walks over one by one; 0 if the
/// unwinder has a better way.
pub fn tables() -> usize {
    REGISTRY.lock().runs.len()
}
