//! Finds which imports need an item.

use cranelift_codegen::ir::{self, ExternalName, Signature};

use crate::module::Module;
use crate::symbol::{SymbolId, SymbolKind};

/// The type with which a function first declares each symbol.
pub(super) struct DeclaredTypes(Vec<Option<Signature>>);

impl DeclaredTypes {
    pub(super) fn new(module: &Module) -> Self {
        Self(vec![None; module.symbols.len()])
    }

    /// Records the declarations of a function. Functions must be passed in order.
    pub(super) fn function(&mut self, function: &ir::Function) {
        for data in function.dfg.ext_funcs.values() {
            if let ExternalName::User(name) = data.name {
                let number = function.params.user_named_funcs()[name].index;
                self.0[number as usize]
                    .get_or_insert_with(|| function.dfg.signatures[data.signature].clone());
            }
        }
    }

    /// Tells whether a reader can infer the kind and type of an import without an `import` item.
    pub(super) fn tell(&self, module: &Module, symbol: SymbolId) -> bool {
        let (used, of) = (&self.0[symbol.index()], module.symbol(symbol));
        match of.kind {
            SymbolKind::Function => used.is_some() && *used == of.signature,
            SymbolKind::Data | SymbolKind::Global => used.is_none(),
        }
    }
}
