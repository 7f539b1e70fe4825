//! A place in a program that is in memory, or will be: an answer of the code tables with addresses.

use super::function::{Call, Function, Handler, StackMap};
use super::lines::SourceLine;
use super::tables::CodeTables;
use super::trap::TrapCode;

/// A place in the code of a program: the function, and what is known about the instruction.
///
/// Addresses are those of the process, or distances from the load address if the image was not
/// loaded. The methods read the tables when they are called. They allocate nothing and are safe in
/// a signal handler.
#[derive(Clone, Copy, Debug)]
pub struct Location<'a> {
    function: Function<'a>,
    /// The address of the program's code.
    text: u64,
    /// The offset of the place in the code.
    offset: u32,
    kind: Kind,
}

/// The kind of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Instruction,
    /// A return address: the instruction is the call before it.
    Return,
    /// A stub: only what it leads to is known.
    Stub,
}

impl<'a> Location<'a> {
    /// Finds the instruction at an address, in the tables of a program whose code is at `text`.
    #[inline]
    pub fn find(tables: CodeTables<'a>, text: u64, address: u64) -> Option<Self> {
        let offset = u32::try_from(address.checked_sub(text)?).ok()?;
        let function = tables.find(offset)?;
        let kind = if function.is_stub() { Kind::Stub } else { Kind::Instruction };
        Some(Self { function, text, offset, kind })
    }

    /// Finds the function at an address to which a stub leads. Nothing is known about the stub's
    /// own instructions, so there is neither source nor trap nor call.
    pub fn find_through_stub(tables: CodeTables<'a>, text: u64, address: u64) -> Option<Self> {
        let offset = u32::try_from(address.checked_sub(text)?).ok()?;
        let function = tables.find(offset).filter(|function| function.start() == offset)?;
        Some(Self { function, text, offset, kind: Kind::Stub })
    }

    /// Finds the call that returns to an address. It may be the address after the last byte of the
    /// function, if the callee never returns.
    #[inline]
    pub fn find_call(tables: CodeTables<'a>, text: u64, address: u64) -> Option<Self> {
        let offset = u32::try_from(address.checked_sub(text)?).ok()?;
        // Stubs call nothing.
        let function = tables.find(offset.checked_sub(1)?).filter(|function| !function.is_stub())?;
        Some(Self { function, text, offset, kind: Kind::Return })
    }

    /// Returns what the tables say about the function. Its offsets are from the start of the
    /// program's code, which is at [`text`](Self::text).
    pub fn function(&self) -> Function<'a> {
        self.function
    }

    /// Returns the address of the program's code.
    pub fn text(&self) -> u64 {
        self.text
    }

    /// Returns the number of the module in its link. `None` in a stub that all modules share.
    pub fn module(&self) -> Option<u32> {
        self.function.module()
    }

    /// Returns the name of the module, if the linker was given one.
    pub fn module_name(&self) -> Option<&'a str> {
        self.function.module_name()
    }

    /// Returns the name of the function, also if it is private; empty if it is anonymous. In a
    /// stub, it is the name of what it leads to.
    pub fn name(&self) -> &'a str {
        self.function.name()
    }

    /// Returns the address of the first byte of the function.
    pub fn start(&self) -> u64 {
        self.text + u64::from(self.function.start())
    }

    /// Returns the number of bytes from the start of the function to the place.
    pub fn offset(&self) -> u32 {
        self.offset - self.function.start()
    }

    /// Returns whether the place is in a stub, or in an entry that counts calls. Nothing is known
    /// about its instructions: no source, trap or call.
    ///
    /// In the stub of a replaceable function and in an entry, [`function`](Self::function) is the
    /// one that a call through it reaches now, if it is the program's, and the offset is 0. Other
    /// stubs, which lead to the host or to what is far away, are themselves what is found: start,
    /// length and offset are the stub's.
    pub fn is_stub(&self) -> bool {
        self.kind == Kind::Stub
    }

    /// Returns the client's source location (Cranelift's `SourceLoc`) of the instruction; of the
    /// call, if the place is a return address.
    pub fn source(&self) -> Option<u32> {
        if self.is_stub() {
            return None;
        }
        self.function.source_at(self.offset - u32::from(self.kind == Kind::Return))
    }

    /// Returns the place in a file that [`source`](Self::source) stands for. `None` if the module
    /// was compiled without lines. It takes longer than to read the location.
    pub fn line(&self) -> Option<SourceLine<'a>> {
        self.function.line_of(self.source()?)
    }

    /// Returns the reason for which the instruction may trap. The place must be its first byte.
    pub fn trap(&self) -> Option<TrapCode> {
        if self.kind == Kind::Instruction { self.function.trap_at(self.offset) } else { None }
    }

    /// Returns the call that returns to the place.
    pub fn call(&self) -> Option<Call<'a>> {
        if self.is_stub() { None } else { self.function.call_at(self.offset) }
    }

    /// Returns the live references during the call that returns to the place.
    pub fn stack_map(&self) -> Option<StackMap<'a>> {
        if self.is_stub() { None } else { self.function.stack_map_at(self.offset) }
    }

    /// Returns the address where execution continues in an exception handler of the function.
    pub fn target(&self, handler: &Handler) -> u64 {
        self.text + u64::from(handler.target)
    }
}
