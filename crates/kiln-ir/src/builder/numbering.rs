//! Numbers declarations as symbols, when all definitions are known.

use std::collections::{HashMap, HashSet};

use cranelift_module::{DataId, FuncId, FuncOrDataId, Linkage as DeclaredLinkage, ModuleDeclarations};
use indexmap::IndexMap;

use super::error::BuildError;
use super::pending::{PendingCode, PendingData};
use crate::symbol::{Linkage, Symbol, SymbolId, SymbolKind};

/// Numbers declarations as symbols, in the order in which they are first referred to.
pub(super) struct Numbering<'a> {
    pub(super) declarations: &'a ModuleDeclarations,
    pub(super) keys: &'a HashMap<DataId, Box<str>>,
    pub(super) functions: &'a IndexMap<FuncId, PendingCode>,
    pub(super) replaceable: &'a HashSet<FuncId>,
    pub(super) data: &'a IndexMap<DataId, PendingData>,
    pub(super) numbers: HashMap<FuncOrDataId, SymbolId>,
    pub(super) symbols: Vec<Symbol>,
}

impl Numbering<'_> {
    pub(super) fn symbol(&mut self, id: FuncOrDataId) -> SymbolId {
        if let Some(number) = self.numbers.get(&id) {
            return *number;
        }
        let (name, kind, linkage, signature) = match id {
            FuncOrDataId::Func(id) => {
                let declared = self.declarations.get_function_decl(id);
                let linkage = match linkage(declared.linkage, self.functions.contains_key(&id)) {
                    Linkage::Export if self.replaceable.contains(&id) => Linkage::Replaceable,
                    linkage => linkage,
                };
                (declared.name.as_deref(), SymbolKind::Function, linkage, Some(declared.signature.clone()))
            }
            FuncOrDataId::Data(id) => match self.keys.get(&id) {
                Some(key) => (Some(&**key), SymbolKind::Global, Linkage::Import, None),
                None => {
                    let declared = self.declarations.get_data_decl(id);
                    let linkage = linkage(declared.linkage, self.data.contains_key(&id));
                    (declared.name.as_deref(), SymbolKind::Data, linkage, None)
                }
            },
        };
        let number = SymbolId::from_u32(u32::try_from(self.symbols.len()).expect("fewer than 2^32 symbols"));
        let name = name.unwrap_or_default().into();
        self.symbols.push(Symbol { name, kind, linkage, signature, line: 0 });
        self.numbers.insert(id, number);
        number
    }

    /// Checks that everything that must have a definition has one.
    pub(super) fn check(&self) -> Result<(), BuildError> {
        let used = |id| self.numbers.contains_key(&id);
        for (id, declared) in self.declarations.get_functions() {
            let needed = must_be_defined(declared.linkage, declared.name.is_some())
                || declared.linkage.requires_definition() && used(FuncOrDataId::Func(id));
            if needed && !self.functions.contains_key(&id) {
                return Err(BuildError::Undefined(declared.linkage_name(id).into()));
            }
        }
        for (id, declared) in self.declarations.get_data_objects() {
            let needed = must_be_defined(declared.linkage, declared.name.is_some())
                || declared.linkage.requires_definition() && used(FuncOrDataId::Data(id));
            if needed && !self.keys.contains_key(&id) && !self.data.contains_key(&id) {
                return Err(BuildError::Undefined(declared.linkage_name(id).into()));
            }
        }
        Ok(())
    }
}

/// Tells whether a declaration must be defined even if nothing in the module uses it, because other
/// modules may.
fn must_be_defined(linkage: DeclaredLinkage, named: bool) -> bool {
    named && linkage.requires_definition() && linkage != DeclaredLinkage::Local
}

/// Converts a linkage of `cranelift-module` to Kiln's.
fn linkage(declared: DeclaredLinkage, defined: bool) -> Linkage {
    match declared {
        DeclaredLinkage::Import => Linkage::Import,
        _ if !defined => Linkage::Import,
        DeclaredLinkage::Local => Linkage::Local,
        DeclaredLinkage::Preemptible => Linkage::Preemptible,
        DeclaredLinkage::Hidden => Linkage::Hidden,
        DeclaredLinkage::Export => Linkage::Export,
    }
}
