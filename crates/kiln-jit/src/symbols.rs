//! [`Symbols`]: the published definitions, which can be looked up by name without a lock.
//!
//! A table of *buckets* is searched from the place that a hash says (linear probing). A bucket has
//! 32 bits of the hash, and the number of a symbol. So a table that grows reads nothing but the old
//! table: with pointers to its keys, as general maps have them, it would read memory all over the
//! process, and that took longer than all else that is done with a name.
//!
//! A symbol is stored before its bucket, and a bucket never leads to another name: it is marked as
//! deleted, and the number may be used again by another bucket. Who reads an old bucket meanwhile
//! sees a symbol of another name, which is not what was asked for.
//!
//! A unit that defines many names at once is found by its own table (see `large`). When its names
//! move into the buckets, they are there before the unit leaves the list. A reader has the list
//! from before it reads buckets, so it finds a name in one of them at least.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use kiln_image::FunctionText;

use crate::hashed::NameHasher;
use crate::large::LargeUnit;
use crate::symbol::Symbol;
use crate::unit::UnitId;

/// The fewest buckets, if there are some. There are always a power of two.
const FEWEST: usize = 16;
/// A bucket that was never used. It ends a search.
const EMPTY: u64 = 0;
/// The lower half of a bucket whose symbol was removed. A search goes on there.
const DELETED: u64 = 1;
/// The lower half of the bucket of symbol 0.
const FIRST: u64 = 2;

/// Returns the bits of a hash that a bucket has, in their place.
fn tag(hash: u64) -> u64 {
    hash << 32
}

/// Returns the number of the symbol that a bucket leads to.
fn number(bucket: u64) -> Option<usize> {
    (bucket & 0xffff_ffff).checked_sub(FIRST).map(|number| number as usize)
}

/// The published definitions by name. Readers take no lock; writers hold that of the program.
pub(crate) struct Symbols {
    hasher: NameHasher,
    tables: ArcSwap<Tables>,
    /// By number.
    symbols: boxcar::Vec<ArcSwapOption<Symbol>>,
    writer: Mutex<Writer>,
}

/// The tables that a reader searches.
#[derive(Default)]
struct Tables {
    buckets: Arc<[AtomicU64]>,
    large: Vec<Arc<LargeUnit>>,
}

/// The books of those who write.
#[derive(Default)]
struct Writer {
    /// The number of symbols in the buckets.
    symbols: usize,
    /// The number of buckets that are not empty.
    used: usize,
    /// The numbers that are not in use.
    free: Vec<usize>,
}

/// Returns the buckets that may have what is searched for, in order.
fn probe(buckets: &[AtomicU64], hash: u64) -> impl Iterator<Item = &AtomicU64> {
    let start = (hash as u32 as usize) & buckets.len().wrapping_sub(1);
    let (before, after) = buckets.split_at(start.min(buckets.len()));
    after.iter().chain(before)
}

impl Symbols {
    /// Makes a table without definitions. `hasher` is that of the names.
    pub(crate) fn new(hasher: NameHasher) -> Self {
        Self { hasher, tables: ArcSwap::default(), symbols: boxcar::Vec::new(), writer: Mutex::default() }
    }

