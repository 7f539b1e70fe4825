//! Compiles modules to artifacts. This file has the settings of a build, and puts together the
//! cache lookup, the queue of functions to compile and the thread pool.
//!
//! Code is reused at three levels. A module that the client identifies by a key of its own is
//! reused without building its IR ([`Lazy`]). Any other module is reused if the fingerprint of its
//! IR is known. Of a changed module, single functions are reused from the artifact of its last
//! build. The artifacts are always the same as if everything had been compiled. The policy is in
//! `reuse`.

mod background;
mod compile_lazy;
mod error;
mod farm;
mod generator;
mod inline;
mod keys;
mod lazy;
mod made;
mod pool;
mod reuse;
mod stats;
mod verify;

use std::sync::Arc;

use kiln_artifact::Artifact;
use kiln_backend::{Built, Reuse, compile_all, compile_all_here, is_small};
use kiln_cache::{Events, FunctionKey, Key, Recipe, Store};
use kiln_farm::Farm;
use kiln_ir::{Inlining, Module, Target};
use rayon::ThreadPool;
use rayon::prelude::*;

pub use self::error::{CompilerError, LazyError};
use self::generator::{Generator, Generators};
pub use self::lazy::{Lazy, LazyKey};
use self::made::{Made, Missing};
use self::pool::Pool;
use self::reuse::{Cache, CacheLookup, Pending};
pub use self::stats::Stats;
pub use self::verify::{Samples, Verify};

/// Compiles modules in parallel. It is cheap to clone.
///
/// Without further settings, it uses rayon's global pool and no store.
#[derive(Clone)]
pub struct Compiler {
    target: Target,
    pool: Pool,
    abi: Arc<[u8]>,
    progress: Arc<dyn Fn() + Send + Sync>,
    cache: Cache,
    farm: Option<Arc<dyn Farm>>,
    inlining: Option<Inlining>,
    /// The code generators made so far, for this target and ABI.
    generators: Arc<Generators>,
}

/// The result of a build. The artifacts are in the order of their modules.
#[derive(Debug)]
pub struct Compiled {
    /// One artifact for each module.
    pub artifacts: Vec<Artifact>,
    /// How much was compiled and how much was reused.
    pub stats: Stats,
    /// Reused modules that were chosen to be compiled again when there is time: see
    /// [`Samples::verify`].
    pub samples: Samples,
}

impl std::fmt::Debug for Compiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compiler").field("target", &self.target.triple()).finish_non_exhaustive()
    }
}

impl Compiler {
    /// Creates a compiler for `target`.
    pub fn new(target: Target) -> Self {
        let (abi, cache, generators) = Default::default();
        let (farm, inlining) = (None, None);
        let progress = Arc::new(|| {});
        Self { target, pool: Pool::global(), abi, progress, cache, farm, inlining, generators }
    }

    /// Runs the work in `pool`, which was made in this process.
    ///
    /// A child of `fork` has no threads of its parent's pools, whether the client's or rayon's. The
    /// first work there that needs several threads starts a pool of the child.
    #[must_use]
    pub fn pool(mut self, pool: Arc<ThreadPool>) -> Self {
        self.pool = Pool::given(pool);
        self
    }

    /// Asks `store` before a module is compiled, and stores what was compiled. The build waits for
    /// the store's writes, unless it is a [`WriteBehind`](kiln_cache::WriteBehind).
    #[must_use]
    pub fn store(mut self, store: Arc<dyn Store + Send + Sync>) -> Self {
        self.cache.store = Some(store);
        self
    }

    /// Reports hits, misses and other events of the cache to `events`, which is called from many
    /// threads.
    #[must_use]
    pub fn events(mut self, events: Arc<dyn Events>) -> Self {
        self.cache.events = Some(events);
        self
    }

    /// Sets how many of the modules found in the store are compiled again and compared. The default
    /// is one in 512.
    #[must_use]
    pub fn verify(mut self, verify: Verify) -> Self {
        self.cache.verify = verify;
        self
    }

    /// Lets `farm` compile modules that the store does not have, while this compiler compiles too.
    /// Whatever is done first is used; the artifacts are the same. With [`Verify::All`] the farm is
    /// not used.
    ///
    /// The farm is asked only if there is more to compile than a second or so, and only for modules
    /// of which no function is reused.
    #[must_use]
    pub fn farm(mut self, farm: Arc<dyn Farm>) -> Self {
        self.farm = Some(farm);
        self
    }

