//! The globals module: an ordered list of slots, and the addresses that fill it.
//!
//! A slot is one pointer-sized cell that compiled code loads an address from, an entry of the GOT
//! in the terms of ELF. Invariant: slot *i* is described by key *i*, globals first, so slots are
//! filled in one pass in order, or by one copy of an array that the client prepared.

use std::collections::HashMap;
use std::sync::Arc;

#[cfg(feature = "table")]
use indexmap::Equivalent;

#[cfg(feature = "table")]
use crate::GlobalTable;
use crate::keys::Near;

/// The thing whose address a slot must hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SlotKey {
    /// A run-time object, by its stable key.
    Global(Box<str>),
    /// A function or data object that no module defines, by its symbol name.
    Symbol(Box<str>),
    /// A routine of the C library that the code generator itself calls, such as `memcpy` or
    /// `fmaf`. It is not the symbol of that name: a program may define or bind such a symbol, and
    /// the routine stays what the code generator means.
    Routine(Box<str>),
}

impl SlotKey {
    /// Returns the key's text: a global's key, or the name of a symbol or routine.
    pub fn text(&self) -> &str {
        match self {
            Self::Global(text) | Self::Symbol(text) | Self::Routine(text) => text,
        }
    }
}

impl SlotKey {
    /// Returns the key with a borrowed text.
    pub fn borrowed(&self) -> KeyRef<'_> {
        match self {
            Self::Global(text) => KeyRef::Global(text),
            Self::Symbol(text) => KeyRef::Symbol(text),
            Self::Routine(text) => KeyRef::Routine(text),
        }
    }
}

/// A borrowed [`SlotKey`]: a name is looked up without a copy of it. It has the hash of the key, so
/// maps that take an equivalent key find keys by it (feature `table`).
///
/// ```
/// # #[cfg(feature = "table")] {
/// use kiln_globals::{KeyRef, SlotKey};
///
/// let map = indexmap::IndexMap::from([(SlotKey::Symbol("puts".into()), 1)]);
/// assert_eq!(map.get(&KeyRef::Symbol("puts")), Some(&1));
/// assert_eq!(map.get(&KeyRef::Routine("puts")), None);
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyRef<'k> {
    /// See [`SlotKey::Global`].
    Global(&'k str),
    /// See [`SlotKey::Symbol`].
    Symbol(&'k str),
    /// See [`SlotKey::Routine`].
    Routine(&'k str),
}

impl<'k> KeyRef<'k> {
    /// Returns the key's text: a global's key, or the name of a symbol or routine.
    pub fn text(self) -> &'k str {
        match self {
            Self::Global(text) | Self::Symbol(text) | Self::Routine(text) => text,
        }
    }

    /// Returns a copy that owns its text.
    pub fn to_key(self) -> SlotKey {
        match self {
            Self::Global(text) => SlotKey::Global(text.into()),
            Self::Symbol(text) => SlotKey::Symbol(text.into()),
            Self::Routine(text) => SlotKey::Routine(text.into()),
        }
    }
}

#[cfg(feature = "table")]
impl Equivalent<SlotKey> for KeyRef<'_> {
    fn equivalent(&self, key: &SlotKey) -> bool {
        match (*self, key) {
            (Self::Global(text), SlotKey::Global(other))
            | (Self::Symbol(text), SlotKey::Symbol(other))
            | (Self::Routine(text), SlotKey::Routine(other)) => *text == **other,
            _ => false,
        }
    }
}

impl std::fmt::Display for SlotKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Global(key) => write!(f, "global {key:?}"),
            Self::Symbol(name) => write!(f, "symbol `{name}`"),
            Self::Routine(name) => write!(f, "routine `{name}`"),
        }
    }
}

/// Finds the addresses that slots must hold in this process.
///
/// A closure from a key to an address is a resolver; it does not look at types.
pub trait Resolve {
    /// Returns the address for `key`.
    ///
    /// `expected` is the type with which the code calls the function, as
    /// [`Signature`](crate::Signature) prints it. It is `None` for a global, for data, for a
    /// function of which only the address is used, and if modules use the name with several types.
    ///
    /// # Errors
    ///
    /// [`Unresolved::Unknown`] if this resolver does not know the key, and [`Unresolved::Type`] if
    /// it knows a function of another type than `expected`.
    fn resolve(&self, key: &SlotKey, expected: Option<&str>) -> Result<usize, Unresolved>;

    /// Does the same as [`resolve`](Self::resolve) for a borrowed key, as an image has its keys. By
    /// default this makes a copy of the key; a resolver that needs none does better.
    ///
    /// # Errors
    ///
    /// As for [`resolve`](Self::resolve).
    fn resolve_ref(&self, key: KeyRef<'_>, expected: Option<&str>) -> Result<usize, Unresolved> {
        self.resolve(&key.to_key(), expected)
    }

