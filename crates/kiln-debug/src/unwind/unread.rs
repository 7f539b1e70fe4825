//! Registers rows without reading them, with an unwinder that allows it.
//!
//! libgcc from version 13 on reads a section when it is registered, only to learn the range of its
//! code, and again at the first lookup in that range. So it is given a *front*: a section of its
//! own with one row description (FDE), which has the whole range and says nothing. Once that is
//! registered, the first entry of the front is made as long as the distance to the real section. It
//! is a CIE, which unwinders skip, so the first lookup reads the real section and nothing else of
//! the front. Before it is taken back, the front becomes what it was, so that is not in proportion
//! to the rows, either.
//!
//! The front is in a page of its own, because it must be in front of the section, at most 4 GiB
//! away. If there is no room, the rows are registered in the usual way.
//!
//! A libgcc that loses a part of some ranges (`pieces.rs`) loses it of fronts, too, and a lookup
//! would read the rows. So the range is tried out with a section that is taken back again. What is
//! lost depends on the range only, and on what was registered before. If a part would be lost, the
//! rows are registered in the usual way, which then is in pieces: 2 of 100 ranges in a test with
//! random changes.
//!
//! That an unwinder does this is tried out, not assumed ([`allows`]).

use std::ffi::c_void;
use std::ops::Range;
use std::ptr;

use super::calls::{FindFde, add, find_frame, remove};
use super::plain::section;

/// Length of the front's CIE, with the word of its length.
const CIE: usize = 32;

/// Returns a front for `code`: a section with one row for it, which is not used. Any column will
/// do.
fn front(code: Range<usize>) -> Box<[u64]> {
    section(code.start, code.len(), (1, &[]))
}

/// Whether the unwinder would find all of the range of `front`, which is registered for a moment.
///
/// # Safety
///
/// As for [`Registration::new`](super::Registration::new), for the rows of the front.
unsafe fn finds_all(front: &[u64], code: &Range<usize>, find: FindFde) -> bool {
    let section = front.as_ptr().cast();
    // SAFETY: a well-formed section, which is taken back before it goes.
    unsafe {
        add(section);
        // What is lost is lost up to an end.
        let found = [code.start, code.end - 1].iter().all(|&pc| !find_frame(find, pc).is_null());
        remove(section);
        found
    }
}

/// A front that is registered. Dropping it releases its memory; [`remove`](Self::remove) comes
/// first.
#[derive(Debug)]
pub(super) struct Front {
    page: *mut u8,
}

impl Front {
    /// Registers `section`, which has rows for `code`, if there is a place for a front, which is
    /// sought before `region`, and if all of the code will be found.
    ///
    /// # Safety
    ///
    /// As for [`Registration::unread`](super::Registration::unread).
    pub(super) unsafe fn register(
        section: *const u8,
        code: Range<usize>,
        region: usize,
        find: FindFde,
    ) -> Option<Self> {
        let front = Self::new(region)?;
        let distance = front.distance(section)?;
        let bytes = self::front(code.clone());
        // SAFETY: as below, and the caller promises that nobody else has rows for the code.
        if !unsafe { finds_all(&bytes, &code, find) } {
            return None;
        }
        // SAFETY: the page is new and long enough; what is registered is a well-formed section, of
        // which the first word is changed when the unwinder has read it.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr().cast(), front.page, size_of_val(&*bytes));
            add(front.page);
            front.page.cast::<u32>().write(distance);
        }
        Some(front)
    }

    /// Takes it back.
    ///
    /// # Safety
    ///
    /// It is registered, and no thread runs the code or unwinds through it.
    pub(super) unsafe fn remove(&self) {
        // SAFETY: the first word is as it was registered.
        unsafe {
            self.page.cast::<u32>().write(CIE as u32 - 4);
            remove(self.page);
        }
    }

    /// Maps a page, before the address `region` if there is room.
    fn new(region: usize) -> Option<Self> {
        let wanted: *mut c_void = ptr::without_provenance_mut(region.saturating_sub(1) & !(PAGE - 1));
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: without `MAP_FIXED`, the kernel replaces nothing that exists.
        let page = unsafe { libc::mmap(wanted, PAGE, libc::PROT_READ | libc::PROT_WRITE, kind, -1, 0) };
        (page != libc::MAP_FAILED).then_some(Self { page: page.cast() })
    }

    /// Returns the length that leads from the first entry to `section`, if there is one.
    fn distance(&self, section: *const u8) -> Option<u32> {
        let distance = section.addr().checked_sub(self.page.addr() + 4)?;
        // Larger numbers have a meaning of their own.
        u32::try_from(distance).ok().filter(|&distance| distance < 0xffff_fff0)
    }
}

/// The least size of a page. Addresses that are wanted are rounded to it, and the kernel rounds
/// them to the real one.
const PAGE: usize = 4096;

impl Drop for Front {
    fn drop(&mut self) {
        // SAFETY: it was mapped by `new`, and nothing refers to it.
        unsafe { libc::munmap(self.page.cast(), PAGE) };
    }
}

// SAFETY: its memory belongs to no thread.
unsafe impl Send for Front {}
// SAFETY: as above, and only its owner changes it.
unsafe impl Sync for Front {}

/// Tries out whether the unwinder reads a section again at the first lookup, and only then.
pub(super) fn allows(find: FindFde) -> bool {
    /// Addresses at which there is no code.
    static PLACE: [u8; 64] = [0; 64];
    let start = PLACE.as_ptr().addr();
    // The second section is found only through the first.
    let mut both = [front(start..start + 64), front(start + 16..start + 32)].concat();
    let len = size_of_val(&*both) / 2;
    let first = both.as_mut_ptr().cast::<u8>();
    let second = first.wrapping_add(len);
    // SAFETY: the sections are well formed whenever the unwinder may read them, and describe
    // addresses at which nothing else is. They are taken back as they were.
    unsafe {
        add(first);
        first.cast::<u32>().write_volatile(len as u32 - 4);
        let found = [24, 48].map(|offset| find_frame(find, start + offset));
        first.cast::<u32>().write_volatile(CIE as u32 - 4);
        remove(first);
        let gone = find_frame(find, start + 24).is_null();
        gone && found[0] == second.wrapping_add(CIE) && found[1].is_null()
    }
}
