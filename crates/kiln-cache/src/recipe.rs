//! What went into a key, by name, so that a miss can be explained.
//!
//! Settings are kept as text, since a person asks *which* setting differs; what is long or secret (IR, names, the client's ABI) is
//! kept as a hash. The byte form is canonical: equal recipes have equal bytes, and reading accepts nothing else.
//!
//! Byte form, numbers little-endian: format version (`u32`), revision (`u32`), three hashes of 32 bytes (ABI, fingerprint, names),
//! then four texts (crate version, producer, target, settings), each with its length (`u32`) before it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::{EntryError, Key};

/// What went into a key, by name. Cheap to clone.
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

/// A part of a recipe.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Field {
    /// Version of the artifact format.
    FormatVersion,
    /// Version of this crate.
    CrateVersion,
    /// The code generator and its version.
    Producer,
    /// Revision of whatever turns generated code into artifacts.
    Revision,
    /// Target triple.
    Target,
    /// One setting, by its name.
    Setting(Box<str>),
    /// The settings as a whole: each is the same, but not the text.
    Settings,
    /// What else the client's code assumes.
    Abi,
    /// The module's IR.
    Fingerprint,
    /// The module's local names.
    Names,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FormatVersion => f.write_str("artifact format"),
            Self::CrateVersion => f.write_str("version of the cache"),
            Self::Producer => f.write_str("code generator"),
            Self::Revision => f.write_str("revision of the backend"),
            Self::Target => f.write_str("target"),
            Self::Setting(name) => write!(f, "setting {name}"),
            Self::Settings => f.write_str("order of settings"),
            Self::Abi => f.write_str("ABI of the client"),
            Self::Fingerprint => f.write_str("IR of the module"),
            Self::Names => f.write_str("local names"),
        }
    }
}

/// A part in which two recipes differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which part.
    pub field: Field,
    /// What it was: text, or the first digits of a hash. `None` is a setting that was not there.
    pub old: Option<Box<str>>,
    /// What it is.
    pub new: Option<Box<str>>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |side: &Option<Box<str>>| side.as_deref().unwrap_or("absent").to_owned();
        write!(f, "{}: was {}, is {}", self.field, text(&self.old), text(&self.new))
    }
}

impl Recipe {
    pub(crate) fn new(fields: Fields) -> Self {
        Self(Arc::new(fields))
    }

    /// The key of the parts that this was made of.
    pub fn key(&self) -> Key {
        let mut hasher = blake3::Hasher::new_derive_key("kiln-cache key of a module");
        hasher.update(&self.to_bytes());
        Key::new(*hasher.finalize().as_bytes())
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

    /// Whether functions of a build of this can be reused in one of `other`: all but the module's IR is the same.
    pub fn same_environment(&self, other: &Self) -> bool {
        // What is added some day counts, unless it is left out here.
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

    /// A key that stands for all recipes that are like this one.
    pub fn environment(&self) -> Key {
        Self::new(Fields { fingerprint: [0; 32], names: [0; 32], ..(*self.0).clone() }).key()
    }

    /// The byte form, as [`Recipe::from_bytes`] takes it.
    ///
    /// # Panics
    ///
    /// If a text is longer than 4 GiB.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Exhaustive: a field that were left out would be left out of keys.
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

    /// Takes bytes that may come from anywhere.
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

    /// In what `new` differs from this one, which is the old one. Empty exactly if they are equal.
    pub fn differences(&self, new: &Self) -> Vec<Difference> {
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
        let new = &*new.0;
        let mut found = Vec::new();
        let mut compare = |field, old: String, new: String| {
            if old != new {
                found.push(Difference { field, old: Some(old.into()), new: Some(new.into()) });
            }
        };
        compare(Field::FormatVersion, format_version.to_string(), new.format_version.to_string());
        compare(Field::CrateVersion, crate_version.to_string(), new.crate_version.to_string());
        compare(Field::Producer, producer.to_string(), new.producer.to_string());
        compare(Field::Revision, revision.to_string(), new.revision.to_string());
        compare(Field::Target, target.to_string(), new.target.to_string());
        if *settings != new.settings {
            compare_settings(settings, &new.settings, &mut found);
        }
        for (field, old, new) in [
            (Field::Abi, abi, &new.abi),
            (Field::Fingerprint, fingerprint, &new.fingerprint),
            (Field::Names, names, &new.names),
        ] {
            if old != new {
                found.push(Difference { field, old: Some(digest(old)), new: Some(digest(new)) });
            }
        }
        found
    }
}

/// Single settings that differ, in the order of their names; the whole texts if no single one does.
fn compare_settings(old: &str, new: &str, found: &mut Vec<Difference>) {
    fn table(settings: &str) -> BTreeMap<&str, &str> {
        settings.split_whitespace().map(|setting| setting.split_once('=').unwrap_or((setting, ""))).collect()
    }
    let before = found.len();
    let (olds, news) = (table(old), table(new));
    let names = olds.keys().chain(news.keys().filter(|name| !olds.contains_key(**name)));
    for &name in names {
        let (old, new) = (olds.get(name), news.get(name));
        if old != new {
            let own = |value: Option<&&str>| value.map(|&value| Box::from(value));
            found.push(Difference { field: Field::Setting(name.into()), old: own(old), new: own(new) });
        }
    }
    if found.len() == before {
        found.push(Difference { field: Field::Settings, old: Some(old.into()), new: Some(new.into()) });
    }
}

/// Enough of a hash to tell two apart, and the whole if that is not enough: differences are shown, not compared.
fn digest(hash: &[u8; 32]) -> Box<str> {
    Key::new(*hash).to_string()[..16].into()
}
