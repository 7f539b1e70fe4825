//! From modules to artifacts: code generators by settings, the cache asked first, the work queue, the pool.
//!
//! What is reused, from coarse to fine: a module by the client's own key, without its IR being built ([`Lazy`]); a module by the
//! fingerprint of its IR; and the functions of a module that has changed, by their canonical form, out of the artifact of the
//! module's last build. Whatever is reused, the artifacts are those that compiling everything would have made.

mod keys;
mod lazy;
mod verify;

use std::sync::{Arc, OnceLock};

use cranelift_codegen::isa::OwnedTargetIsa;
use indexmap::IndexMap;
use kiln_artifact::Artifact;
use kiln_backend::{Built, CompileError, Job, Reuse, compile_all};
use kiln_cache::{
    Entry, Event, Events, FunctionKey, Key, Lineage, Lookup, MissReason, Recipe, Store, explain,
};
use kiln_ir::{Module, ModuleSettings, Target, TargetError};
use rayon::ThreadPool;
use rayon::prelude::*;

use self::keys::Keys;
pub use self::lazy::{Lazy, LazyError};
pub use self::verify::{Samples, Verify};

/// Compiles modules in parallel.
///
/// Without further ado it uses rayon's global pool and no cache.
#[derive(Clone)]
pub struct Compiler<'a> {
    target: Target,
    pool: Option<Arc<ThreadPool>>,
    store: Option<&'a dyn Store>,
    events: Option<&'a dyn Events>,
    verify: Verify,
    abi: Arc<[u8]>,
    program: Arc<str>,
    /// A recipe and its environment, which most others share.
    environment: OnceLock<(Recipe, Key)>,
    progress: &'a (dyn Fn() + Sync),
}

/// What was compiled and what was reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Functions that were compiled.
    pub compiled_functions: usize,
    /// Functions that were reused, with their modules or on their own.
    pub reused_functions: usize,
    /// Modules that came from the store as they are.
    pub reused_modules: usize,
    /// Modules among them of which the IR was not built.
    pub lazy_modules: usize,
    /// Entries of the store that were there but could not be used.
    pub corrupt_entries: usize,
    /// Entries of the store that were compiled again and differed: the store had wrong code.
    pub wrong_entries: usize,
    /// Artifacts that the store could not take.
    pub failed_writes: usize,
}

impl std::ops::AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        let Self {
            compiled_functions,
            reused_functions,
            reused_modules,
            lazy_modules,
            corrupt_entries,
            wrong_entries,
            failed_writes,
        } = other;
        self.compiled_functions += compiled_functions;
        self.reused_functions += reused_functions;
        self.reused_modules += reused_modules;
        self.lazy_modules += lazy_modules;
        self.corrupt_entries += corrupt_entries;
        self.wrong_entries += wrong_entries;
        self.failed_writes += failed_writes;
    }
}

/// Artifacts in the order of their modules.
#[derive(Debug)]
pub struct Compiled {
    /// One artifact for each module.
    pub artifacts: Vec<Artifact>,
    /// What it took.
    pub stats: Stats,
    /// Reused modules that were chosen to be compiled again, when there is time: see [`Samples::verify`].
    pub samples: Samples,
}

/// Why modules were not compiled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompilerError {
    /// There is no code generator for a module.
    #[error("module {name}: {error}")]
    Target {
        /// Position of the module.
        module: usize,
        /// The module's name.
        name: Box<str>,
        /// Why not.
        #[source]
        error: TargetError,
    },
    /// Functions that cannot be compiled, in order of modules and functions.
    #[error("{}", .0.iter().map(CompileError::to_string).collect::<Vec<_>>().join("\n"))]
    Functions(Vec<CompileError>),
}

