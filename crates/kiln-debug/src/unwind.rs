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
//! other are therefore joined in tables of up to 256 sections. A later libgcc is not
//! given tables: it finds code by the range of a registration, and a table that changes would have
//! to go for a moment, in which other threads could not unwind through its code.
//!
//! # Signal handlers
//!
//! Profilers unwind in signal handlers. So no signal is delivered to a thread while it registers:
//! the unwinder holds a lock then, and its own handler would wait for it for ever. And a section is
//! looked up once while it is registered, because libgcc sorts rows at the first lookup, with
//! memory from `malloc`, which a signal handler must not call. What is left is libgcc 12's lock: a
//! handler that unwinds on a thread which is unwinding already, or while several threads register,
//! may wait for ever. Later versions have no such lock.

mod runs;
mod signals;
mod system;

use std::ops::Range;

use self::runs::Runs;
use self::signals::Blocked;
use self::system::System;
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
}

// SAFETY: the registry belongs to the process, not to a thread.
unsafe impl Send for Registration {}
// SAFETY: as above, and a shared registration does nothing.
unsafe impl Sync for Registration {}

/// All that is registered, for all users of this crate.
static REGISTRY: ForkLock<Registry> = ForkLock::new(Registry { system: None, runs: Runs::new() });

#[derive(Debug)]
struct Registry {
    /// Found out when something is registered first.
    system: Option<System>,
    /// Used only up to libgcc 12.
    runs: Runs,
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
        let registration = Self { code, section };
        if registration.is_empty() {
            return registration;
        }
        let blocked = Blocked::all();
        let mut registry = REGISTRY.lock();
        let Registry { system, runs } = &mut *registry;
        // SAFETY: the caller promises what the section is.
        unsafe {
            match system.get_or_insert_with(System::find) {
                System::Ranges(unwinder) => unwinder.add(section, registration.code.start),
                System::Tables(unwinder) => {
                    let section = runs::Section { code: registration.code.clone(), address: section };
                    runs.add(section, region, unwinder);
                }
                System::Frames => system::each_frame(section, system::add),
            }
        }
        drop(registry);
        drop(blocked);
        registration
    }

    /// Whether there are no rows: the section has only the zero that ends it.
    fn is_empty(&self) -> bool {
        // SAFETY: a section has at least the length that ends it.
        self.code.is_empty() || unsafe { self.section.cast::<u32>().read_unaligned() } == 0
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if self.is_empty() {
            return;
        }
        let blocked = Blocked::all();
        let mut registry = REGISTRY.lock();
        let Registry { system, runs } = &mut *registry;
        // SAFETY: `new` registered the section, which is unchanged and readable.
        unsafe {
            match system {
                Some(System::Ranges(_)) => system::remove(self.section),
                Some(System::Tables(unwinder)) => runs.remove(self.code.start, unwinder),
                Some(System::Frames) => system::each_frame(self.section, system::remove),
                None => {}
            }
        }
        drop(registry);
        drop(blocked);
    }
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
    let _blocked = Blocked::all();
    match REGISTRY.lock().system.get_or_insert_with(System::find) {
        System::Ranges(_) => Method::Ranges,
        System::Tables(_) => Method::Tables,
        System::Frames => Method::Frames,
    }
}

/// Returns the number of tables that are registered, which a lookup walks over one by one; 0 if the
/// unwinder has a better way.
pub fn tables() -> usize {
    let _blocked = Blocked::all();
    REGISTRY.lock().runs.len()
}
