//! Cache keys of modules and functions for one code generator.
//!
//! Everything that is the same for all modules of a build is gathered once: target, settings, versions, the client's hash.

use std::sync::Arc;

use cranelift_codegen::isa::TargetIsa;
use kiln_backend::{PRODUCER, REVISION, reference_classes};
use kiln_cache::{FunctionKey, FunctionParts, Key, KeyParts, Lineage, Recipe};
use kiln_ir::{Code, Module};

/// What keys have in common.
pub(super) struct Keys {
    target: String,
    settings: String,
    abi: Arc<[u8]>,
    /// All of this in one key.
    environment: Key,
    /// The same as text, for the keys of functions, of which there are many.
    common: String,
}

impl Keys {
    pub(super) fn new(isa: &dyn TargetIsa, abi: Arc<[u8]>) -> Self {
        // Both lists are in Cranelift's fixed order and hold every setting, defaults included.
        let flags = isa.flags().iter().chain(isa.isa_flags());
        let settings = flags.map(|flag| flag.to_string()).collect::<Vec<_>>().join(" ");
        let target = isa.triple().to_string();
        let environment = recipe(&target, &settings, &abi, &[0; 32], b"").environment();
        Self { target, settings, abi, environment, common: environment.to_string() }
    }

    /// Of a module by its IR.
    pub(super) fn module(&self, module: &Module) -> Recipe {
        let Self { target, settings, abi, environment: _, common: _ } = self;
        let (fingerprint, names) = (module.fingerprint(), module.local_names_fingerprint());
        recipe(target, settings, abi, fingerprint.as_bytes(), names.as_bytes())
    }

    /// Of a module by a key of the client.
    pub(super) fn client(&self, key: &[u8]) -> Lineage {
        Lineage::of_client(key, &self.environment)
    }

    /// Of a module's functions, in order.
    pub(super) fn functions(&self, module: &Module) -> Vec<FunctionKey> {
        let Self { target, common, .. } = self;
        let key = |function: &kiln_ir::Function| {
            let (body, references) = match &function.code {
                Code::Ir(body) => (body.as_bytes(), reference_classes(module, function)),
                // Not worth a key of its own, for it is not compiled.
                Code::Machine(code) => (&*code.bytes, b"machine code".to_vec()),
            };
            let (producer, revision) = (PRODUCER, REVISION);
            let parts = FunctionParts {
                body,
                references: &references,
                target,
                settings: common,
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
