//! The modules that are inlined into each other: which function a call reaches, and how a symbol of
//! one module is named in another.

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::module::Module;
use crate::symbol::{Linkage, Symbol, SymbolId, SymbolKind};

/// A function of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) module: usize,
    pub(super) function: usize,
}

/// The name of a symbol for linking, and whether it is the key of a global: keys are apart from
/// names.
pub(super) type LinkName<'m> = (&'m str, bool);

/// Returns the name of a symbol for linking.
pub(super) fn link_name(symbol: &Symbol) -> LinkName<'_> {
    (&symbol.name, symbol.kind == SymbolKind::Global)
}

/// How a module names a symbol of another module.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Named<'m> {
    /// It has this symbol, which means the same.
    Own(SymbolId),
    /// It does not refer to it yet.
    New(LinkName<'m>),
}

/// The modules, with tables to look things up. Maps are looked up, never iterated.
pub(super) struct Program<'m> {
    modules: &'m [Module],
    /// For each name that others see, the function that every reference to it reaches; `None` if
    /// there is no such function, or if another definition may be in force.
    seen: HashMap<&'m str, Option<Place>>,
    /// For each module, the function that defines a symbol.
    own: Vec<Vec<Option<usize>>>,
    /// For each module, its symbols by name.
    names: Vec<OnceLock<HashMap<LinkName<'m>, SymbolId>>>,
}

impl<'m> Program<'m> {
    pub(super) fn new(modules: &'m [Module]) -> Self {
        let mut seen: HashMap<&str, Option<Place>> = HashMap::new();
        let mut own = Vec::with_capacity(modules.len());
        for (number, module) in modules.iter().enumerate() {
            let mut functions = vec![None; module.symbols.len()];
            for (index, function) in module.functions.iter().enumerate() {
                functions[function.symbol.index()] = Some(index);
            }
            for (symbol, function) in module.symbols.iter().zip(&functions) {
                if symbol.kind == SymbolKind::Global
                    || matches!(symbol.linkage, Linkage::Import | Linkage::Local)
                {
                    continue;
                }
                // A preemptible definition may have another one in force, outside of the program
                // too, and the code of a replaceable one is exchanged at run time.
                let place = match (function, symbol.linkage) {
                    (Some(function), Linkage::Export | Linkage::Hidden) => {
                        Some(Place { module: number, function: *function })
                    }
                    _ => None,
                };
                seen.entry(&symbol.name).and_modify(|place| *place = None).or_insert(place);
            }
            own.push(functions);
        }
        let names = modules.iter().map(|_| OnceLock::new()).collect();
        Self { modules, seen, own, names }
    }

    pub(super) fn modules(&self) -> &'m [Module] {
        self.modules
    }

    /// Returns the function that every call of a module's symbol reaches, while the program runs;
    /// `None` if it may be another one, or is not in the program.
    pub(super) fn reached(&self, module: usize, symbol: SymbolId) -> Option<Place> {
        let of = self.modules[module].symbols.get(symbol.index())?;
        match (of.kind, of.linkage) {
            (SymbolKind::Function, Linkage::Local) => {
                self.own[module][symbol.index()].map(|function| Place { module, function })
            }
            (SymbolKind::Function, Linkage::Import | Linkage::Export | Linkage::Hidden) => {
                *self.seen.get(&*of.name)?
            }
            _ => None,
        }
    }

    /// Returns how the module `user` names a symbol of the module `module`; `None` if it cannot.
    pub(super) fn name(&self, user: usize, module: usize, symbol: SymbolId) -> Option<Named<'m>> {
        if user == module {
            return Some(Named::Own(symbol));
        }
        let wanted = self.modules[module].symbols.get(symbol.index())?;
        if wanted.linkage == Linkage::Local {
            return None;
        }
        let name = link_name(wanted);
        match self.names(user).get(&name) {
            None => Some(Named::New(name)),
            Some(&own) => same(self.modules[user].symbol(own), wanted).then_some(Named::Own(own)),
        }
    }

    fn names(&self, module: usize) -> &HashMap<LinkName<'m>, SymbolId> {
        self.names[module].get_or_init(|| {
            let symbols = self.modules[module].symbols.iter().zip(0..);
            let named = symbols.filter(|(symbol, _)| !symbol.name.is_empty());
            named.map(|(symbol, number)| (link_name(symbol), SymbolId::from_u32(number))).collect()
        })
    }
}

/// Whether a symbol of a module means what `wanted`, of the same name in another module, means
/// there, and has its type.
fn same(own: &Symbol, wanted: &Symbol) -> bool {
    let typed = match (&own.signature, &wanted.signature) {
        (Some(own), Some(wanted)) => own == wanted,
        (None, Some(_)) => false,
        (_, None) => true,
    };
    own.linkage != Linkage::Local && own.kind == wanted.kind && typed
}
