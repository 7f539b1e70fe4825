//! Functions that a module defines, as IR or as machine code that a client supplies.

use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::ir;

use crate::body::Body;
use crate::comments::{Comments, RunLine};
use crate::symbol::SymbolId;
use crate::variables::Variable;

/// A function that a module defines.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its symbol, which also has its type.
    pub symbol: SymbolId,
    /// Its code.
    pub code: Code,
    /// Whether it may be inlined. It does not affect the function's own code.
    pub inline: InlineHint,
    /// The line of the `function` keyword; 0 if the module was not read from text.
    pub line: u32,
    /// Names for labels of its values, in order of the labels. They do not affect code.
    pub variables: Box<[Variable]>,
    /// The comments in it and directly after it, in order.
    pub comments: Comments,
}

impl Function {
    /// Returns its code as IR, unless it is machine code. Names in the IR are
    /// `UserExternalName { namespace: 0, index }` with the number of a symbol.
    pub fn ir(&self) -> Option<ir::Function> {
        self.body().map(|body| body.decode(self.symbol))
    }

    /// Returns the canonical form of its IR, unless it is machine code.
    pub fn body(&self) -> Option<&Body> {
        match &self.code {
            Code::Ir(body) => Some(body),
            Code::Machine(_) => None,
        }
    }

    /// Returns the comments that start with `run` or `print`: commands to call the function.
    pub fn run_lines(&self) -> impl Iterator<Item = RunLine<'_>> {
        self.comments.iter().filter_map(|comment| comment.run_line())
    }
}

/// Says whether calls of a function may be replaced by its code, where inlining is switched on:
/// see [`inline`](crate::inline()).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum InlineHint {
    /// If it is small.
    #[default]
    BySize,
    /// Also if it is not small, and where the call is cold: `inline` in the text.
    Inline,
    /// Never: `noinline` in the text.
    Never,
}

/// The code of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Code {
    /// IR, verified or to be verified when code is generated: see [`Body::is_verified`].
    Ir(Body),
    /// Machine code that a client supplies.
    Machine(MachineCode),
}

/// Machine code that a client supplies, and its relocations. It has no unwind information, so no
/// exception can be thrown through it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineCode {
    /// The instructions.
    pub bytes: Box<[u8]>,
    /// Alignment in bytes, a power of two up to [`MAX_ALIGN`](crate::MAX_ALIGN).
    pub align: u32,
    /// Relocations, in order of offset.
    pub relocs: Vec<CodeReloc>,
}

/// A relocation of machine code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeReloc {
    /// The offset of the patch site in the code, in bytes.
    pub offset: u32,
    /// The kind of relocation.
    pub kind: Reloc,
    /// The target.
    pub target: CodeTarget,
    /// The number that is added to the target's address.
    pub addend: i64,
}

/// The target of a relocation of machine code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeTarget {
    /// A symbol of the module.
    Symbol(SymbolId),
    /// A routine of the C library.
    LibCall(ir::LibCall),
    /// An offset in the function that has the relocation, in bytes.
    Here(u32),
}
