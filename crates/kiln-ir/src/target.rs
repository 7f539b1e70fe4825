//! The target of a build, and the code generator for a module.
//!
//! Some defaults differ from Cranelift's, unless the target is made from a client's code generator
//! ([`Target::of_isa`], [`Target::native`]). `opt_level` is `speed`. `preserve_frame_pointers` is
//! on, because stack walkers need frame pointers, and so does IR that reads its frame pointer. On
//! x86-64 the CPU features are those of level v2, unless a module has a `target` line; an image
//! records the features that it needs. `enable_verifier` is off, because every function is verified
//! once, against the settings of its module, by the front end or before it is compiled.

use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use cranelift_codegen::isa::{self, OwnedTargetIsa, TargetIsa};
use cranelift_codegen::settings::{self, Configurable, SetError, Value};
use kiln_globals::GlobalAccess;
use target_lexicon::{
    Aarch64Architecture, Architecture, BinaryFormat, Environment, OperatingSystem, Riscv64Architecture,
    Triple,
};

use crate::settings::{FORCED, ModuleSettings, Setting, is_fixed};

/// The target of a build.
#[derive(Clone)]
pub struct Target {
    triple: Triple,
    settings: Vec<Setting>,
    isa_settings: Vec<Setting>,
    globals: GlobalAccess,
    /// The code generator for modules without header lines, which is made once, because that takes
    /// as long as compiling a small function. Copies of the target share it.
    plain: Arc<OnceLock<OwnedTargetIsa>>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target")
            .field("triple", &self.triple)
            .field("settings", &self.settings)
            .field("isa_settings", &self.isa_settings)
            .field("globals", &self.globals)
            .finish_non_exhaustive()
    }
}

/// An error while choosing a code generator for a target and settings.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The text is not a target triple.
    #[error("`{text}` is not a target triple: {reason}")]
    Triple {
        /// The text.
        text: Box<str>,
        /// The reason.
        reason: Box<str>,
    },
    /// Cranelift cannot generate code for the triple, or was built without it.
    #[error("no code generator for `{triple}`: {reason}")]
    Unsupported {
        /// The triple.
        triple: Box<str>,
        /// The reason.
        reason: Box<str>,
    },
    /// A setting does not exist, or does not have this value.
    #[error("setting `{setting}`: {reason}")]
    Setting {
        /// The setting, with its line.
        setting: Setting,
        /// The reason.
        reason: Box<str>,
    },
    /// The processors of the target have no such level.
    #[error("no level `{level}` of {triple}: {}", match known {
        [] => "its processors have no levels".into(),
        known => format!("{} are known", known.join(", ")),
    })]
    Level {
        /// The level that was asked for.
        level: Box<str>,
        /// The target.
        triple: Box<str>,
        /// The levels that there are, the lowest first.
        known: &'static [&'static str],
    },
    /// The module is for other architectures.
    #[error("the module is for {wanted}, not for {triple}")]
    OtherArchitecture {
        /// The architectures of the module's `target` lines.
        wanted: Box<str>,
        /// The build's target.
        triple: Box<str>,
        /// The line of the first `target` line.
        line: u32,
    },
}

impl TargetError {
    /// Returns the line of the module that the error is on, or 0.
    pub fn line(&self) -> u32 {
        match self {
            Self::Setting { setting, .. } => setting.line,
            Self::OtherArchitecture { line, .. } => *line,
            Self::Triple { .. } | Self::Unsupported { .. } | Self::Level { .. } => 0,
        }
    }
}

/// The level of optimization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum OptLevel {
    /// Compile quickly.
    None,
    /// Make code fast.
    #[default]
    Speed,
    /// Make code fast, then small.
    SpeedAndSize,
}

impl OptLevel {
    /// Returns Cranelift's name of the level.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Speed => "speed",
            Self::SpeedAndSize => "speed_and_size",
        }
    }
}

impl Target {
    /// Returns the machine this program was built for, with a fixed set of CPU features (level v2
    /// on x86-64). Code does not depend on the CPU that happens to compile it.
    /// [`Target::isa_setting`] adds or removes features.
    pub fn host() -> Self {
        Self::for_triple(Triple::host())
    }

