//! A code generator for one set of settings, and the cache keys of the code that it generates.

use std::sync::Arc;

use cranelift_codegen::isa::OwnedTargetIsa;
use kiln_ir::{Module, Target};

use super::error::CompilerError;
use super::keys::Keys;

/// A code generator, and the part that it contributes to cache keys.
pub(super) struct Generator {
    pub(super) isa: OwnedTargetIsa,
    pub(super) keys: Keys,
}

impl Generator {
    /// Creates the code generator for `module` and its header lines. `index` is the module's
    /// position in the build, for error messages.
    pub(super) fn new(
        target: &Target,
        abi: &Arc<[u8]>,
        index: usize,
        module: &Module,
    ) -> Result<Self, CompilerError> {
        let isa = target.isa(&module.settings).map_err(|source| CompilerError::Target {
            module: index,
            name: module.name.clone(),
            source,
        })?;
        Ok(Self { keys: Keys::new(&*isa, abi.clone()), isa })
    }
}