    /// Does the same as [`resolve_ref`](Self::resolve_ref) for a key of a list. `near` is a new one
    /// for the first key of each list, and the caller passes it on from key to key: a resolver may
    /// note in it where it expects the next key. By default this is `resolve_ref`.
    ///
    /// # Errors
    ///
    /// As for [`resolve`](Self::resolve).
    fn resolve_near(
        &self,
        key: KeyRef<'_>,
        expected: Option<&str>,
        near: &mut Near,
    ) -> Result<usize, Unresolved> {
        let _ = near;
        self.resolve_ref(key, expected)
    }

    /// Returns a resolver that asks `self` first, and `next` about the keys that `self` does not
    /// know. A type that `self` refuses remains refused.
    fn or<'a, N: Resolve>(&'a self, next: &'a N) -> Or<'a, Self, N>
    where
        Self: Sized,
    {
        Or(self, next)
    }
}

/// The reason why a resolver has no address for a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// The resolver does not know the key.
    Unknown,
    /// The resolver knows a function of this name, but of another type.
    Type {
        /// Its type, as [`Signature`](crate::Signature) prints it.
        found: Box<str>,
    },
}

impl<F: Fn(&SlotKey) -> Option<usize>> Resolve for F {
    fn resolve(&self, key: &SlotKey, _: Option<&str>) -> Result<usize, Unresolved> {
        self(key).ok_or(Unresolved::Unknown)
    }
}

/// Two resolvers, of which the second is asked about what the first does not know. See
/// [`Resolve::or`].
#[derive(Debug)]
pub struct Or<'a, A, B>(&'a A, &'a B);

impl<A: Resolve, B: Resolve> Resolve for Or<'_, A, B> {
    fn resolve(&self, key: &SlotKey, expected: Option<&str>) -> Result<usize, Unresolved> {
        match self.0.resolve(key, expected) {
            Err(Unresolved::Unknown) => self.1.resolve(key, expected),
            known => known,
        }
    }

    fn resolve_ref(&self, key: KeyRef<'_>, expected: Option<&str>) -> Result<usize, Unresolved> {
        match self.0.resolve_ref(key, expected) {
            Err(Unresolved::Unknown) => self.1.resolve_ref(key, expected),
            known => known,
        }
    }

    fn resolve_near(
        &self,
        key: KeyRef<'_>,
        expected: Option<&str>,
        near: &mut Near,
    ) -> Result<usize, Unresolved> {
        match self.0.resolve_near(key, expected, near) {
            // The place belongs to the first, which knows most of the keys.
            Err(Unresolved::Unknown) => self.1.resolve_ref(key, expected),
            known => known,
        }
    }
}

/// The error for slots that a resolver has no address for, in slot order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnboundError {
    slots: Vec<UnboundSlot>,
}

impl std::fmt::Display for UnboundError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.with_users(|_| None::<&str>))
    }
}

impl std::error::Error for UnboundError {}

/// A slot without an address, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnboundSlot {
    /// The slot's key.
    pub key: SlotKey,
    /// The resolver's reason.
    pub reason: Unresolved,
    /// The type that the code expects, if the resolver knows another type. Slots of the same type
    /// share the text.
    pub expected: Option<Arc<str>>,
}

impl std::fmt::Display for UnboundSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key, reason, expected } = self;
        match (reason, expected) {
            (Unresolved::Type { found }, Some(expected)) => {
                write!(f, "{key} is called as {expected}, but is bound as {found}")
            }
            (Unresolved::Type { found }, None) => write!(f, "{key} is bound as {found}"),
            (Unresolved::Unknown, _) => write!(f, "{key}"),
        }
    }
}

impl UnboundError {
    /// Returns the slots that have no address.
    pub fn slots(&self) -> &[UnboundSlot] {
        &self.slots
    }

    /// Returns their keys.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &SlotKey> {
        self.slots.iter().map(|slot| &slot.key)
    }

    /// Returns the message, with the user of each slot, for callers who know it: `user` gets the
    /// position of a slot in [`slots`](Self::slots).
    ///
    /// ```
    /// use kiln_globals::{Bindings, SlotKey, Slots};
    ///
    /// let slots: Slots = [SlotKey::Symbol("puts".into())].into_iter().collect();
    /// let error = slots.addresses(&Bindings::new()).unwrap_err();
    /// assert_eq!(
    ///     error.with_users(|_| Some("`main`")),
    ///     "1 slot(s) without an address: symbol `puts` (used by `main`)"
    /// );
    /// ```
    pub fn with_users<U: std::fmt::Display>(&self, user: impl Fn(usize) -> Option<U>) -> String {
        const SHOWN: usize = 8;
        let slot = |(number, slot): (usize, &UnboundSlot)| match user(number) {
            Some(user) => format!("{slot} (used by {user})"),
            None => slot.to_string(),
        };
        let slots = &self.slots;
        let shown = slots.iter().take(SHOWN).enumerate().map(slot).collect::<Vec<_>>().join(", ");
        let mut text = format!("{} slot(s) without an address: {shown}", slots.len());
        if slots.len() > SHOWN {
            text.push_str(&format!(" and {} more", slots.len() - SHOWN));
        }
        text
    }
}

