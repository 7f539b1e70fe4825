//! Compiles lazy modules, whose IR is built only if the store has no code for them.
//!
//! The client's key covers everything that the module is made from. The key is hashed with the
//! environment (target, settings and everything else that keys have in common) to a lineage. The
//! store maps this lineage to the key that the module's IR had when it was last built. So it needs
//! no second copy of the artifact.

use std::sync::Arc;

use kiln_artifact::Artifact;
use kiln_backend::{Built, CompileError, Job, compile, compile_all};
use kiln_cache::Lineage;
#[cfg(feature = "tracing")]
use kiln_cache::Place;
use kiln_farm::Farm;
use kiln_ir::{Module, ModuleSettings};
use rayon::prelude::*;

use super::error::{CompilerError, LazyError};
use super::generator::Generator;
use super::keys::Keys;
use super::lazy::Lazy;
use super::made::{self, Missing};
use super::reuse::{CacheLookup, Hit, Pending};
use super::stats::Stats;
use super::verify::{Samples, Verify};
use super::{Compiled, Compiler};

/// One module's part of the result.
pub(super) struct Done {
    pub(super) artifact: Artifact,
    pub(super) stats: Stats,
    pub(super) samples: Samples,
}

/// The result of looking a module up.
enum Looked {
    Done(Done),
    /// It has to be compiled, by the farm or here.
    Missing(Box<Missed>),
}

/// A module that the store does not have.
struct Missed {
    module: Module,
    generator: Arc<Generator>,
    pending: Pending,
    stats: Stats,
}

/// The common state of the modules of one call.
struct Shared {
    /// The keys of a code generator for modules without header lines. The client's key covers the
    /// header lines.
    keys: Option<Keys>,
    /// Whether there are enough modules to keep every thread busy with modules of its own.
    many: bool,
}

