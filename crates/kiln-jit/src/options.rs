//! The options of a JIT.

/// Options of a [`Jit`](crate::Jit).
#[derive(Clone, Debug)]
pub struct JitOptions {
    /// Address space to reserve for code and data, in bytes, at most 2 GiB. Memory is used only as
    /// code is linked. Default 1 GiB.
    pub reserve: usize,
    /// Whether panics and exceptions may unwind through compiled code, and backtraces show it.
    /// Default yes.
    pub unwind: bool,
}

impl Default for JitOptions {
    fn default() -> Self {
        Self { reserve: 1 << 30, unwind: true }
    }
}
