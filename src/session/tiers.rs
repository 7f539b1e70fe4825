//! Modules that are compiled quickly first, and again at `opt_level=speed` when they are hot.
//!
//! In the first tier, every function counts its calls (`kiln_ir::count_calls`). When one has been
//! called often enough, its module is compiled again on a thread of the pool, and replaces the
//! first tier. Both tiers go through the store, because neither has a number of this process in its
//! code: the host knows a function by the address of its counter.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use kiln_ir::{CountCalls, Linkage, Module, ModuleSettings, Setting, SymbolId, count_calls};
use kiln_jit::{Role, Unit};

use super::engine::{Deferred, Engine, Linking};
use super::error::SessionError;
use super::hooks::{self, FUNCTION_IS_HOT, Hook};
use super::turns::Turns;
use crate::compiler::CompilerError;

/// When a module is compiled again: see [`Session::add_tiered`](super::Session::add_tiered).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierPolicy {
    /// The number of calls of one function after which its module is hot. `None` if only
    /// [`Tiered::optimize`] compiles it again; then functions do not count.
    pub calls: Option<u64>,
    /// Whether each round of a loop counts, as a call does.
    pub loops: bool,
}

impl Default for TierPolicy {
    /// Returns the policy that 1,000 calls, or rounds of loops, are hot.
    fn default() -> Self {
        Self { calls: Some(1000), loops: true }
    }
}

/// A module that was added in tiers. It is cheap to clone.
#[derive(Clone)]
pub struct Tiered(Arc<Shared>);

impl fmt::Debug for Tiered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tiered").field("module", &self.0.module.name).finish_non_exhaustive()
    }
}

/// The state that the handle and the hooks of a module share.
pub(super) struct Shared {
    engine: Weak<Engine>,
    /// The module as the last tier compiles it.
    module: Module,
    first: OnceLock<Unit>,
    /// The addresses of the counters of the first tier, and the hook that they have.
    counters: OnceLock<(Vec<u64>, Arc<dyn Hook>)>,
    is_scheduled: AtomicBool,
    /// The turn of the thread that compiles the module again.
    turns: Turns,
    optimized: Mutex<Option<Result<Unit, Arc<SessionError>>>>,
}

/// The hook of a module's functions.
struct Hot(Weak<Shared>);

impl Hook for Hot {
    fn call(&self) -> usize {
        if let Some(shared) = self.0.upgrade()
            && !shared.is_scheduled.swap(true, Ordering::Relaxed)
            && let Some(engine) = shared.engine.upgrade()
        {
            engine.compiler.spawn(move || {
                // The result is in `shared`, for who asks.
                let _: Result<Unit, Arc<SessionError>> = shared.optimize();
            });
        }
        0
    }
}

impl Shared {
    /// Adds modules in their first tier, as one unit.
    pub(super) fn add(
        engine: &Arc<Engine>,
        modules: &[Module],
        policy: TierPolicy,
    ) -> Result<Vec<Arc<Self>>, SessionError> {
        let isa = engine.compiler.target().isa(&ModuleSettings::default()).map_err(|source| {
            SessionError::Compile(CompilerError::Target { module: 0, name: "tiers".into(), source })
        })?;
        let (mut first, mut counters, mut shared) = (Vec::new(), Vec::new(), Vec::new());
        for module in modules {
            let mut module = module.clone();
            check_data(&module)?;
            for symbol in &mut module.symbols {
                // Functions of the module's own are called through it, and go with it.
                if symbol.linkage == Linkage::Export {
                    symbol.linkage = Linkage::Replaceable;
                }
            }
            let (mut counting, symbol) = match policy.calls {
                Some(limit) => {
                    let count = CountCalls { limit, loops: policy.loops, hook: FUNCTION_IS_HOT };
                    let (counting, counters) = count_calls(&module, count, &*isa);
                    (counting, Some(counters))
                }
                None => (module.clone(), None),
            };
            set_level(&mut counting, "none");
            set_level(&mut module, "speed");
            first.push(counting);
            counters.push(symbol);
            shared.push(Arc::new(Self {
                engine: Arc::downgrade(engine),
                module,
                first: OnceLock::new(),
                counters: OnceLock::new(),
                is_scheduled: AtomicBool::new(false),
                turns: Turns::default(),
                optimized: Mutex::new(None),
            }));
        }
        let unit = engine.build(&first, Linking::As(Role::Tier))?;
        for (number, (shared, counters)) in shared.iter().zip(counters).enumerate() {
            shared.first.set(unit.clone()).expect("it is set here only");
            if let Some(counters) = counters {
                shared.watch(engine, &unit, number, counters);
            }
        }
        for shared in &shared {
            engine.defer(shared.clone());
        }
        Ok(shared)
    }

