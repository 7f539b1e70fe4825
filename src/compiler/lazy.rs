//! Modules of which the IR is built only if there is no code for them.
//!
//! A client's key stands for a module together with the target, the settings and all else that keys have in common. The store keeps
//! no second copy of the artifact under it: it points to the key that the module's IR had when it was built last.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use kiln_artifact::Artifact;
use kiln_backend::{Job, compile, compile_all};
use kiln_cache::{Event, Lookup};
use kiln_ir::{Module, ModuleSettings};
use rayon::prelude::*;

use super::keys::Keys;
use super::{Compiled, Compiler, CompilerError, Generator, Samples, Stats, Verify};

/// A module that is built when it is needed.
pub struct Lazy<'m, E> {
    name: Box<str>,
    key: Option<Box<[u8]>>,
    build: Box<dyn FnOnce() -> Result<Module, E> + Send + 'm>,
}

impl<E> std::fmt::Debug for Lazy<'_, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lazy").field("name", &self.name).field("key", &self.key).finish_non_exhaustive()
    }
}

impl<'m, E> Lazy<'m, E> {
    /// A module that `build` makes. `key` must be another one whenever `build` would make another module: a hash of what it
    /// is made from, and of the compiler that makes it.
    pub fn new(
        name: impl Into<Box<str>>,
        key: impl Into<Box<[u8]>>,
        build: impl FnOnce() -> Result<Module, E> + Send + 'm,
    ) -> Self {
        Self { name: name.into(), key: Some(key.into()), build: Box::new(build) }
    }

    /// Its name, for messages, and to find its last build when it has changed.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A module without a key: it is built in any case, but no sooner than its turn comes.
    pub fn without_key(
        name: impl Into<Box<str>>,
        build: impl FnOnce() -> Result<Module, E> + Send + 'm,
    ) -> Self {
        Self { name: name.into(), key: None, build: Box::new(build) }
    }
}

/// What went wrong with one of many modules.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LazyError<E> {
    /// It could not be built.
    #[error("module {name}: {error}")]
    Build {
        /// Position of the module.
        module: usize,
        /// Its name.
        name: Box<str>,
        /// Why not.
        error: E,
    },
    /// It could not be compiled.
    #[error(transparent)]
    Compile(CompilerError),
}

/// One module's share of the result.
struct Done {
    artifact: Artifact,
    stats: Stats,
    samples: Samples,
}

impl Compiler<'_> {
    /// Compiles modules one after the other on every thread: a module's IR is built when its turn comes, and dropped when it
    /// is compiled. So no more IR is in memory than there are threads, however many modules there are. A module whose key is
    /// in the store is not built at all.
    ///
    /// # Errors
    ///
    /// What went wrong with every module, in order, and at least one thing.
    pub fn compile_lazy<E: Send>(&self, modules: Vec<Lazy<'_, E>>) -> Result<Compiled, Vec<LazyError<E>>> {
        // With few modules their functions are compiled in parallel instead.
        let threads =
            self.pool.as_ref().map_or_else(rayon::current_num_threads, |pool| pool.current_num_threads());
        let many = modules.len() >= 4 * threads;
        // What code generators without header lines have in common; the lines are covered by the client's key.
        let keys = self.target.isa(&ModuleSettings::default()).ok();
        let keys = keys.map(|isa| Keys::new(&*isa, self.abi.clone()));
        let shared = Shared { keys, many, generators: Mutex::default() };
        let work = || -> Vec<_> {
            let modules = modules.into_par_iter().enumerate().with_max_len(1);
            modules.map(|(at, lazy)| self.one(at, lazy, &shared)).collect()
        };
        let done: Vec<Result<Done, LazyError<E>>> = self.install(work);

        let mut result =
            Compiled { artifacts: Vec::new(), stats: Stats::default(), samples: Samples::default() };
        let mut failures = Vec::new();
        for one in done {
            match one {
                Ok(Done { artifact, stats, samples }) => {
                    result.artifacts.push(artifact);
                    result.stats += stats;
                    result.samples.extend(samples);
                }
                Err(failure) => failures.push(failure),
            }
        }
        if failures.is_empty() { Ok(result) } else { Err(failures) }
    }

    fn one<E>(&self, at: usize, lazy: Lazy<'_, E>, shared: &Shared) -> Result<Done, LazyError<E>> {
        let Lazy { name, key, build } = lazy;
        let Shared { keys, many, generators: _ } = shared;
        let lineage = key.as_ref().zip(keys.as_ref()).map(|(key, keys)| keys.client(key));
        // What is not trusted is compared with its IR.
        if let (Some(store), Some(lineage)) = (self.store, &lineage)
            && self.verify != Verify::All
            && let Some(key) = store.latest(lineage)
        {
            match store.get(&key) {
                Lookup::Hit(entry) => {
                    self.report(&Event::Hit { key: &key, module: &name });
                    // An edit of what is used now is compared with it, not with what was built last.
                    let failed_writes = self.point(&[self.lineage(&name, &entry.recipe)], &key);
                    let stats = Stats {
                        reused_functions: entry.artifact.functions().len(),
                        reused_modules: 1,
                        lazy_modules: 1,
                        failed_writes,
                        ..Stats::default()
                    };
                    return Ok(Done { artifact: entry.artifact, stats, samples: Samples::default() });
                }
                // The module's own key is asked next, and says why.
                Lookup::Miss | Lookup::Corrupt(_) => {}
            }
        }
        let unbuilt = |error| LazyError::Build { module: at, name: name.clone(), error };
        let module = build().map_err(unbuilt)?;
        let generator = self.shared_generator(at, &module, shared).map_err(LazyError::Compile)?;
        let looked = self.look(&module, &name, lineage, &generator);
        let fresh = match looked.needs_compiling() {
            false => None,
            true => {
                let reuse = looked.reuse();
                let job = Job { module: &module, isa: &*generator.isa, reuse: &reuse };
                let built = match many {
                    true => {
                        compile(&job).inspect(|_| module.functions.iter().for_each(|_| (self.progress)()))
                    }
                    false => compile_all(&[job], self.progress).map(|mut built| built.remove(0)),
                };
                let built = built.map_err(|mut errors| {
                    errors.iter_mut().for_each(|error| error.module = at);
                    LazyError::Compile(CompilerError::Functions(errors))
                })?;
                Some(built)
            }
        };
        let (mut stats, mut samples) = (Stats::default(), Samples::default());
        let artifact = self.settle(&module, &generator, looked, fresh, &mut stats, &mut samples);
        Ok(Done { artifact, stats, samples })
    }

    fn shared_generator(
        &self,
        at: usize,
        module: &Module,
        shared: &Shared,
    ) -> Result<Arc<Generator>, CompilerError> {
        let lock = || shared.generators.lock().expect("nothing panics while it is held");
        if let Some(generator) = lock().get(&module.settings) {
            return Ok(generator.clone());
        }
        // Two threads may each make one; that is cheaper than waiting.
        let generator = Arc::new(self.generator(at, module)?);
        lock().insert(module.settings.clone(), generator.clone());
        Ok(generator)
    }
}

/// What the modules of one call have in common.
struct Shared {
    keys: Option<Keys>,
    /// Whether there are enough modules to keep every thread busy with modules of its own.
    many: bool,
    /// A code generator for every distinct set of header lines that a module was found to have.
    generators: Mutex<HashMap<ModuleSettings, Arc<Generator>>>,
}

impl Samples {
    fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}
