//! Catches panics of Cranelift's reader and verifier, which panic on some invalid IR.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls `work` and turns a panic into its message. The panic hook of the process still runs, so it
/// may print; with `panic = "abort"` nothing can be caught.
pub(crate) fn guard<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // Anything that `work` has left half done is dropped with it.
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        text.unwrap_or("panic").to_owned()
    })
}
