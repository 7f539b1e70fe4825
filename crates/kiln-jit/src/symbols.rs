//! [`Symbols`]: the published definitions, which can be looked up by name without a lock.
//!
//! Many are in one map. The first few are in a list: a program with one function, of which there
//! may be thousands, needs no map. A unit that defines many names at once is found by its own table
//! (see `large`). When names move, into the map, they are in it before they leave the place where
//! they were. So a reader takes the lists first, and then asks the map: it finds a name in one of
//! them at least.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

use crate::hashed::{AsIs, HashedName, NameHasher, Wanted};
use crate::large::LargeUnit;
use crate::symbol::Symbol;
use crate::unit::UnitId;

/// The most definitions that are in a list.
const FEW: usize = 8;

type Map = papaya::HashMap<HashedName, Arc<Symbol>, AsIs>;

/// The published definitions by name. Readers take no lock; writers hold that of the program.
pub(crate) struct Symbols {
    hasher: NameHasher,
    lists: ArcSwap<Lists>,
    /// Made when the definitions are no longer few. Then the list of them is empty.
    map: OnceLock<Map>,
}

/// The definitions that are not in the map.
#[derive(Clone, Default)]
struct Lists {
    few: Vec<(HashedName, Arc<Symbol>)>,
    large: Vec<Arc<LargeUnit>>,
}

impl Lists {
    fn get(&self, name: &str) -> Option<&Arc<Symbol>> {
        self.few.iter().find(|(known, _)| **known == *name).map(|(_, symbol)| symbol)
    }
}

impl Symbols {
    /// Makes a table without definitions. `hasher` is that of the names.
    pub(crate) fn new(hasher: NameHasher) -> Self {
        Self { hasher, lists: ArcSwap::default(), map: OnceLock::new() }
    }

    fn wanted<'a>(&self, name: &'a str) -> Wanted<'a> {
        Wanted { hash: self.hasher.hash(name), name }
    }

    /// Returns what `found` makes of the definition of `name` in the list or the map, or `large` of
    /// a large unit.
    fn find<R>(
        &self,
        name: &str,
        found: impl Fn(&Arc<Symbol>) -> R,
        large: impl FnMut(&Arc<LargeUnit>) -> Option<R>,
    ) -> Option<R> {
        let lists = self.lists.load();
        if let Some(symbol) = lists.get(name) {
            return Some(found(symbol));
        }
        if let Some(symbol) = self.map.get().and_then(|map| map.pin().get(&self.wanted(name)).map(&found)) {
            return Some(symbol);
        }
        lists.large.iter().find_map(large)
    }

    /// Returns the definition of `name`.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Symbol>> {
        self.find(name, Arc::clone, |unit| unit.exported(name))
    }

    /// Returns the address of the definition of `name`.
    pub(crate) fn address(&self, name: &str) -> Option<u64> {
        self.find(name, |symbol| symbol.address, |unit| unit.exported_address(name))
    }

    /// Returns the unit that has the definition of `name`.
    pub(crate) fn unit_of(&self, name: &str) -> Option<UnitId> {
        self.find(name, |symbol| symbol.unit, |unit| unit.exported_address(name).map(|_| unit.id()))
    }

    /// Calls `each` for every definition, in no order. A name may come twice.
    pub(crate) fn for_each(&self, mut each: impl FnMut(&str, &Symbol)) {
        let lists = self.lists.load();
        lists.few.iter().for_each(|(name, symbol)| each(name, symbol));
        if let Some(map) = self.map.get() {
            map.pin().iter().for_each(|(name, symbol)| each(name, symbol));
        }
        lists.large.iter().for_each(|unit| unit.for_each_exported(&mut each));
    }

    pub(crate) fn insert(&self, name: HashedName, symbol: Arc<Symbol>) {
        if let Some(map) = self.map.get() {
            map.pin().insert(name, symbol);
            return;
        }
        let mut lists = Lists::clone(&self.lists.load());
        match lists.few.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = symbol,
            None => lists.few.push((name, symbol)),
        }
        if lists.few.len() > FEW {
            let map = Map::default();
            let pinned = map.pin();
            for (name, symbol) in lists.few.drain(..) {
                pinned.insert(name, symbol);
            }
            drop(pinned);
            // Only this thread writes.
            let _ = self.map.set(map);
        }
        self.lists.store(Arc::new(lists));
    }

    pub(crate) fn remove(&self, name: &str) {
        match self.map.get() {
            Some(map) => {
                map.pin().remove(&self.wanted(name));
            }
            None => self.change(|lists| lists.few.retain(|(known, _)| **known != *name)),
        }
    }

    pub(crate) fn insert_large(&self, unit: Arc<LargeUnit>) {
        self.change(|lists| lists.large.push(unit));
    }

    pub(crate) fn remove_large(&self, id: UnitId) {
        self.change(|lists| lists.large.retain(|unit| unit.id() != id));
    }

    /// Changes the lists. Only one thread does that at a time.
    fn change(&self, change: impl FnOnce(&mut Lists)) {
        let mut lists = Lists::clone(&self.lists.load());
        change(&mut lists);
        self.lists.store(Arc::new(lists));
    }
}
