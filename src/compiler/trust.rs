//! How far a store is trusted: whether what comes from it is compiled again and compared.
//!
//! Keys leave nothing out that code depends on, and entries are covered by checksums; this is what finds out if the first is not so.

use kiln_backend::{Built, Job, compile};
use kiln_cache::{Entry, Event, Key};
use kiln_ir::Module;

use super::Compiler;

/// How far a store is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// What it has is used. One module in so many, chosen by its key, is compiled again when there is time, and compared.
    /// 0 is none.
    Sample(u32),
    /// Everything is compiled and compared with what the store has, before any of it is used.
    Nothing,
}

impl Default for Trust {
    fn default() -> Self {
        Self::Sample(512)
    }
}

impl Trust {
    pub(super) fn samples(self, key: &Key) -> bool {
        match self {
            Self::Sample(one_in) => key.sampled(one_in),
            Self::Nothing => false,
        }
    }
}

/// Reused modules that are to be compiled again when there is time.
#[derive(Default)]
pub struct Samples(pub(super) Vec<Sample>);

pub(super) struct Sample {
    module: Module,
    entry: Entry,
    key: Key,
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

    /// Number of modules.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compiles them and compares. `compiler` is the one that chose them, or has the same target and store. A difference is
    /// reported to its events; the entry is moved aside, and a later build gets the right one.
    ///
    /// Returns the number of entries that were wrong. What does not compile any more counts as wrong too.
    pub fn verify(self, compiler: &Compiler<'_>) -> usize {
        let wrong = self.0.into_iter().filter(|sample| !sample.holds(compiler));
        wrong.count()
    }
}

impl Sample {
    fn holds(&self, compiler: &Compiler<'_>) -> bool {
        let Self { module, entry, key } = self;
        let generator = compiler.generator(0, module).ok();
        let fresh = generator.and_then(|generator| compile(&Job::new(module, &*generator.isa)).ok());
        match fresh {
            Some(fresh) if fresh.artifact == entry.artifact => {
                compiler.report(&Event::Verified { key, module: &module.name });
                return true;
            }
            Some(Built { artifact, .. }) => {
                compiler.wrong(key, &module.name);
                // Whatever pointed to the key still does.
                compiler.keep(key, &[], &Entry { artifact, ..entry.clone() }, false);
            }
            None => compiler.wrong(key, &module.name),
        }
        false
    }
}
