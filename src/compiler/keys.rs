//! Cache keys of modules and functions for one code generator.
//!
//! The environment, which is everything that the keys of a build have in common (target, settings,
//! versions, the client's ABI), is gathered once.

use std::sync::Arc;

use cranelift_codegen::isa::TargetIsa;
use kiln_backend::{PRODUCER, REVISION, reference_classes, settings_text};
use kiln_cache::{FunctionKey, FunctionParts, Key, KeyParts, Lineage, Recipe};
use kiln_ir::{Code, Module};

use super::lazy::LazyKey;

/// The common part of the keys of one code generator.
pub(super) struct Keys {
    target: String,
    settings: String,
    abi: Arc<[u8]>,
    /// All of the above in one hash.
    environment: Key,
    /// The environment as text: a part of every function's key.
    environment_text: String,
}

impl Keys {
    pub(super) fn new(isa: &dyn TargetIsa, abi: Arc<[u8]>) -> Self {
        let settings = settings_text(isa);
        let target = isa.triple().to_string();
        let environment = recipe(&target, &settings, &abi, &[0; 32], b"").environment();
        Self { target, settings, abi, environment, environment_text: environment.to_string() }
    }

    /// Returns the recipe of `module`'s key.
    pub(super) fn module(&self, module: &Module) -> Recipe {
        let Self { target, settings, abi, environment: _, environment_text: _ } = self;
        let (fingerprint, names) = (module.fingerprint(), module.local_names_fingerprint());
        recipe(target, settings, abi, fingerprint.as_bytes(), names.as_bytes())
    }

    /// Returns the lineage of the lazy module `module` of `program`, which the client identifies by
    /// `key`.
    pub(super) fn client(&self, program: &str, module: &str, key: &LazyKey) -> Lineage {
        let LazyKey { compiler_version, source_hash } = key;
        Lineage::of_source(program, module, compiler_version, source_hash, &self.environment)
    }

    /// Returns the keys of `module`'s functions, in order.
    pub(super) fn functions(&self, module: &Module) -> Vec<FunctionKey> {
        let Self { target, environment_text, .. } = self;
        let key = |function: &kiln_ir::Function| {
            let (body, references) = match &function.code {
                Code::Ir(body) => (body.as_bytes(), reference_classes(module, function)),
                // Machine code is copied and never compiled, so reuse would save nothing.
                Code::Machine(code) => (&*code.bytes, b"machine code".to_vec()),
            };
            let (producer, revision) = (PRODUCER, REVISION);
            let parts = FunctionParts {
                body,
                references: &references,
                target,
                settings: environment_text,
                producer,
                revision,
                abi: b"",
            };
            parts.key()
        };
        module.functions.iter().map(key).collect()
    }
}

fn recipe(target: &str, settings: &str, abi: &[u8], fingerprint: &[u8; 32], names: &[u8]) -> Recipe {
    KeyParts { fingerprint, names, target, settings, producer: PRODUCER, revision: REVISION, abi }.recipe()
}
