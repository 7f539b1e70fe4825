//! Modules that are compiled quickly first, and again at `opt_level=speed` when they are hot.
//!
//! In the first tier, calls are counted: before the code, by entries that cost no compilation
//! (`kiln_jit::CountedEntries`), or if rounds of loops count too, in the code
//! (`kiln_ir::count_calls`). When a function has been called often enough, its module is compiled
//! again on a thread of the pool, and replaces the first tier. Both tiers go through the store,
//! because neither has a number of this process in its code: the host knows a function by the
//! address of its counter.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use cranelift_codegen::isa::OwnedTargetIsa;
use kiln_ir::{Linkage, Module, ModuleSettings, Setting, SymbolId};
use kiln_jit::{CountedEntries, Unit};

use super::engine::{Deferred, Engine, Linking};
use super::error::SessionError;
use super::hooks::{self, FUNCTION_IS_HOT, Hook, function_is_hot};
use super::turns::Turns;
use crate::compiler::CompilerError;

/// When a module is compiled again: see [`Session::add_tiered`](super::Session::add_tiered).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierPolicy {
    /// The number of calls of one function after which its module is hot. `None` if only
    /// [`Tiered::optimize`] compiles it again; then functions do not count. On x86-64, without
    /// [`loops`](Self::loops), the calls of exported functions count, and code is compiled as
    /// without counting. Otherwise those of private functions count too, and the code is longer.
    pub calls: Option<u64>,
    /// Whether each round of a loop counts, as a call does. A running function goes on as it is,
    /// and is compiled again for later calls. Counting takes about as long to compile as a small
    /// function does, so the default is `false`.
    pub loops: bool,
}

impl Default for TierPolicy {
    /// Returns the policy that 1,000 calls are hot.
    fn default() -> Self {
        Self { calls: Some(1000), loops: false }
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
    /// The module in which no function counts.
    module: Module,
    first: Unit,
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
        // The calls that are counted before the code, and in the code.
        let without_loops = |_: &u64| !policy.loops;
        let at_entries =
            policy.calls.filter(without_loops).and_then(|limit| CountedEntries::new(limit, function_is_hot));
        let in_code = policy.calls.filter(|_| at_entries.is_none());
        let in_code = in_code.map(|limit| isa(engine).map(|isa| (limit, isa))).transpose()?;
        let (mut first, mut counters, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for module in modules {
            check_data(module)?;
            let mut module = module.clone();
            set_level(&mut module, "none");
            for symbol in &mut module.symbols {
                // Functions of the module's own are called through it, and go with it.
                if symbol.linkage == Linkage::Export {
                    symbol.linkage = Linkage::Replaceable;
                }
            }
            match &in_code {
                Some((limit, isa)) => {
                    let count =
                        kiln_ir::CountCalls { limit: *limit, loops: policy.loops, hook: FUNCTION_IS_HOT };
                    let (counting, symbol) = kiln_ir::count_calls(&module, count, &**isa);
                    first.push(counting);
                    counters.push(symbol);
                    others.push(module);
                }
                None => first.push(module),
            }
        }
        let unit = engine.build(&first, Linking::Tier(at_entries))?;
        // What does not count in its code is kept as it is.
        let modules = if in_code.is_some() { others } else { first };
        let mut addresses = vec![Vec::new(); modules.len()];
        for (module, _, address) in unit.counters() {
            addresses[module].push(address);
        }
        for (number, counters) in counters.into_iter().enumerate() {
            addresses[number] = addresses_in_code(&unit, number, counters);
        }
        let mut all = Vec::with_capacity(modules.len());
        for (module, addresses) in modules.into_iter().zip(addresses) {
            let shared = Arc::new(Self {
                engine: Arc::downgrade(engine),
                module,
                first: unit.clone(),
                counters: OnceLock::new(),
                is_scheduled: AtomicBool::new(false),
                turns: Turns::default(),
                optimized: Mutex::new(None),
            });
            if !addresses.is_empty() {
                shared.watch(engine, addresses);
            }
            engine.defer(shared.clone());
            all.push(shared);
        }
        Ok(all)
    }

    /// Makes the hook known by the addresses of the module's counters. Calls from before come to no
    /// hook; counting starts again, so later calls do.
    fn watch(self: &Arc<Self>, engine: &Engine, numbers: Vec<u64>) {
        let hook: Arc<dyn Hook> = Arc::new(Hot(Arc::downgrade(self)));
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
        let mut module = self.module.clone();
        set_level(&mut module, "speed");
        let result = engine.build_alone(&module, Linking::Replace).map_err(Arc::new);
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
        !engine.jit.contains(&self.first) || matches!(*self.optimized(), Some(Ok(_)))
    }
}

/// Returns the target, for changes of IR.
fn isa(engine: &Engine) -> Result<OwnedTargetIsa, SessionError> {
    engine.compiler.target().isa(&ModuleSettings::default()).map_err(|source| {
        SessionError::Compile(CompilerError::Target { module: 0, name: "tiers".into(), source })
    })
}

/// Returns the addresses of the counters in the data of a module.
fn addresses_in_code(unit: &Unit, module: usize, counters: SymbolId) -> Vec<u64> {
    let Some(counters) = unit.symbol(module, counters.index()) else { return Vec::new() };
    (0..counters.size).step_by(8).map(|at| counters.address.wrapping_add(at) as u64).collect()
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
        self.0.first.clone()
    }
}