    /// Returns the bucket of `name`, its symbol's number, and what `found` makes of the symbol.
    fn search<'b, R>(
        &self,
        buckets: &'b [AtomicU64],
        hash: u64,
        name: &str,
        found: impl Fn(&Arc<Symbol>) -> R,
    ) -> Option<(&'b AtomicU64, usize, R)> {
        for place in probe(buckets, hash) {
            let bucket = place.load(Ordering::Acquire);
            if bucket == EMPTY {
                return None;
            }
            if bucket & !0xffff_ffff != tag(hash) {
                continue;
            }
            let Some(number) = number(bucket) else { continue };
            let symbol = self.symbols.get(number)?.load();
            if let Some(symbol) = symbol.as_ref().filter(|symbol| symbol.name() == name) {
                return Some((place, number, found(symbol)));
            }
        }
        None
    }

    /// Returns what `found` makes of the definition of `name`, or `large` of a large unit.
    fn find<R>(
        &self,
        name: &str,
        found: impl Fn(&Arc<Symbol>) -> R,
        large: impl FnMut(&Arc<LargeUnit>) -> Option<R>,
    ) -> Option<R> {
        let tables = self.tables.load();
        match self.search(&tables.buckets, self.hasher.hash(name), name, found) {
            Some((_, _, result)) => Some(result),
            None => tables.large.iter().find_map(large),
        }
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
        let tables = self.tables.load();
        let numbers = tables.buckets.iter().filter_map(|bucket| number(bucket.load(Ordering::Acquire)));
        for symbol in numbers.filter_map(|number| self.symbols.get(number)) {
            if let Some(symbol) = &*symbol.load() {
                each(symbol.name(), symbol);
            }
        }
        tables.large.iter().for_each(|unit| unit.for_each_exported(&mut each));
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a symbol, or replaces that of the same name. `hash` is that of its name.
    pub(crate) fn insert(&self, hash: u64, symbol: Arc<Symbol>) {
        let mut writer = self.writer();
        let mut tables = self.tables.load();
        if let Some((_, number, ())) = self.search(&tables.buckets, hash, symbol.name(), |_| ()) {
            self.symbols[number].store(Some(symbol));
            return;
        }
        // A quarter is empty, so searches are short and end.
        if (writer.used + 1) * 4 > tables.buckets.len() * 3 {
            let buckets = writer.moved(&tables.buckets);
            self.tables.store(Arc::new(Tables { buckets, large: tables.large.clone() }));
            tables = self.tables.load();
        }
        let number = match writer.free.pop() {
            Some(number) => {
                self.symbols[number].store(Some(symbol));
                number
            }
            None => self.symbols.push(ArcSwapOption::new(Some(symbol))),
        };
        let place = probe(&tables.buckets, hash).find(|bucket| bucket.load(Ordering::Relaxed) == EMPTY);
        let number = u32::try_from(number as u64 + FIRST).expect("names take more than 4 GiB");
        place.expect("a quarter is empty").store(tag(hash) | u64::from(number), Ordering::Release);
        writer.symbols += 1;
        writer.used += 1;
    }

    pub(crate) fn remove(&self, name: &str) {
        let mut writer = self.writer();
        let tables = self.tables.load();
        let found = self.search(&tables.buckets, self.hasher.hash(name), name, |_| ());
        if let Some((bucket, number, ())) = found {
            bucket.store(DELETED, Ordering::Release);
            self.symbols[number].store(None);
            writer.free.push(number);
            writer.symbols -= 1;
        }
    }

    pub(crate) fn insert_large(&self, unit: Arc<LargeUnit>) {
        self.change_large(|large| large.push(unit));
    }

    pub(crate) fn remove_large(&self, id: UnitId) {
        self.change_large(|large| large.retain(|unit| unit.id() != id));
    }

    fn change_large(&self, change: impl FnOnce(&mut Vec<Arc<LargeUnit>>)) {
        let _writer = self.writer();
        let tables = self.tables.load();
        let mut large = tables.large.clone();
        change(&mut large);
        self.tables.store(Arc::new(Tables { buckets: tables.buckets.clone(), large }));
    }
}

impl Writer {
    /// Returns buckets that have room, with what is in these.
    fn moved(&mut self, buckets: &[AtomicU64]) -> Arc<[AtomicU64]> {
        let count = ((self.symbols + 1) * 2).next_power_of_two().max(FEWEST);
        let mut moved = vec![EMPTY; count];
        let used = buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        for bucket in used.filter(|&bucket| number(bucket).is_some()) {
            let mut at = (bucket >> 32) as usize & (count - 1);
            while moved[at] != EMPTY {
                at = (at + 1) & (count - 1);
            }
            moved[at] = bucket;
        }
        self.used = self.symbols;
        moved.into_iter().map(AtomicU64::new).collect()
    }
}