    /// Adds to every cache key a hash of everything else that the code assumes, such as the layout
    /// of run-time objects.
    #[must_use]
    pub fn abi(mut self, abi: impl Into<Vec<u8>>) -> Self {
        self.abi = abi.into().into();
        self.generators = Arc::default();
        self
    }

    /// Names the program that the modules belong to. A changed module takes functions from the last
    /// build of the module of the same name in the same program. So programs that share a store
    /// need different program names, unless all their module names differ.
    ///
    /// The program's name is a part of the key of a [`Lazy`] module, because its IR is not
    /// available for comparison. Other modules, if unchanged, are found whatever the program is
    /// called.
    #[must_use]
    pub fn program(mut self, name: impl Into<Arc<str>>) -> Self {
        self.cache.program = name.into();
        self
    }

    /// Sets a function that worker threads call after every compiled function.
    #[must_use]
    pub fn progress(mut self, progress: impl Fn() + Send + Sync + 'static) -> Self {
        self.progress = Arc::new(progress);
        self
    }

    /// Inlines calls between the modules of a build, which must all be linked into one program: see
    /// [`kiln_ir::inline()`] for what is inlined. Without this, nothing is.
    ///
    /// Keys then contain what was inlined: an edited function is compiled again, and so are the
    /// functions into which it is inlined. To know those, a build needs the IR of all its modules:
    /// [`Lazy`] modules are built all or, if none has changed, not at all. A session inlines within
    /// the modules that one call adds, but not between those of
    /// [`add_partly`](crate::Session::add_partly), of which some may fail, and not in tiers and in
    /// what is compiled at its first call.
    #[must_use]
    pub fn inline(mut self, inlining: Inlining) -> Self {
        self.inlining = Some(inlining);
        self
    }

    /// Returns the target.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Returns the recipe of `module`'s key, and the keys of its functions. Comparing the recipes
    /// of two keys shows in which fields the keys differ. Nothing is inlined into it.
    ///
    /// # Errors
    ///
    /// [`CompilerError::Target`].
    pub fn keys(&self, module: &Module) -> Result<(Recipe, Vec<FunctionKey>), CompilerError> {
        let generator = self.generator(0, module)?;
        let keys = generator.keys();
        Ok((keys.module(module), keys.functions(module)))
    }

    /// Compiles `modules`, or finds them in the store. One function, or a few small ones, are
    /// compiled on the calling thread.
    ///
    /// # Errors
    ///
    /// [`CompilerError`], the same one whatever the number of threads.
    pub fn compile(&self, modules: &[Module]) -> Result<Compiled, CompilerError> {
        if let Some(inlining) = self.inlining {
            return self.compile_inlined(modules, inlining);
        }
        let generators = self.generators(modules)?;
        if self.few(modules) {
            return self.compile_with(modules, &generators, true);
        }
        self.install(|| self.compile_with(modules, &generators, false))
    }

    /// Compiles a module on the calling thread. Others may wait for it, also tasks that this thread
    /// would start while it waits for other threads of its pool.
    pub(crate) fn compile_here(&self, module: &Module) -> Result<Compiled, CompilerError> {
        let modules = std::slice::from_ref(module);
        self.compile_with(modules, &self.generators(modules)?, true)
    }

    /// Whether handing `modules` to the pool would take longer than it saves.
    fn few(&self, modules: &[Module]) -> bool {
        // Each lookup may wait for a disk.
        let lookups = if self.cache.store.is_some() { modules.len() } else { 0 };
        lookups <= 1 && is_small(modules)
    }

    /// Returns this compiler without its store, without its farm, and without inlining.
    pub(crate) fn without_store(&self) -> Self {
        Self { cache: Cache::default(), farm: None, inlining: None, ..self.clone() }
    }

    /// Returns the farm, unless everything is to be compiled here.
    fn farm_in_use(&self) -> Option<&dyn Farm> {
        self.farm.as_deref().filter(|_| self.cache.verify != Verify::All)
    }