    /// Returns this machine with the features of its CPU, and Cranelift's default for `opt_level`,
    /// `none`: the target of `JITBuilder::new`. Code for it may not run on another CPU; artifacts
    /// and images record the features that they need. [`Target::host`] has a fixed set of features,
    /// and `opt_level=speed`.
    ///
    /// If Cranelift does not support this machine, using the target is an error, as with
    /// [`Target::host`].
    pub fn native() -> Self {
        let mut flags = settings::builder();
        for (name, value) in DEFAULTS {
            flags.set(name, value).expect("a setting of this Cranelift version");
        }
        flags.set("opt_level", OptLevel::None.name()).expect("a setting of this Cranelift version");
        let isa = cranelift_native::builder().ok();
        let isa = isa.and_then(|isa| isa.finish(settings::Flags::new(flags)).ok());
        isa.and_then(|isa| Self::of_isa(&*isa).ok()).unwrap_or_else(Self::host)
    }

    /// Returns the target that a client's code generator is for, with all its settings: those that
    /// `JITBuilder::with_isa` and `ObjectBuilder::new` take. Kiln does not use it; it makes its
    /// own, which differs only in `is_pic` and `enable_verifier`.
    ///
    /// ```
    /// use cranelift_codegen::{isa, settings};
    /// use kiln_ir::Target;
    ///
    /// let flags = settings::Flags::new(settings::builder());
    /// let isa = isa::lookup(Target::host().triple().clone())?.finish(flags)?;
    /// let target = Target::of_isa(&*isa)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`TargetError::Unsupported`] for a machine that code is not linked for.
    pub fn of_isa(isa: &dyn TargetIsa) -> Result<Self, TargetError> {
        let mut target = Self::for_triple(isa.triple().clone());
        let own = target.new_isa(&ModuleSettings::default())?;
        // Only the values that differ, because they are set again for every code generator.
        let differing = |values: Vec<Value>, own: Vec<Value>| {
            let own: Vec<(&str, String)> =
                own.into_iter().map(|value| (value.name, value.value_string())).collect();
            let values = values.into_iter().map(|value| (value.name, value.value_string()));
            let settings = values.filter(|value| !is_fixed(value.0) && !own.contains(value));
            settings.map(|(name, value)| Setting::new(name, &value)).collect::<Vec<_>>()
        };
        target.settings = differing(isa.flags().iter().collect(), own.flags().iter().collect());
        target.isa_settings = differing(isa.isa_flags(), own.isa_flags());
        Ok(target)
    }

