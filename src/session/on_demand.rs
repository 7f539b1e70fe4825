//! Modules that are compiled when one of their functions is first called.
//!
//! Each function gets a stand-in (`kiln_ir::call_through`), a replaceable function of its name and
//! type. The first call comes to the stand-in, which calls [`Hook::call`]: the module is built,
//! compiled, and replaces the stand-ins, so later calls go to it through the function's slot. A
//! module that is removed later is built again at the next call.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use cranelift_codegen::ir::Signature;
use kiln_ir::{Linkage, Module, ModuleSettings, StandIn, SymbolKind, call_through};
use kiln_jit::{InUseError, Unit};

use super::engine::{Deferred, Engine, Linking};
use super::error::SessionError;
use super::hooks::{self, COMPILE_NOW, Hook};
use super::turns::Turns;
use crate::compiler::CompilerError;

/// Builds the module of [`Session::add_on_demand`](super::Session::add_on_demand).
type Build = dyn Fn() -> Result<Module, Box<dyn std::error::Error + Send + Sync>> + Send + Sync;

/// A module that is compiled when one of its functions is first called. It is cheap to clone.
#[derive(Clone)]
pub struct OnDemand(pub(super) Arc<Shared>);

impl fmt::Debug for OnDemand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnDemand").field("functions", &self.0.functions).finish_non_exhaustive()
    }
}

/// The state that the handle and the hooks of a module share.
pub(super) struct Shared {
    /// The session; a hook does not keep it alive.
    engine: Weak<Engine>,
    functions: Vec<Box<str>>,
    build: Box<Build>,
    /// The unit of the stand-ins.
    stand_ins: OnceLock<Unit>,
    /// The numbers of their hooks.
    numbers: Vec<u64>,
    /// The turn of the thread that compiles the module.
    turns: Turns,
    /// The compiled module, which may be removed since.
    unit: Mutex<Option<Unit>>,
}

/// The hook of one function.
struct Call {
    shared: Arc<Shared>,
    function: usize,
}

impl Hook for Call {
    fn call(&self) -> usize {
        let name = &*self.shared.functions[self.function];
        let engine = self.shared.engine.upgrade().expect("code is called only while its session lives");
        let result = self.shared.compile(&engine).map(|_| engine.jit.address(name));
        match (result, engine.rescue()) {
            (Ok(Some(address)), _) => address as usize,
            // It was removed in the meantime, by a client that does not hold a guard.
            (Ok(None), _) => panic!("`{name}` was removed while it was called"),
            (Err(error), Some(rescue)) => rescue(name, &error),
            (Err(error), None) => panic!("`{name}` could not be compiled when it was called: {error}"),
        }
    }
}

impl Shared {
    /// Registers stand-ins for functions.
    pub(super) fn register(
        engine: &Arc<Engine>,
        functions: &[(&str, Signature)],
        build: Box<Build>,
    ) -> Result<Arc<Self>, SessionError> {
        let numbers: Vec<u64> = functions.iter().map(|_| engine.hooks.number()).collect();
        let stand_ins = functions.iter().zip(&numbers);
        let stand_ins: Vec<StandIn<'_>> =
            stand_ins.map(|((name, signature), &number)| StandIn { name, signature, number }).collect();
        let shared = Arc::new(Self {
            engine: Arc::downgrade(engine),
            functions: functions.iter().map(|(name, _)| (*name).into()).collect(),
            build,
            stand_ins: OnceLock::new(),
            numbers: numbers.clone(),
            turns: Turns::default(),
            unit: Mutex::default(),
        });
        // The hooks are there before the code that calls them.
        for (function, &number) in numbers.iter().enumerate() {
            hooks::set(number, Arc::new(Call { shared: shared.clone(), function }));
        }
        match Self::link_stand_ins(engine, &stand_ins) {
            Ok(unit) => shared.stand_ins.set(unit).expect("it is set here only"),
            Err(error) => {
                engine.hooks.release(&numbers, &|_| true);
                return Err(error);
            }
        }
        engine.defer(shared.clone());
        Ok(shared)
    }

