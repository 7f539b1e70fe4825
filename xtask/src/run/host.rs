//! The functions of the host that run lines may need: that of Cranelift's own run tests.

use kiln::globals::{Resolve, SlotKey, Unresolved};
use kiln::jit::libcalls;
use kiln::trap::{Exception, throw};

/// Returns the address of the symbol or routine `key` of this process.
pub(super) fn symbol(key: &SlotKey) -> Option<usize> {
    match key {
        SlotKey::Symbol(name) if &**name == "__cranelift_throw" => {
            Some(cranelift_throw as *const () as usize)
        }
        key => libcalls::process(key),
    }
}

/// Resolves symbols and routines of this process.
pub(super) struct Host;

impl Resolve for Host {
    fn resolve(&self, key: &SlotKey, _: Option<&str>) -> Result<usize, Unresolved> {
        symbol(key).ok_or(Unresolved::Unknown)
    }
}

/// Throws an exception to the handlers of `try_call`. The frames that Cranelift's test passes are
/// not needed, since the tables say where code is.
#[expect(unsafe_code, reason = "the user's IR decides that this is called, as for all that it does")]
extern "C-unwind" fn cranelift_throw(
    _entry_frame: usize,
    _exit_frame: usize,
    _exit_pc: usize,
    tag: u32,
    first: usize,
    second: usize,
) {
    // SAFETY: whether a handler expects these payloads depends on the user's IR; running it is this
    // process's only purpose.
    let error = unsafe { throw(Exception { tag, payload: [first, second] }) };
    eprintln!("exception with tag {tag}: {error}");
    // The code expects that this function does not return.
    std::process::abort();
}
