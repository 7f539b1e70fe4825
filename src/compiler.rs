//! From modules to artifacts: code generators by settings, the cache asked first, the work queue, the pool.

use std::sync::Arc;

use cranelift_codegen::isa::{OwnedTargetIsa, TargetIsa};
use indexmap::IndexMap;
use kiln_artifact::Artifact;
use kiln_backend::{CompileError, Job, PRODUCER, REVISION, compile_all};
use kiln_cache::{Entry, KeyParts, Lookup, Recipe, Store};
use kiln_ir::{Module, ModuleSettings, Target, TargetError};
use rayon::ThreadPool;

/// Compiles modules in parallel.
///
/// Without further ado it uses rayon's global pool and no cache.
#[derive(Clone)]
pub struct Compiler<'a> {
    target: Target,
    pool: Option<Arc<ThreadPool>>,
    store: Option<&'a dyn Store>,
    abi: Vec<u8>,
    progress: &'a (dyn Fn() + Sync),
}

/// What was compiled and what was reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Functions that were compiled.
    pub compiled_functions: usize,
    /// Functions that came with reused modules.
    pub reused_functions: usize,
    /// Modules that came from the store.
    pub reused_modules: usize,
    /// Entries of the store that were there but could not be used.
    pub corrupt_entries: usize,
    /// Artifacts that the store could not take.
    pub failed_writes: usize,
}

impl std::ops::AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        let Self { compiled_functions, reused_functions, reused_modules, corrupt_entries, failed_writes } =
            other;
        self.compiled_functions += compiled_functions;
        self.reused_functions += reused_functions;
        self.reused_modules += reused_modules;
        self.corrupt_entries += corrupt_entries;
        self.failed_writes += failed_writes;
    }
}

/// Artifacts in the order of their modules.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// One artifact for each module.
    pub artifacts: Vec<Artifact>,
    /// What it took.
    pub stats: Stats,
}

/// Why modules were not compiled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileFailure {
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
        Self { target, pool: None, store: None, abi: Vec::new(), progress: &|| {} }
    }

    /// Runs the work in `pool`.
    #[must_use]
    pub fn pool(mut self, pool: Arc<ThreadPool>) -> Self {
        self.pool = Some(pool);
        self
    }

    /// Asks `store` before compiling a module, and stores what was compiled.
    #[must_use]
    pub fn store(mut self, store: &'a dyn Store) -> Self {
        self.store = Some(store);
        self
    }

    /// A hash of whatever else the code assumes, such as the layout of run-time objects: a part of every cache key.
    #[must_use]
    pub fn abi(mut self, abi: impl Into<Vec<u8>>) -> Self {
        self.abi = abi.into();
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

    /// Compiles `modules`, or finds them in the store.
    ///
    /// # Errors
    ///
    /// [`CompileFailure`], the same one whatever the number of threads.
    pub fn compile(&self, modules: &[Module]) -> Result<Compiled, CompileFailure> {
        let isas = self.isas(modules)?;
        match &self.pool {
            Some(pool) => pool.install(|| self.compile_with(modules, &isas)),
            None => self.compile_with(modules, &isas),
        }
    }

    /// One code generator for every distinct set of header lines.
    fn isas<'m>(
        &self,
        modules: &'m [Module],
    ) -> Result<IndexMap<&'m ModuleSettings, OwnedTargetIsa>, CompileFailure> {
        let mut isas = IndexMap::new();
        for (index, module) in modules.iter().enumerate() {
            if !isas.contains_key(&module.settings) {
                let isa = self.target.isa(&module.settings).map_err(|error| CompileFailure::Target {
                    module: index,
                    name: module.name.clone(),
                    error,
                })?;
                isas.insert(&module.settings, isa);
            }
        }
        Ok(isas)
    }

    fn compile_with(
        &self,
        modules: &[Module],
        isas: &IndexMap<&ModuleSettings, OwnedTargetIsa>,
    ) -> Result<Compiled, CompileFailure> {
        let mut stats = Stats::default();
        let mut artifacts: Vec<Option<Artifact>> = vec![None; modules.len()];
        let mut recipes: Vec<Option<Recipe>> = vec![None; modules.len()];
        if let Some(store) = self.store {
            for (index, module) in modules.iter().enumerate() {
                let recipe = self.recipe(module, &*isas[&module.settings]);
                let found = store.get(&recipe.key());
                recipes[index] = Some(recipe);
                match found {
                    Lookup::Hit(Entry { artifact, .. }) => {
                        stats.reused_modules += 1;
                        stats.reused_functions += artifact.functions().len();
                        artifacts[index] = Some(artifact);
                    }
                    Lookup::Miss => {}
                    Lookup::Corrupt(_) => stats.corrupt_entries += 1,
                }
            }
        }

        let missing: Vec<usize> = (0..modules.len()).filter(|&index| artifacts[index].is_none()).collect();
        let jobs: Vec<Job<'_>> = missing
            .iter()
            .map(|&index| Job::new(&modules[index], &*isas[&modules[index].settings]))
            .collect();
        stats.compiled_functions = jobs.iter().map(|job| job.module.functions.len()).sum();
        let compiled = compile_all(&jobs, self.progress).map_err(|mut errors| {
            // Positions in the queue become positions among the modules.
            errors.iter_mut().for_each(|error| error.module = missing[error.module]);
            CompileFailure::Functions(errors)
        })?;
        for (&index, artifact) in missing.iter().zip(compiled) {
            if let (Some(store), Some(recipe)) = (self.store, recipes[index].take()) {
                let key = recipe.key();
                let entry = Entry { recipe, functions: [].into(), artifact: artifact.clone() };
                stats.failed_writes += usize::from(store.put(&key, &entry).is_err());
            }
            artifacts[index] = Some(artifact);
        }
        Ok(Compiled { artifacts: artifacts.into_iter().flatten().collect(), stats })
    }

    /// What goes into the cache key of `module`.
    fn recipe(&self, module: &Module, isa: &dyn TargetIsa) -> Recipe {
        // Both lists are in Cranelift's fixed order and hold every setting, defaults included.
        let flags = isa.flags().iter().chain(isa.isa_flags());
        let settings = flags.map(|flag| flag.to_string()).collect::<Vec<_>>().join(" ");
        KeyParts {
            fingerprint: module.fingerprint().as_bytes(),
            names: module.local_names_fingerprint().as_bytes(),
            target: &isa.triple().to_string(),
            settings: &settings,
            producer: PRODUCER,
            revision: REVISION,
            abi: &self.abi,
        }
        .recipe()
    }
}
