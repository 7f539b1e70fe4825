//! The symbols of the numbers that a client of a builder knows: `FuncId` and `DataId`.

use std::collections::{BTreeMap, HashMap};

use cranelift_module::{DataId, FuncId, FuncOrDataId};

use crate::symbol::SymbolId;

/// The symbols of a module by the ids of the [`ModuleBuilder`](crate::ModuleBuilder) that built it.
///
/// A symbol has the same number in the module and in its artifact, so this finds private and
/// anonymous functions in compiled code too. It is empty for a module that was not built, and it is
/// neither compiled nor stored.
// In order of ids, so that two builds of a module print alike.
#[derive(Clone, Debug, Default)]
pub struct ClientIds(BTreeMap<FuncOrDataId, SymbolId>);

impl ClientIds {
    pub(crate) fn new(symbols: HashMap<FuncOrDataId, SymbolId>) -> Self {
        Self(symbols.into_iter().collect())
    }

    /// Returns the symbol of a function that the module defines or refers to.
    pub fn function(&self, id: FuncId) -> Option<SymbolId> {
        self.0.get(&FuncOrDataId::Func(id)).copied()
    }

    /// Returns the symbol of a data object or global that the module defines or refers to.
    pub fn data(&self, id: DataId) -> Option<SymbolId> {
        self.0.get(&FuncOrDataId::Data(id)).copied()
    }

    /// Whether there are no ids, as in a module that was not built.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
