//! [`Symbols`]: the published definitions, which can be looked up by name without a lock.
//!
//! Most are in one map. A unit that defines many names at once is found by its own table (see
//! `large`), which the list of such units leads to. When a unit stops to be large, its names are in
//! the map before it leaves the list. So a reader takes the list first, and then asks the map: it
//! finds a name in one of them at least.

use std::sync::Arc;

use arc_swap::ArcSwap;
use foldhash::fast::RandomState as FastHash;

use crate::large::LargeUnit;
use crate::symbol::Symbol;
use crate::unit::UnitId;

/// The published definitions by name. Readers take no lock; writers hold that of the program.
#[derive(Default)]
pub(crate) struct Symbols {
    map: papaya::HashMap<Arc<str>, Arc<Symbol>, FastHash>,
    large: ArcSwap<Vec<Arc<LargeUnit>>>,
}

impl Symbols {
    /// Returns the definition of `name`.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Symbol>> {
        let large = self.large.load();
        if let Some(symbol) = self.map.pin().get(name) {
            return Some(symbol.clone());
        }
        large.iter().find_map(|unit| unit.exported(name)).map(Arc::new)
    }

    /// Returns the address of the definition of `name`.
    pub(crate) fn address(&self, name: &str) -> Option<u64> {
        let large = self.large.load();
        if let Some(symbol) = self.map.pin().get(name) {
            return Some(symbol.address);
        }
        large.iter().find_map(|unit| unit.exported_address(name))
    }

    /// Returns the unit that has the definition of `name`.
    pub(crate) fn unit_of(&self, name: &str) -> Option<UnitId> {
        let large = self.large.load();
        if let Some(symbol) = self.map.pin().get(name) {
            return Some(symbol.unit);
        }
        large.iter().find(|unit| unit.exported_address(name).is_some()).map(|unit| unit.id())
    }

    /// Calls `each` for every definition, in no order. A name of a large unit may come twice.
    pub(crate) fn for_each(&self, mut each: impl FnMut(&str, &Symbol)) {
        let large = self.large.load();
        self.map.pin().iter().for_each(|(name, symbol)| each(name, symbol));
        large.iter().for_each(|unit| unit.for_each_exported(&mut each));
    }

    pub(crate) fn insert(&self, name: Arc<str>, symbol: Arc<Symbol>) {
        self.map.pin().insert(name, symbol);
    }

    pub(crate) fn remove(&self, name: &str) {
        self.map.pin().remove(name);
    }

    pub(crate) fn insert_large(&self, unit: Arc<LargeUnit>) {
        let mut units = Vec::clone(&self.large.load());
        units.push(unit);
        self.large.store(Arc::new(units));
    }

    pub(crate) fn remove_large(&self, id: UnitId) {
        let mut units = Vec::clone(&self.large.load());
        units.retain(|unit| unit.id() != id);
        self.large.store(Arc::new(units));
    }
}
