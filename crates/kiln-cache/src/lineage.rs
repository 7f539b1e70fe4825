//! The name under which a store finds a module's last build.

use crate::Key;
use crate::key::{first_half, hex};

/// 128 bits that identify a module whatever its IR: a module keeps its lineage when it is edited.
///
/// A store points from it to the key of the module's last build.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lineage([u8; 16]);

impl Lineage {
    /// The lineage of the module of this name in a program, compiled for this target, with any
    /// settings.
    ///
    /// Programs that share a store should have different names; otherwise each takes the other's
    /// modules for its own last build. That costs reuse and makes explanations odd; it never makes
    /// code wrong.
    pub fn new(program: &str, module: &str, target: &str) -> Self {
        Self::hashed("kiln-cache lineage of a module", [program, module, target].map(str::as_bytes))
    }

    /// The lineage of the module of this name in a program, in an
    /// [environment](crate::Recipe::environment): functions can be reused among its builds.
    pub fn in_environment(program: &str, module: &str, environment: &Key) -> Self {
        let parts = [program.as_bytes(), module.as_bytes(), environment.as_bytes()];
        Self::hashed("kiln-cache lineage of a module in an environment", parts)
    }

    /// The lineage of the module of this name in a program, which this version of the client's
    /// compiler makes from a source with this hash, in an environment.
    pub fn of_source(program: &str, module: &str, compiler: &str, source: &[u8], environment: &Key) -> Self {
        let [program, module, compiler] = [program, module, compiler].map(str::as_bytes);
        let parts = [program, module, compiler, source, environment.as_bytes()];
        Self::hashed("kiln-cache lineage of a client's source", parts)
    }

    /// A hash in its own domain; the names of the domains are part of the format of folders. Each
    /// part is hashed with its length, so no two lists of parts run together.
    fn hashed<const N: usize>(domain: &str, parts: [&[u8]; N]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(domain);
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(first_half(&hasher))
    }

    /// The bits.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl std::fmt::Display for Lineage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        hex(&self.0, f)
    }
}

impl std::fmt::Debug for Lineage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lineage({self})")
    }
}
