//! Builds in which calls between modules are inlined.
//!
//! Modules are inlined into each other before anything else is done with them, and then compiled as
//! any other modules. So the key of a module and those of its functions, which are hashes of IR,
//! contain what was inlined.
//!
//! The client's key of a [`Lazy`] module says nothing about other modules. With inlining, a hash of
//! the keys of all modules is added to it. If any of them changes, none is found by its client's
//! key: all are built and inlined, and then those that did not change are found by the keys of
//! their IR.

use std::num::NonZeroU32;

use cranelift_codegen::isa::TargetIsa;
use kiln_cache::Key;
use kiln_ir::{InlinedModule, Inlining, Module};
use rayon::prelude::*;

use super::compile_lazy::{Done, all, join, unbuilt};
use super::error::{CompilerError, LazyError};
use super::lazy::{Lazy, LazyKey};
use super::verify::Verify;
use super::{Compiled, Compiler};

/// Adds what the keys of all modules say to the key of each, and returns it; if one of them has no
/// key, nobody knows whether it has changed, so all keys are taken away.
fn join_keys<E>(modules: &mut [Lazy<'_, E>], inlining: Inlining) -> Option<Key> {
    let mut hasher = blake3::Hasher::new_derive_key("kiln keys of modules that are inlined");
    let Inlining { size, .. } = inlining;
    hasher.update(&Inlining::REVISION.to_le_bytes());
    hasher.update(&size.to_le_bytes());
    // The order of modules changes nothing.
    let mut all: Vec<(&str, Option<&LazyKey>)> =
        modules.iter().map(|lazy| (&*lazy.name, lazy.key.as_ref())).collect();
    all.sort_unstable_by_key(|(name, key)| (*name, key.map(|key| (&key.compiler_version, &key.source_hash))));
    let mut is_keyed = true;
    for (name, key) in all {
        let Some(LazyKey { compiler_version, source_hash }) = key else {
            is_keyed = false;
            break;
        };
        for part in [name.as_bytes(), compiler_version.as_bytes(), source_hash] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    let joined = is_keyed.then(|| Key::from_bytes(*hasher.finalize().as_bytes()));
    for lazy in modules {
        lazy.key = lazy.key.take().zip(joined).map(|(key, joined)| LazyKey {
            source_hash: [&*key.source_hash, joined.as_bytes()].concat().into(),
            ..key
        });
    }
    joined
}

impl Compiler {
    /// Returns this compiler without inlining.
    pub(crate) fn without_inlining(&self) -> Self {
        Self { inlining: None, ..self.clone() }
    }

    /// Inlines, then compiles or looks up.
    pub(super) fn compile_inlined(
        &self,
        modules: &[Module],
        inlining: Inlining,
    ) -> Result<Compiled, CompilerError> {
        let plain = self.without_inlining();
        let (inlined, calls) = self.inlined(modules, inlining)?;
        if calls == 0 {
            return plain.compile(modules);
        }
        let module = |(inlined, module): (Option<InlinedModule>, &Module)| {
            inlined.map_or_else(|| module.clone(), |inlined| inlined.module)
        };
        let modules: Vec<Module> = inlined.into_iter().zip(modules).map(module).collect();
        let mut compiled = plain.compile(&modules)?;
        compiled.stats.inlined_calls += calls;
        Ok(compiled)
    }

    /// Returns the modules that inlining changes, and the number of calls that are inlined.
    fn inlined(
        &self,
        modules: &[Module],
        inlining: Inlining,
    ) -> Result<(Vec<Option<InlinedModule>>, usize), CompilerError> {
        let generators = self.generators(modules)?;
        let isas: Vec<&dyn TargetIsa> = generators.iter().map(|generator| &*generator.isa).collect();
        let inlined = {
            #[cfg(feature = "tracing")]
            let span = tracing::debug_span!("inline", outcome = tracing::field::Empty).entered();
            let inlined = match kiln_backend::is_small(modules) {
                true => kiln_ir::inline(modules, &isas, inlining, false),
                false => self.install(|| kiln_ir::inline(modules, &isas, inlining, true)),
            };
            #[cfg(feature = "tracing")]
            span.record("outcome", &*format!("{} calls", count(&inlined)));
            inlined
        };
        let calls = count(&inlined);
        Ok((inlined, calls))
    }

    /// Does what [`compile_lazy`](Self::compile_lazy) does, and inlines.
    pub(super) fn compile_lazy_inlined<E: Send>(
        &self,
        mut modules: Vec<Lazy<'_, E>>,
        inlining: Inlining,
    ) -> Result<Compiled, Vec<LazyError<E>>> {
        let joined = join_keys(&mut modules, inlining);
        // If one module is to be verified, all are built. So all are chosen, or none.
        let is_chosen = joined.is_some_and(|joined| self.cache.verify.samples(&joined));
        if !is_chosen && let Some(compiled) = self.all_unbuilt(&modules) {
            return Ok(compiled);
        }
        let build = |(module, lazy): (usize, Lazy<'_, E>)| {
            let Lazy { name, key, build } = lazy;
            #[cfg(feature = "tracing")]
            let _span = tracing::debug_span!("read", module = &*name).entered();
            match build() {
                Ok(module) => Ok(((name, key), module)),
                Err(error) => Err(LazyError::Build { module, name, error }),
            }
        };
        let built: Vec<Result<_, LazyError<E>>> =
            self.install(|| modules.into_par_iter().enumerate().with_max_len(1).map(build).collect());
        let (keys, modules): (Vec<_>, Vec<Module>) = all(built)?.into_iter().unzip();
        let (inlined, calls) =
            self.inlined(&modules, inlining).map_err(|error| vec![LazyError::Compile(error)])?;
        let lazy = keys.into_iter().zip(modules.into_iter().zip(inlined)).map(|((name, key), module)| {
            let (module, inlined) = module;
            let module = inlined.map_or(module, |inlined| inlined.module);
            Lazy { name, key, build: Box::new(move || Ok(module)) }
        });
        let plain = self.without_inlining();
        let plain = if is_chosen { plain.verify(Verify::Sample(NonZeroU32::MIN)) } else { plain };
        let mut compiled = plain.compile_lazy(lazy.collect())?;
        compiled.stats.inlined_calls += calls;
        Ok(compiled)
    }

    /// Returns the code of all modules, if the store has all of them by the clients' keys.
    fn all_unbuilt<E>(&self, modules: &[Lazy<'_, E>]) -> Option<Compiled> {
        let store = self.cache.store.as_deref()?;
        let clients = self.announce_lazy(modules, self.plain_keys().as_ref());
        if clients.len() != modules.len() {
            return None;
        }
        let names: Vec<&str> = modules.iter().map(Lazy::name).collect();
        let done: Vec<Done> = self.install(|| {
            // No entry is read before it is known that the store has heard of all.
            if !clients.par_iter().all(|client| store.latest(client).is_some()) {
                return None;
            }
            let pairs = names.par_iter().zip(&clients);
            pairs.map(|(name, client)| self.cache.look_up_unbuilt(name, client).map(unbuilt)).collect()
        })?;
        Some(join(done))
    }
}

fn count(inlined: &[Option<InlinedModule>]) -> usize {
    inlined.iter().flatten().map(|inlined| inlined.calls).sum()
}
