//! The policy of reuse: what a build asks its store, and what it stores.
//!
//! The store has two maps. The first maps a [`Key`], the hash of everything that a module's code
//! depends on, to an [`Entry`]: the artifact and a key for each of its functions. It shows whether
//! exactly this module was compiled before. The second maps a [`Lineage`], which is a hash of the
//! program's name, the module's name and the *environment* (every part of a key except the IR), to
//! the key of the module's last build. It shows which build functions can be taken from when the
//! module has changed.
//!
//! An example: a module `list` with the functions `push`, `pop` and `len` was built, and its entry
//! is stored under K1. Then `pop` is edited, and the program is built again:
//!
//! 1. [`Cache::look_up`] hashes the IR to K2, and finds nothing under it: a miss. The lineage of
//!    `list` points to K1. The entry there is the last build, and its recipe says why K2 was
//!    missed: the IR differs.
//! 2. [`Pending::reusable`] finds the keys of `push` and `len` in the last build, but not the key
//!    of `pop`. So `pop` is compiled, and the code of the two others is copied from the last build.
//! 3. [`Cache::finish`] stores the new artifact under K2 (`store`), then points the lineage to K2
//!    (`set_latest`), in this order, so that a lineage never points to an entry that was not
//!    stored.
//! 4. The edit is undone. `look_up` finds K1: a hit, and nothing is compiled. `look_up` points the
//!    lineage back to K1, so that the next edit is compared with the code in use, not with the code
//!    that was compiled last.
//!
//! With [`Verify::All`] a hit is [`Pending::HitToVerify`]: it is compiled, and compared before it
//! is used. An entry that differs is quarantined, reported, and replaced.
//!
//! Invariant: whatever a store has lost, damaged or refused, the artifacts are the same as if
//! everything had been compiled. Failures of the store are reported as events and counted in
//! [`Stats`]; they are never errors.
//!
//! # Reasons
//!
//! The unit of storage is the module. An entry for each function would need a file for each
//! function, with a copy of everything that the functions of a module share. A function's key
//! contains only those properties of its callees that its code depends on, and not their names. So
//! renaming a callee does not compile its callers again.
//!
//! The environment is a part of the lineage, so that builds with other settings, or of other
//! programs, do not replace each other's last build. When something is compiled, a second lineage
//! without the environment is set too. It is looked up if the first one is unknown, mostly to
//! report which setting has changed. For a hit, recording the last build usually costs only a read
//! of 64 bytes.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use kiln_artifact::Artifact;
use kiln_backend::{Built, Reuse};
use kiln_cache::{
    Entry, EntryError, Event, Events, FunctionKey, Key, Lineage, Lookup, MissReason, Place, Recipe, Store,
    explain,
};
use kiln_ir::Module;

use super::generator::Generator;
use super::keys::Keys;
use super::stats::Stats;
use super::verify::{Samples, Verify};

/// A store, if there is one, and how it is used.
#[derive(Clone, Default)]
pub(super) struct Cache {
    pub(super) store: Option<Arc<dyn Store + Send + Sync>>,
    pub(super) events: Option<Arc<dyn Events>>,
    pub(super) verify: Verify,
    /// The program's name: a part of every lineage.
    pub(super) program: Arc<str>,
    /// A recipe and the hash of its environment, computed once, because most modules of a build
    /// share it.
    environment: OnceLock<(Recipe, Key)>,
}

/// The answer of the cache for a module.
pub(super) enum CacheLookup {
    /// The module's entry, which is used as it is: the module is not compiled.
    Hit(Hit),
    /// The module is compiled.
    Compile(Pending),
}

/// An entry that is used as it is.
pub(super) struct Hit {
    pub(super) key: Key,
    pub(super) entry: Entry,
    #[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "spans say it"))]
    pub(super) place: Place,
    /// Number of lineages that the store could not point to the key.
    pub(super) failed_writes: usize,
}