    /// Parses a triple, or the name of an architecture alone, which means Linux on that
    /// architecture.
    ///
    /// # Errors
    ///
    /// [`TargetError::Triple`] if the text is neither; [`TargetError::Unsupported`] for a machine,
    /// a system or an ABI that code is not linked for: anything but 64-bit Linux on x86-64, aarch64
    /// (little-endian), riscv64 (with floats in registers) and s390x.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let mut triple = Triple::from_str(text)
            .map_err(|error| TargetError::Triple { text: text.into(), reason: error.to_string().into() })?;
        if triple.operating_system == OperatingSystem::Unknown {
            triple.operating_system = OperatingSystem::Linux;
            if triple.environment == Environment::Unknown {
                triple.environment = Environment::Gnu;
            }
            if triple.binary_format == BinaryFormat::Unknown {
                triple.binary_format = BinaryFormat::Elf;
            }
        }
        check_supported(&triple)?;
        Ok(Self::for_triple(triple))
    }

    fn for_triple(triple: Triple) -> Self {
        Self {
            triple,
            settings: Vec::new(),
            isa_settings: Vec::new(),
            globals: GlobalAccess::default(),
            plain: Arc::default(),
        }
    }

    /// Sets the level of optimization. A module's own `set opt_level` line overrides it.
    #[must_use]
    pub fn opt_level(self, level: OptLevel) -> Self {
        self.setting("opt_level", level.name())
    }

    /// Sets a setting of Cranelift for all modules. A module's own `set` line overrides it.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push(Setting::new(name, value));
        self.plain = Arc::default();
        self
    }

    /// Sets a setting of the architecture, such as `has_avx2`, for all modules.
    #[must_use]
    pub fn isa_setting(mut self, name: &str, value: &str) -> Self {
        self.isa_settings.push(Setting::new(name, value));
        self.plain = Arc::default();
        self
    }

    /// Returns the levels of the processor that [`cpu_level`](Self::cpu_level) knows, the lowest
    /// first; none for architectures whose processors have no levels.
    pub fn cpu_levels(&self) -> &'static [&'static str] {
        const NAMES: [&str; X86_64_LEVELS.len()] =
            [X86_64_LEVELS[0].0, X86_64_LEVELS[1].0, X86_64_LEVELS[2].0, X86_64_LEVELS[3].0];
        if self.triple.architecture == Architecture::X86_64 { &NAMES } else { &[] }
    }

    /// Sets the features of the processor to those of a level of its ABI, such as `x86-64-v3`, and
    /// no others of such levels. The default is `x86-64-v2` on x86-64.
    ///
    /// # Errors
    ///
    /// [`TargetError::Level`] if the architecture has no such level.
    pub fn cpu_level(mut self, name: &str) -> Result<Self, TargetError> {
        let levels = self.cpu_levels();
        let Some(chosen) = levels.iter().position(|level| *level == name) else {
            let (level, triple) = (name.into(), self.triple.to_string().into());
            return Err(TargetError::Level { level, triple, known: levels });
        };
        for (number, (_, features)) in X86_64_LEVELS.iter().enumerate() {
            let value = if number <= chosen { "true" } else { "false" };
            for feature in *features {
                self = self.isa_setting(feature, value);
            }
        }
        Ok(self)
    }

    /// Sets how code reaches globals and everything else outside of its module. Default:
    /// [`GlobalAccess::Slots`]. It decides Cranelift's `is_pic`, which cannot be set by itself.
    #[must_use]
    pub fn globals(mut self, globals: GlobalAccess) -> Self {
        self.globals = globals;
        self.plain = Arc::default();
        self
    }

    /// Returns how code reaches what is outside of its module.
    pub fn global_access(&self) -> GlobalAccess {
        self.globals
    }

    /// Returns the target triple.
    pub fn triple(&self) -> &Triple {
        &self.triple
    }

    /// Returns the code generator for a module with these header lines.
    ///
    /// # Errors
    ///
    /// [`TargetError`] if the target is not supported, a setting is unknown, or the module is for
    /// another architecture.
    pub fn isa(&self, module: &ModuleSettings) -> Result<OwnedTargetIsa, TargetError> {
        if !(module.shared.is_empty() && module.targets.is_empty()) {
            return self.new_isa(module);
        }
        if let Some(isa) = self.plain.get() {
            return Ok(isa.clone());
        }
        let isa = self.new_isa(module)?;
        Ok(self.plain.get_or_init(|| isa).clone())
    }

    fn new_isa(&self, module: &ModuleSettings) -> Result<OwnedTargetIsa, TargetError> {
        // `Target::host` does not check this.
        check_supported(&self.triple)?;
        let mut builder = isa::lookup(self.triple.clone()).map_err(|error| TargetError::Unsupported {
            triple: self.triple.to_string().into(),
            reason: error.to_string().into(),
        })?;
        if !module.allows(&self.triple) {
            return Err(TargetError::OtherArchitecture {
                wanted: module.targets.iter().map(|line| &*line.triple).collect::<Vec<_>>().join(", ").into(),
                triple: self.triple.to_string().into(),
                line: module.targets.first().map_or(0, |line| line.line),
            });
        }
        let mut flags = settings::builder();
        for (name, value) in DEFAULTS {
            flags.set(name, value).expect("a setting of this Cranelift version");
        }
        if module.targets.is_empty() && self.triple.architecture == Architecture::X86_64 {
            for name in X86_64_LEVELS[1].1 {
                builder.enable(name).expect("a setting of this Cranelift version");
            }
        }
        for setting in &self.isa_settings {
            apply(&mut builder, setting)?;
        }
        for setting in self.settings.iter().chain(&module.shared) {
            // A `set` line may also name a setting of the architecture, as in clif-util.
            match apply(&mut flags, setting) {
                Err(_) if apply(&mut builder, setting).is_ok() => {}
                other => other?,
            }
        }
        for setting in module.target_for(&self.triple).into_iter().flat_map(|line| &line.settings) {
            apply(&mut builder, setting)?;
        }
        let is_pic = if self.globals == GlobalAccess::Slots { "true" } else { "false" };
        for (name, value) in FORCED.into_iter().chain([("is_pic", is_pic)]) {
            flags.set(name, value).expect("a setting of this Cranelift version");
        }
        builder.finish(settings::Flags::new(flags)).map_err(|error| TargetError::Unsupported {
            triple: self.triple.to_string().into(),
            reason: error.to_string().into(),
        })
    }
}

