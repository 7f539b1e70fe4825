//! The errors of linking artifacts into memory.

use kiln_globals::UnboundError;
use kiln_image::link::LinkError;

/// Artifacts could not be linked into memory. Nothing was published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JitError {
    /// The artifacts cannot be linked with each other.
    #[error("{}", list(.0))]
    Link(Vec<LinkError>),
    /// A name was defined by artifacts that were linked before. It cannot be redefined even if that
    /// definition was preemptible, because code that uses it is running.
    #[error("`{name}` is defined by module {module} of this link, and was defined before")]
    Redefinition {
        /// The name.
        name: Box<str>,
        /// Position of the second definition's module.
        module: usize,
    },
    /// A module defines a name that code linked before took from the host. That code would continue
    /// to use the host's definition, while an image of the whole program would use the module's.
    #[error("`{name}` is defined by module {module} of this link, but code linked before uses the host's")]
    DefinedLate {
        /// The name.
        name: Box<str>,
        /// Position of the definition's module.
        module: usize,
    },
    /// Data of this link is in a section whose bounds code linked before uses. In an image, the
    /// bounds would differ.
    #[error("module {module} adds to section `{section}`, but code linked before uses its bounds")]
    SectionGrows {
        /// The section.
        section: Box<str>,
        /// Position of the module.
        module: usize,
    },
    /// A module uses the bounds of a section that is in several links, and so in several ranges of
    /// memory.
    #[error("module {module} uses the bounds of section `{section}`, which was not linked all at once")]
    SectionInPieces {
        /// The section.
        section: Box<str>,
        /// Position of the module.
        module: usize,
    },
    /// A section has writable data in this link and read-only data in one before, or the reverse.
    #[error(
        "module {module} has data in section `{section}` that is writable, or what was linked before is, but not both"
    )]
    SectionConflict {
        /// The section.
        section: Box<str>,
        /// Position of the module.
        module: usize,
    },
    /// A module calls a symbol that was linked before as data.
    #[error("module {module} uses `{name}` as a function, but it was defined as data")]
    KindConflict {
        /// The name.
        name: Box<str>,
        /// Position of the module.
        module: usize,
    },
    /// A function that was linked before does not have the signature that an import expects.
    #[error("module {module} imports `{name}` as {imported}, but it was defined as {defined}")]
    SignatureConflict {
        /// The name.
        name: Box<str>,
        /// Position of the importing module.
        module: usize,
        /// The signature that is expected.
        imported: Box<str>,
        /// The signature that it has.
        defined: Box<str>,
    },
    /// The artifacts are for another machine.
    #[error("module {module} is for {triple}, which this machine does not run")]
    OtherTarget {
        /// Position of the module.
        module: usize,
        /// Its target triple.
        triple: Box<str>,
    },
    /// The code needs a CPU feature that this machine lacks.
    #[error("module {module} needs the CPU feature {feature}")]
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
    /// There is no memory, or the reservation is used up.
    #[error("executable memory: {0}")]
    Memory(Box<str>),
}

/// One line for each error.
fn list(errors: &[LinkError]) -> String {
    errors.iter().map(LinkError::to_string).collect::<Vec<_>>().join("\n")
}
