//! The name under which a store finds a module's last build.

use crate::Key;
use crate::key::{first_half, hex};

/// 128 bits that identify a module whatever its IR: a module keeps its lineage when it is edited.
///
/// A store points from it to the key of the module's last build.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lineage([u8; 16]);

impl Lineage {
    /// The lineage of the module of this name, compiled for this target, with any settings.
    ///
    /// Programs that share a store should put their own name before the module's; otherwise each
    /// takes the other's modules for its own last build. That costs reuse and makes explanations
    /// misleading; it never makes code wrong.
    pub fn new(module: &str, target: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("kiln-cache subject");
        for part in [module, target] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Self(first_half(&hasher))
    }

    /// The lineage of the module of this name in an [environment](crate::Recipe::environment):
    /// functions can be reused among its builds.
    pub fn in_environment(module: &str, environment: &Key) -> Self {
        Self::hashed("kiln-cache subject of a module and a kind", module.as_bytes(), environment)
    }

    /// The lineage of what a client knows by `key`, in an environment.
    pub fn of_client(key: &[u8], environment: &Key) -> Self {
        Self::hashed("kiln-cache subject of a client's key and a kind", key, environment)
    }

    /// A hash in its own domain. The names of the domains are part of the format of folders.
    fn hashed(domain: &str, name: &[u8], environment: &Key) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(domain);
        hasher.update(environment.as_bytes());
        hasher.update(name);
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
