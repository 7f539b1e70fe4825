//! The options of a JIT.

use std::sync::Arc;

use crate::memory::Memory;

/// Options of a [`Jit`](crate::Jit).
#[derive(Clone, Debug)]
pub struct JitOptions {
    /// Memory for code and data. By default it is [`Memory::shared`], so making a
    /// [`Jit`](crate::Jit) takes no system call. A memory of its own, which [`Memory::reserve`]
    /// makes, is for a client that limits what can be linked.
    pub memory: Option<Arc<Memory>>,
    /// Whether panics and exceptions can unwind through compiled code, and backtraces show that
    /// code. Default `true`.
    pub unwind: bool,
}

impl Default for JitOptions {
    fn default() -> Self {
        Self { memory: None, unwind: true }
    }
}