/// Returns all results, or all errors.
pub(super) fn all<T, E>(results: Vec<Result<T, E>>) -> Result<Vec<T>, Vec<E>> {
    let (mut done, mut errors) = (Vec::with_capacity(results.len()), Vec::new());
    for result in results {
        match result {
            Ok(result) => done.push(result),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(done) } else { Err(errors) }
}

/// Joins the parts of a result.
pub(super) fn join(done: Vec<Done>) -> Compiled {
    let mut result = Compiled { artifacts: Vec::new(), stats: Stats::default(), samples: Samples::default() };
    for Done { artifact, stats, samples } in done {
        result.artifacts.push(artifact);
        result.stats += stats;
        result.samples.extend(samples);
    }
    result
}

/// Returns the result for a hit on a module whose IR is not built.
pub(super) fn unbuilt(hit: Hit) -> Done {
    let Hit { entry, failed_writes, key: _, place: _ } = hit;
    let stats = Stats {
        reused_functions: entry.artifact.functions().len(),
        reused_modules: 1,
        lazy_modules: 1,
        failed_writes,
        ..Stats::default()
    };
    Done { artifact: entry.artifact, stats, samples: Samples::default() }
}

/// Returns the span of a module that is looked up, and perhaps compiled.
#[cfg(feature = "tracing")]
fn module_span(name: &str) -> tracing::Span {
    tracing::debug_span!("module", module = name, outcome = tracing::field::Empty)
}

/// Records in the module's span that its code was found: how, and where.
#[cfg(feature = "tracing")]
fn record_hit(place: Place, how: &str) {
    let outcome = format!("{how}, from {place}");
    tracing::Span::current().record("outcome", &*outcome);
}

impl Compiler {
    /// Compiles modules one after the other on every thread: a module's IR is built when a thread
    /// takes it, and dropped when it is compiled. So memory holds the IR of one module for each
    /// thread, however many modules there are. A module whose key is in the store is not built,
    /// unless it is chosen to be verified: then it is built at once, and its IR is compared with
    /// the IR that the key was stored for. Its code is compared when there is time.
    ///
    /// # Errors
    ///
    /// A list of at least one error, in the order of the modules.
    pub fn compile_lazy<E: Send>(&self, modules: Vec<Lazy<'_, E>>) -> Result<Compiled, Vec<LazyError<E>>> {
        if let Some(inlining) = self.inlining {
            return self.compile_lazy_inlined(modules, inlining);
        }
        // If there are few modules, the functions of each are compiled in parallel as well.
        let many = modules.len() >= 4 * self.pool.threads();
        let keys = self.plain_keys();
        let shared = Shared { keys, many };
        self.announce_lazy(&modules, shared.keys.as_ref());
        let work = || -> Vec<_> {
            let modules = modules.into_par_iter().enumerate().with_max_len(1);
            match self.farm_in_use() {
                None => modules.map(|(index, lazy)| self.compile_one_lazy(index, lazy, &shared)).collect(),
                Some(farm) => {
                    let look_up = |(index, lazy): (usize, Lazy<'_, E>)| {
                        #[cfg(feature = "tracing")]
                        let _span = module_span(&lazy.name).entered();
                        self.look_up_lazy(index, lazy, &shared)
                    };
                    self.compile_missed(farm, modules.map(look_up).collect())
                }
            }
        };
        let done: Vec<Result<Done, LazyError<E>>> = self.install(work);

        Ok(join(all(done)?))
    }

    /// Returns the keys of a code generator for modules without header lines.
    pub(super) fn plain_keys(&self) -> Option<Keys> {
        let isa = self.target.isa(&ModuleSettings::default()).ok()?;
        Some(Keys::new(&*isa, self.abi.clone()))
    }

    /// Tells the store the lineages of all modules that have a client's key, and returns them.
    pub(super) fn announce_lazy<E>(&self, modules: &[Lazy<'_, E>], keys: Option<&Keys>) -> Vec<Lineage> {
        let Some(keys) = keys else { return Vec::new() };
        if self.cache.store.is_none() || self.cache.verify == Verify::All {
            return Vec::new();
        }
        let client =
            |lazy: &Lazy<'_, E>| Some(keys.client(&self.cache.program, &lazy.name, lazy.key.as_ref()?));
        let clients: Vec<Lineage> = modules.iter().filter_map(client).collect();
        self.cache.announce(&clients, &[]);
        clients
    }

    fn compile_one_lazy<E>(
        &self,
        index: usize,
        lazy: Lazy<'_, E>,
        shared: &Shared,
    ) -> Result<Done, LazyError<E>> {
        #[cfg(feature = "tracing")]
        let _span = module_span(&lazy.name).entered();
        let missed = match self.look_up_lazy(index, lazy, shared)? {
            Looked::Done(done) => return Ok(done),
            Looked::Missing(missed) => *missed,
        };
        let Missed { module, generator, pending, mut stats } = missed;
        let reuse = pending.reusable();
        let job = generator.job(&module, &reuse);
        let built = self.compile_job(job, shared.many).map_err(|mut errors| {
            errors.iter_mut().for_each(|error| error.module = index);
            LazyError::Compile(CompilerError::Functions(errors))
        })?;
        drop(reuse);
        #[cfg(feature = "tracing")]
        tracing::Span::current()
            .record("outcome", if built.reused > 0 { "partly reused" } else { "compiled" });
        let artifact = self.cache.finish(&module, &generator, pending, built, &mut stats);
        Ok(Done { artifact, stats, samples: Samples::default() })
    }

    /// Compiles what was not found, here and on the farm.
    fn compile_missed<E: Send>(
        &self,
        farm: &dyn Farm,
        looked: Vec<Result<Looked, LazyError<E>>>,
    ) -> Vec<Result<Done, LazyError<E>>> {
        let missing = looked.iter().filter_map(|looked| match looked {
            Ok(Looked::Missing(missed)) => Some(Missing {
                module: &missed.module,
                generator: &missed.generator,
                pending: &missed.pending,
            }),
            _ => None,
        });
        let missing: Vec<Missing<'_>> = missing.collect();
        let outcomes = if missing.is_empty() { Vec::new() } else { self.compile_missing(farm, &missing) };
        drop(missing);
        let mut outcomes = outcomes.into_iter();
        let paired: Vec<_> = looked
            .into_iter()
            .map(|looked| {
                let is_missing = matches!(looked, Ok(Looked::Missing(_)));
                (looked, if is_missing { outcomes.next() } else { None })
            })
            .collect();
        // Entries are made and stored in parallel.
        let done = paired.into_par_iter().enumerate().map(|(index, (looked, outcome))| {
            let missed = match looked? {
                Looked::Done(done) => return Ok(done),
                Looked::Missing(missed) => *missed,
            };
            let Missed { module, generator, pending, mut stats } = missed;
            let made = made::at(outcome.expect("each missing module has an outcome"), index);
            let made = made.map_err(|errors| LazyError::Compile(CompilerError::Functions(errors)))?;
            let mut samples = Samples::default();
            let artifact = self.use_made(&module, &generator, pending, made, &mut stats, &mut samples);
            Ok(Done { artifact, stats, samples })
        });
        done.collect()
    }

    /// Looks a module up, and builds its IR if it is needed.
    fn look_up_lazy<E>(
        &self,
        index: usize,
        lazy: Lazy<'_, E>,
        shared: &Shared,
    ) -> Result<Looked, LazyError<E>> {
        let Lazy { name, key, build } = lazy;
        let (program, keys) = (&self.cache.program, shared.keys.as_ref());
        let client = key.as_ref().zip(keys).map(|(key, keys)| keys.client(program, &name, key));
        let hit = client.and_then(|client| self.cache.look_up_unbuilt(&name, &client));
        let hit = match hit {
            Some(hit) if !self.cache.verify.samples(&hit.key) => {
                #[cfg(feature = "tracing")]
                record_hit(hit.place, "hit by the client's key");
                return Ok(Looked::Done(unbuilt(hit)));
            }
            hit => hit,
        };

        let module = {
            #[cfg(feature = "tracing")]
            let _span = tracing::debug_span!("read", module = &*name).entered();
            build()
        };
        let module = match module {
            Ok(module) => module,
            Err(error) => return Err(LazyError::Build { module: index, name, error }),
        };
        let generator = self.generator(index, &module).map_err(LazyError::Compile)?;
        let (mut stats, mut samples) = (Stats::default(), Samples::default());
        // The module of a hit that is to be verified was built above. That costs the client the
        // time to build the IR of a few modules. Their code is generated later, when there is time.
        let stored = hit.as_ref().map(|hit| hit.key).or_else(|| self.cache.stored_for(&client?));
        let is_right =
            stored.is_none_or(|key| self.cache.check_client_key(&module, &name, &key, generator.keys()));
        stats.wrong_keys += usize::from(!is_right);
        if let Some(hit) = hit.filter(|_| is_right) {
            let artifact = self.cache.use_hit(&module, hit, &mut stats, &mut samples);
            return Ok(Looked::Done(Done { artifact, stats, samples }));
        }
        // With a farm, all modules are looked up before any is compiled.
        let recipe = self.farm_in_use().map(|_| generator.keys().module(&module));
        Ok(match self.cache.look_up(&module, &name, client, &generator, recipe) {
            CacheLookup::Hit(hit) => {
                #[cfg(feature = "tracing")]
                record_hit(hit.place, "hit");
                let artifact = self.cache.use_hit(&module, hit, &mut stats, &mut samples);
                Looked::Done(Done { artifact, stats, samples })
            }
            CacheLookup::Compile(pending) => {
                #[cfg(feature = "tracing")]
                tracing::Span::current().record("outcome", "missing");
                Looked::Missing(Box::new(Missed { module, generator, pending, stats }))
            }
        })
    }

    /// Compiles one module: on this thread if there are `many`, otherwise its functions in
    /// parallel.
    fn compile_job(&self, job: Job<'_>, many: bool) -> Result<Built, Vec<CompileError>> {
        if !many {
            return compile_all(&[job], &*self.progress).map(|mut built| built.remove(0));
        }
        let functions = job.module.functions.len();
        compile(&job).inspect(|_| (0..functions).for_each(|_| (self.progress)()))
    }
}
