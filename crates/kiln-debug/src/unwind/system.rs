//! The unwinder of this process: which one it is, and its functions.
//!
//! `__register_frame` takes a whole section in libgcc, and one row description in LLVM's libunwind,
//! which has `__unw_add_dynamic_fde` besides. libgcc 13 finds code by the range of a registration;
//! before, it searched one registration after the other. No symbol tells the two apart, so it is
//! tried out on two registrations of which one is inside the other.

use std::arch::global_asm;
use std::ops::Range;
use std::sync::atomic::Ordering;

use super::calls::{FindFde, add, find_frame, remove};
use super::pieces::{self, Piece, Unwinder};
use super::plain::section;
use super::runs::Tables;
use super::signals::IN_SIGNALS;
use super::unread;

unsafe extern "C" {
    /// See below.
    static kiln_debug_unwinder_1: Optional;
}

/// Functions that only some unwinders have.
#[repr(C)]
#[derive(Clone, Copy)]
struct Optional {
    register_frame_table: Option<RegisterTable>,
    find_fde: Option<FindFde>,
    add_dynamic_fde: Option<unsafe extern "C" fn()>,
}

type RegisterTable = unsafe extern "C" fn(*const *const u8);
// Stable Rust has no weak references. The table is weak, so that several versions of this crate in
// one program share it.
global_asm!(
    ".weak __register_frame_table",
    ".weak _Unwind_Find_FDE",
    ".weak __unw_add_dynamic_fde",
    ".pushsection .data.rel.ro.kiln_debug_unwinder_1, \"aw\", %progbits",
    ".balign 8",
    ".weak kiln_debug_unwinder_1",
    ".hidden kiln_debug_unwinder_1",
    ".type kiln_debug_unwinder_1, %object",
    ".size kiln_debug_unwinder_1, 24",
    "kiln_debug_unwinder_1:",
    ".quad __register_frame_table",
    ".quad _Unwind_Find_FDE",
    ".quad __unw_add_dynamic_fde",
    ".popsection",
);

/// The unwinder of this process.
#[derive(Clone, Copy, Debug)]
pub(super) enum System {
    /// Section by section: libgcc from version 13 on, and any other that has no tables.
    Ranges(Ranges),
    /// In tables: libgcc up to version 12.
    Tables(Table),
    /// Function by function: LLVM's libunwind.
    Frames,
}

impl System {
    /// Finds out which unwinder it is.
    pub(super) fn find() -> Self {
        // SAFETY: the linker or the dynamic linker has filled it; it does not change afterwards.
        let Optional { register_frame_table, find_fde, add_dynamic_fde } = unsafe { kiln_debug_unwinder_1 };
        if add_dynamic_fde.is_some() {
            return Self::Frames;
        }
        match (register_frame_table, find_fde) {
            (Some(register), Some(find)) if !finds_by_range(find) => Self::Tables(Table { register, find }),
            (_, find) => Self::Ranges(Ranges { find, allows_unread: find.is_some_and(unread::allows) }),
        }
    }
}

/// An unwinder that is told about sections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ranges {
    find: Option<FindFde>,
    /// Whether rows can be registered without reading them.
    allows_unread: bool,
}

impl Ranges {
    /// Returns the function that finds rows, if they can be registered without reading them.
    pub(super) fn find_without_reading(&self) -> Option<FindFde> {
        self.find.filter(|_| self.allows_unread)
    }

    /// Registers a section with the rows of `code`, in pieces if it must be. Returns these.
    ///
    /// # Safety
    ///
    /// As for [`Registration::new`](super::Registration::new). The pieces stay until they are
    /// [removed](remove).
    pub(super) unsafe fn add(mut self, section: *const u8, code: &Range<usize>) -> Vec<Piece> {
        // SAFETY: the caller promises it.
        unsafe { add(section) };
        // The first lookup sorts the rows.
        if self.finds(code.start) & self.finds(code.end - 1) {
            return Vec::new();
        }
        // SAFETY: as above; code that is registered does not run yet.
        unsafe { pieces::mend(section, &mut self) }
    }
}

impl Unwinder for Ranges {
    fn finds(&mut self, pc: usize) -> bool {
        self.find.is_none_or(|find| look_up(find, pc))
    }

    unsafe fn add(&mut self, section: *const u8) {
        // SAFETY: the caller promises it.
        unsafe { add(section) };
    }

    unsafe fn remove(&mut self, section: *const u8) {
        // SAFETY: the caller promises it.
        unsafe { remove(section) };
    }
}

/// An unwinder that is told about tables of sections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    register: RegisterTable,
    find: FindFde,
}

impl Tables for Table {
    unsafe fn add(&mut self, table: &[*const u8]) {
        // SAFETY: the caller promises what the sections are, and that the table ends with a null.
        unsafe { (self.register)(table.as_ptr()) };
    }

    fn sorts_at_once(&self) -> bool {
        IN_SIGNALS.load(Ordering::Relaxed)
    }

    fn look_up(&mut self, pc: usize) {
        look_up(self.find, pc);
    }

    unsafe fn remove(&mut self, table: &[*const u8]) {
        // SAFETY: the caller has registered the table.
        unsafe { remove(table.as_ptr().cast()) };
    }
}

/// Looks an address up, as the unwinder does for a frame. Returns whether there are rows for it.
fn look_up(find: FindFde, pc: usize) -> bool {
    !find_frame(find, pc).is_null()
}

/// Calls `action` for each row description (FDE) of a section.
///
/// # Safety
///
/// `section` must be a well-formed section that ends with a zero.
pub(super) unsafe fn each_frame(section: *const u8, action: unsafe fn(*const u8)) {
    let mut at = section;
    loop {
        // SAFETY: each entry begins with its length and, if that is not the zero at the end, has a
        // number that is zero in a CIE, which rows share, and not zero in an FDE.
        unsafe {
            let len = at.cast::<u32>().read_unaligned();
            if len == 0 {
                return;
            }
            if at.add(4).cast::<u32>().read_unaligned() != 0 {
                action(at);
            }
            at = at.add(4 + len as usize);
        }
    }
}

/// Tries out whether the unwinder finds code by the range of a registration: then a registration
/// inside another one hides a part of the outer one.
fn finds_by_range(find: FindFde) -> bool {
    /// Addresses at which there is no code.
    static PLACE: [u8; 64] = [0; 64];
    let start = PLACE.as_ptr().addr();
    // Any column will do.
    let (outer, inner) = (section(start, 64, (1, &[])), section(start + 16, 16, (1, &[])));
    // SAFETY: the sections are well formed, describe addresses at which nothing else is, and are
    // taken back below.
    unsafe {
        add(outer.as_ptr().cast());
        add(inner.as_ptr().cast());
    }
    // Which side is hidden depends on the version: what is after the inner one, or before it. The
    // order matters: only its first lookup makes libgcc 12 look at all that is registered.
    let found = [48, 8].into_iter().all(|offset| look_up(find, start + offset));
    // SAFETY: they were just registered.
    unsafe {
        remove(inner.as_ptr().cast());
        remove(outer.as_ptr().cast());
    }
    !found
}
