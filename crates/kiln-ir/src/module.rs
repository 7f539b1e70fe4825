//! A module of IR: what one work-queue item consists of.
//!
//! Invariants:
//! - Everything inside a module is an index. A function refers to a symbol by its [`SymbolId`], or to a library call;
//!   never to text.
//! - A symbol has at most one definition. A symbol without one has linkage [`Linkage::Import`].
//! - A symbol is defined or used. Symbols are numbered in the order of functions, then of data, each followed by what it
//!   is the first to refer to. So globals stand in the table in order of first use, and the table does not depend on
//!   the order of declarations.

use std::sync::Arc;

use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::ir;

use crate::body::Body;
use crate::comments::Comments;
use crate::settings::ModuleSettings;
use crate::source::Source;

/// Number of a symbol within its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SymbolId(u32);

impl SymbolId {
    /// The symbol at `index` of a module's table.
    pub fn from_u32(index: u32) -> Self {
        Self(index)
    }

    /// The position in the table.
    pub fn as_u32(self) -> u32 {
        self.0
    }

    /// The position in the table.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a symbol names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SymbolKind {
    /// Code.
    Function,
    /// Data, or something that only its address is known to be used of.
    Data,
    /// A run-time object; the symbol's name is its stable key.
    Global,
}

/// Who may see a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Linkage {
    /// Defined in another module, or by the host.
    Import,
    /// Visible inside its module.
    Local,
    /// Visible to the modules it is linked with.
    Hidden,
    /// Visible to everybody.
    Export,
    /// Like `Export`, but gives way to another definition.
    Preemptible,
}

/// A symbol of a module.
#[derive(Clone, Debug)]
pub struct Symbol {
    /// The name that linking goes by: `foo` for `%foo`, `u1:23` for `u1:23`; the stable key of a global;
    /// empty for an anonymous local.
    pub name: Box<str>,
    /// What it names.
    pub kind: SymbolKind,
    /// Who may see it.
    pub linkage: Linkage,
    /// Type of a function, as defined here or as first imported; `None` for data, globals and functions of which only the
    /// address is used.
    pub signature: Option<ir::Signature>,
    /// Line of the definition, or of the first use of an import; 0 if the module was not read from text.
    pub line: u32,
}

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
    /// Alignment in bytes, a power of two up to [`MAX_ALIGN`].
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

/// A comment that asks for the function before it to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunLine<'m> {
    /// Its line in the file.
    pub line: u32,
    /// Its text without leading `;` and spaces: `run: %f(1) == 2`.
    pub text: &'m str,
}

/// The largest alignment of a datum, in bytes: a page, which is what images and memory are laid out in.
pub const MAX_ALIGN: u32 = 4096;

/// A datum that a module defines.
#[derive(Clone, Debug)]
pub struct DataObject {
    /// Its symbol.
    pub symbol: SymbolId,
    /// Whether the program may write it.
    pub writable: bool,
    /// Alignment in bytes, a power of two up to [`MAX_ALIGN`].
    pub align: u32,
    /// Initial content.
    pub init: Init,
    /// Section of an image it is to lie in, if not where others like it do. Data of all modules that asks for one section
    /// lies side by side there, in order of modules and definitions, writable or not, but not both; if the name is an
    /// identifier of C, imports called `__start_NAME` and `__stop_NAME` are its bounds. An empty datum takes no room in it.
    pub section: Option<Box<str>>,
    /// Addresses inside the content, by ascending offset, not overlapping.
    pub addresses: Vec<DataAddress>,
    /// Line of the definition; 0 if the module was not read from text.
    pub line: u32,
}

/// Initial content of a datum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Init {
    /// So many zeros; takes no room in an image if the datum is writable, holds no address and asks for no section.
    Zeros(u64),
    /// These bytes; places of addresses are zero.
    Bytes(Vec<u8>),
}

impl Init {
    /// `bytes`, or so many zeros if that is what they are and nothing else will be `alone` in them.
    pub(crate) fn of(bytes: Vec<u8>, alone: bool) -> Self {
        if alone && bytes.iter().all(|byte| *byte == 0) {
            Self::Zeros(bytes.len() as u64)
        } else {
            Self::Bytes(bytes)
        }
    }

    /// Size in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Zeros(len) => *len,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Whether there is no content.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A pointer inside a datum: 8 bytes that hold the address of `symbol` plus `addend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataAddress {
    /// Where in the datum.
    pub offset: u64,
    /// Whose address.
    pub symbol: SymbolId,
    /// What is added to it.
    pub addend: i64,
}

/// A module of IR, checked.
#[derive(Clone, Debug)]
pub struct Module {
    /// Name for messages: the file's path, or what the client calls it. It never reaches machine code.
    pub name: Box<str>,
    /// The text it was read from.
    pub source: Option<Arc<Source>>,
    /// `set` and `target` lines.
    pub settings: ModuleSettings,
    /// Symbols by [`SymbolId`].
    pub symbols: Vec<Symbol>,
    /// Functions in order of definition.
    pub functions: Vec<Function>,
    /// Data in order of definition.
    pub data: Vec<DataObject>,
    /// Comments outside of functions, in order.
    pub comments: Vec<ModuleComment>,
}

/// A comment in a file, outside of functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleComment {
    /// What it stands at.
    pub anchor: ModuleAnchor,
    /// Its line in the file; 0 if the module was not read from text.
    pub line: u32,
    /// Its text from `;` to the end of the line; nothing for an empty line behind the comment before.
    pub text: Box<str>,
}

/// What a comment outside of functions stands at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleAnchor {
    /// Above a header line.
    Header,
    /// Above the item that defines this symbol.
    Above(SymbolId),
    /// At the end of the file.
    End,
}

impl Module {
    /// The symbol with this number.
    ///
    /// # Panics
    ///
    /// When `id` belongs to another module and is out of range here.
    pub fn symbol(&self, id: SymbolId) -> &Symbol {
        &self.symbols[id.index()]
    }

    /// Keys of the globals that the module uses, in order of first use.
    pub fn globals(&self) -> impl Iterator<Item = &str> {
        self.symbols.iter().filter(|symbol| symbol.kind == SymbolKind::Global).map(|symbol| &*symbol.name)
    }

    /// The modules that result when every function and datum is put into a module of its own.
    ///
    /// What was local becomes hidden, so that the pieces still find one another, under a name that ends with `.` and
    /// `number`: give each module of a program another number, and locals of one name stay apart. CLIF names hold no `.`.
    ///
    /// `None` if a definition has no name.
    pub fn split(&self, number: usize) -> Option<Vec<Module>> {
        crate::split::split(self, number)
    }
}
