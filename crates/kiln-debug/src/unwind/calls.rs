//! The functions of every unwinder.

use std::ffi::c_void;

unsafe extern "C" {
    // These belong to the unwinder, libgcc_s or libunwind, which the Rust runtime links.
    fn __register_frame(begin: *const u8);
    fn __deregister_frame(begin: *const u8);
}

pub(super) type FindFde = unsafe extern "C" fn(*const c_void, *mut Bases) -> *const u8;

/// Three more results of `_Unwind_Find_FDE`, of which none is needed.
#[repr(C)]
pub(super) struct Bases([*const c_void; 3]);

/// Returns the address of the row description that the unwinder finds, or null.
pub(super) fn find_frame(find: FindFde, pc: usize) -> *const u8 {
    let mut bases = Bases([std::ptr::null(); 3]);
    // SAFETY: any address may be asked for, and `Bases` is what the function fills.
    unsafe { find(std::ptr::without_provenance(pc), &mut bases) }
}

/// Registers one section, or one row description.
///
/// # Safety
///
/// As for [`Registration::new`](super::Registration::new).
pub(super) unsafe fn add(begin: *const u8) {
    // SAFETY: the caller promises it.
    unsafe { __register_frame(begin) };
}

/// Takes back what [`add`] registered.
///
/// # Safety
///
/// It was registered, and is unchanged.
pub(super) unsafe fn remove(begin: *const u8) {
    // SAFETY: the caller promises it.
    unsafe { __deregister_frame(begin) };
}
