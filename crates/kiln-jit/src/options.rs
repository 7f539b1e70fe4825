//! The options of a JIT.

use std::sync::Arc;

use kiln_image::Loaded;

use crate::memory::Memory;

/// Options of a [`Jit`](crate::Jit).
#[derive(Clone, Debug)]
pub struct JitOptions {
    /// Memory for code and data. By default it is [`Memory::shared`], so making a
    /// [`Jit`](crate::Jit) takes no system call, or [`Memory::shared_for_tools`] if a debugger is
    /// there already or a map for perf is written. A memory of its own, which [`Memory::reserve`]
    /// makes, is for a client that limits what can be linked.
    pub memory: Option<Arc<Memory>>,
    /// Whether panics and exceptions can unwind through compiled code, and backtraces show that
    /// code. Default `true`. A profiler that unwinds in a signal handler also calls
    /// [`prepare_for_signals`](crate::prepare_for_signals).
    pub unwind: bool,
    /// Which debuggers know the code. Of modules with lines, they also learn lines and variables.
    /// Default: one that is there. One that attaches later is told everything when code is
    /// published next, or by [`Jit::tell_debugger`](crate::Jit::tell_debugger).
    ///
    /// Debuggers write breakpoints into code. Linux does not let them do so in code that is mapped
    /// twice, so a JIT that is made while a debugger is there, or with [`Debugger::Any`], has other
    /// memory: [`Memory::shared_for_tools`].
    pub debugger: Debugger,
    /// The file for perf into which functions are written. Default `None`. While a
    /// [`Map`](Profiler::Map) is written, addresses of code that was removed are not used again
    /// until such code takes a quarter of the memory for code.
    pub profiler: Option<Profiler>,
    /// Loaded images that the program is linked on; their own bases count, too. Code calls their
    /// functions, reads and writes their data, has the bindings of their globals, and replaces
    /// their replaceable functions, as if they had been linked before it. Default: none.
    pub bases: Vec<Arc<Loaded>>,
}

pub use kiln_debug::gdb::Debugger;
pub use kiln_debug::perf::Kind as Profiler;

impl Default for JitOptions {
    fn default() -> Self {
        Self { memory: None, unwind: true, debugger: Debugger::Present, profiler: None, bases: Vec::new() }
    }
}
