//! The globals module: an ordered list of slots, and the addresses that fill it.
//!
//! A slot is one pointer-sized cell that compiled code loads an address from, an entry of the GOT
//! in the terms of ELF. Invariant: slot *i* is described by key *i*, globals first, so slots are
//! filled in one pass in order, or by one copy of an array that the client prepared.

use std::collections::HashMap;

use crate::GlobalTable;

/// The thing whose address a slot must hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SlotKey {
    /// A run-time object, by its stable key.
    Global(Box<str>),
    /// A function or data object that no module defines, by its symbol name.
    Symbol(Box<str>),
}

impl SlotKey {
    /// Returns the key's text: a global's key or a symbol's name.
    pub fn text(&self) -> &str {
        match self {
            Self::Global(text) | Self::Symbol(text) => text,
        }
    }
}

impl std::fmt::Display for SlotKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Global(key) => write!(f, "global {key:?}"),
            Self::Symbol(name) => write!(f, "symbol `{name}`"),
        }
    }
}

/// Finds the addresses that slots must hold in this process.
pub trait Resolve {
    /// Returns the address for `key`, or `None` if this resolver does not know it.
    fn resolve(&self, key: &SlotKey) -> Option<usize>;
}

impl<F: Fn(&SlotKey) -> Option<usize>> Resolve for F {
    fn resolve(&self, key: &SlotKey) -> Option<usize> {
        self(key)
    }
}

/// A map from keys to addresses. The address is the part of a global that is different in every
/// process.
///
/// It holds both globals and symbols; a global and a symbol of the same name are bound separately.
#[derive(Clone, Debug, Default)]
pub struct Bindings {
    globals: HashMap<Box<str>, usize>,
    symbols: HashMap<Box<str>, usize>,
}

impl Bindings {
    /// Makes an empty set of bindings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Binds the global `key` to `address`; a later binding of the same key wins.
    pub fn bind(&mut self, key: &str, address: usize) -> &mut Self {
        self.globals.insert(key.into(), address);
        self
    }

    /// Binds the symbol `name`, a function or data object of the host, to `address`.
    pub fn bind_symbol(&mut self, name: &str, address: usize) -> &mut Self {
        self.symbols.insert(name.into(), address);
        self
    }
}

impl Resolve for Bindings {
    fn resolve(&self, key: &SlotKey) -> Option<usize> {
        match key {
            SlotKey::Global(key) => self.globals.get(key).copied(),
            SlotKey::Symbol(name) => self.symbols.get(name).copied(),
        }
    }
}

/// The error for slots that a resolver has no address for. It has their keys, in slot order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} slot(s) without an address: {}", .keys.len(), list(.keys))]
pub struct UnboundError {
    keys: Vec<SlotKey>,
}

impl UnboundError {
    /// Returns the keys that were not resolved.
    pub fn keys(&self) -> &[SlotKey] {
        &self.keys
    }
}

fn list(keys: &[SlotKey]) -> String {
    const SHOWN: usize = 8;
    let mut text = keys.iter().take(SHOWN).map(SlotKey::to_string).collect::<Vec<_>>().join(", ");
    if keys.len() > SHOWN {
        text.push_str(&format!(" and {} more", keys.len() - SHOWN));
    }
    text
}

/// The ordered slots of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    keys: Vec<SlotKey>,
}

impl Slots {
    /// Makes one slot for every global of `table`, in order of ids: slot *i* is global *i*.
    pub fn from_globals(table: &GlobalTable) -> Self {
        Self { keys: table.keys().map(|key| SlotKey::Global(key.into())).collect() }
    }

    /// Appends a slot and returns its number. The caller makes sure that `key` has none yet.
    pub fn push(&mut self, key: SlotKey) -> usize {
        self.keys.push(key);
        self.keys.len() - 1
    }

    /// Returns the keys in slot order.
    pub fn keys(&self) -> &[SlotKey] {
        &self.keys
    }

    /// Returns the number of slots.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no slot.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the content of the whole slot array, in one pass.
    ///
    /// # Errors
    ///
    /// [`UnboundError`] names every slot that `resolver` has no address for.
    pub fn addresses(&self, resolver: &dyn Resolve) -> Result<Vec<usize>, UnboundError> {
        addresses(&self.keys, resolver)
    }
}

/// Returns the content of an array of slots that `keys` describe, in one pass.
///
/// # Errors
///
/// [`UnboundError`] names every slot that `resolver` has no address for.
pub fn addresses(keys: &[SlotKey], resolver: &dyn Resolve) -> Result<Vec<usize>, UnboundError> {
    let mut addresses = Vec::with_capacity(keys.len());
    let mut missing = Vec::new();
    for key in keys {
        match resolver.resolve(key) {
            Some(address) => addresses.push(address),
            None => missing.push(key.clone()),
        }
    }
    if missing.is_empty() { Ok(addresses) } else { Err(UnboundError { keys: missing }) }
}

impl FromIterator<SlotKey> for Slots {
    fn from_iter<I: IntoIterator<Item = SlotKey>>(keys: I) -> Self {
        Self { keys: keys.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globals_and_symbols_of_one_name_are_two_things() {
        let mut bindings = Bindings::new();
        bindings.bind("puts", 1).bind_symbol("puts", 2);
        let slots: Slots =
            [SlotKey::Symbol("puts".into()), SlotKey::Global("puts".into())].into_iter().collect();
        assert_eq!(slots.addresses(&bindings).unwrap(), [2, 1]);
    }

    #[test]
    fn every_missing_slot_is_named_in_order() {
        let slots: Slots = ["b", "a"].into_iter().map(|k| SlotKey::Global(k.into())).collect();
        let error = slots.addresses(&Bindings::new()).unwrap_err();
        assert_eq!(error.keys().iter().map(SlotKey::text).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(error.to_string(), r#"2 slot(s) without an address: global "b", global "a""#);
    }

    #[test]
    fn no_slots_need_no_bindings() {
        assert_eq!(Slots::default().addresses(&Bindings::new()).unwrap(), Vec::<usize>::new());
    }
}
