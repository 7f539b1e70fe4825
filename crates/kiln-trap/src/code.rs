//! The answers of a run-time system about its code: [`CodeLookup`], in plain data.

use std::ops::ControlFlow;

/// A function that contains an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionInfo<'a> {
    /// The function's name; empty if it has none.
    pub name: &'a str,
    /// The name of its module; empty if it has none.
    pub module: &'a str,
    /// Address of its first instruction.
    pub start: usize,
    /// Its length in bytes.
    pub len: usize,
}

/// The place in a source text that an instruction was made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceInfo<'a> {
    /// The compiler's own number for the location (Cranelift's `SourceLoc`).
    pub location: u32,
    /// The file; empty if only the number is known.
    pub file: &'a str,
    /// The line, from 1; 0 if it is not known.
    pub line: u32,
    /// The column, from 1; 0 if it is not known.
    pub column: u32,
}

/// A call that returns to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallInfo {
    /// Bytes from the frame pointer down to the stack pointer at the call. Known only if the call
    /// has handlers: Cranelift says it for `try_call` only.
    pub frame_offset: Option<u32>,
}

/// An entry of a call's exception table. Entries are matched in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandlerInfo {
    /// Exceptions with this tag continue at `target`.
    Tag {
        /// The tag.
        tag: u32,
        /// Address of the handler's code.
        target: usize,
    },
    /// All exceptions continue at `target`.
    Default {
        /// Address of the handler's code.
        target: usize,
    },
    /// The tags of later entries are read in the context that is stored this many bytes above the
    /// stack pointer at the call.
    ContextOnStack(u32),
    /// The tags of later entries are read in the context in the general purpose register with this
    /// hardware number.
    ContextInRegister(u8),
}

/// A live reference on the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootInfo {
    /// Bytes upwards from the stack pointer at the call.
    pub offset: u32,
    /// The size of the reference in bytes.
    pub size: u32,
}

/// Answers questions about the code in a range of addresses.
///
/// A range is given to [`register`](crate::register). [`CodeTable`](crate::CodeTable) is an
/// implementation for code whose tables a client has in vectors.
///
/// All addresses are absolute. `pc` is any address in the range. `return_pc` is a return address,
/// which may be the end of the range: the address after a call. Names are passed to a function, not
/// returned, so that they can be kept until they are read, even if the code is removed meanwhile.
///
/// # Safety
///
/// - The answers decide where execution continues and which words of the stack are read and
///   written, so they must describe the code that is there.
/// - Every frame of the code keeps the frame pointer as Cranelift does: a function that calls has
///   a frame, and the frame pointer register is used for nothing else.
/// - Methods are called in signal handlers: they take no lock, allocate nothing, and do not panic.
/// - Code either has unwind rows, registered with the system's unwinder, or has handlers only at
///   calls of functions that restore no register for their handlers (Cranelift's conventions `tail`
///   and `preserve_all`). Without rows nothing can find the registers that `system_v` restores.
pub unsafe trait CodeLookup: Sync {
    /// Passes the function that contains the instruction at `pc` to `visit`, if there is one.
    fn function_at(&self, pc: usize, visit: &mut dyn FnMut(FunctionInfo<'_>));

    /// Returns the trap code of the instruction at `pc`, if it is one that may trap: Cranelift's
    /// `TrapCode` as a number.
    fn trap_at(&self, pc: usize) -> Option<u8>;

    /// Passes the source of the instruction at `pc` to `visit`, if it is known.
    fn source_at(&self, pc: usize, visit: &mut dyn FnMut(SourceInfo<'_>));

    /// Returns the call that returns to `return_pc`.
    fn call_at(&self, return_pc: usize) -> Option<CallInfo>;

    /// Passes the entries of the exception table of the call that returns to `return_pc` to
    /// `visit`, until it breaks.
    fn handlers_at(&self, return_pc: usize, visit: &mut dyn FnMut(HandlerInfo) -> ControlFlow<()>);

    /// Passes the live references at the call that returns to `return_pc` to `visit`. Returns the
    /// bytes from the frame pointer down to the stack pointer at that call, or `None` if it has no
    /// stack map. Cranelift calls this number the map's span.
    fn stack_map_at(&self, return_pc: usize, visit: &mut dyn FnMut(RootInfo)) -> Option<u32>;
}
