//! The names that units define for each other, and which definition of a name is in force.
//!
//! The rules are those of a link of all modules in order. A strong definition is the only one. Of
//! several preemptible definitions, the first is in force; of several replaceable ones, the last.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState as FastHash;
use kiln_artifact::Artifact;
use kiln_artifact::record::{SymbolKind, SymbolRecord};

use crate::indirection::Indirection;
use crate::symbol::Symbol;
use crate::unit::UnitId;

/// A definition of a name.
pub(crate) struct Definition {
    pub(crate) unit: UnitId,
    /// The number of its module among all that were linked.
    pub(crate) module: usize,
    artifact: Artifact,
    number: u32,
    /// Its place in memory. `None` while its unit is being linked.
    pub(crate) symbol: Option<Arc<Symbol>>,
}

impl Definition {
    pub(crate) fn new(unit: UnitId, module: usize, artifact: &Artifact, number: usize) -> Self {
        Self { unit, module, artifact: artifact.clone(), number: number as u32, symbol: None }
    }

    fn record(&self) -> &SymbolRecord {
        &self.artifact.symbols()[self.number as usize]
    }

    pub(crate) fn kind(&self) -> SymbolKind {
        self.record().kind()
    }

    /// Returns a function's recorded type.
    pub(crate) fn signature(&self) -> Option<&str> {
        self.artifact.signature(self.record().signature()?)
    }
}

/// A name with at least one definition.
pub(crate) struct Name {
    /// In order of linking.
    definitions: Vec<Definition>,
    /// The number of units that use it and do not define it.
    pub(crate) users: usize,
    /// For a replaceable function.
    pub(crate) indirection: Option<Indirection>,
}

impl Name {
    pub(crate) fn is_replaceable(&self) -> bool {
        self.indirection.is_some()
    }

    /// Returns the definition that is in force, which may still be in the process of being linked.
    pub(crate) fn current(&self) -> &Definition {
        let current = if self.is_replaceable() { self.definitions.last() } else { self.definitions.first() };
        current.expect("a name has a definition")
    }

    /// Returns the published definition that is in force.
    pub(crate) fn published(&self) -> Option<&Arc<Symbol>> {
        self.published_without(&|_| false)
    }

    /// Returns the published definition that is in force when the units of `without` are gone.
    pub(crate) fn published_without(&self, without: &dyn Fn(UnitId) -> bool) -> Option<&Arc<Symbol>> {
        let symbols = self.definitions.iter().filter_map(|definition| definition.symbol.as_ref());
        let mut others = symbols.filter(|symbol| !without(symbol.unit));
        if self.is_replaceable() { others.next_back() } else { others.next() }
    }

    /// Whether there is a definition, be it published or not, when the units of `without` are gone.
    pub(crate) fn is_defined_without(&self, without: &dyn Fn(UnitId) -> bool) -> bool {
        self.definitions.iter().any(|definition| !without(definition.unit))
    }

    pub(crate) fn definitions(&self) -> &[Definition] {
        &self.definitions
    }

    /// Returns the definition of a unit.
    pub(crate) fn definition_of(&mut self, unit: UnitId) -> Option<&mut Definition> {
        self.definitions.iter_mut().find(|definition| definition.unit == unit)
    }
}

/// All names.
#[derive(Default)]
pub(crate) struct Names(HashMap<Arc<str>, Name, FastHash>);

impl Names {
    pub(crate) fn get(&self, name: &str) -> Option<&Name> {
        self.0.get(name)
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut Name> {
        self.0.get_mut(name)
    }

    /// Adds a definition. A new replaceable name takes `indirection`. Returns the name.
    pub(crate) fn define(
        &mut self,
        name: &str,
        definition: Definition,
        indirection: impl FnOnce() -> Option<Indirection>,
    ) -> Arc<str> {
        let name = self.key(name);
        let entry = self.0.entry(name.clone()).or_insert_with(|| Name {
            definitions: Vec::with_capacity(1),
            users: 0,
            indirection: indirection(),
        });
        entry.definitions.push(definition);
        name
    }

    /// Adds a user. Returns the name.
    pub(crate) fn add_user(&mut self, name: &str) -> Arc<str> {
        let key = self.key(name);
        if let Some(name) = self.0.get_mut(name) {
            name.users += 1;
        }
        key
    }

    fn key(&self, name: &str) -> Arc<str> {
        self.0.get_key_value(name).map_or_else(|| name.into(), |(name, _)| name.clone())
    }

    /// Removes the definition of a unit. Returns the parts of a replaceable function if that was
    /// the last definition.
    pub(crate) fn undefine(&mut self, name: &str, unit: UnitId) -> Option<Indirection> {
        let entry = self.0.get_mut(name)?;
        entry.definitions.retain(|definition| definition.unit != unit);
        if !entry.definitions.is_empty() {
            return None;
        }
        self.0.remove(name)?.indirection
    }

    /// Takes the parts of all replaceable functions out.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Indirection> {
        self.0.drain().filter_map(|(_, name)| name.indirection)
    }
}