impl<'a> Compiler<'a> {
    /// A compiler for `target`.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            pool: None,
            store: None,
            events: None,
            verify: Verify::default(),
            abi: Arc::default(),
            program: Arc::default(),
            environment: OnceLock::new(),
            progress: &|| {},
        }
    }

    /// Runs the work in `pool`.
    #[must_use]
    pub fn pool(mut self, pool: Arc<ThreadPool>) -> Self {
        self.pool = Some(pool);
        self
    }

    /// Asks `store` before compiling a module, and stores what was compiled. The build waits for that, unless the store is a
    /// [`WriteBehind`](kiln_cache::WriteBehind).
    #[must_use]
    pub fn store(mut self, store: &'a dyn Store) -> Self {
        self.store = Some(store);
        self
    }

    /// Tells `events` what was found in the store and what was not, from many threads.
    #[must_use]
    pub fn events(mut self, events: &'a dyn Events) -> Self {
        self.events = Some(events);
        self
    }

    /// How much of what comes from the store is compiled again and compared; one module in 512 by default.
    #[must_use]
    pub fn verify(mut self, verify: Verify) -> Self {
        self.verify = verify;
        self
    }

    /// A hash of whatever else the code assumes, such as the layout of run-time objects: a part of every cache key.
    #[must_use]
    pub fn abi(mut self, abi: impl Into<Vec<u8>>) -> Self {
        self.abi = abi.into().into();
        self
    }

    /// Names the program that the modules belong to. A module that has changed takes functions from the last build of the module of the
    /// same name in the same program, so programs that share a store should differ here if their modules do not differ by name.
    ///
    /// It is no part of a key: what has not changed is found whatever the program is called.
    #[must_use]
    pub fn program(mut self, name: impl Into<Arc<str>>) -> Self {
        self.program = name.into();
        self
    }

    /// Called from worker threads after every compiled function.
    #[must_use]
    pub fn progress(mut self, progress: &'a (dyn Fn() + Sync)) -> Self {
        self.progress = progress;
        self
    }

    /// The target.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// What a store knows `module` and its functions by: the recipe says in which fields two keys differ.
    ///
    /// # Errors
    ///
    /// [`CompilerError::Target`].
    pub fn keys(&self, module: &Module) -> Result<(Recipe, Vec<FunctionKey>), CompilerError> {
        let keys = self.generator(0, module)?.keys;
        Ok((keys.module(module), keys.functions(module)))
    }

    /// Compiles `modules`, or finds them in the store.
    ///
    /// # Errors
    ///
    /// [`CompilerError`], the same one whatever the number of threads.
    pub fn compile(&self, modules: &[Module]) -> Result<Compiled, CompilerError> {
        let generators = self.generators(modules)?;
        self.install(|| self.compile_with(modules, &generators))
    }

    /// Runs `work` in the pool.
    fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// One code generator for every distinct set of header lines.
    fn generators<'m>(
        &self,
        modules: &'m [Module],
    ) -> Result<IndexMap<&'m ModuleSettings, Generator>, CompilerError> {
        let mut generators = IndexMap::new();
        for (index, module) in modules.iter().enumerate() {
            if !generators.contains_key(&module.settings) {
                generators.insert(&module.settings, self.generator(index, module)?);
            }
        }
        Ok(generators)
    }

    fn generator(&self, index: usize, module: &Module) -> Result<Generator, CompilerError> {
        let isa = self.target.isa(&module.settings).map_err(|error| CompilerError::Target {
            module: index,
            name: module.name.clone(),
            error,
        })?;
        Ok(Generator { keys: Keys::new(&*isa, self.abi.clone()), isa })
    }

    fn compile_with(
        &self,
        modules: &[Module],
        generators: &IndexMap<&ModuleSettings, Generator>,
    ) -> Result<Compiled, CompilerError> {
        let generator = |module: &Module| &generators[&module.settings];
        // Keys are hashes of all the IR, and entries are read and checked: both in parallel.
        let looked: Vec<Looked> = modules
            .par_iter()
            .map(|module| self.look(module, &module.name, None, generator(module)))
            .collect();

        let missing: Vec<usize> = (0..modules.len()).filter(|&at| looked[at].needs_compiling()).collect();
        let reuse: Vec<Vec<Option<Reuse<'_>>>> = missing.iter().map(|&at| looked[at].reuse()).collect();
        let jobs: Vec<Job<'_>> = missing
            .iter()
            .zip(&reuse)
            .map(|(&at, reuse)| Job { module: &modules[at], isa: &*generator(&modules[at]).isa, reuse })
            .collect();
        let compiled = compile_all(&jobs, self.progress).map_err(|mut errors| {
            // Positions in the queue become positions among the modules.
            errors.iter_mut().for_each(|error| error.module = missing[error.module]);
            CompilerError::Functions(errors)
        })?;
        drop(jobs);
        drop(reuse);

        let mut stats = Stats::default();
        let mut samples = Samples::default();
        let mut fresh = missing.iter().zip(compiled).peekable();
        let mut artifacts = Vec::with_capacity(modules.len());
        for (at, (module, looked)) in modules.iter().zip(looked).enumerate() {
            let fresh = fresh.next_if(|(missing, _)| **missing == at).map(|(_, fresh)| fresh);
            let generator = generator(module);
            artifacts.push(self.settle(module, generator, looked, fresh, &mut stats, &mut samples));
        }
        Ok(Compiled { artifacts, stats, samples })
    }

    /// What the store knows about `module`, which is called `name`, and by the client `client` if it has a key for it.
    fn look(&self, module: &Module, name: &str, client: Option<Lineage>, generator: &Generator) -> Looked {
        let Some(store) = self.store else { return Looked::default() };
        let recipe = generator.keys.module(module);
        let key = recipe.key();
        let lineage = self.lineage(name, &recipe);
        let mut looked =
            Looked { lineages: [lineage].into_iter().chain(client).collect(), ..Looked::default() };
        match store.get(&key) {
            Lookup::Hit(entry) => {
                self.report(&Event::Hit { key: &key, module: name });
                looked.doubted = self.verify == Verify::All;
                if !looked.doubted {
                    looked.failed_writes = self.point(&looked.lineages, &key);
                }
                looked.entry = Some(entry);
            }
            Lookup::Miss => {
                let any = Lineage::new(&self.full_name(name), recipe.target());
                let (reason, previous) = match explain(store, &lineage, &recipe) {
                    // Never built like this. The last build in another way says what is different.
                    (MissReason::New, _) => explain(store, &any, &recipe),
                    found => found,
                };
                looked.lineages.push(any);
                self.report(&Event::Miss { key: &key, module: name, reason: &reason });
                // Nothing is taken from an entry that is not trusted as a whole.
                looked.previous = previous.filter(|_| self.verify != Verify::All);
                looked.functions = generator.keys.functions(module);
            }
            Lookup::Corrupt(reason) => {
                self.report(&Event::Corrupt { key: &key, module: Some(name), reason: &reason });
                looked.corrupt = true;
                looked.functions = generator.keys.functions(module);
            }
        }
        looked.recipe = Some((recipe, key));
        looked
    }

    /// A module's name, and the program's before it.
    fn full_name(&self, module: &str) -> String {
        format!("{}\0{module}", self.program)
    }

    /// Builds of the module called `name` among which functions can be reused: those that are compiled as `recipe` says.
    fn lineage(&self, name: &str, recipe: &Recipe) -> Lineage {
        // Mostly all modules of a build are compiled alike.
        let (like, environment) = self.environment.get_or_init(|| (recipe.clone(), recipe.environment()));
        let environment = if like.same_environment(recipe) { *environment } else { recipe.environment() };
        Lineage::in_environment(&self.full_name(name), &environment)
    }

    /// The artifact of `module`: from the store, or `fresh`, which is stored.
    fn settle(
        &self,
        module: &Module,
        generator: &Generator,
        looked: Looked,
        fresh: Option<Built>,
        stats: &mut Stats,
        samples: &mut Samples,
    ) -> Artifact {
        let functions = module.functions.len();
        let Looked { recipe, lineages, entry, doubted, functions: keys, corrupt, failed_writes, previous: _ } =
            looked;
        stats.corrupt_entries += usize::from(corrupt);
        stats.failed_writes += failed_writes;
        let Some(Built { artifact, reused }) = fresh else {
            let entry = entry.expect("what has no entry was compiled");
            stats.reused_modules += 1;
            stats.reused_functions += functions;
            if let Some((_, key)) = recipe.filter(|(_, key)| self.verify.samples(key)) {
                samples.add(module, &entry, key);
            }
            return entry.artifact;
        };
        stats.compiled_functions += functions - reused;
        stats.reused_functions += reused;
        let Some((recipe, key)) = recipe else { return artifact };
        if doubted && let Some(entry) = entry {
            if entry.artifact == artifact {
                self.report(&Event::Verified { key: &key, module: &module.name });
                stats.failed_writes += self.point(&lineages, &key);
                return artifact;
            }
            stats.wrong_entries += 1;
            self.wrong(&key, &module.name);
        }
        let functions = if keys.is_empty() { generator.keys.functions(module) } else { keys };
        let entry = Entry { recipe, functions: functions.into(), artifact: artifact.clone() };
        stats.failed_writes += self.keep(&key, &lineages, &entry, corrupt);
        artifact
    }

    /// Stores `entry`, and notes it as the last build of `subjects`; the number of writes that failed.
    fn keep(&self, key: &Key, lineages: &[Lineage], entry: &Entry, heals: bool) -> usize {
        let Some(store) = self.store else { return 0 };
        match store.put(key, entry) {
            Ok(()) if heals => self.report(&Event::Healed { key }),
            Ok(()) => {}
            Err(error) => {
                self.report(&Event::WriteFailed { key, error: &error });
                return 1;
            }
        }
        self.point(lineages, key)
    }

    /// Notes that the last build of `subjects` had `key`, which costs a short read where that is known; the number of writes that failed.
    fn point(&self, lineages: &[Lineage], key: &Key) -> usize {
        let failed = lineages.iter().filter_map(|lineage| self.store?.set_latest(lineage, key).err());
        failed.map(|error| self.report(&Event::WriteFailed { key, error: &error })).count()
    }

    /// An entry that is not what compiling makes: nobody gets it any more.
    fn wrong(&self, key: &Key, module: &str) {
        self.report(&Event::VerifyFailed { key, module });
        if let Some(store) = self.store {
            // If it cannot be moved aside, storing the right one replaces it.
            let _ = store.quarantine(key, "compiling makes another artifact");
        }
    }

    fn report(&self, event: &Event<'_>) {
        if let Some(events) = self.events {
            events.report(event);
        }
    }
}

