//! Verification: modules found in a store are compiled again and compared with their entries.
//!
//! A key should cover everything that code depends on, and checksums detect damaged entries.
//! Verification tests the first assumption: if a key leaves something out, a store can return an
//! entry that differs from what compiling would make.

use std::num::NonZeroU32;

use kiln_cache::{Entry, Key};
use kiln_ir::Module;

/// The share of a store's hits that is compiled again and compared.
///
/// The default is `Sample(512)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Everything is compiled and compared with what the store has, before any of it is used.
    /// [`Lazy`](crate::Lazy) modules are all built, and their IR is compared with the IR that their
    /// keys were stored for.
    All,
    /// Hits are used at once. One module in this many, chosen by its key, is compiled again when
    /// there is time, and compared: see [`Samples`]. A [`Lazy`](crate::Lazy) module that is chosen
    /// is built before its hit is used, since its closure may borrow data that does not live
    /// longer, and its IR is compared at once.
    Sample(NonZeroU32),
    /// Hits are used, and nothing is compared.
    Nothing,
}

impl Default for Verify {
    fn default() -> Self {
        Self::Sample(const { NonZeroU32::new(512).unwrap() })
    }
}

impl Verify {
    /// Returns whether the module of `key` is chosen to be compiled again when there is time.
    pub(super) fn samples(self, key: &Key) -> bool {
        match self {
            Self::Sample(one_in) => key.sampled(one_in.get()),
            // With `All`, the module was compared before it was used.
            Self::All | Self::Nothing => false,
        }
    }
}

/// Reused modules that are to be compiled again when there is time: see [`Samples::verify`].
#[derive(Default)]
pub struct Samples(pub(super) Vec<Sample>);

/// A reused module, and the entry that was used for it.
pub(super) struct Sample {
    pub(super) module: Module,
    pub(super) entry: Entry,
    pub(super) key: Key,
}

impl std::fmt::Debug for Samples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Samples").field(&self.0.len()).finish()
    }
}

impl Samples {
    pub(super) fn add(&mut self, module: &Module, entry: &Entry, key: Key) {
        self.0.push(Sample { module: module.clone(), entry: entry.clone(), key });
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Returns the number of modules.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are no modules to verify.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
