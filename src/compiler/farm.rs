//! Compiles modules here and on a farm at the same time.
//!
//! The modules are cut into shards. A thread of its own hands them to the farm, the first one
//! first, while the threads of the pool compile from the last one on. When the two meet, the pool
//! compiles what the farm has begun and not answered, so nobody waits for the slowest machine; what
//! arrives first is used, and the other is stopped. A farm that is absent, slow or wrong costs
//! therefore only the writing of shards. In this example the farm has two machines, the pool one
//! thread, `f` and `p` say who was first, and shard 3 was begun twice:
//!
//! ```text
//! shard    0  1  2  3  4  5
//! farm     f  f  f  .
//! pool              p  p  p
//! ```
//!
//! Results are entries of a cache and checked as such, so their bytes are those of the same IR,
//! settings and versions. An error of a machine is none of the build: the module is compiled here,
//! so errors are the same with a farm and without one. A module of which functions are reused is
//! compiled here, because the farm has no last build.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cranelift_codegen::settings::OptLevel;
use kiln_artifact::Artifact;
use kiln_backend::{Built, Piece, Reuse, compile_piece, join_pieces};
use kiln_cache::{Entry, Event, Key, Recipe};
use kiln_farm::{Answer, Farm, Item, Run, cut, read_results, write_shard};
use kiln_ir::{Code, Module};
use rayon::prelude::*;

use super::Compiler;
use super::generator::Generator;
use super::made::{Made, Missing, Outcome};
use super::reuse::Pending;
use super::stats::Stats;
use super::verify::Samples;

/// Returns about how long one thread compiles a module. Only the size of shards depends on it.
fn estimate(module: &Module, generator: &Generator) -> Duration {
    let bytes: usize = module
        .functions
        .iter()
        .map(|function| match &function.code {
            Code::Ir(body) => body.as_bytes().len(),
            Code::Machine(_) => 0,
        })
        .sum();
    let nanos = match generator.isa.flags().opt_level() {
        OptLevel::None => NANOS_NONE,
        OptLevel::Speed | OptLevel::SpeedAndSize => NANOS_SPEED,
    };
    Duration::from_nanos(bytes as u64 * nanos)
}

/// Nanoseconds of compiling for each byte of a function's canonical form. SQLite takes 570 with the
/// verifier (`crates/kiln-remote/benches/farm.rs`); half of it is assumed without optimization.
const NANOS_SPEED: u64 = 500;
const NANOS_NONE: u64 = 250;

/// A module on its way.
struct Progress {
    /// The next function that the pool compiles.
    next: usize,
    /// The functions that the pool has compiled.
    pieces: Vec<Option<Piece>>,
    /// The number of functions that the pool has not compiled.
    left: usize,
    outcome: Option<Outcome>,
}

struct State {
    modules: Vec<Progress>,
    /// The number of modules without an outcome.
    open: usize,
    /// For each shard, the number of its modules without an outcome.
    open_in: Vec<usize>,
    /// All modules before this position of [`Work::order`] have outcomes, or all of their functions
    /// are being compiled.
    cursor: usize,
    /// Answers that nobody has looked at.
    arrived: VecDeque<(usize, Answer)>,
    /// The time at which each shard was handed over.
    handed: Vec<Option<Instant>>,
    /// Whether a thread panicked.
    panicked: bool,
}

/// The work of one build.
struct Work<'a> {
    compiler: &'a Compiler,
    missing: &'a [Missing<'a>],
    reuse: Vec<Vec<Option<Reuse<'a>>>>,
    /// The modules that are offered to the farm, in order, with the recipes of their keys.
    offered: Vec<(usize, Recipe, Key)>,
    /// Ranges of `offered`.
    shards: Vec<Range<usize>>,
    /// For each module, its shard.
    shard_of: Vec<Option<usize>>,
    /// The order in which the pool compiles modules: first those that the farm is not given, then
    /// those of the last shard.
    order: Vec<usize>,
    shared: Arc<Shared>,
}

/// The part that the farm's threads reach.
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the other threads if this one panics, so that none waits for it.
struct Panics<'a>(&'a Shared);

