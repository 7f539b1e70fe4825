//! Calls of functions whose signature is known only at run time.

/// One argument or result of an entry thunk: the value in the first bytes, in native byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(16))]
pub struct Cell(pub [u8; 16]);

/// Calls `callee` through the entry thunk of its signature, as `kiln_ir::entry_thunk` makes it:
/// arguments are read from `cells`, and results are written to them.
///
/// # Safety
///
/// `thunk` must be the entry thunk for the signature of `callee`, and both must be live code of
/// this process. There must be at least as many `cells` as parameters and as results. Calling
/// `callee` with these arguments must be sound.
pub unsafe fn invoke(thunk: *const u8, callee: *const u8, cells: &mut [Cell]) {
    // SAFETY: the caller promises that this is an entry thunk, which `entry_thunk` makes with this
    // type.
    let thunk =
        unsafe { std::mem::transmute::<*const u8, extern "C-unwind" fn(*const u8, *mut Cell)>(thunk) };
    thunk(callee, cells.as_mut_ptr());
}