    /// Makes the hook known by the addresses of the module's counters. Calls from before come to no
    /// hook; counting starts again, so later calls do.
    fn watch(self: &Arc<Self>, engine: &Engine, unit: &Unit, module: usize, counters: SymbolId) {
        let Some(counters) = unit.symbol(module, counters.index()) else { return };
        let hook: Arc<dyn Hook> = Arc::new(Hot(Arc::downgrade(self)));
        let addresses = (0..counters.size).step_by(8).map(|at| counters.address.wrapping_add(at) as u64);
        let numbers: Vec<u64> = addresses.collect();
        for &number in &numbers {
            engine.hooks.own(number);
            hooks::set(number, hook.clone());
        }
        self.counters.set((numbers, hook)).unwrap_or_else(|_| unreachable!("it is set here only"));
    }

    /// Compiles the module at `opt_level=speed` and replaces the first tier, once.
    pub(super) fn optimize(&self) -> Result<Unit, Arc<SessionError>> {
        self.is_scheduled.store(true, Ordering::Relaxed);
        let Some(_turn) = self.turns.take() else {
            return Err(Arc::new(SessionError::Recursion { name: self.module.name.clone() }));
        };
        if let Some(result) = self.optimized().clone() {
            return result;
        }
        let engine = self.engine.upgrade().expect("the session was dropped");
        let result = engine.build_alone(&self.module, Linking::Replace).map_err(Arc::new);
        *self.optimized() = Some(result.clone());
        if let (Ok(_), Some((numbers, hook))) = (&result, self.counters.get()) {
            engine.hooks.release(numbers, &|known| Arc::ptr_eq(known, hook));
        }
        result
    }

    fn optimized(&self) -> MutexGuard<'_, Option<Result<Unit, Arc<SessionError>>>> {
        self.optimized.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deferred for Shared {
    fn finish(&self, engine: &Engine) -> Result<(), SessionError> {
        if self.is_finished(engine) {
            return Ok(());
        }
        self.optimize().map(drop).map_err(SessionError::Tier)
    }

    fn is_finished(&self, engine: &Engine) -> bool {
        // The first tier is gone when it is replaced, or was removed.
        !self.first.get().is_some_and(|unit| engine.jit.contains(unit))
            || matches!(*self.optimized(), Some(Ok(_)))
    }
}

/// Refuses data that would be there twice, once in each tier.
fn check_data(module: &Module) -> Result<(), SessionError> {
    let shared = |linkage| linkage != Linkage::Local;
    for object in &module.data {
        let symbol = module.symbol(object.symbol);
        if object.writable || shared(symbol.linkage) || object.section.is_some() {
            return Err(SessionError::TieredData { module: module.name.clone(), name: symbol.name.clone() });
        }
    }
    Ok(())
}

/// Sets the level of optimization of a module.
fn set_level(module: &mut Module, level: &str) {
    module.settings.shared.retain(|setting| &*setting.name != "opt_level");
    module.settings.shared.push(Setting::new("opt_level", level));
}

impl Tiered {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Compiles the module at `opt_level=speed` now, unless that was done, and returns its unit.
    ///
    /// # Errors
    ///
    /// [`SessionError`], as for [`Session::replace`](super::Session::replace). Then the first tier
    /// stays, and the module is not compiled again.
    ///
    /// # Panics
    ///
    /// If the session was dropped.
    pub fn optimize(&self) -> Result<Unit, Arc<SessionError>> {
        self.0.optimize()
    }

    /// Returns the result of compiling the module again, or `None` if that was not done yet.
    pub fn optimized(&self) -> Option<Result<Unit, Arc<SessionError>>> {
        self.0.optimized().clone()
    }

    /// Returns the unit of the first tier. It has all modules that were added with this one, and is
    /// gone when all of them are replaced.
    pub fn first(&self) -> Unit {
        self.0.first.get().expect("it is set before there is a handle").clone()
    }
}