impl Drop for Panics<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().panicked = true;
            self.0.changed.notify_all();
        }
    }
}

/// Closes a run when the pool is done with it.
struct Closes<'a>(&'a dyn Run);

impl Drop for Closes<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Compiler {
    /// Compiles `missing`, with the farm if that is worth it. Must be called in the pool.
    pub(super) fn compile_missing(&self, farm: &dyn Farm, missing: &[Missing<'_>]) -> Vec<Outcome> {
        let reuse: Vec<_> = missing.par_iter().map(|missing| missing.pending.reusable()).collect();
        let has_none = |index: &usize| reuse[*index].iter().all(Option::is_none);
        let offered: Vec<(usize, Recipe, Key)> = (0..missing.len())
            .into_par_iter()
            .filter(has_none)
            .map(|index| {
                let Missing { module, generator, .. } = missing[index];
                let recipe = generator.keys().module(module);
                let key = recipe.key();
                (index, recipe, key)
            })
            .collect();
        let times: Vec<(Duration, Key)> = offered
            .iter()
            .map(|(index, _, key)| (estimate(missing[*index].module, missing[*index].generator), *key))
            .collect();
        let target = farm.shard_time();
        // Less than a shard is compiled before a farm has answered.
        let is_worth_it = times.iter().map(|(time, _)| *time).sum::<Duration>() > target;
        let shards = if is_worth_it { cut(&times, target) } else { Vec::new() };
        let mut shard_of = vec![None; missing.len()];
        for (number, shard) in shards.iter().enumerate() {
            offered[shard.clone()].iter().for_each(|(index, ..)| shard_of[*index] = Some(number));
        }
        let own = (0..missing.len()).filter(|index| shard_of[*index].is_none());
        let last = shards.iter().rev().flat_map(|shard| &offered[shard.clone()]);
        let order = own.chain(last.map(|(index, ..)| *index)).collect();
        let progress = |missing: &Missing<'_>| {
            let left = missing.module.functions.len();
            let pieces = std::iter::repeat_with(|| None).take(left).collect();
            Progress { next: 0, pieces, left, outcome: None }
        };
        let state = State {
            modules: missing.iter().map(progress).collect(),
            open: missing.len(),
            open_in: shards.iter().map(Range::len).collect(),
            cursor: 0,
            arrived: VecDeque::new(),
            handed: vec![None; shards.len()],
            panicked: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let work = Work { compiler: self, missing, reuse, offered, shards, shard_of, order, shared };
        work.run(farm);
        let modules = std::mem::take(&mut work.shared.lock().modules);
        let outcomes = modules.into_iter().map(|module| module.outcome);
        outcomes.map(|outcome| outcome.expect("every module has an outcome")).collect()
    }
}

impl Work<'_> {
    fn run(&self, farm: &dyn Farm) {
        let threads = rayon::current_num_threads();
        let compile = |run: Option<&dyn Run>| {
            rayon::scope(|scope| (0..threads).for_each(|_| scope.spawn(|_| self.work(run))));
        };
        if self.shards.is_empty() {
            return compile(None);
        }
        let shared = Arc::clone(&self.shared);
        let run = farm.begin(Arc::new(move |shard, answer| {
            shared.lock().arrived.push_back((shard, answer));
            shared.changed.notify_all();
        }));
        std::thread::scope(|scope| {
            let feed = std::thread::Builder::new().name("kiln-shards".into());
            // Without a thread, the pool compiles everything.
            let _ = feed.spawn_scoped(scope, || self.feed(&*run));
            // Also if a thread of the pool panics: the scope waits for the thread that feeds.
            let _closes = Closes(&*run);
            compile(Some(&*run));
        });
    }