    fn link_stand_ins(engine: &Engine, stand_ins: &[StandIn<'_>]) -> Result<Unit, SessionError> {
        let settings = ModuleSettings::default();
        let isa = engine.compiler.target().isa(&settings).map_err(|source| {
            SessionError::Compile(CompilerError::Target { module: 0, name: "stand-ins".into(), source })
        })?;
        let module = call_through(stand_ins, COMPILE_NOW, &settings, &*isa);
        // The numbers in the code differ from process to process, so no store wants it.
        let artifacts = engine.compiler.without_store().compile(std::slice::from_ref(&module))?.artifacts;
        engine.link(&artifacts, &[&module.name], Linking::StandIn)
    }

    fn unit(&self) -> MutexGuard<'_, Option<Unit>> {
        self.unit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the compiled module, if it is in memory.
    fn in_memory(&self, engine: &Engine) -> Option<Unit> {
        self.unit().clone().filter(|unit| engine.jit.contains(unit))
    }

    /// Compiles the module, unless it is in memory. Other threads wait meanwhile. This one needs
    /// none of them, unless the client's code does.
    pub(super) fn compile(&self, engine: &Engine) -> Result<Unit, SessionError> {
        if let Some(unit) = self.in_memory(engine) {
            return Ok(unit);
        }
        let Some(turn) = self.turns.take() else {
            return Err(SessionError::Recursion { name: self.functions[0].clone() });
        };
        if self.is_removed(engine) {
            // A thread was in a stand-in when it was removed.
            return Err(SessionError::Removed { name: self.functions[0].clone() });
        }
        // Another thread may have done it meanwhile.
        if let Some(unit) = self.in_memory(engine) {
            return Ok(unit);
        }
        let result = self.build_and_replace(engine);
        if let Ok(unit) = &result {
            *self.unit() = Some(unit.clone());
        }
        drop(turn);
        result
    }

    /// Whether the stand-ins are gone: then nobody can call the module's functions any more.
    fn is_removed(&self, engine: &Engine) -> bool {
        self.stand_ins.get().is_some_and(|unit| !engine.jit.contains(unit))
    }

    fn build_and_replace(&self, engine: &Engine) -> Result<Unit, SessionError> {
        let mut module = (self.build)()
            .map_err(|source| SessionError::Build { name: self.functions[0].clone(), source })?;
        for name in &self.functions {
            let defined = module.symbols.iter_mut().find(|symbol| symbol.name == *name);
            match defined {
                Some(symbol) if symbol.kind == SymbolKind::Function && symbol.linkage != Linkage::Import => {
                    symbol.linkage = Linkage::Replaceable;
                }
                _ => {
                    let (module, name) = (module.name.clone(), name.clone());
                    return Err(SessionError::NotDefined { module, name });
                }
            }
        }
        engine.build_alone(&module, Linking::Replace)
    }
}

impl Deferred for Shared {
    fn finish(&self, engine: &Engine) -> Result<(), SessionError> {
        if self.is_removed(engine) { Ok(()) } else { self.compile(engine).map(drop) }
    }

    fn is_finished(&self, _: &Engine) -> bool {
        // The module may be removed, and is compiled again then; but not without its stand-ins.
        self.stand_ins.get().is_some_and(Unit::is_freed)
    }

    fn end(&self, engine: &Engine) {
        engine.hooks.release(&self.numbers, &|_| true);
    }
}

impl OnDemand {
    /// Compiles the module now, unless it is in memory.
    ///
    /// # Errors
    ///
    /// [`SessionError`], as for [`Session::replace`](super::Session::replace); and if the module
    /// does not define a function that it was registered with, or `build` failed.
    ///
    /// # Panics
    ///
    /// If the session was dropped.
    pub fn compile(&self) -> Result<Unit, SessionError> {
        let engine = self.0.engine.upgrade().expect("the session was dropped");
        self.0.compile(&engine)
    }

    /// Returns the unit of the compiled module, or `None` if it is not in memory.
    pub fn unit(&self) -> Option<Unit> {
        let engine = self.0.engine.upgrade()?;
        self.0.in_memory(&engine)
    }

    /// Removes the module and its stand-ins. Hold a guard where its functions may be called: see
    /// [`Session::remove`](super::Session::remove).
    ///
    /// # Errors
    ///
    /// [`InUseError`] if other units use its functions; then nothing is removed.
    pub fn remove(&self) -> Result<(), InUseError> {
        let Some(engine) = self.0.engine.upgrade() else { return Ok(()) };
        let units: Vec<Unit> = self.0.stand_ins.get().cloned().into_iter().chain(self.unit()).collect();
        engine.jit.remove(&units)?;
        let work: Arc<dyn Deferred> = self.0.clone();
        // While a thread may be in a stand-in, its hook stays.
        if work.is_finished(&engine) {
            engine.forget(&work);
        }
        Ok(())
    }
}