/// The answer of the cache for a module that is compiled.
pub(super) enum Pending {
    /// There is no store.
    NotAsked,
    /// An entry that is compared with a newly compiled artifact before it is used.
    HitToVerify { identity: Identity, entry: Entry },
    /// No entry, but perhaps the module's last build, to take functions from.
    Miss { identity: Identity, functions: Vec<FunctionKey>, last_build: Option<Entry> },
    /// An entry that cannot be used, and is replaced.
    Corrupt { identity: Identity, functions: Vec<FunctionKey> },
}

/// The names under which a compiled module is stored.
pub(super) struct Identity {
    recipe: Recipe,
    key: Key,
    /// The lineages that are pointed to the key when its entry has been stored.
    lineages: Vec<Lineage>,
}

impl Pending {
    /// Returns, for each of the module's functions, the equal function of its last build, if there
    /// is one. The result is empty if there is no last build.
    pub(super) fn reusable(&self) -> Vec<Option<Reuse<'_>>> {
        let Self::Miss { functions, last_build: Some(last_build), .. } = self else { return Vec::new() };
        let known: HashMap<&FunctionKey, usize> =
            last_build.functions.iter().enumerate().map(|(index, key)| (key, index)).collect();
        let reuse = |key| known.get(key).map(|&function| Reuse { artifact: &last_build.artifact, function });
        functions.iter().map(reuse).collect()
    }
}

impl Cache {
    /// Tells the store which lineages and keys will be looked up, so that a server is asked for all
    /// of them at once.
    pub(super) fn announce(&self, lineages: &[Lineage], keys: &[Key]) {
        if let Some(store) = &self.store {
            store.announce(lineages, keys);
        }
    }

    /// Looks up `module`, which is called `name`, in the store, under the key of `recipe`. `client`
    /// is the lineage of the client's key, if the module has a client's key.
    pub(super) fn look_up(
        &self,
        module: &Module,
        name: &str,
        client: Option<Lineage>,
        generator: &Generator,
        recipe: Option<Recipe>,
    ) -> CacheLookup {
        let Some(store) = self.store.as_deref() else { return CacheLookup::Compile(Pending::NotAsked) };
        #[cfg(feature = "tracing")]
        let _span = tracing::debug_span!("look up", module = name, outcome = tracing::field::Empty).entered();
        let keys = generator.keys();
        // Recipes are given for a batch, all of whose modules are looked up before any is compiled:
        // it would wait for others that wait for it.
        let compiles_next = recipe.is_none();
        let recipe = recipe.unwrap_or_else(|| keys.module(module));
        let key = recipe.key();
        let lineage = self.lineage(name, &recipe);
        let identity = |recipe, others: Option<Lineage>| {
            let lineages = [lineage].into_iter().chain(client).chain(others).collect();
            Identity { recipe, key, lineages }
        };
        let asked = Instant::now();
        let found = match store.get(&key) {
            Lookup::Miss if compiles_next => store.claim(&key),
            found => found,
        };
        CacheLookup::Compile(match found {
            Lookup::Hit(entry, place) => {
                self.report_hit(&key, name, &entry, place, asked);
                if self.verify != Verify::All {
                    let failed_writes = self.set_latest([&lineage].into_iter().chain(&client), &key);
                    return CacheLookup::Hit(Hit { key, entry, place, failed_writes });
                }
                Pending::HitToVerify { identity: identity(recipe, None), entry }
            }
            Lookup::Miss => {
                let any_settings = Lineage::new(&self.program, name, recipe.target());
                let (reason, last_build) = match explain(store, &lineage, &recipe) {
                    // The module was never built with these settings. Its last build with other
                    // settings shows which of them differ.
                    (MissReason::New, _) => explain(store, &any_settings, &recipe),
                    found => found,
                };
                self.report(&Event::Miss { key: &key, module: name, reason: &reason });
                Pending::Miss {
                    identity: identity(recipe, Some(any_settings)),
                    functions: keys.functions(module),
                    // With `Verify::All`, every entry is verified before use, and a last build is
                    // not, so no functions are taken from it.
                    last_build: last_build.filter(|_| self.verify != Verify::All),
                }
            }
            Lookup::Corrupt(reason) => {
                self.report(&Event::Corrupt { key: &key, module: Some(name), reason: &reason });
                Pending::Corrupt { identity: identity(recipe, None), functions: keys.functions(module) }
            }
        })
    }

