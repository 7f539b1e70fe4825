//! The parts of a session, which the hooks that compiled code calls share with it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use kiln_artifact::Artifact;
use kiln_globals::{Bindings, GlobalTable, Resolve, Signature, SlotKey, Unresolved};
use kiln_ir::{Module, check_program};
use kiln_jit::{CountedEntries, Jit, LinkOptions, Ready, RebindError, Role, Unit};

use super::claims::{self, Claimed, Claims};
use super::error::SessionError;
use super::hooks::{self, Hooks};
use crate::compiler::{Compiled, Compiler, Stats};

/// The client's answer to a function that could not be compiled when it was called.
pub(super) type Rescue = dyn Fn(&str, &SessionError) -> usize + Send + Sync;

/// The client's settings of its process.
#[derive(Default)]
pub(super) struct Host {
    pub(super) bindings: Bindings,
    /// The globals whose order the client fixed.
    pub(super) globals: GlobalTable,
    pub(super) resolver: Option<Arc<dyn Resolve + Send + Sync>>,
    pub(super) rescue: Option<Arc<Rescue>>,
}

/// How definitions of replaceable functions that exist already are taken.
#[derive(Clone, Copy)]
pub(super) enum Linking {
    Add,
    Replace,
    /// They are added as a first tier, whose calls may be counted.
    Tier(Option<CountedEntries>),
    /// They stand in for functions that are compiled when they are called.
    StandIn,
}

impl Linking {
    /// Returns the options for modules with these names.
    fn options<'n>(self, names: &'n [&'n str]) -> LinkOptions<'n> {
        let (replace, role, counted_entries) = match self {
            Self::Add => (false, Role::Program, None),
            Self::Replace => (true, Role::Program, None),
            Self::Tier(counted_entries) => (false, Role::Tier, counted_entries),
            Self::StandIn => (false, Role::StandIn, None),
        };
        LinkOptions { replace, role, names, counted_entries }
    }
}

/// Work on a module that was put off, and that an image needs.
pub(super) trait Deferred: Send + Sync {
    /// Does it, unless it was done.
    fn finish(&self, engine: &Engine) -> Result<(), SessionError>;

    /// Whether there is nothing to do, now and later.
    fn is_finished(&self, engine: &Engine) -> bool;

    /// Forgets what only unfinished work needs. It is called once, when the work is finished.
    fn end(&self, _: &Engine) {}
}

/// The parts of a session.
pub(super) struct Engine {
    pub(super) compiler: Compiler,
    pub(super) jit: Jit,
    host: RwLock<Host>,
    claims: Claims,
    pub(super) stats: Mutex<Stats>,
    pub(super) hooks: Hooks,
    deferred: Mutex<Vec<Arc<dyn Deferred>>>,
}

impl Engine {
    pub(super) fn new(compiler: Compiler, jit: Jit) -> Self {
        Self {
            compiler,
            jit,
            host: RwLock::default(),
            claims: Claims::default(),
            stats: Mutex::default(),
            hooks: Hooks::default(),
            deferred: Mutex::default(),
        }
    }

