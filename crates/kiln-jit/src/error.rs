//! The errors of linking artifacts into memory.

use kiln_globals::{SlotKey, UnboundError, list_errors};
use kiln_image::link::LinkError;

use crate::memory::MemoryError;

/// Artifacts could not be linked into memory. Nothing was published.
///
/// `module` is the position, in this link, of the module that the error is about. `earlier` is a
/// module that was linked before. Modules that were linked before are numbered from 0 in order of
/// linking, those that were removed included.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JitError {
    /// The artifacts do not fit together.
    #[error("{}", list_errors(.0))]
    Link(Vec<LinkError>),
    /// A name was defined by artifacts that were linked before. It cannot be redefined even if that
    /// definition was preemptible, because code that uses it may already run.
    #[error("`{name}` is defined by module {module} of this link and by module {earlier} linked before")]
    Redefinition {
        /// The name.
        name: Box<str>,
        /// Position of the second definition's module.
        module: usize,
        /// The module that defines it first.
        earlier: usize,
    },
    /// A replaceable function was defined by modules that were linked before. Only
    /// [`Jit::replace`](crate::Jit::replace) defines it again.
    #[error(
        "`{name}` is defined by module {module} of this link and by module {earlier} linked before; it is replaceable, so replace it instead"
    )]
    NotReplaced {
        /// The name.
        name: Box<str>,
        /// Position of the second definition's module.
        module: usize,
        /// The module that defines it in force.
        earlier: usize,
    },
    /// A module defines a name that code linked before resolved to the host's definition. That code
    /// would continue to use the host's definition, while an image of the whole program would use
    /// the module's.
    #[error("`{name}` is defined by module {module} of this link, but code linked before uses the host's")]
    DefinedLate {
        /// The name.
        name: Box<str>,
        /// Position of the definition's module.
        module: usize,
    },
    /// Data of this link is in a section whose bounds code linked before uses. In an image, the
    /// bounds would include the new data, so they would differ.
    #[error("module {module} adds to section `{section}`, but code linked before uses its bounds")]
    SectionGrows {
        /// The section.
        section: Box<str>,
        /// Position of the module.
        module: usize,
    },
    /// A module uses the bounds of a section whose data comes from several links, so it is in
    /// several ranges of memory.
    #[error("module {module} uses the bounds of section `{section}`, which was not linked all at once")]
    SectionInPieces {
        /// The section.
        section: Box<str>,
        /// Position of the module.
        module: usize,
    },
    /// A section has writable data in this link and read-only data in an earlier link, or the
    /// reverse.
    #[error(
        "section `{section}` has both writable and read-only data: that of module {module} of this link and of module {earlier} linked before"
    )]
    SectionConflict {
        /// The section.
        section: Box<str>,
        /// Position of the module.
        module: usize,
        /// The module that has data in it.
        earlier: usize,
    },
    /// There would be more named sections than an image can have.
    #[error("{count} named sections with those linked before, limit {limit}")]
    TooManySections {
        /// The number of sections.
        count: usize,
        /// The largest number.
        limit: usize,
    },
    /// A module imports a name as a function, or has a preemptible definition of a function under
    /// it, but the name was linked before as data.
    #[error(
        "module {module} uses `{name}` as a function, but module {earlier} linked before defines it as data"
    )]
    KindConflict {
        /// The name.
        name: Box<str>,
        /// Position of the module.
        module: usize,
        /// The module that defines it.
        earlier: usize,
    },
    /// A module has a preemptible definition of data, but a function was linked before under the
    /// same name.
    #[error(
        "module {module} defines `{name}` as data, but module {earlier} linked before defines it as a function"
    )]
    DataConflict {
        /// The name.
        name: Box<str>,
        /// Position of the module.
        module: usize,
        /// The module that defines the function.
        earlier: usize,
    },
    /// A module imports a function, or has a preemptible definition of it, with another signature
    /// than the definition that was linked before.
    #[error(
        "module {module} uses `{name}` as {imported}, but module {earlier} linked before defines it as {defined}"
    )]
    SignatureConflict {
        /// The name.
        name: Box<str>,
        /// Position of the module.
        module: usize,
        /// The module that defines it.
        earlier: usize,
        /// The signature in the module of this link.
        imported: Box<str>,
        /// The signature of the definition that was linked before.
        defined: Box<str>,
    },
    /// An artifact is for another machine.
    #[error("module {module} is for {triple}, which this machine does not run")]
    OtherTarget {
        /// Position of the module.
        module: usize,
        /// Its target triple.
        triple: Box<str>,
    },
    /// An artifact can run on this machine, but its target is not that of the modules linked
    /// before, so no image could hold both.
    #[error("module {module} was compiled for {triple}, but module 0 linked before for {expected}")]
    TargetMismatch {
        /// Position of the module.
        module: usize,
        /// Its target triple.
        triple: Box<str>,
        /// The target triple of the modules that were linked before.
        expected: Box<str>,
    },
    /// The code needs a CPU feature that this machine lacks, or that is unknown.
    #[error("module {module} needs the CPU feature {feature}, which this machine is not known to have")]
    MissingFeature {
        /// Position of the module.
        module: usize,
        /// Cranelift's name of the feature.
        feature: Box<str>,
    },
    /// A global or an imported symbol has no address.
    #[error(transparent)]
    Unbound(#[from] UnboundError),
    /// Data needs an alignment above the page size.
    #[error("data aligned to {align} bytes, at most {limit} are possible")]
    Alignment {
        /// The alignment, in bytes.
        align: u64,
        /// The page size, in bytes.
        limit: u64,
    },
    /// Memory cannot be reserved, allocated or published.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

impl JitError {
    /// Returns the positions, in the link, of the modules that the error is about, each once. Empty
    /// if it is about the whole link, or about slots ([`JitError::Unbound`]).
    pub fn modules(&self) -> Vec<usize> {
        let mut modules = match self {
            Self::Link(errors) => errors.iter().filter_map(LinkError::module).collect(),
            Self::Redefinition { module, .. }
            | Self::NotReplaced { module, .. }
            | Self::DefinedLate { module, .. }
            | Self::SectionGrows { module, .. }
            | Self::SectionInPieces { module, .. }
            | Self::SectionConflict { module, .. }
            | Self::KindConflict { module, .. }
            | Self::DataConflict { module, .. }
            | Self::SignatureConflict { module, .. }
            | Self::OtherTarget { module, .. }
            | Self::TargetMismatch { module, .. }
            | Self::MissingFeature { module, .. } => vec![*module],
            Self::TooManySections { .. } | Self::Unbound(_) | Self::Alignment { .. } | Self::Memory(_) => {
                Vec::new()
            }
        };
        modules.sort_unstable();
        modules.dedup();
        modules
    }
}

/// Units cannot be removed, because other units use them. Nothing was removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("still in use: {}", list_errors(.uses))]
#[non_exhaustive]
pub struct InUseError {
    /// The uses, in order of units.
    pub uses: Vec<UseOf>,
}

/// A slot cannot change, because data of the program holds a copy of its value, which would remain
/// the old one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} cannot be bound again: data of the program holds its address")]
#[non_exhaustive]
pub struct RebindError {
    /// The slot's key.
    pub key: SlotKey,
}

/// A use of a definition of one unit by another unit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UseOf {
    /// The name of the function, data object or section that is used.
    pub name: Box<str>,
    /// The number of the module that uses it, among all modules that were linked.
    pub module: usize,
    /// The function that uses it; empty if it is data that does, or a function without a name.
    pub function: Box<str>,
}

impl std::fmt::Display for UseOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, module, function } = self;
        match &**function {
            "" => write!(f, "module {module} uses `{name}`"),
            function => write!(f, "`{function}` of module {module} uses `{name}`"),
        }
    }
}
