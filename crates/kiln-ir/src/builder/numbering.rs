//! Numbers declarations as symbols, when all definitions are known.

use std::collections::{HashMap, HashSet};

use cranelift_module::{DataId, FuncId, FuncOrDataId, Linkage as DeclaredLinkage};
use indexmap::IndexMap;

use super::declarations::Declarations;
use super::earlier::{Earlier, private_name};
use super::error::BuildError;
use super::pending::{PendingCode, PendingData};
use crate::symbol::{Linkage, Symbol, SymbolId, SymbolKind};

/// Numbers declarations as symbols, in the order in which they are first referred to.
pub(super) struct Numbering<'a> {
    /// The builder's name.
    pub(super) scope: &'a str,
    pub(super) declarations: &'a Declarations,
    pub(super) earlier: &'a Earlier,
    /// Whether no other module of the builder follows.
    pub(super) last: bool,
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
        let declarations = self.declarations.all();
        let (name, kind, linkage, signature) = match id {
            FuncOrDataId::Func(function) => {
                let declared = declarations.get_function_decl(function);
                let defined = self.functions.contains_key(&function);
                let (name, linkage) = self.naming(id, declared.name.as_deref(), declared.linkage, defined);
                let linkage = match linkage {
                    Linkage::Export if self.replaceable.contains(&function) => Linkage::Replaceable,
                    linkage => linkage,
                };
                let signature = self.declarations.signature(function).clone();
                (name, SymbolKind::Function, linkage, Some(signature))
            }
            FuncOrDataId::Data(data) => match self.keys.get(&data) {
                Some(key) => (key.clone(), SymbolKind::Global, Linkage::Import, None),
                None => {
                    let declared = declarations.get_data_decl(data);
                    let defined = self.data.contains_key(&data);
                    let (name, linkage) =
                        self.naming(id, declared.name.as_deref(), declared.linkage, defined);
                    (name, SymbolKind::Data, linkage, None)
                }
            },
        };
        let number = SymbolId::from_u32(u32::try_from(self.symbols.len()).expect("fewer than 2^32 symbols"));
        self.symbols.push(Symbol { name, kind, linkage, signature, line: 0 });
        self.numbers.insert(id, number);
        number
    }

    /// Returns name and linkage of a declaration that this module defines or not.
    fn naming(
        &self,
        id: FuncOrDataId,
        name: Option<&str>,
        declared: DeclaredLinkage,
        defined: bool,
    ) -> (Box<str>, Linkage) {
        let private = self.earlier.is_private(id, declared);
        // Nothing outside of this module refers to it.
        let own = private && defined && self.last && !self.earlier.is_mentioned(id);
        let name = match private && !own {
            true => private_name(self.scope, self.declarations, id),
            false => name.unwrap_or_default().into(),
        };
        let linkage = match declared {
            DeclaredLinkage::Import => Linkage::Import,
            _ if !defined => Linkage::Import,
            DeclaredLinkage::Local if own => Linkage::Local,
            DeclaredLinkage::Local | DeclaredLinkage::Hidden => Linkage::Hidden,
            DeclaredLinkage::Preemptible => Linkage::Preemptible,
            DeclaredLinkage::Export => Linkage::Export,
        };
        (name, linkage)
    }

    /// Checks that everything that must have a definition has one.
    pub(super) fn check(&self) -> Result<(), BuildError> {
        let missing = |id, linkage: DeclaredLinkage, named| {
            let used = || self.numbers.contains_key(&id) || self.earlier.is_mentioned(id);
            let needed = must_be_defined(linkage, named) || linkage.requires_definition() && used();
            needed && !self.earlier.defines(id)
        };
        let declarations = self.declarations.all();
        for (id, declared) in declarations.get_functions() {
            if !self.functions.contains_key(&id)
                && missing(FuncOrDataId::Func(id), declared.linkage, declared.name.is_some())
            {
                return Err(BuildError::Undefined(declared.linkage_name(id).into()));
            }
        }
        for (id, declared) in declarations.get_data_objects() {
            if !self.keys.contains_key(&id)
                && !self.data.contains_key(&id)
                && missing(FuncOrDataId::Data(id), declared.linkage, declared.name.is_some())
            {
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
