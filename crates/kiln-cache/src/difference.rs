//! The differences of two recipes, field by field and setting by setting.

use std::collections::BTreeMap;
use std::fmt;

use crate::recipe::Fields;
use crate::{Key, Recipe};

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
    /// The text of the settings, if each setting is the same but the text is not.
    Settings,
    /// Everything else that the client's code assumes.
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
            Self::Settings => f.write_str("text of the settings"),
            Self::Abi => f.write_str("ABI of the client"),
            Self::Fingerprint => f.write_str("IR of the module"),
            Self::Names => f.write_str("local names"),
        }
    }
}

/// A part in which two recipes differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The part.
    pub field: Field,
    /// The old value: text, or the first digits of a hash. `None` means that the setting did not
    /// exist.
    pub old: Option<Box<str>>,
    /// The new value.
    pub new: Option<Box<str>>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |side: &Option<Box<str>>| side.as_deref().unwrap_or("absent").to_owned();
        write!(f, "{}: was {}, is {}", self.field, text(&self.old), text(&self.new))
    }
}

impl Recipe {
    /// Returns the parts in which `new` differs from this recipe, the old one. The list is empty
    /// exactly if the two are equal.
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
        } = self.fields();
        let new = new.fields();
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

/// Adds the settings that differ, those of `old` first and each group in the order of names. If no
/// setting differs, adds the whole texts.
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

/// Returns the first digits of a hash. They are enough, since differences are shown and not
/// compared.
fn digest(hash: &[u8; 32]) -> Box<str> {
    Key::from_bytes(*hash).to_string()[..16].into()
}
