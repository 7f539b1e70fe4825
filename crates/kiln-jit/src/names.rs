//! The names that units define for each other, and which definition of a name is in force.
//!
//! The rules are those of a link of all modules in order. A strong definition is the only one. Of
//! several preemptible definitions, the first is in force; of several replaceable ones, the last.
//!
//! The strong definitions of large units (see `large`) have no entry until one is needed:
//! [`Names::list`] makes it.

use std::sync::Arc;

use hashbrown::HashTable;
use kiln_artifact::Artifact;
use kiln_artifact::record::{SymbolKind, SymbolRecord};
use kiln_image::link::is_shared_definition;
use smallvec::{SmallVec, smallvec};

use crate::batch::is_strong;
use crate::hashed::{HashedName, NameHasher};
use crate::indirection::Indirection;
use crate::large::{LargeUnit, MAX_LARGE};
use crate::symbol::Symbol;
use crate::unit::{UnitId, UnitInfo};

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
    name: HashedName,
    /// In order of linking; most often one.
    definitions: SmallVec<[Definition; 1]>,
    /// The number of units that use it and do not define it.
    pub(crate) users: usize,
    /// For a replaceable function. Most are not, and there may be very many names.
    pub(crate) indirection: Option<Box<Indirection>>,
}

impl Name {
    fn new(name: HashedName, definition: Definition, indirection: Option<Box<Indirection>>) -> Self {
        Self { name, definitions: smallvec![definition], users: 0, indirection }
    }

    pub(crate) fn name(&self) -> &HashedName {
        &self.name
    }

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

/// A large unit, and those of its strong definitions that have an entry.
struct Large {
    unit: Arc<LargeUnit>,
    listed: Vec<Arc<str>>,
}

/// All names.
#[derive(Default)]
pub(crate) struct Names {
    hasher: NameHasher,
    entries: HashTable<Name>,
    large: Vec<Large>,
}

impl Names {
    pub(crate) fn new(hasher: NameHasher) -> Self {
        Self { hasher, ..Self::default() }
    }

    fn insert(&mut self, entry: Name) {
        self.entries.insert_unique(entry.name.hash(), entry, |entry| entry.name.hash());
    }

    /// Returns the entry of a name. A name that only a large unit defines may have none: see
    /// [`list`](Self::list).
    pub(crate) fn get(&self, name: &str) -> Option<&Name> {
        self.entries.find(self.hasher.hash(name), |entry| *entry.name == *name)
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut Name> {
        self.entries.find_mut(self.hasher.hash(name), |entry| *entry.name == *name)
    }

    /// Whether no name has an entry.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a unit defines `name`.
    pub(crate) fn is_defined(&self, name: &str) -> bool {
        self.get(name).is_some() || self.large.iter().any(|large| large.unit.find(name).is_some())
    }

    /// Makes the entries of those of `names` that large units define.
    pub(crate) fn list<'n>(&mut self, names: impl Iterator<Item = &'n str>) {
        if !self.large.is_empty() {
            names.for_each(|name| self.list_one(name));
        }
    }

    fn list_one(&mut self, name: &str) {
        if self.get(name).is_some() {
            return;
        }
        let found = self.large.iter_mut().find_map(|large| Some((large.unit.find(name)?, large)));
        let Some((place, Large { unit, listed })) = found else { return };
        let mut definition =
            Definition::new(unit.id(), unit.module(place), unit.artifact(place), place.1 as usize);
        definition.symbol = unit.symbol(place).map(Arc::new);
        let name = HashedName::new(name, self.hasher.hash(name));
        listed.push(name.shared().clone());
        self.insert(Name::new(name, definition, None));
    }

    /// Adds the strong definitions of a large unit that is being linked.
    pub(crate) fn add_large(&mut self, unit: Arc<LargeUnit>) {
        self.large.push(Large { unit, listed: Vec::new() });
    }

