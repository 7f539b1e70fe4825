//! Cache keys: a hash of everything that native code depends on.
//!
//! A module's key is the hash of its [`Recipe`], and a recipe is made of [`KeyParts`], which is taken apart exhaustively: a field
//! that is added there and not put into the recipe does not compile. So whoever holds an entry's recipe can compute its key anew.

use std::str::FromStr;

use kiln_artifact::FORMAT_VERSION;

use crate::Recipe;
use crate::recipe::Fields;

/// 256 bits that stand for an artifact's inputs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 32]);

impl Key {
    pub(crate) const fn new(bits: [u8; 32]) -> Self {
        Self(bits)
    }

    /// The bits.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether this key is one of a fraction of `1 / one_in` of all keys, the same ones on every machine. For `0` none is, for `1` all are.
    ///
    /// For checks that are too dear for every hit.
    pub fn sampled(&self, one_in: u32) -> bool {
        // The last bytes, because the first ones choose the folder.
        let (_, last) = self.0.split_last_chunk::<8>().expect("a key has 32 bytes");
        one_in != 0 && u64::from_le_bytes(*last).is_multiple_of(u64::from(one_in))
    }
}

/// 128 bits of a hash: enough against accidents, as [`FunctionKey`] says.
fn first_half(hasher: &blake3::Hasher) -> [u8; 16] {
    *hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes")
}

/// Writes bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8], f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        hex(&self.0, f)
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({self})")
    }
}

/// A text that is not 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key: expected 64 hexadecimal digits in lower case")]
pub struct ParseKeyError;

impl FromStr for Key {
    type Err = ParseKeyError;

    /// Reads what `Display` writes, and nothing else: a key has one name.
    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(ParseKeyError),
        };
        let digits: &[u8; 64] = text.as_bytes().try_into().map_err(|_| ParseKeyError)?;
        let mut bits = [0; 32];
        for (byte, pair) in bits.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(bits))
    }
}

/// Everything that native code depends on. The versions of the artifact format and of this crate are added.
#[derive(Clone, Copy, Debug)]
pub struct KeyParts<'a> {
    /// Fingerprint of the module's IR.
    pub fingerprint: &'a [u8; 32],
    /// Names that the artifact carries and the fingerprint leaves out. Only their hash is kept.
    pub names: &'a [u8],
    /// Target triple.
    pub target: &'a str,
    /// All settings of the code generator, shared and of the architecture, in a fixed order, with white space between them.
    pub settings: &'a str,
    /// The code generator and its version.
    pub producer: &'a str,
    /// Revision of whatever turns generated code into artifacts.
    pub revision: u32,
    /// Whatever else the client's code assumes: object layouts, calling conventions of its run-time. Only its hash is kept.
    pub abi: &'a [u8],
}

impl KeyParts<'_> {
    /// The key.
    pub fn key(&self) -> Key {
        self.recipe().key()
    }

    /// What goes into the key, by name.
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

/// 128 bits that stand for a function's inputs.
///
/// Half of a module's, since there are many and they are kept in every entry. It makes no difference to accidents: among 2^40 functions,
/// two share a key with a probability of 2^-49.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionKey([u8; 16]);

impl FunctionKey {
    /// Bytes of a function key.
    pub(crate) const LEN: usize = 16;

    pub(crate) const fn new(bits: [u8; Self::LEN]) -> Self {
        Self(bits)
    }

    /// The bits.
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl std::fmt::Display for FunctionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        hex(&self.0, f)
    }
}

impl std::fmt::Debug for FunctionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FunctionKey({self})")
    }
}

/// Everything that the code of one function depends on. The versions of the artifact format and of this crate are added.
#[derive(Clone, Copy, Debug)]
pub struct FunctionParts<'a> {
    /// Fingerprint, or bytes, of the function's IR.
    pub body: &'a [u8],
    /// What the function's references are, as far as code depends on it: for each its kind, linkage, signature.
    pub references: &'a [u8],
    /// Target triple.
    pub target: &'a str,
    /// All settings of the code generator, as in [`KeyParts::settings`].
    pub settings: &'a str,
    /// The code generator and its version.
    pub producer: &'a str,
    /// Revision of whatever turns generated code into artifacts.
    pub revision: u32,
    /// Whatever else the client's code assumes, as in [`KeyParts::abi`].
    pub abi: &'a [u8],
}

impl FunctionParts<'_> {
    /// The key. Each part is hashed with its length, so no two lists of parts run together.
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
        FunctionKey(first_half(&hasher))
    }
}

/// 128 bits that stand for a module of whatever content: the same module of an earlier build has the same lineage.
///
/// [`Lineage::in_environment`] is that of builds among which functions can be reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lineage([u8; 16]);

impl Lineage {
    /// The module of this name, compiled for this target, with whatever settings.
    ///
    /// Programs that share a store should put their own name before the module's, or each takes the other's modules for its own last
    /// build. That costs reuse and makes explanations odd; it never makes code wrong.
    pub fn new(module: &str, target: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("kiln-cache subject");
        for part in [module, target] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Self(first_half(&hasher))
    }

    /// The module of this name, of all builds whose recipes are of this [environment](Recipe::environment): functions can be reused among them, and not
    /// from others.
    pub fn in_environment(module: &str, environment: &Key) -> Self {
        Self::hashed("kiln-cache subject of a module and a kind", module.as_bytes(), environment)
    }

    /// What a client knows by `key`, of builds of this environment.
    pub fn of_client(key: &[u8], environment: &Key) -> Self {
        Self::hashed("kiln-cache subject of a client's key and a kind", key, environment)
    }

    fn hashed(context: &str, what: &[u8], environment: &Key) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(environment.as_bytes());
        hasher.update(what);
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
