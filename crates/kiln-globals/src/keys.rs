//! A map from keys to values that is quick for lists of keys in the order in which they were added.
//!
//! A loader looks up every slot of an image. Clients mostly bind in the order in which their
//! compiler numbered the objects, so the key after one that was found is mostly the next one that
//! was added. That is compared first, and only if it is another key is anything hashed. A list in
//! another order costs a few comparisons more than a hash map.

use std::collections::HashMap;
use std::sync::Arc;

use crate::hash::KeyHash;

/// A map from keys to values.
#[derive(Clone, Debug)]
pub(crate) struct KeyMap<V> {
    /// In order of the first binding of each key.
    entries: Vec<(Arc<str>, V)>,
    /// The position of each key in `entries`.
    positions: HashMap<Arc<str>, usize, KeyHash>,
}

/// A place in the bindings near which the next key of a list is expected. See
/// [`Resolve::resolve_near`](crate::Resolve::resolve_near).
#[derive(Clone, Copy, Debug, Default)]
pub struct Near {
    /// The position of the entry after the one that was found last.
    next: usize,
    /// How many keys in a row were not there.
    missed: u8,
}

/// After so many keys that were elsewhere, a list is taken for one in another order.
const MISSES: u8 = 16;

impl Near {
    /// Returns the place for a key that is not one of a list.
    pub(crate) fn nowhere() -> Self {
        Self { next: 0, missed: MISSES }
    }
}

impl<V> Default for KeyMap<V> {
    fn default() -> Self {
        Self { entries: Vec::new(), positions: HashMap::default() }
    }
}

impl<V> KeyMap<V> {
    /// Adds a key with its value, or gives it another value.
    pub(crate) fn insert(&mut self, key: &str, value: V) {
        match self.positions.get(key) {
            Some(&position) => self.entries[position].1 = value,
            None => {
                let key: Arc<str> = key.into();
                self.positions.insert(key.clone(), self.entries.len());
                self.entries.push((key, value));
            }
        }
    }

    /// Returns the keys, in the order in which they were added.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(key, _)| &**key)
    }

    /// Returns the value of a key, which is looked for near the last one first.
    pub(crate) fn get(&self, key: &str, near: &mut Near) -> Option<&V> {
        if near.missed < MISSES {
            match self.entries.get(near.next) {
                Some((next, value)) if **next == *key => {
                    *near = Near { next: near.next + 1, missed: 0 };
                    return Some(value);
                }
                _ => near.missed += 1,
            }
        }
        self.find(key, near)
    }

    /// Returns the value of a key by its hash.
    fn find(&self, key: &str, near: &mut Near) -> Option<&V> {
        let position = *self.positions.get(key)?;
        near.next = position + 1;
        Some(&self.entries[position].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every order of keys finds every value, and no key that was not added.
    #[test]
    fn the_order_of_a_list_does_not_matter() {
        let mut map = KeyMap::default();
        let keys: Vec<String> = (0..200).map(|number| format!("key {number}")).collect();
        keys.iter().enumerate().for_each(|(number, key)| map.insert(key, number));
        // In order, backwards, every other one, in steps, each twice, and with others in between.
        let orders: [Vec<usize>; 6] = [
            (0..200).collect(),
            (0..200).rev().collect(),
            (0..200).step_by(2).collect(),
            (0..200).map(|number| number * 77 % 200).collect(),
            (0..400).map(|number| number / 2).collect(),
            (0..400).map(|number| if number % 3 == 0 { number + 1000 } else { number / 2 }).collect(),
        ];
        for order in orders {
            let mut near = Near::default();
            for number in order {
                let expected = (number < 200).then_some(number);
                assert_eq!(map.get(&format!("key {number}"), &mut near), expected.as_ref());
            }
        }
    }

    #[test]
    fn a_later_value_wins_and_keeps_the_place() {
        let mut map = KeyMap::default();
        for (key, value) in [("a", 1), ("b", 2), ("a", 3), ("c", 4)] {
            map.insert(key, value);
        }
        let mut near = Near::default();
        assert_eq!(["a", "b", "c"].map(|key| *map.get(key, &mut near).unwrap()), [3, 2, 4]);
        assert_eq!((near.next, near.missed), (3, 0), "each was at the place where it was expected");
    }

    /// A list in another order is noticed, and from then on nothing is compared in vain.
    #[test]
    fn a_list_in_another_order_is_noticed() {
        let mut map = KeyMap::default();
        let keys: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        keys.iter().for_each(|key| map.insert(key, ()));
        let mut near = Near::default();
        keys.iter().rev().for_each(|key| assert!(map.get(key, &mut near).is_some()));
        assert_eq!(near.missed, MISSES);
    }
}