    /// Publishes the strong definitions of a large unit. Returns its table, or `None` if the unit
    /// is not large.
    pub(crate) fn publish_large(&mut self, info: &Arc<UnitInfo>) -> Option<Arc<LargeUnit>> {
        let Large { unit, listed } = self.large.iter().find(|large| large.unit.id() == info.id)?;
        unit.publish(info.clone());
        let unit = unit.clone();
        for name in listed {
            let hash = self.hasher.hash(name);
            let entry = self.entries.find_mut(hash, |entry| *entry.name == **name);
            if let Some(definition) = entry.and_then(|entry| entry.definition_of(info.id)) {
                definition.symbol = unit.find(name).and_then(|place| unit.symbol(place)).map(Arc::new);
            }
        }
        Some(unit)
    }

    pub(crate) fn is_large(&self, unit: UnitId) -> bool {
        self.large.iter().any(|large| large.unit.id() == unit)
    }

    /// Returns the smallest published table, if there are too many.
    pub(crate) fn smallest_large(&self) -> Option<Arc<LargeUnit>> {
        let published = self.large.iter().map(|large| &large.unit).filter(|unit| unit.is_published());
        let smallest = || published.min_by_key(|unit| unit.len()).cloned();
        (self.large.len() > MAX_LARGE).then(smallest).flatten()
    }

    /// Takes the table of a large unit out. Returns those of its strong definitions that have an
    /// entry, or `None` if the unit is not large.
    pub(crate) fn remove_large(&mut self, unit: UnitId) -> Option<Vec<Arc<str>>> {
        let position = self.large.iter().position(|large| large.unit.id() == unit)?;
        Some(self.large.remove(position).listed)
    }

    /// Returns the names that a unit defines and that have an entry.
    pub(crate) fn listed_of<'n>(
        &'n self,
        unit: UnitId,
        artifacts: &'n [Artifact],
    ) -> impl Iterator<Item = &'n str> {
        let large = self.large.iter().find(|large| large.unit.id() == unit);
        let listed = large.into_iter().flat_map(|large| large.listed.iter().map(|name| &**name));
        listed.chain(entered_names(artifacts, large.is_some()))
    }

    /// Adds a definition. A new replaceable name takes `indirection`.
    pub(crate) fn define(
        &mut self,
        name: &str,
        definition: Definition,
        indirection: impl FnOnce() -> Option<Box<Indirection>>,
    ) {
        match self.get_mut(name) {
            Some(entry) => entry.definitions.push(definition),
            None => {
                let name = HashedName::new(name, self.hasher.hash(name));
                self.insert(Name::new(name, definition, indirection()));
            }
        }
    }

    /// Adds a user of a name. Returns the name.
    pub(crate) fn add_user(&mut self, name: &str) -> Arc<str> {
        match self.get_mut(name) {
            Some(entry) => {
                entry.users += 1;
                entry.name.shared().clone()
            }
            None => name.into(),
        }
    }

    /// Removes the definition of a unit. Returns the parts of a replaceable function if that was
    /// the last definition.
    pub(crate) fn undefine(&mut self, name: &str, unit: UnitId) -> Option<Indirection> {
        let hash = self.hasher.hash(name);
        let mut entry = self.entries.find_entry(hash, |entry| *entry.name == *name).ok()?;
        let definitions = &mut entry.get_mut().definitions;
        definitions.retain(|definition| definition.unit != unit);
        if !definitions.is_empty() {
            return None;
        }
        entry.remove().0.indirection.map(|indirection| *indirection)
    }

    /// Takes the parts of all replaceable functions out.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Indirection> {
        self.large.clear();
        self.entries.drain().filter_map(|name| Some(*name.indirection?))
    }
}

/// Returns the names that modules define for others and that have an entry from the start: all,
/// but no strong ones if the unit is large.
pub(crate) fn entered_names(artifacts: &[Artifact], is_large: bool) -> impl Iterator<Item = &str> {
    artifacts.iter().flat_map(move |artifact| {
        let symbols = artifact.symbols().iter().filter(|symbol| is_shared_definition(symbol));
        let entered = symbols.filter(move |symbol| !is_large || !is_strong(symbol.linkage()));
        entered.map(|symbol| artifact.name(symbol))
    })
}