/// A code generator, and the keys of what it makes.
struct Generator {
    isa: OwnedTargetIsa,
    keys: Keys,
}

/// What the store knew about a module.
#[derive(Default)]
struct Looked {
    /// If there is a store.
    recipe: Option<(Recipe, Key)>,
    /// What this build becomes the last build of, as soon as its entry is stored.
    lineages: Vec<Lineage>,
    entry: Option<Entry>,
    /// Whether the entry is compared with what compiling makes before it is used.
    doubted: bool,
    /// Keys of the module's functions, unless there is an entry.
    functions: Vec<FunctionKey>,
    /// The module's last build.
    previous: Option<Entry>,
    corrupt: bool,
    /// Notes of use that the store could not take.
    failed_writes: usize,
}

impl Looked {
    fn needs_compiling(&self) -> bool {
        self.entry.is_none() || self.doubted
    }

    /// For each function the same one of the module's last build, if it was in there.
    fn reuse(&self) -> Vec<Option<Reuse<'_>>> {
        let Some(previous) = &self.previous else { return Vec::new() };
        let known: std::collections::HashMap<&FunctionKey, usize> =
            previous.functions.iter().enumerate().map(|(at, key)| (key, at)).collect();
        let reuse = |key| known.get(key).map(|&function| Reuse { artifact: &previous.artifact, function });
        self.functions.iter().map(reuse).collect()
    }
}
