//! The identifier under which a store finds a module's last build.

use crate::Key;
use crate::key::{first_half, from_hex, hex};

/// The bit of the last byte that says that a lineage is that of a source.
const OF_SOURCE: u8 = 1;

/// 128 bits that identify a module whatever its IR: a module keeps its lineage when it is edited.
///
/// A store maps a lineage to the key of the module's last build.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lineage([u8; 16]);

impl Lineage {
    /// Returns the lineage of a module of a program, compiled for a target with any settings.
    ///
    /// Programs that share a store should have different names; otherwise each takes the other's
    /// modules for its own last build. That costs reuse and makes explanations odd; it never makes
    /// code wrong.
    pub fn new(program: &str, module: &str, target: &str) -> Self {
        Self::hashed("kiln-cache lineage of a module", [program, module, target].map(str::as_bytes))
    }

    /// Returns the lineage of a module of a program in an
    /// [environment](crate::Recipe::environment). Builds of this lineage can reuse each other's
    /// functions.
    pub fn in_environment(program: &str, module: &str, environment: &Key) -> Self {
        let parts = [program.as_bytes(), module.as_bytes(), environment.as_bytes()];
        Self::hashed("kiln-cache lineage of a module in an environment", parts)
    }

    /// Returns the lineage of a module of a program in an environment, made by the client's
    /// compiler of version `compiler` from a source with the hash `source`.
    pub fn of_source(program: &str, module: &str, compiler: &str, source: &[u8], environment: &Key) -> Self {
        let [program, module, compiler] = [program, module, compiler].map(str::as_bytes);
        let parts = [program, module, compiler, source, environment.as_bytes()];
        let Self(mut bits) = Self::hashed("kiln-cache lineage of a client's source", parts);
        bits[15] |= OF_SOURCE;
        Self(bits)
    }

    /// Hashes `parts` in the hash domain `domain`. Changing the name of a domain changes the format
    /// of folders. Each part is hashed with its length, so different lists of parts never give the
    /// same input to the hash.
    fn hashed<const N: usize>(domain: &str, parts: [&[u8]; N]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(domain);
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let mut bits = first_half(&hasher);
        bits[15] &= !OF_SOURCE;
        Self(bits)
    }

    /// Returns whether this is a lineage [of a source](Lineage::of_source). It always leads to the
    /// same key, while the others lead to another one after each edit. So stores that many machines
    /// share keep only such lineages.
    pub fn is_of_source(&self) -> bool {
        self.0[15] & OF_SOURCE != 0
    }

    /// Returns the lineage with these bits, which [`Lineage::as_bytes`] gave.
    pub const fn from_bytes(bits: [u8; 16]) -> Self {
        Self(bits)
    }

    /// Returns the bits.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// A text is not 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a lineage: expected 32 hexadecimal digits in lower case")]
pub struct ParseLineageError;

impl std::str::FromStr for Lineage {
    type Err = ParseLineageError;

    fn from_str(text: &str) -> Result<Self, ParseLineageError> {
        from_hex(text).map(Self).ok_or(ParseLineageError)
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