/// The ordered slots of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    keys: Vec<SlotKey>,
}

impl Slots {
    /// Makes one slot for every global of `table`, in order of ids: slot *i* is global *i*.
    #[cfg(feature = "table")]
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

    /// Returns the content of the whole slot array, in one pass. The resolver learns no types;
    /// [`addresses`] passes them on.
    ///
    /// # Errors
    ///
    /// [`UnboundError`] names every slot that `resolver` has no address for.
    pub fn addresses(&self, resolver: &dyn Resolve) -> Result<Vec<usize>, UnboundError> {
        addresses(self.keys.iter().map(|key| (key, None)), resolver)
    }
}

/// Returns the content of an array of slots, in one pass. `slots` are their keys, with the types
/// that the code expects, as for [`Resolve::resolve`].
///
/// # Errors
///
/// [`UnboundError`] names every slot that `resolver` has no address for.
pub fn addresses<'s>(
    slots: impl ExactSizeIterator<Item = (&'s SlotKey, Option<&'s str>)>,
    resolver: &dyn Resolve,
) -> Result<Vec<usize>, UnboundError> {
    collect(slots, |key, expected| resolver.resolve(key, expected), |key| (*key).clone())
}

/// Does the same as [`addresses`] for borrowed keys, with [`Resolve::resolve_near`].
///
/// # Errors
///
/// As for [`addresses`].
pub fn addresses_of_refs<'s>(
    slots: impl ExactSizeIterator<Item = (KeyRef<'s>, Option<&'s str>)>,
    resolver: &dyn Resolve,
) -> Result<Vec<usize>, UnboundError> {
    let mut near = Near::default();
    collect(slots, |key, expected| resolver.resolve_near(*key, expected, &mut near), |key| key.to_key())
}

/// Returns the address that `resolve` gives for each key, of which `to_key` makes a copy.
fn collect<'s, K>(
    slots: impl ExactSizeIterator<Item = (K, Option<&'s str>)>,
    mut resolve: impl FnMut(&K, Option<&str>) -> Result<usize, Unresolved>,
    to_key: impl Fn(&K) -> SlotKey,
) -> Result<Vec<usize>, UnboundError> {
    let mut addresses = Vec::with_capacity(slots.len());
    let mut missing = Vec::new();
    // An image can have one long type and many slots of it, so a text is copied only once.
    let mut texts: HashMap<*const str, Arc<str>> = HashMap::new();
    for (key, expected) in slots {
        match resolve(&key, expected) {
            Ok(address) => addresses.push(address),
            Err(reason) => {
                let expected = expected.filter(|_| reason != Unresolved::Unknown);
                let expected = expected.map(|text| texts.entry(text).or_insert_with(|| text.into()).clone());
                missing.push(UnboundSlot { key: to_key(&key), reason, expected });
            }
        }
    }
    if missing.is_empty() { Ok(addresses) } else { Err(UnboundError { slots: missing }) }
}

impl FromIterator<SlotKey> for Slots {
    fn from_iter<I: IntoIterator<Item = SlotKey>>(keys: I) -> Self {
        Self { keys: keys.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bindings;

    #[test]
    fn every_missing_slot_is_named_in_order() {
        let slots: Slots = ["b", "a"].into_iter().map(|k| SlotKey::Global(k.into())).collect();
        let error = slots.addresses(&Bindings::new()).unwrap_err();
        assert_eq!(error.keys().map(SlotKey::text).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(error.to_string(), r#"2 slot(s) without an address: global "b", global "a""#);
    }

    #[test]
    fn no_slots_need_no_bindings() {
        assert_eq!(Slots::default().addresses(&Bindings::new()).unwrap(), Vec::<usize>::new());
    }

    /// A list is found whichever resolver knows which of its keys, and in whatever order.
    #[test]
    fn lists_are_found_through_two_resolvers() {
        let (mut first, mut second) = (Bindings::new(), Bindings::new());
        let keys: Vec<String> = (0..300).map(|number| format!("key {number}")).collect();
        for (number, key) in keys.iter().enumerate() {
            if number % 5 == 3 { &mut second } else { &mut first }.bind(key, number);
        }
        for step in [1, 7, 299] {
            let order: Vec<usize> = (0..300).map(|number| number * step % 300).collect();
            let slots = order.iter().map(|&number| (KeyRef::Global(&keys[number]), None));
            assert_eq!(addresses_of_refs(slots, &first.or(&second)).as_ref(), Ok(&order), "{step}");
        }
    }

    #[test]
    fn a_closure_is_asked_only_about_what_is_unknown() {
        let first = |key: &SlotKey| (key.text() == "a").then_some(1);
        let second = |_: &SlotKey| Some(2);
        let resolve = |name: &str| first.or(&second).resolve(&SlotKey::Symbol(name.into()), None);
        assert_eq!((resolve("a"), resolve("b")), (Ok(1), Ok(2)));
    }
}