    /// Runs `work` on a thread of the pool, when the pool has nothing else to do.
    pub(crate) fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        self.pool.spawn(work);
    }

    /// Runs `work` in the pool.
    pub(crate) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }

    /// Returns the code generator of each module.
    fn generators(&self, modules: &[Module]) -> Result<Vec<Arc<Generator>>, CompilerError> {
        let mut generators: Vec<Arc<Generator>> = Vec::with_capacity(modules.len());
        for (index, module) in modules.iter().enumerate() {
            // Most modules have the settings of the module before.
            let before = index.checked_sub(1).filter(|&before| modules[before].settings == module.settings);
            generators.push(match before {
                Some(before) => generators[before].clone(),
                None => self.generator(index, module)?,
            });
        }
        Ok(generators)
    }

    fn generator(&self, index: usize, module: &Module) -> Result<Arc<Generator>, CompilerError> {
        self.generators.get(&self.target, &self.abi, index, module)
    }

    fn compile_with(
        &self,
        modules: &[Module],
        generators: &[Arc<Generator>],
        here: bool,
    ) -> Result<Compiled, CompilerError> {
        let look_up = |((module, generator), recipe): ((&Module, &Arc<Generator>), Option<Recipe>)| {
            self.cache.look_up(module, &module.name, None, generator, recipe)
        };
        // Hashing the IR of every module, and reading and checking entries, take time, so both run
        // in parallel. In between, a store on a server is told everything that it will be asked.
        let lookups: Vec<CacheLookup> = if self.cache.store.is_some() && modules.len() > 1 {
            let pairs = modules.par_iter().zip(generators);
            let recipe = |(module, generator): (&Module, &Arc<Generator>)| generator.keys().module(module);
            let recipes: Vec<Recipe> = pairs.clone().map(recipe).collect();
            let keys: Vec<Key> = recipes.par_iter().map(Recipe::key).collect();
            self.cache.announce(&[], &keys);
            pairs.zip(recipes.into_par_iter().map(Some)).map(look_up).collect()
        } else {
            modules.iter().zip(generators).map(|pair| look_up((pair, None))).collect()
        };

        let (mut stats, mut samples) = (Stats::default(), Samples::default());
        let mut artifacts: Vec<(usize, Artifact)> = Vec::with_capacity(modules.len());
        let mut pending: Vec<(usize, Pending)> = Vec::new();
        for (index, lookup) in lookups.into_iter().enumerate() {
            match lookup {
                CacheLookup::Hit(hit) => {
                    let artifact = self.cache.use_hit(&modules[index], hit, &mut stats, &mut samples);
                    artifacts.push((index, artifact));
                }
                CacheLookup::Compile(lookup) => pending.push((index, lookup)),
            }
        }

        let made: Vec<Made> = match self.farm_in_use().filter(|_| !here && !pending.is_empty()) {
            Some(farm) => {
                let missing = pending.iter().map(|(index, pending)| Missing {
                    module: &modules[*index],
                    generator: &generators[*index],
                    pending,
                });
                let outcomes = self.compile_missing(farm, &missing.collect::<Vec<_>>());
                let positions = pending.iter().map(|(index, _)| *index);
                made::all(outcomes.into_iter().zip(positions)).map_err(CompilerError::Functions)?
            }
            None => self.compile_here_all(modules, generators, &pending, here)?,
        };

        for ((index, lookup), made) in pending.into_iter().zip(made) {
            let (module, generator) = (&modules[index], &generators[index]);
            let artifact = self.use_made(module, generator, lookup, made, &mut stats, &mut samples);
            artifacts.push((index, artifact));
        }
        // Until here, all hits come before the compiled modules.
        artifacts.sort_unstable_by_key(|(index, _)| *index);
        let artifacts = artifacts.into_iter().map(|(_, artifact)| artifact).collect();
        Ok(Compiled { artifacts, stats, samples })
    }

    /// Compiles modules without a farm: on the calling thread, or in the pool.
    fn compile_here_all(
        &self,
        modules: &[Module],
        generators: &[Arc<Generator>],
        pending: &[(usize, Pending)],
        here: bool,
    ) -> Result<Vec<Made>, CompilerError> {
        let reuse: Vec<Vec<Option<Reuse<'_>>>> =
            pending.iter().map(|(_, lookup)| lookup.reusable()).collect();
        let jobs = pending.iter().zip(&reuse);
        let jobs = jobs.map(|((index, _), reuse)| generators[*index].job(&modules[*index], reuse));
        let compile = if here { compile_all_here } else { compile_all };
        let built = compile(&jobs.collect::<Vec<_>>(), &*self.progress).map_err(|mut errors| {
            // Positions in the queue become positions among the modules.
            errors.iter_mut().for_each(|error| error.module = pending[error.module].0);
            CompilerError::Functions(errors)
        })?;
        Ok(built.into_iter().map(|built: Built| Made { built, farmed: None }).collect())
    }
}