    /// Looks up the module called `name` by the lineage of the client's key, before its IR is
    /// built.
    ///
    /// Also returns `None` if all hits are to be verified, because that needs the IR. A miss or a
    /// corrupt entry is not reported here: the module's own key is looked up next, and that reports
    /// it.
    pub(super) fn look_up_unbuilt(&self, name: &str, client: &Lineage) -> Option<Hit> {
        let store = self.store.as_deref().filter(|_| self.verify != Verify::All)?;
        #[cfg(feature = "tracing")]
        let _span = tracing::debug_span!("look up", module = name, outcome = tracing::field::Empty).entered();
        let asked = Instant::now();
        let key = store.latest(client)?;
        let Lookup::Hit(entry, place) = store.get(&key) else { return None };
        self.report_hit(&key, name, &entry, place, asked);
        // The next edit is compared with the code in use, not with the code that was compiled last.
        let failed_writes = self.set_latest([&self.lineage(name, &entry.recipe)], &key);
        Some(Hit { key, entry, place, failed_writes })
    }

    /// Returns whether `module`, which the client built, has the key `stored`, to which the store
    /// maps the client's key. If not, the client's key leaves out something that the IR is made
    /// from. This is reported, and the module is then looked up by the key of its IR.
    pub(super) fn check_client_key(&self, module: &Module, name: &str, stored: &Key, keys: &Keys) -> bool {
        let is_right = keys.module(module).key() == *stored;
        if !is_right {
            self.report(&Event::WrongLazyKey { key: stored, module: name });
        }
        is_right
    }

    /// If all hits are to be verified, returns the key to which the store maps the client's key.
    pub(super) fn stored_for(&self, client: &Lineage) -> Option<Key> {
        self.store.as_deref().filter(|_| self.verify == Verify::All)?.latest(client)
    }

    /// Returns the artifact of a hit on `module`, which may be chosen as a sample to verify.
    pub(super) fn use_hit(
        &self,
        module: &Module,
        hit: Hit,
        stats: &mut Stats,
        samples: &mut Samples,
    ) -> Artifact {
        let Hit { key, entry, place: _, failed_writes } = hit;
        stats.reused_modules += 1;
        stats.reused_functions += module.functions.len();
        stats.failed_writes += failed_writes;
        if self.verify.samples(&key) {
            samples.add(module, &entry, key);
        }
        entry.artifact
    }

    /// Returns the artifact of `module`, which was compiled to `built`, and stores it unless the
    /// store has it.
    pub(super) fn finish(
        &self,
        module: &Module,
        generator: &Generator,
        pending: Pending,
        built: Built,
        stats: &mut Stats,
    ) -> Artifact {
        let Built { artifact, reused, unfit } = built;
        stats.compiled_functions += module.functions.len() - reused;
        stats.reused_functions += reused;
        let (identity, functions, heals) = match pending {
            Pending::NotAsked => return artifact,
            Pending::HitToVerify { identity: Identity { key, lineages, .. }, entry }
                if entry.artifact == artifact =>
            {
                self.report(&Event::Verified { key: &key, module: &module.name });
                stats.failed_writes += self.set_latest(&lineages, &key);
                return artifact;
            }
            Pending::HitToVerify { identity, entry: _ } => {
                stats.wrong_entries += 1;
                self.quarantine(&identity.key, &module.name);
                (identity, generator.keys().functions(module), false)
            }
            Pending::Miss { identity, functions, last_build } => {
                if let Some(last_build) = last_build.filter(|_| unfit > 0) {
                    stats.corrupt_entries += 1;
                    self.quarantine_unusable(&last_build.recipe.key(), &module.name, &EntryError::Functions);
                }
                (identity, functions, false)
            }
            Pending::Corrupt { identity, functions } => {
                stats.corrupt_entries += 1;
                (identity, functions, true)
            }
        };
        let Identity { recipe, key, lineages } = identity;
        let entry = Entry { recipe, functions: functions.into(), artifact: artifact.clone() };
        stats.failed_writes += self.store(&key, &lineages, &entry, heals);
        artifact
    }

