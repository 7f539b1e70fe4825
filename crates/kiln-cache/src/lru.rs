//! A map that keeps its values in the order of their last use. Every operation takes constant time.
//!
//! Nodes are in one vector and linked by index, newest first. Free nodes are linked by the field
//! `older`.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

const NONE: usize = usize::MAX;

#[derive(Debug)]
struct Node<K, V> {
    /// `None` while the node is free.
    content: Option<(K, V)>,
    cost: u64,
    newer: usize,
    older: usize,
}

/// Values with costs, in order of use.
#[derive(Debug)]
pub(crate) struct Lru<K, V> {
    index: HashMap<K, usize>,
    nodes: Vec<Node<K, V>>,
    newest: usize,
    oldest: usize,
    free: usize,
    cost: u64,
}

impl<K: Copy + Eq + Hash, V> Lru<K, V> {
    pub(crate) fn new() -> Self {
        Self { index: HashMap::new(), nodes: Vec::new(), newest: NONE, oldest: NONE, free: NONE, cost: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// Returns the sum of all costs.
    pub(crate) fn cost(&self) -> u64 {
        self.cost
    }

    /// Returns the value of `key`, which becomes the newest.
    pub(crate) fn get<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let slot = *self.index.get(key)?;
        self.unlink(slot);
        self.link_newest(slot);
        self.nodes[slot].content.as_ref().map(|(_, value)| value)
    }

    /// Sets the value of `key`, which becomes the newest. Returns the old value.
    pub(crate) fn insert(&mut self, key: K, value: V, cost: u64) -> Option<V> {
        let old = self.remove(&key);
        let node = Node { content: Some((key, value)), cost, newer: NONE, older: NONE };
        let slot = if self.free == NONE {
            self.nodes.push(node);
            self.nodes.len() - 1
        } else {
            let slot = self.free;
            self.free = self.nodes[slot].older;
            self.nodes[slot] = node;
            slot
        };
        self.index.insert(key, slot);
        self.link_newest(slot);
        self.cost += cost;
        old
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let slot = self.index.remove(key)?;
        self.release(slot).map(|(_, value)| value)
    }

    /// Removes the value that was used least recently, and returns it with its key.
    pub(crate) fn pop_oldest(&mut self) -> Option<(K, V)> {
        let node = self.nodes.get(self.oldest)?;
        let (key, _) = node.content.as_ref()?;
        let slot = self.index.remove(key)?;
        self.release(slot)
    }

    fn release(&mut self, slot: usize) -> Option<(K, V)> {
        self.unlink(slot);
        let node = &mut self.nodes[slot];
        self.cost -= node.cost;
        node.older = self.free;
        self.free = slot;
        node.content.take()
    }

    fn unlink(&mut self, slot: usize) {
        let (newer, older) = (self.nodes[slot].newer, self.nodes[slot].older);
        match self.nodes.get_mut(newer) {
            Some(node) => node.older = older,
            None => self.newest = older,
        }
        match self.nodes.get_mut(older) {
            Some(node) => node.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link_newest(&mut self, slot: usize) {
        let second = std::mem::replace(&mut self.newest, slot);
        self.nodes[slot].newer = NONE;
        self.nodes[slot].older = second;
        match self.nodes.get_mut(second) {
            Some(node) => node.newer = slot,
            None => self.oldest = slot,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The model is a vector, newest last.
    #[test]
    fn behaves_like_a_sorted_vector() {
        let mut lru = Lru::new();
        let mut model: Vec<(u64, u64)> = Vec::new();
        let mut random = 1_u64;
        for step in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let key = random >> 59;
            let found = model.iter().position(|&(k, _)| k == key);
            match random >> 40 & 7 {
                0..3 => {
                    let old = found.map(|at| model.remove(at).1);
                    assert_eq!(lru.insert(key, step, key), old);
                    model.push((key, step));
                }
                3..6 => {
                    let value = found.map(|at| model.remove(at));
                    assert_eq!(lru.get(&key).copied(), value.map(|(_, v)| v));
                    model.extend(value);
                }
                6 => assert_eq!(lru.remove(&key), found.map(|at| model.remove(at).1)),
                _ => {
                    let oldest = (!model.is_empty()).then(|| model.remove(0));
                    assert_eq!(lru.pop_oldest(), oldest);
                }
            }
            assert_eq!(lru.len(), model.len());
            assert_eq!(lru.cost(), model.iter().map(|(key, _)| key).sum::<u64>());
            assert!(lru.nodes.len() <= 32, "free nodes are used again");
        }
    }
}
