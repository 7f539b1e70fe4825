//! The options of a JIT.

/// Options of a [`Jit`](crate::Jit).
#[derive(Clone, Debug)]
pub struct JitOptions {
    /// Address space to reserve for code and data, in bytes: at most 2 GiB, 1 GiB by default.
    /// Memory is used only as code is linked.
    pub reserve: usize,
    /// Whether panics and exceptions can unwind through compiled code, and backtraces show that
    /// code. Default `true`.
    pub unwind: bool,
}

impl Default for JitOptions {
    fn default() -> Self {
        Self { reserve: 1 << 30, unwind: true }
    }
}
