//! A module of IR: symbols, functions, data objects and header lines.
//!
//! Invariants:
//! - References within a module are numbers. A function refers to a symbol by its [`SymbolId`], or
//!   to a library call, never to a name.
//! - A symbol has at most one definition. A symbol without a definition has the linkage
//!   [`Linkage::Import`](crate::Linkage::Import).
//! - Every symbol is defined or used. Symbols are numbered in the order of functions, then of data
//!   objects, each followed by the symbols that it is the first to refer to. So globals are in the
//!   symbol table in order of first use, and the table does not depend on the order of
//!   declarations.

use std::sync::Arc;

use crate::comments::ModuleComment;
use crate::data::DataObject;
use crate::function::Function;
use crate::ids::ClientIds;
use crate::lines::LineTable;
use crate::settings::ModuleSettings;
use crate::source::Source;
use crate::symbol::{Symbol, SymbolId, SymbolKind};

/// A checked module of IR.
#[derive(Clone, Debug)]
pub struct Module {
    /// The name for messages: the file's path, or a name that the client chose. It never reaches
    /// machine code.
    pub name: Box<str>,
    /// The text that the module was read from.
    pub source: Option<Arc<Source>>,
    /// The header lines: `set`, `target`, `test` and `feature`.
    pub settings: ModuleSettings,
    /// Symbols by [`SymbolId`].
    pub symbols: Vec<Symbol>,
    /// Functions in order of definition.
    pub functions: Vec<Function>,
    /// Data objects in order of definition.
    pub data: Vec<DataObject>,
    /// The table of what source locations stand for. It does not affect code.
    pub lines: LineTable,
    /// Comments outside of functions, in order.
    pub comments: Vec<ModuleComment>,
    /// The symbols by the ids of the builder that built the module. They do not affect code.
    pub ids: ClientIds,
}

impl Module {
    /// Returns the symbol with this number.
    ///
    /// # Panics
    ///
    /// If `id` belongs to another module and is out of range here.
    pub fn symbol(&self, id: SymbolId) -> &Symbol {
        &self.symbols[id.index()]
    }

    /// Returns the keys of the globals that the module uses, in order of first use.
    pub fn globals(&self) -> impl Iterator<Item = &str> {
        self.symbols.iter().filter(|symbol| symbol.kind == SymbolKind::Global).map(|symbol| &*symbol.name)
    }
}
