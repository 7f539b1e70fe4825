//! The table of published definitions against a plain map, and while others change it.

use std::collections::HashMap;

use super::*;
use crate::hashed::NameHasher;
use crate::symbol::Symbol;
use crate::symbols::Symbols;

struct Table {
    hasher: NameHasher,
    symbols: Symbols,
    artifact: Artifact,
}

impl Table {
    fn new() -> Self {
        let hasher = NameHasher::default();
        Self { symbols: Symbols::new(hasher.clone()), hasher, artifact: replaceable("f") }
    }

    fn insert(&self, name: &str, address: u64) {
        let symbol = Symbol::new(0, &self.artifact, 0, address).with_name(name.into());
        self.symbols.insert(self.hasher.hash(name), Arc::new(symbol));
    }
}

#[test]
fn a_table_is_as_a_map_whatever_the_order_of_changes() {
    let table = Table::new();
    let mut model: HashMap<String, u64> = HashMap::new();
    let mut random = 1u64;
    let mut most = 0;
    for step in 0..20_000u64 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // The number of names grows and shrinks, so places are used again, and tables move.
        let names = 1 + (step / 10).min(2000 - step / 10).max(5);
        let name = format!("name{}", random % names);
        if random >> 60 < 9 {
            table.insert(&name, step);
            model.insert(name, step);
        } else {
            table.symbols.remove(&name);
            model.remove(&name);
        }
        let asked = format!("name{}", (random >> 20) % names);
        assert_eq!(table.symbols.address(&asked), model.get(&asked).copied(), "{asked} in step {step}");
        most = most.max(model.len());
    }
    assert!(most > 300, "{most}");
    let mut all = HashMap::new();
    table.symbols.for_each(|name, symbol| {
        assert_eq!(all.insert(name.to_string(), symbol.address), None);
    });
    assert_eq!(all, model);
}

#[test]
fn what_stays_is_found_while_a_table_grows_and_other_names_come_and_go() {
    let table = Table::new();
    table.insert("stays", 7);
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    assert_eq!(table.symbols.address("stays"), Some(7));
                    assert_eq!(table.symbols.address("never"), None);
                    // Both have had the same number, one after the other.
                    for (number, name) in ["first", "second"].into_iter().enumerate() {
                        let address = table.symbols.address(name);
                        assert!(
                            address.is_none_or(|address| address == number as u64),
                            "{name}: {address:?}"
                        );
                    }
                }
            });
        }
        for round in 0..2000u64 {
            table.insert("first", 0);
            table.symbols.remove("first");
            table.insert("second", 1);
            table.symbols.remove("second");
            table.insert(&format!("other{round}"), 9);
        }
        is_done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn names_whose_buckets_have_the_same_bits_are_told_apart() {
    let table = Table::new();
    // Of so many names, two have the same 32 bits, but for one run in a hundred million.
    let mut known = HashMap::new();
    let pair = (0..400_000u32).find_map(|number| {
        let bits = table.hasher.hash(&number.to_string()) as u32;
        known.insert(bits, number).map(|other| [other, number].map(|number| number.to_string()))
    });
    let [one, other] = pair.expect("a collision");
    table.insert(&one, 1);
    assert_eq!(table.symbols.address(&other), None);
    table.insert(&other, 2);
    assert_eq!([&one, &other].map(|name| table.symbols.address(name)), [Some(1), Some(2)]);
    table.symbols.remove(&one);
    assert_eq!([&one, &other].map(|name| table.symbols.address(name)), [None, Some(2)]);
}