    /// Stores `entry`, and then records it as the last build of `lineages`. `heals` means that it
    /// replaces an entry that could not be used. Returns the number of writes that failed.
    pub(super) fn store(&self, key: &Key, lineages: &[Lineage], entry: &Entry, heals: bool) -> usize {
        let Some(store) = &self.store else { return 0 };
        #[cfg(feature = "tracing")]
        let _span = tracing::debug_span!("store").entered();
        match store.put(key, entry) {
            Ok(()) if heals => self.report(&Event::Healed { key }),
            Ok(()) => {}
            Err(error) => {
                self.report(&Event::WriteFailed { key, error: &error });
                return 1;
            }
        }
        self.set_latest(lineages, key)
    }

    /// Records `key` as the last build of `lineages`. This is only a short read for each lineage
    /// that already points to `key`. Returns the number of writes that failed.
    fn set_latest<'l>(&self, lineages: impl IntoIterator<Item = &'l Lineage>, key: &Key) -> usize {
        let Some(store) = &self.store else { return 0 };
        let failed = lineages.into_iter().filter_map(|lineage| store.set_latest(lineage, key).err());
        failed.map(|error| self.report(&Event::WriteFailed { key, error: &error })).count()
    }

    /// Quarantines an entry whose functions could not be reused. If the same module is built again,
    /// its lookup is a miss, and the entry is stored again.
    fn quarantine_unusable(&self, key: &Key, module: &str, reason: &EntryError) {
        self.report(&Event::Corrupt { key, module: Some(module), reason });
        if let Some(store) = &self.store {
            // If the entry cannot be quarantined, every build that finds it compiles the functions
            // instead.
            let _ = store.quarantine(key, &reason.to_string());
        }
    }

    /// Quarantines an entry that differs from a newly compiled artifact.
    pub(super) fn quarantine(&self, key: &Key, module: &str) {
        self.report(&Event::VerifyFailed { key, module });
        if let Some(store) = &self.store {
            // If the entry cannot be quarantined, it is replaced when the right entry is stored.
            let _ = store.quarantine(key, "compiling makes a different artifact");
        }
    }

    fn report_hit(&self, key: &Key, module: &str, entry: &Entry, place: Place, asked: Instant) {
        let (bytes, time) = (entry.file_len(), asked.elapsed());
        #[cfg(feature = "tracing")]
        tracing::Span::current().record("outcome", &*format!("{bytes} bytes from {place}"));
        self.report(&Event::Hit { key, module, place, bytes, time });
    }

    pub(super) fn report(&self, event: &Event<'_>) {
        if let Some(events) = &self.events {
            events.report(event);
        }
    }

    /// Returns the lineage of the module called `name` in the environment of `recipe`.
    fn lineage(&self, name: &str, recipe: &Recipe) -> Lineage {
        // Hashing the environment takes time, and most modules of a build have the same
        // environment.
        let (known, environment) = self.environment.get_or_init(|| (recipe.clone(), recipe.environment()));
        let environment = if known.same_environment(recipe) { *environment } else { recipe.environment() };
        Lineage::in_environment(&self.program, name, &environment)
    }
}
