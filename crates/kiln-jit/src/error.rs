//! Why artifacts could not be linked into memory.

use kiln_globals::UnboundError;
use kiln_image::link::LinkError;

/// Why artifacts could not be linked into memory. Nothing was published in that case.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JitError {
    /// The artifacts do not fit together.
    #[error("{}", list(.0))]
    Link(Vec<LinkError>),
    /// A name is defined already, by artifacts that were linked before. That holds for a definition that would have given way, too:
    /// code that uses it is running.
    #[error("`{name}` is defined by module {module} of this link, and was defined before")]
    Redefinition {
        /// The name.
        name: Box<str>,
        /// Position of the second definition's module.
        module: usize,
    },
    /// Code that was linked before took a name from the host, and now a module defines it: code that runs would go on using the
    /// host's, while an image of the whole program would not.
    #[error("`{name}` is defined by module {module} of this link, but code linked before uses the host's")]
    DefinedLate {
        /// The name.
        name: Box<str>,
        /// Position of the definition's module.
        module: usize,
    },
    /// Data of this link is in a section whose bounds code linked before uses: in an image they would be others.
    #[error("module {module} adds to section `{section}`, but code linked before uses its bounds")]
    SectionGrows {
        /// The section.
        section: Box<str>,
        /// Position of the module.
        module: usize,
    },
    /// A module uses the bounds of a section that is in several links, and so in several places.
    #[error("module {module} uses the bounds of section `{section}`, which was not linked all at once")]
    SectionInPieces {
        /// The section.
        section: Box<str>,
        /// Position of the module.
        module: usize,
    },
    /// A section has writable data where what was linked before has read-only data in it, or the other way round.
    #[error(
        "module {module} has data in section `{section}` that is writable, or what was linked before is, but not both"
    )]
    SectionConflict {
        /// The section.
        section: Box<str>,
        /// Position of the module.
        module: usize,
    },
    /// A module calls what was linked before as data.
    #[error("module {module} uses `{name}` as a function, but it was defined as data")]
    KindConflict {
        /// The name.
        name: Box<str>,
        /// Position of the module.
        module: usize,
    },
    /// A function was linked before with another signature than an import expects.
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
    /// Data asks for an alignment above the page size.
    #[error("data aligned to {align} bytes, at most {limit} are possible")]
    Alignment {
        /// What is asked for.
        align: u64,
        /// The page size.
        limit: u64,
    },
    /// No memory, or the reservation is used up.
    #[error("executable memory: {0}")]
    Memory(Box<str>),
}

fn list(errors: &[LinkError]) -> String {
    errors.iter().map(LinkError::to_string).collect::<Vec<_>>().join("\n")
}
