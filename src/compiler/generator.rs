//! Code generators, each for one set of settings, and the cache keys of the code that they
//! generate.
//!
//! A compiler makes a code generator once and keeps it, because making one takes as long as
//! compiling a small function. Keys are made only if there is a store.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use cranelift_codegen::isa::OwnedTargetIsa;
use kiln_backend::{Job, Reuse, TargetNames};
use kiln_ir::{Module, ModuleSettings, Target};

use super::error::CompilerError;
use super::keys::Keys;

/// A code generator, and the part that it contributes to cache keys.
pub(super) struct Generator {
    pub(super) isa: OwnedTargetIsa,
    names: TargetNames,
    abi: Arc<[u8]>,
    keys: OnceLock<Keys>,
}

impl Generator {
    /// Makes a job that compiles `module`, but for the functions that are reused.
    pub(super) fn job<'a>(&'a self, module: &'a Module, reuse: &'a [Option<Reuse<'a>>]) -> Job<'a> {
        Job { module, isa: &*self.isa, reuse, names: Some(&self.names) }
    }

    /// Returns the part that all keys of this generator have in common, and makes it at the first
    /// call.
    pub(super) fn keys(&self) -> &Keys {
        self.keys.get_or_init(|| Keys::new(&*self.isa, self.abi.clone()))
    }
}

/// The code generators of a compiler.
#[derive(Default)]
pub(super) struct Generators {
    /// The generator for modules without header lines that matter to it. Most clients need no
    /// other, and find it without a lock.
    plain: OnceLock<Arc<Generator>>,
    /// The generators for other header lines.
    others: RwLock<HashMap<ModuleSettings, Arc<Generator>>>,
}

/// The number of generators that are kept. If a client has more settings than that, it cannot
/// fill the memory with generators: those of further settings are made for each build.
const KEPT: usize = 64;

impl Generators {
    /// Returns the code generator for `module` and its header lines. `index` is the module's
    /// position in the build, for error messages.
    ///
    /// Two threads may both make a generator for the same settings; that is cheaper than making
    /// one wait for the other.
    pub(super) fn get(
        &self,
        target: &Target,
        abi: &Arc<[u8]>,
        index: usize,
        module: &Module,
    ) -> Result<Arc<Generator>, CompilerError> {
        let settings = &module.settings;
        let is_plain = settings.shared.is_empty() && settings.targets.is_empty();
        let known = match is_plain {
            true => self.plain.get().cloned(),
            false => self.others.read().unwrap_or_else(PoisonError::into_inner).get(settings).cloned(),
        };
        if let Some(generator) = known {
            return Ok(generator);
        }
        let isa = target.isa(settings).map_err(|source| CompilerError::Target {
            module: index,
            name: module.name.clone(),
            source,
        })?;
        let names = TargetNames::new(&*isa);
        let generator = Arc::new(Generator { isa, names, abi: abi.clone(), keys: OnceLock::new() });
        if is_plain {
            return Ok(self.plain.get_or_init(|| generator).clone());
        }
        let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
        if others.len() < KEPT {
            others.insert(settings.clone(), generator.clone());
        }
        Ok(generator)
    }
}
