//! The parts of keys: everything that code depends on.
//!
//! The code destructures the structs with every field named, so a new field that is left out of the
//! key is a compile error.
//!
//! The versions of Cranelift and of its register allocator are parts. Both are pinned in
//! Cargo.toml, the allocator because Cranelift would accept later versions, which may make
//! different code.

use kiln_artifact::FORMAT_VERSION;

use crate::key::first_half;
use crate::recipe::Fields;
use crate::{FunctionKey, Key, Recipe};

/// Everything that the code of a module depends on. The versions of the artifact format and of this
/// crate are added.
#[derive(Clone, Copy, Debug)]
pub struct KeyParts<'a> {
    /// Fingerprint of the module's IR.
    pub fingerprint: &'a [u8; 32],
    /// Names that the artifact carries and the fingerprint leaves out. Only their hash is kept.
    pub names: &'a [u8],
    /// Target triple.
    pub target: &'a str,
    /// All settings of the code generator, both general and specific to the architecture, in a
    /// fixed order, with white space between them.
    pub settings: &'a str,
    /// The code generator and its version.
    pub producer: &'a str,
    /// Revision of whatever turns generated code into artifacts.
    pub revision: u32,
    /// Everything else that the client's code assumes: object layouts, calling conventions of its
    /// run-time. Only its hash is kept.
    pub abi: &'a [u8],
}

impl KeyParts<'_> {
    /// Returns the key.
    pub fn key(&self) -> Key {
        self.recipe().key()
    }

    /// Returns the recipe of the key.
    pub fn recipe(&self) -> Recipe {
        let Self { fingerprint, names, target, settings, producer, revision, abi } = *self;
        Recipe::new(Fields {
            format_version: FORMAT_VERSION,
            crate_version: env!("CARGO_PKG_VERSION").into(),
            producer: producer.into(),
            revision,
            target: target.into(),
            settings: settings.into(),
            abi: *blake3::hash(abi).as_bytes(),
            fingerprint: *fingerprint,
            names: *blake3::hash(names).as_bytes(),
        })
    }
}

impl Recipe {
    /// Returns the recipe that a module with these parts has in this environment, whose ABI it
    /// takes; `None` if any other part of the environment differs. A program that has no ABI of its
    /// own checks with it that it would make the code that this recipe is for.
    pub fn for_module(&self, parts: &KeyParts<'_>) -> Option<Self> {
        let recipe = parts.recipe();
        let recipe = Self::new(Fields { abi: self.fields().abi, ..recipe.fields().clone() });
        recipe.same_environment(self).then_some(recipe)
    }
}

/// Everything that the code of one function depends on. The versions of the artifact format and of
/// this crate are added.
#[derive(Clone, Copy, Debug)]
pub struct FunctionParts<'a> {
    /// Fingerprint, or bytes, of the function's IR.
    pub body: &'a [u8],
    /// The properties of the function's references on which code depends: kind, linkage and
    /// signature of each.
    pub references: &'a [u8],
    /// Target triple.
    pub target: &'a str,
    /// All settings of the code generator, as in [`KeyParts::settings`].
    pub settings: &'a str,
    /// The code generator and its version.
    pub producer: &'a str,
    /// Revision of whatever turns generated code into artifacts.
    pub revision: u32,
    /// Everything else that the client's code assumes, as in [`KeyParts::abi`].
    pub abi: &'a [u8],
}

impl FunctionParts<'_> {
    /// Returns the key. Each part is hashed with its length, so different lists of parts never give
    /// the same input to the hash.
    pub fn key(&self) -> FunctionKey {
        let Self { body, references, target, settings, producer, revision, abi } = *self;
        let mut hasher = blake3::Hasher::new_derive_key("kiln-cache key of a function");
        let parts: [&[u8]; 9] = [
            &FORMAT_VERSION.to_le_bytes(),
            env!("CARGO_PKG_VERSION").as_bytes(),
            target.as_bytes(),
            settings.as_bytes(),
            producer.as_bytes(),
            &revision.to_le_bytes(),
            abi,
            references,
            body,
        ];
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        FunctionKey::new(first_half(&hasher))
    }
}
