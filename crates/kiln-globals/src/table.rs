//! The table of stable keys.
//!
//! Invariant: ids are dense and in order of first insertion, so iteration order never depends on a
//! hash.

use indexmap::IndexSet;

/// The number of a global within one [`GlobalTable`]: its index in order of first insertion.
///
/// Ids are meaningful only together with their table. An artifact stores keys, never ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GlobalId(u32);

impl GlobalId {
    /// Returns the index, counted from 0. It is also the number of the global's slot.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// An insertion-ordered set of stable keys.
///
/// A key is any string that names the same object in every process that runs the code:
/// `type:Point`, `str:hello`, `fn:print/1`. Keys are compared byte by byte.
#[derive(Clone, Debug, Default)]
pub struct GlobalTable {
    keys: IndexSet<Box<str>>,
}

impl GlobalTable {
    /// Makes an empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the id of `key`, which is inserted at the end if it is new.
    ///
    /// # Panics
    ///
    /// If the table already holds 2^32 keys.
    pub fn intern(&mut self, key: &str) -> GlobalId {
        let index = match self.keys.get_index_of(key) {
            Some(index) => index,
            None => self.keys.insert_full(key.into()).0,
        };
        GlobalId(u32::try_from(index).expect("fewer than 2^32 globals"))
    }

    /// Removes all globals but the first `len`: for globals that were interned for work that then
    /// failed.
    pub fn truncate(&mut self, len: usize) {
        self.keys.truncate(len);
    }

    /// Returns the id of `key`, if it was interned.
    pub fn get(&self, key: &str) -> Option<GlobalId> {
        self.keys.get_index_of(key).and_then(|index| u32::try_from(index).ok()).map(GlobalId)
    }

    /// Returns the key of `id`, or `None` if the table has no such global: if `id` is from a longer
    /// table, or its global was removed.
    pub fn key(&self, id: GlobalId) -> Option<&str> {
        self.keys.get_index(id.index()).map(|key| &**key)
    }

    /// Returns the keys in order of their ids.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> {
        self.keys.iter().map(|key| &**key)
    }

    /// Returns the number of globals.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether the table has no globals.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_dense_and_insertion_ordered() {
        let mut table = GlobalTable::new();
        let ids: Vec<_> = ["z", "a", "z", "m", "a"].map(|key| table.intern(key).index()).to_vec();
        assert_eq!(ids, [0, 1, 0, 2, 1]);
        assert_eq!(table.keys().collect::<Vec<_>>(), ["z", "a", "m"]);
    }

    #[test]
    fn a_number_is_used_again_after_truncation() {
        let mut table = GlobalTable::new();
        table.intern("a");
        let b = table.intern("b");
        table.truncate(1);
        assert_eq!((table.get("b"), table.len()), (None, 1));
        assert_eq!(table.intern("c"), b);
    }

    #[test]
    fn an_id_of_another_table_has_no_key() {
        let mut long = GlobalTable::new();
        long.intern("a");
        let b = long.intern("b");
        let mut short = GlobalTable::new();
        short.intern("a");
        assert_eq!(short.key(b), None);
        assert_eq!(long.key(b), Some("b"));
        assert_eq!(short.get("b"), None);
    }
}
