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

use crate::comments::ModuleComment;
use crate::data::DataObject;
use crate::function::Function;
use crate::settings::ModuleSettings;
use crate::source::Source;
use crate::symbol::{Symbol, SymbolId, SymbolKind};

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
}
