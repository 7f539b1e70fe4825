//! A module of IR: what one work-queue item consists of.
//!
//! Invariants:
//! - Everything inside a module is an index. A function refers to a symbol by `UserExternalName { namespace: 0, index }`
//!   with `index` a [`SymbolId`] of its module, or by a library call; never by text.
//! - A symbol has at most one definition. A symbol without one has linkage [`Linkage::Import`].
//! - Globals stand in the symbol table in order of first use.

use std::sync::Arc;

use cranelift_codegen::ir;

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
    /// Its symbol.
    pub symbol: SymbolId,
    /// Its code. The name inside is `UserFuncName::user(0, symbol)`.
    pub ir: ir::Function,
    /// Line of the `function` keyword; 0 if the module was not read from text.
    pub line: u32,
    /// `; run:` and `; print:` comments, in order.
    pub run_lines: Vec<RunLine>,
}

/// A comment that asks for the function before it to be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunLine {
    /// Its line in the file.
    pub line: u32,
    /// Its text without leading `;` and spaces: `run: %f(1) == 2`.
    pub text: Box<str>,
}

/// The largest alignment of a datum, in bytes: a page, which is what images and memory are laid out in.
pub const MAX_ALIGN: u32 = 4096;

/// A datum that a module defines.
#[derive(Clone, Debug)]
pub struct Data {
    /// Its symbol.
    pub symbol: SymbolId,
    /// Whether the program may write it.
    pub writable: bool,
    /// Alignment in bytes, a power of two up to [`MAX_ALIGN`].
    pub align: u32,
    /// Initial content.
    pub init: Init,
    /// Addresses inside the content, by ascending offset, not overlapping.
    pub addresses: Vec<DataAddress>,
    /// Line of the definition; 0 if the module was not read from text.
    pub line: u32,
}

/// Initial content of a datum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Init {
    /// So many zeros; takes no room in an image if the datum is writable and holds no address.
    Zeros(u64),
    /// These bytes; places of addresses are zero.
    Bytes(Vec<u8>),
}

impl Init {
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
    pub data: Vec<Data>,
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
