//! Symbols: what a module defines or refers to, by number and by name.

use cranelift_codegen::ir;

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