    /// Hands the shards to the farm, until nothing is left to compile.
    fn feed(&self, run: &dyn Run) {
        for (number, shard) in self.shards.iter().enumerate() {
            let (is_needed, is_over) = {
                let state = self.shared.lock();
                (state.open_in[number] > 0, state.open == 0 || state.panicked)
            };
            if is_over {
                return;
            }
            if !is_needed {
                continue;
            }
            let offered = &self.offered[shard.clone()];
            let shard = {
                #[cfg(feature = "tracing")]
                let _span = tracing::debug_span!("write shard").entered();
                let modules: Vec<Vec<u8>> =
                    offered.iter().map(|(index, ..)| self.missing[*index].module.to_bytes()).collect();
                let items = offered.iter().zip(&modules);
                let items = items.map(|((_, recipe, _), module)| Item { recipe, module });
                write_shard(&items.collect::<Vec<_>>())
            };
            self.shared.lock().handed[number] = Some(Instant::now());
            if !run.submit(number, shard) {
                return;
            }
        }
    }

    /// Takes answers of the farm, and compiles functions, until every module has an outcome.
    fn work(&self, run: Option<&dyn Run>) {
        let _panics = Panics(&self.shared);
        let mut state = self.shared.lock();
        while state.open > 0 && !state.panicked {
            if let Some((shard, answer)) = state.arrived.pop_front() {
                let handed = state.handed.get(shard).copied().flatten();
                drop(state);
                self.take(shard, answer, handed);
            } else if let Some((index, function)) = self.next(&mut state) {
                drop(state);
                if let Some(shard) = self.compile(index, function)
                    && let Some(run) = run
                {
                    run.withdraw(shard);
                }
            } else {
                drop(self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner));
            }
            state = self.shared.lock();
        }
    }

    /// Returns a module and its function that the pool compiles next; no function if it has none.
    fn next(&self, state: &mut State) -> Option<(usize, Option<usize>)> {
        while let Some(&index) = self.order.get(state.cursor) {
            let module = &mut state.modules[index];
            let functions = module.pieces.len();
            if module.outcome.is_none() && module.next < functions.max(1) {
                module.next += 1;
                return Some((index, Some(module.next - 1).filter(|_| functions > 0)));
            }
            state.cursor += 1;
        }
        None
    }

    /// Compiles a function, and joins its module if it is the last one. Returns the shard, if no
    /// module of it is left.
    fn compile(&self, index: usize, function: Option<usize>) -> Option<usize> {
        let Missing { module, generator, .. } = self.missing[index];
        let job = generator.job(module, &self.reuse[index]);
        let piece = function.map(|function| {
            let piece = compile_piece(&job, function);
            (self.compiler.progress)();
            (function, piece)
        });
        let pieces = {
            let mut state = self.shared.lock();
            let progress = &mut state.modules[index];
            if progress.outcome.is_some() {
                return None;
            }
            if let Some((function, piece)) = piece {
                progress.pieces[function] = Some(piece);
                progress.left -= 1;
            }
            if progress.left > 0 {
                return None;
            }
            std::mem::take(&mut progress.pieces)
        };
        let pieces = pieces.into_iter().map(|piece| piece.expect("none is left")).collect();
        let built = join_pieces(&job, pieces);
        self.finish(index, built.map(|built| Made { built, farmed: None }));
        self.shard_of[index].filter(|shard| self.shared.lock().open_in[*shard] == 0)
    }

    /// Notes the outcome of a module, unless it has one. Returns the number of functions that the
    /// pool has not begun and will not compile.
    fn finish(&self, index: usize, outcome: Outcome) -> Option<usize> {
        let mut state = self.shared.lock();
        let module = &mut state.modules[index];
        if module.outcome.is_some() {
            return None;
        }
        module.outcome = Some(outcome);
        let spared = module.pieces.len().saturating_sub(module.next);
        module.pieces = Vec::new();
        state.open -= 1;
        if let Some(shard) = self.shard_of[index] {
            state.open_in[shard] -= 1;
        }
        if state.open == 0 {
            self.shared.changed.notify_all();
        }
        Some(spared)
    }

    /// Takes an answer of the farm.
    fn take(&self, shard: usize, answer: Answer, handed: Option<Instant>) {
        // Only a faulty farm answers to a number that it was not given.
        let Some(shard) = self.shards.get(shard) else { return };
        let offered = &self.offered[shard.clone()];
        let not_farmed = |index: usize, key: &Key, reason: &str| {
            if self.shared.lock().modules[index].outcome.is_none() {
                let module = &self.missing[index].module.name;
                self.compiler.cache.report(&Event::NotFarmed { key, module, reason });
            }
        };
        let keys: Vec<Key> = offered.iter().map(|(.., key)| *key).collect();
        let results = match answer {
            Answer::Failed(reason) => Err(reason),
            Answer::Results { bytes, cached } => read_results(&bytes, &keys)
                .map(|results| (results, cached))
                .map_err(|error| format!("results that cannot be read: {error}")),
        };
        let (results, cached) = match results {
            Ok(results) => results,
            Err(reason) => {
                offered.iter().for_each(|(index, _, key)| not_farmed(*index, key, &reason));
                return;
            }
        };
        let time = handed.map(|handed| handed.elapsed()).unwrap_or_default();
        for ((index, _, key), result) in offered.iter().zip(results) {
            let entry = match result {
                Ok(entry) if belongs(&entry, self.missing[*index].module) => entry,
                Ok(_) => {
                    not_farmed(*index, key, "its artifact has other functions than the module");
                    continue;
                }
                Err(refused) => {
                    let source = std::error::Error::source(&refused);
                    let source = source.map_or_else(String::new, |source| format!(": {source}"));
                    not_farmed(*index, key, &format!("{refused}{source}"));
                    continue;
                }
            };
            let bytes = entry.file_len();
            let built = Built { artifact: entry.artifact.clone(), reused: 0, unfit: 0 };
            let outcome = Ok(Made { built, farmed: Some((*key, entry)) });
            if let Some(spared) = self.finish(*index, outcome) {
                let module = &*self.missing[*index].module.name;
                #[cfg(feature = "tracing")]
                record_farmed(module, bytes, time, cached);
                self.compiler.cache.report(&Event::Farmed { key, module, bytes, time, cached });
                (0..spared).for_each(|_| (self.compiler.progress)());
            }
        }
    }
}