    pub(super) fn host(&self) -> RwLockReadGuard<'_, Host> {
        self.host.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn with_host<R>(&self, work: impl FnOnce(&mut Host) -> R) -> R {
        work(&mut self.host.write().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn rescue(&self) -> Option<Arc<Rescue>> {
        self.host().rescue.clone()
    }

    fn deferred(&self) -> MutexGuard<'_, Vec<Arc<dyn Deferred>>> {
        self.deferred.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds work that an image needs. Work that is finished for good is no longer looked after.
    pub(super) fn defer(&self, work: Arc<dyn Deferred>) {
        let mut deferred = self.deferred();
        let mut finished = Vec::new();
        // Seldom, so that many additions take time in proportion to their number.
        if deferred.len().is_power_of_two() {
            (*deferred, finished) =
                std::mem::take(&mut *deferred).into_iter().partition(|work| !work.is_finished(self));
        }
        deferred.push(work);
        // What the client gave is dropped without the lock.
        drop(deferred);
        finished.iter().for_each(|work| work.end(self));
    }

    /// Forgets work that is finished.
    pub(super) fn forget(&self, work: &Arc<dyn Deferred>) {
        let mut deferred = self.deferred();
        let place = deferred.iter().position(|known| Arc::ptr_eq(known, work));
        let removed = place.map(|place| deferred.remove(place));
        drop(deferred);
        if let Some(work) = removed {
            work.end(self);
        }
    }

    /// Does all work that an image needs and that was put off.
    pub(super) fn finish_deferred(&self) -> Result<(), SessionError> {
        let deferred = self.deferred().clone();
        deferred.iter().try_for_each(|work| work.finish(self))
    }

    /// Changes a binding, under a lock, so that a link that asks again sees the new one.
    pub(super) fn rebind<R>(
        &self,
        key: SlotKey,
        address: usize,
        bind: impl FnOnce(&mut Host) -> R,
    ) -> Result<R, RebindError> {
        self.with_host(|host| {
            self.jit.rebind(&key, address)?;
            Ok(bind(host))
        })
    }

    /// Changes the binding of a function, as [`rebind`](Self::rebind) does.
    pub(super) fn rebind_function(
        &self,
        name: &str,
        address: usize,
        signature: &Signature,
    ) -> Result<(), RebindError> {
        self.with_host(|host| {
            self.jit.rebind_function(&SlotKey::Symbol(name.into()), address, signature)?;
            host.bindings.bind_function(name, address, signature);
            Ok(())
        })
    }

    /// Adds modules, unless all their definitions are there or are being added.
    pub(super) fn build_once(&self, modules: &[Module]) -> Result<Unit, SessionError> {
        loop {
            let claim = match self.claims.claim(modules) {
                Claimed::Own(claim) => Some(claim),
                // The other thread may wait for this one, or be interrupted on it, so this compiles
                // too, and the first that is linked wins.
                Claimed::Other(_) if rayon::current_thread_index().is_some() => None,
                Claimed::Other(_) => {
                    self.claims.wait(modules);
                    continue;
                }
            };
            if let Some(unit) = self.defined(modules) {
                return Ok(unit);
            }
            let built = self.build_claimed(modules, Linking::Add);
            drop(claim);
            return built.or_else(|error| self.defined(modules).ok_or(error));
        }
    }

    /// Returns the unit that defines everything that `modules` define for others.
    pub(super) fn defined(&self, modules: &[Module]) -> Option<Unit> {
        let mut names = claims::definitions(modules);
        let unit = self.jit.unit_of(names.next()?)?;
        names.all(|name| self.jit.unit_of(name).as_ref() == Some(&unit)).then_some(unit)
    }

    pub(super) fn build(&self, modules: &[Module], linking: Linking) -> Result<Unit, SessionError> {
        // Definitions are claimed before they are compiled, so that no two threads compile one.
        match self.claims.claim(modules) {
            Claimed::Own(_claim) => self.build_claimed(modules, linking),
            Claimed::Other(name) => {
                let has_it = |module: &&Module| {
                    claims::definitions(std::slice::from_ref(*module)).any(|own| own == &*name)
                };
                let module = modules.iter().find(has_it).map_or("".into(), |module| module.name.clone());
                Err(SessionError::Claimed { module, name })
            }
        }
    }

    pub(super) fn build_claimed(&self, modules: &[Module], linking: Linking) -> Result<Unit, SessionError> {
        let diagnostics = check_program(&modules.iter().collect::<Vec<_>>());
        if !diagnostics.is_empty() {
            return Err(SessionError::Check(diagnostics));
        }
        let compiled = match linking {
            // Calls that are inlined are not counted.
            Linking::Tier(_) => self.compiler.without_inlining().compile(modules)?,
            _ => self.compiler.compile(modules)?,
        };
        let names: Vec<&str> = modules.iter().map(|module| &*module.name).collect();
        self.link_compiled(compiled, &names, linking)
    }

    /// Compiles a module on this thread, for which others may wait, and links it.
    pub(super) fn build_alone(&self, module: &Module, linking: Linking) -> Result<Unit, SessionError> {
        let diagnostics = check_program(&[module]);
        if !diagnostics.is_empty() {
            return Err(SessionError::Check(diagnostics));
        }
        self.link_compiled(self.compiler.compile_here(module)?, &[&module.name], linking)
    }

    pub(super) fn add_stats(&self, stats: Stats) {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner) += stats;
    }

    pub(super) fn link_compiled(
        &self,
        compiled: Compiled,
        names: &[&str],
        linking: Linking,
    ) -> Result<Unit, SessionError> {
        let Compiled { artifacts, stats, samples } = compiled;
        let unit = self.link(&artifacts, names, linking)?;
        self.add_stats(stats);
        self.compiler.verify_in_background(samples);
        Ok(unit)
    }

    /// Links artifacts; `names` are the names of their modules, or empty.
    pub(super) fn link(
        &self,
        artifacts: &[Artifact],
        names: &[&str],
        linking: Linking,
    ) -> Result<Unit, SessionError> {
        // Not in the pool, whose threads could start tasks meanwhile that wait for this link.
        Ok(self.jit.link_with(linking.options(names), artifacts, &EngineResolver(self))?)
    }

    /// Puts artifacts into memory, and does not publish them.
    pub(super) fn ready<'a>(
        &'a self,
        artifacts: &'a [Artifact],
        linking: Linking,
    ) -> Result<Ready<'a, 'a>, SessionError> {
        Ok(self.jit.ready(linking.options(&[]), artifacts, &EngineResolver(self))?)
    }

    pub(super) fn globals_of(&self, artifacts: &[Artifact]) -> GlobalTable {
        let mut globals = self.host().globals.clone();
        artifacts.iter().flat_map(Artifact::globals).for_each(|key| {
            globals.intern(key);
        });
        globals
    }
}

/// Asks the bindings, then the client's resolver, then the process.
pub(super) struct EngineResolver<'s>(pub(super) &'s Engine);

impl Resolve for EngineResolver<'_> {
    fn resolve(&self, key: &SlotKey, expected: Option<&str>) -> Result<usize, Unresolved> {
        if let Some(hook) = hooks::resolve(key) {
            return Ok(hook);
        }
        let host = self.0.host();
        let bound = host.bindings.resolve(key, expected);
        // The client's code runs without the lock.
        let resolver = host.resolver.clone();
        drop(host);
        let next = || kiln_jit::libcalls::process.resolve(key, expected);
        match (bound, resolver) {
            (Err(Unresolved::Unknown), Some(resolver)) => match resolver.resolve(key, expected) {
                Err(Unresolved::Unknown) => next(),
                known => known,
            },
            (Err(Unresolved::Unknown), None) => next(),
            (known, _) => known,
        }
    }
}
