//! A recipe: the parts of a key as separate fields, so that a miss can be explained.
//!
//! Settings are kept as text, since a person asks *which* setting differs; long or secret parts
//! (IR, names, the client's ABI) are kept as hashes. The byte form is canonical: equal recipes have
//! equal bytes, and other bytes are refused. A module's key is the hash of these bytes.
//!
//! The byte form, with numbers in little-endian order: format version (`u32`), revision (`u32`),
//! three hashes of 32 bytes (ABI, fingerprint, names), then four texts (crate version, producer,
//! target, settings), each after its length (`u32`).

use std::fmt;
use std::sync::Arc;

use crate::{EntryError, Key};

/// The parts of a module's key, by name. It is cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Recipe(Arc<Fields>);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Fields {
    pub(crate) format_version: u32,
    pub(crate) crate_version: Box<str>,
    pub(crate) producer: Box<str>,
    pub(crate) revision: u32,
    pub(crate) target: Box<str>,
    pub(crate) settings: Box<str>,
    pub(crate) abi: [u8; 32],
    pub(crate) fingerprint: [u8; 32],
    pub(crate) names: [u8; 32],
}

impl fmt::Debug for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipe({} for {})", self.key(), self.0.target)
    }
}

impl Recipe {
    pub(crate) fn new(fields: Fields) -> Self {
        Self(Arc::new(fields))
    }

    pub(crate) fn fields(&self) -> &Fields {
        &self.0
    }

    /// Returns the key that this recipe describes.
    pub fn key(&self) -> Key {
        let mut hasher = blake3::Hasher::new_derive_key("kiln-cache key of a module");
        hasher.update(&self.to_bytes());
        Key::from_bytes(*hasher.finalize().as_bytes())
    }

    /// Target triple.
    pub fn target(&self) -> &str {
        &self.0.target
    }

    /// All settings, as [`KeyParts::settings`](crate::KeyParts::settings).
    pub fn settings(&self) -> &str {
        &self.0.settings
    }

    /// The code generator and its version.
    pub fn producer(&self) -> &str {
        &self.0.producer
    }

    /// Revision of whatever turns generated code into artifacts.
    pub fn revision(&self) -> u32 {
        self.0.revision
    }

    /// Version of the artifact format.
    pub fn format_version(&self) -> u32 {
        self.0.format_version
    }

    /// Version of this crate that made the recipe.
    pub fn crate_version(&self) -> &str {
        &self.0.crate_version
    }

    /// Fingerprint of the module's IR.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.0.fingerprint
    }

    /// BLAKE3 of [`KeyParts::abi`](crate::KeyParts::abi).
    pub fn abi(&self) -> &[u8; 32] {
        &self.0.abi
    }

    /// BLAKE3 of [`KeyParts::names`](crate::KeyParts::names).
    pub fn names(&self) -> &[u8; 32] {
        &self.0.names
    }

    /// Returns whether both recipes have the same environment, which is everything except the
    /// module's IR and names. If so, builds of one can reuse functions of the other.
    pub fn same_environment(&self, other: &Self) -> bool {
        // Every field is named, so that a new field is a compile error until it is compared or
        // ignored here.
        let Fields {
            format_version,
            crate_version,
            producer,
            revision,
            target,
            settings,
            abi,
            fingerprint: _,
            names: _,
        } = &*other.0;
        let own = &*self.0;
        (own.format_version, own.revision, own.abi) == (*format_version, *revision, *abi)
            && (&own.crate_version, &own.producer) == (crate_version, producer)
            && (&own.target, &own.settings) == (target, settings)
    }

    /// Returns the environment of this recipe as a key: a hash of everything except the module's IR
    /// and names.
    pub fn environment(&self) -> Key {
        Self::new(Fields { fingerprint: [0; 32], names: [0; 32], ..(*self.0).clone() }).key()
    }

    /// Returns the byte form, which [`Recipe::from_bytes`] reads.
    ///
    /// # Panics
    ///
    /// If a text is longer than 4 GiB.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Every field is named, so that a new field is a compile error until it is written here:
        // otherwise keys would leave it out.
        let Fields {
            format_version,
            crate_version,
            producer,
            revision,
            target,
            settings,
            abi,
            fingerprint,
            names,
        } = &*self.0;
        let texts = [crate_version, producer, target, settings];
        let mut out = Vec::with_capacity(8 + 3 * 32 + texts.iter().map(|text| 4 + text.len()).sum::<usize>());
        out.extend_from_slice(&format_version.to_le_bytes());
        out.extend_from_slice(&revision.to_le_bytes());
        for hash in [abi, fingerprint, names] {
            out.extend_from_slice(hash);
        }
        for text in texts {
            let len = u32::try_from(text.len()).expect("a text of a recipe is shorter than 4 GiB");
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        out
    }

    /// Reads a recipe from untrusted bytes.
    ///
    /// # Errors
    ///
    /// [`EntryError::Recipe`] if they are not what [`Recipe::to_bytes`] makes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EntryError> {
        Self::parse(bytes).ok_or(EntryError::Recipe)
    }

    fn parse(mut bytes: &[u8]) -> Option<Self> {
        fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
            let (chunk, rest) = bytes.split_first_chunk()?;
            *bytes = rest;
            Some(*chunk)
        }
        fn text(bytes: &mut &[u8]) -> Option<Box<str>> {
            let len = u32::from_le_bytes(take(bytes)?);
            let (text, rest) = bytes.split_at_checked(usize::try_from(len).ok()?)?;
            *bytes = rest;
            Some(std::str::from_utf8(text).ok()?.into())
        }
        let bytes = &mut bytes;
        let format_version = u32::from_le_bytes(take(bytes)?);
        let revision = u32::from_le_bytes(take(bytes)?);
        let (abi, fingerprint, names) = (take(bytes)?, take(bytes)?, take(bytes)?);
        let (crate_version, producer) = (text(bytes)?, text(bytes)?);
        let (target, settings) = (text(bytes)?, text(bytes)?);
        bytes.is_empty().then(|| {
            Self::new(Fields {
                format_version,
                crate_version,
                producer,
                revision,
                target,
                settings,
                abi,
                fingerprint,
                names,
            })
        })
    }
}