/// Records that a module came from the farm, when, and how large its entry is.
#[cfg(feature = "tracing")]
fn record_farmed(module: &str, bytes: u64, time: Duration, cached: bool) {
    let how = if cached { "from the farm, which had it" } else { "compiled by the farm" };
    let outcome = format!("{how}: {bytes} bytes, after {:.3} s", time.as_secs_f64());
    drop(tracing::debug_span!("farm", module, outcome = &*outcome).entered());
}

impl Compiler {
    /// Returns the artifact of a module that was compiled, and stores it.
    pub(super) fn use_made(
        &self,
        module: &Module,
        generator: &Generator,
        pending: Pending,
        made: Made,
        stats: &mut Stats,
        samples: &mut Samples,
    ) -> Artifact {
        let Made { built, farmed } = made;
        if let Some((key, entry)) = farmed {
            let functions = module.functions.len();
            stats.farmed_modules += 1;
            stats.farmed_functions += functions;
            if self.cache.verify.samples(&key) {
                samples.add(module, &entry, key);
            }
            let compiled = stats.compiled_functions;
            let artifact = self.cache.finish(module, generator, pending, built, stats);
            stats.compiled_functions = compiled;
            return artifact;
        }
        self.cache.finish(module, generator, pending, built, stats)
    }
}

/// Returns whether an artifact has the functions of a module: a machine that mixes its results up
/// is found out.
fn belongs(entry: &Entry, module: &Module) -> bool {
    let artifact = &entry.artifact;
    artifact.functions().len() == module.functions.len()
        && artifact.functions().iter().zip(&module.functions).all(|(compiled, function)| {
            let compiled = artifact.symbols().get(compiled.symbol.get() as usize);
            let symbol = module.symbol(function.symbol);
            // Names that no other module sees are not all in the artifact.
            compiled.is_some_and(|compiled| {
                !matches!(symbol.linkage, kiln_ir::Linkage::Export)
                    || artifact.name(compiled) == &*symbol.name
            })
        })
}
