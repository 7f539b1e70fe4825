//! The header lines of a module: settings that refine the target of a build.
//!
//! Some settings are Kiln's own and cannot be chosen here: whether code is position independent
//! follows from the target's `GlobalAccess`, and the verifier does not run again for functions that
//! passed it.

use std::str::FromStr;

use target_lexicon::{Architecture, Triple};

/// One `name=value` setting. A setting without a value enables a boolean or names a preset.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Setting {
    /// Cranelift's name.
    pub name: Box<str>,
    /// The value, if one was given.
    pub value: Option<Box<str>>,
    /// Its line; 0 if it does not come from text.
    pub line: u32,
}

impl Setting {
    /// Creates a setting that does not come from text.
    pub fn new(name: &str, value: &str) -> Self {
        Self { name: name.into(), value: Some(value.into()), line: 0 }
    }
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// A `target` line of a module: an architecture or triple, with settings of that architecture.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TargetLine {
    /// The architecture or triple as written: `x86_64`, `aarch64-linux-gnu`.
    pub triple: Box<str>,
    /// The settings after it, such as `has_avx2`.
    pub settings: Vec<Setting>,
    /// Its line.
    pub line: u32,
}

/// The header lines of a module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ModuleSettings {
    /// `set` lines in order.
    pub shared: Vec<Setting>,
    /// `target` lines in order. A module without `target` lines is for every target.
    pub targets: Vec<TargetLine>,
    /// `test` and `feature` lines in order, with one blank between words, such as `test run`. They
    /// are for programs that execute files, and do not affect code.
    pub directives: Vec<Box<str>>,
}

impl ModuleSettings {
    /// Returns the first `target` line that is for the architecture of `triple`.
    pub fn target_for(&self, triple: &Triple) -> Option<&TargetLine> {
        self.targets.iter().find(|line| {
            // An unknown name matches nothing. It is reported only if no other line matches.
            Triple::from_str(&line.triple).is_ok_and(|other| same(other.architecture, triple.architecture))
        })
    }

    /// Returns the commands of `test` lines, in order, without options: `run`, `interpret`.
    pub fn tests(&self) -> impl Iterator<Item = &str> {
        self.directives.iter().filter_map(|line| line.strip_prefix("test ")?.split(' ').next())
    }

    /// Tells whether modules with these lines get the same code from the same functions: they have
    /// the same settings, in the same order.
    pub(crate) fn same_code(&self, other: &Self) -> bool {
        let list = |settings: &[Setting]| -> Vec<_> {
            settings.iter().map(|setting| (setting.name.clone(), setting.value.clone())).collect()
        };
        let targets = |settings: &Self| -> Vec<_> {
            settings.targets.iter().map(|line| (line.triple.clone(), list(&line.settings))).collect()
        };
        list(&self.shared) == list(&other.shared) && targets(self) == targets(other)
    }

    /// Tells whether the module may be compiled for `triple`: it has no `target` line, or a line
    /// for that architecture.
    pub fn allows(&self, triple: &Triple) -> bool {
        self.targets.is_empty() || self.target_for(triple).is_some()
    }
}

/// Tells whether a target for `b` can generate code for `a`.
fn same(a: Architecture, b: Architecture) -> bool {
    match (a, b) {
        (Architecture::Riscv64(_), Architecture::Riscv64(_)) => true,
        _ => a == b,
    }
}

/// Settings that cannot be chosen: IR is verified before it gets to Cranelift's compiler, and
/// thread-local data is reached as in any ELF file (the general dynamic model).
pub(crate) const FORCED: [(&str, &str); 2] = [("enable_verifier", "false"), ("tls_model", "elf_gd")];

/// Tells whether a setting of this name has no effect, because Kiln chooses its value: that of
/// `is_pic` follows from the way in which code reaches globals.
pub(crate) fn is_fixed(name: &str) -> bool {
    name == "is_pic" || FORCED.iter().any(|(forced, _)| *forced == name)
}
