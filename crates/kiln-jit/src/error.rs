//! The errors of linking artifacts into memory.

use kiln_globals::{UnboundError, list_errors};
use kiln_image::link::LinkError;

/// Artifacts could not be linked into memory. Nothing was published.
///
/// `module` is the position in this link of the module that the error is in. `earlier` is a module
/// that was linked before; those are numbered in order, as in the image of all of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JitError {
    /// The artifacts do not fit together.
    #[error("{}", list_errors(.0))]
    Link(Vec<LinkError>),
    /// A name was defined by artifacts that were linked before. It cannot be redefined even if that
    /// definition was preemptible, because code that uses it is running.
    #[error("`{name}` is defined by module {module} of this link and by module {earlier} linked before")]
    Redefinition {
        /// The name.
        name: Box<str>,
        /// Position of the second definition's module.
        module: usize,
        /// The module that defines it first.
        earlier: usize,
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
    /// A module uses as a function, or defines as one that may be overridden, what was linked
    /// before as data.
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
    /// A module defines data that may be overridden, and a function was linked before under its
    /// name.
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
    /// A function that was linked before does not have the signature that an import or a
    /// definition it overrides has.
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
    /// The artifacts are for this machine, but not for the target of those linked before, so no
    /// image could hold both.
    #[error("module {module} was compiled for {triple}, but module 0 linked before for {expected}")]
    TargetMismatch {
        /// Position of the module.
        module: usize,
        /// Its target triple.
        triple: Box<str>,
        /// The target triple of what was linked before.
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
    /// There is no memory, or the reservation is used up.
    #[error("executable memory: {0}")]
    Memory(Box<str>),
}
