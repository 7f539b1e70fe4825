//! [`Symbols`]: the published definitions, which can be looked up by name without a lock.
//!
//! Most are in one map. A unit that defines many names at once is found by its own table (see
//! `large`), which the list of such units leads to.

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
        if let Some(symbol) = self.map.pin().get(name) {
            return Some(symbol.clone());
        }
        self.large.load().iter().find_map(|unit| unit.exported(name)).map(Arc::new)
    }

    /// Returns the address of the definition of `name`.
    pub(crate) fn address(&self, name: &str) -> Option<u64> {
        if let Some(symbol) = self.map.pin().get(name) {
            return Some(symbol.address);
        }
        self.large.load().iter().find_map(|unit| unit.exported_address(name))
    }

    /// Returns the unit that has the definition of `name`.
    pub(crate) fn unit_of(&self, name: &str) -> Option<UnitId> {
        if let Some(symbol) = self.map.pin().get(name) {
            return Some(symbol.unit);
        }
        self.large.load().iter().find(|unit| unit.exported_address(name).is_some()).map(|unit| unit.id())
    }

    /// Calls `each` for every definition, in no order.
    pub(crate) fn for_each(&self, mut each: impl FnMut(&str, &Symbol)) {
        let map = self.map.pin();
        map.iter().for_each(|(name, symbol)| each(name, symbol));
        for unit in self.large.load().iter() {
            unit.for_each_exported(|name, symbol| {
                // A name that another unit uses is in the map too.
                if !map.contains_key(name) {
                    each(name, symbol);
                }
            });
        }
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