/// Refuses a triple that code is not linked and loaded for. Cranelift would treat ABIs with 32-bit
/// pointers as their 64-bit counterparts.
fn check_supported(triple: &Triple) -> Result<(), TargetError> {
    let reason = match triple.architecture {
        Architecture::X86_64
        | Architecture::Aarch64(Aarch64Architecture::Aarch64)
        | Architecture::Riscv64(
            Riscv64Architecture::Riscv64 | Riscv64Architecture::Riscv64gc | Riscv64Architecture::Riscv64a23,
        )
        | Architecture::S390x => match (triple.operating_system, triple.environment) {
            (OperatingSystem::Linux, environment) => match environment {
                Environment::Unknown
                | Environment::Gnu
                | Environment::GnuLlvm
                | Environment::Musl
                | Environment::Uclibc
                | Environment::Ohos
                | Environment::Android => match triple.binary_format {
                    BinaryFormat::Elf | BinaryFormat::Unknown => return Ok(()),
                    format => format!("files are ELF, not {format}"),
                },
                Environment::Gnux32 | Environment::GnuIlp32 => "pointers have 64 bits".into(),
                other => format!("`{other}` is no ABI of it that code is linked for"),
            },
            _ => "code is linked and loaded for Linux only".into(),
        },
        Architecture::Aarch64(_) => "aarch64 is little-endian".into(),
        other => format!("`{other}` is none of x86_64, aarch64, riscv64gc and s390x"),
    };
    Err(TargetError::Unsupported { triple: triple.to_string().into(), reason: reason.into() })
}

/// Defaults of Kiln that differ from Cranelift's. Frame pointers let profilers and run-times walk
/// the stack, and IR that reads its frame pointer is valid only with them.
const DEFAULTS: [(&str, &str); 2] = [("opt_level", "speed"), ("preserve_frame_pointers", "true")];

/// The levels of x86-64, each with what it adds to the one before, by Cranelift's settings: System
/// V ABI, AMD64 supplement 1.0, section 3.1.1, "Micro-Architecture Levels". Cranelift has no
/// settings for, and makes no use of, LAHF and SAHF (v2), F16C, MOVBE and OSXSAVE (v3; who has AVX
/// has the last), AVX512BW and AVX512CD (v4).
///
/// Code for x86-64 uses level v2, which every such CPU since 2009 has, unless a module's `target`
/// line says otherwise. Without it, rounding a float is a call of the C library. Images record the
/// features they need, and loaders check them.
const X86_64_LEVELS: [(&str, &[&str]); 4] = [
    ("x86-64", &[]),
    ("x86-64-v2", &["has_sse3", "has_ssse3", "has_sse41", "has_sse42", "has_popcnt", "has_cmpxchg16b"]),
    ("x86-64-v3", &["has_avx", "has_avx2", "has_bmi1", "has_bmi2", "has_fma", "has_lzcnt"]),
    ("x86-64-v4", &["has_avx512f", "has_avx512dq", "has_avx512vl"]),
];

fn apply(target: &mut dyn Configurable, setting: &Setting) -> Result<(), TargetError> {
    let done = match &setting.value {
        Some(value) => target.set(&setting.name, value),
        None => target.enable(&setting.name),
    };
    done.map_err(|error| {
        let reason = match &error {
            SetError::BadName(_) => "no such setting".into(),
            SetError::BadType => "a setting of another type".into(),
            SetError::BadValue(value) => format!("not a value it can have: {value}"),
        };
        TargetError::Setting { setting: setting.clone(), reason: reason.into() }
    })
}
