//! A function that a module defines: IR, or machine code that a client wrote.

use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::ir;

use crate::body::Body;
use crate::comments::{Comments, RunLine};
use crate::symbol::SymbolId;

/// A function that a module defines.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its symbol, which has its signature too.
    pub symbol: SymbolId,
    /// Its code.
    pub code: Code,
    /// Line of the `function` keyword; 0 if the module was not read from text.
    pub line: u32,
    /// Comments inside it and directly behind it, in order.
    pub comments: Comments,
}

impl Function {
    /// Its code as IR, unless a client gave machine code. Names in it are `UserExternalName { namespace: 0, index }`
    /// with the number of a symbol.
    pub fn ir(&self) -> Option<ir::Function> {
        self.body().map(|body| body.decode(self.symbol))
    }

    /// The canonical form of its IR, unless a client gave machine code.
    pub fn body(&self) -> Option<&Body> {
        match &self.code {
            Code::Ir(body) => Some(body),
            Code::Machine(_) => None,
        }
    }

    /// Comments that start with `run` or `print`: they ask for the function to be called.
    pub fn run_lines(&self) -> impl Iterator<Item = RunLine<'_>> {
        self.comments.iter().filter_map(|comment| comment.run_line())
    }
}

/// What a function consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Code {
    /// IR, verified.
    Ir(Body),
    /// Instructions of the target that a client brings along.
    Machine(MachineCode),
}

/// Machine code that a client wrote, and what it refers to. It has no unwind rows: nothing can be thrown through it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineCode {
    /// The instructions.
    pub bytes: Box<[u8]>,
    /// Alignment in bytes, a power of two up to [`MAX_ALIGN`](crate::MAX_ALIGN).
    pub align: u32,
    /// References, by ascending offset.
    pub relocs: Vec<CodeReloc>,
}

/// A place in machine code that depends on where something lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeReloc {
    /// Where in the code, in bytes.
    pub offset: u32,
    /// What is written there.
    pub kind: Reloc,
    /// What it refers to.
    pub target: CodeTarget,
    /// What is added to the address.
    pub addend: i64,
}

/// What machine code refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeTarget {
    /// A symbol of the module.
    Symbol(SymbolId),
    /// A routine of the C library.
    LibCall(ir::LibCall),
    /// A place in the same function, in bytes.
    Here(u32),
}
