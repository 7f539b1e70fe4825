//! The errors of linking artifacts into memory.

use kiln_globals::{SlotKey, UnboundError, list_errors};
use kiln_image::link::LinkError;

use crate::memory::MemoryError;

/// A module in an error.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModuleName {
    /// Its position in the link; for a module that was linked before, its number among all modules
    /// that were ever linked, in order of linking.
    pub number: usize,
    /// Its name; empty if the link was told no names.
    pub name: Box<str>,
}

impl std::fmt::Display for ModuleName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &*self.name {
            "" => write!(f, "module {}", self.number),
            name => write!(f, "module `{name}`"),
        }
    }
}

/// Artifacts could not be linked into memory. Nothing was published.
///
/// `module` is the module of this link that the error is about. `earlier` is a module that was
/// linked before. `user` is the first function or data object that uses the name; it is empty if
/// that has no name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JitError {
    /// The artifacts do not fit together.
    #[error("{}", link_lines(.errors, .names))]
    Link {
        /// The errors.
        errors: Vec<LinkError>,
        /// The names of the modules, by their numbers; empty if the link was told no names.
        names: Box<[Box<str>]>,
    },
    /// A name was defined by artifacts that were linked before. It cannot be redefined even if that
    /// definition was preemptible, because code that uses it may already run.
    #[error("`{name}` is defined by {module} of this link and by {earlier} linked before")]
    Redefinition {
        /// The name.
        name: Box<str>,
        /// The module of the second definition.
        module: ModuleName,
        /// The module that defines it first.
        earlier: ModuleName,
    },
    /// A replaceable function was defined by modules that were linked before. Only
    /// [`Jit::replace`](crate::Jit::replace) defines it again.
    #[error(
        "`{name}` is defined by {module} of this link and by {earlier} linked before; it is replaceable, so replace it instead"
    )]
    NotReplaced {
        /// The name.
        name: Box<str>,
        /// The module of the second definition.
        module: ModuleName,
        /// The module that defines it in force.
        earlier: ModuleName,
    },
    /// A module defines a name that code linked before resolved to the host's definition. That code
    /// would continue to use the host's definition, while an image of the whole program would use
    /// the module's.
    #[error("`{name}` is defined by {module} of this link, but {} linked before uses the host's", .user.user())]
    DefinedLate {
        /// The name.
        name: Box<str>,
        /// The module of the definition.
        module: ModuleName,
        /// The first use of the host's definition.
        user: UseOf,
    },
    /// Data of this link is in a section whose bounds code linked before uses. In an image, the
    /// bounds would include the new data, so they would differ.
    #[error("{module} adds `{data}` to section `{section}`, but {} linked before uses its bounds", .user.user())]
    SectionGrows {
        /// The section.
        section: Box<str>,
        /// The module.
        module: ModuleName,
        /// The data object.
        data: Box<str>,
        /// The first use of a bound.
        user: UseOf,
    },
    /// A module uses the bounds of a section whose data comes from several links, so it is in
    /// several ranges of memory.
    #[error("{}, a bound of section `{section}`, which was not linked all at once", uses(.module, .user, .name))]
    SectionInPieces {
        /// The section.
        section: Box<str>,
        /// The bound.
        name: Box<str>,
        /// The module.
        module: ModuleName,
        /// The function or data object that uses it.
        user: Box<str>,
    },
    /// A section has writable data in this link and read-only data in an earlier link, or the
    /// reverse.
    #[error(
        "section `{section}` has both writable and read-only data: `{data}` of {module} of this link, and that of {earlier} linked before"
    )]
    SectionConflict {
        /// The section.
        section: Box<str>,
        /// The module.
        module: ModuleName,
        /// The data object.
        data: Box<str>,
        /// The module that has data in it.
        earlier: ModuleName,
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
    #[error("{} as a function, but {earlier} linked before defines it as data", uses(.module, .user, .name))]
    KindConflict {
        /// The name.
        name: Box<str>,
        /// The module.
        module: ModuleName,
        /// The function or data object that uses it.
        user: Box<str>,
        /// The module that defines it.
        earlier: ModuleName,
    },
    /// A module has a preemptible definition of data, but a function was linked before under the
    /// same name.
    #[error("{module} defines `{name}` as data, but {earlier} linked before defines it as a function")]
    DataConflict {
        /// The name.
        name: Box<str>,
        /// The module.
        module: ModuleName,
        /// The module that defines the function.
        earlier: ModuleName,
    },
    /// A module imports a function, or has a preemptible definition of it, with another signature
    /// than the definition that was linked before.
    #[error("{} as {imported}, but {earlier} linked before defines it as {defined}", uses(.module, .user, .name))]
    SignatureConflict {
        /// The name.
        name: Box<str>,
        /// The module.
        module: ModuleName,
        /// The function or data object that uses it.
        user: Box<str>,
        /// The module that defines it.
        earlier: ModuleName,
        /// The signature in the module of this link.
        imported: Box<str>,
        /// The signature of the definition that was linked before.
        defined: Box<str>,
    },
    /// An artifact is for another machine.
    #[error("{module} is for {triple}, which this machine does not run")]
    OtherTarget {
        /// The module.
        module: ModuleName,
        /// Its target triple.
        triple: Box<str>,
    },
    /// An artifact can run on this machine, but its target is not that of the modules linked
    /// before, so no image could hold both.
    #[error("{module} was compiled for {triple}, but {earlier} linked before for {expected}")]
    TargetMismatch {
        /// The module.
        module: ModuleName,
        /// The first module that was linked before.
        earlier: ModuleName,
        /// Its target triple.
        triple: Box<str>,
        /// The target triple of the modules that were linked before.
        expected: Box<str>,
    },
    /// The code needs a CPU feature that this machine lacks, or that is unknown.
    #[error("{module} needs the CPU feature {feature}, which this machine is not known to have")]
    MissingFeature {
        /// The module.
        module: ModuleName,
        /// Cranelift's name of the feature.
        feature: Box<str>,
    },
    /// Globals or imported symbols have no address, or one of another type.
    #[error("{}", unbound(.error, .users))]
    Unbound {
        /// The slots without an address.
        error: UnboundError,
        /// The first use of each of these slots, in order.
        users: Vec<UseOf>,
    },
    /// Data needs an alignment above the page size.
    #[error("data aligned to {align} bytes, at most {limit} are possible")]
    Alignment {
        /// The alignment, in bytes.
        align: u64,
        /// The page size, in bytes.
        limit: u64,
    },
    /// A replaceable function was defined by an image that the program is linked on. Only
    /// [`Jit::replace`](crate::Jit::replace) defines it again.
    #[error(
        "`{name}` is defined by {module} of this link and by the base image `{base}`; it is replaceable, so replace it instead"
    )]
    BaseNotReplaced {
        /// The name.
        name: Box<str>,
        /// The module of the second definition.
        module: ModuleName,
        /// The base.
        base: Box<str>,
    },
    /// The program would be linked on two copies of one image.
    #[error("the base image `{base}` is loaded twice: let the images share it")]
    SameBase {
        /// The image.
        base: Box<str>,
    },
    /// Memory cannot be reserved, allocated or published.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// Returns "module `m` uses `f`", or "`g` of module `m` uses `f`".
fn uses(module: &ModuleName, user: &str, name: &str) -> String {
    match user {
        "" => format!("{module} uses `{name}`"),
        user => format!("`{user}` of {module} uses `{name}`"),
    }
}

/// Returns the messages of the linker, with the names of the modules.
fn link_lines(errors: &[LinkError], names: &[Box<str>]) -> String {
    let name = |module: usize| names.get(module).map_or("", |name| &**name);
    list_errors(errors.iter().map(|error| error.with_names(name)))
}

/// Returns the message for slots without an address, with their users.
fn unbound(error: &UnboundError, users: &[UseOf]) -> String {
    error.with_users(|slot| users.get(slot).map(UseOf::user))
}

impl JitError {
    /// Returns the positions, in the link, of the modules that the error is about, each once. Empty
    /// if it is about the whole link, or about slots ([`JitError::Unbound`]).
    pub fn modules(&self) -> Vec<usize> {
        let mut modules = match self {
            Self::Link { errors, .. } => errors.iter().filter_map(LinkError::module).collect(),
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
            | Self::MissingFeature { module, .. }
            | Self::BaseNotReplaced { module, .. } => vec![module.number],
            Self::TooManySections { .. }
            | Self::Unbound { .. }
            | Self::Alignment { .. }
            | Self::SameBase { .. }
            | Self::Memory(_) => Vec::new(),
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

/// A slot cannot change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RebindError {
    /// Data of the program, or code that reaches globals directly, holds a copy of its value, which
    /// would remain the old one.
    #[error("{key} cannot be bound again: {} holds its address", .user.user())]
    Copied {
        /// The slot's key.
        key: SlotKey,
        /// The first function or data object that holds a copy.
        user: UseOf,
    },
    /// An image that the program is linked on has another address for it, which code of the image
    /// goes on to use.
    #[error("{key} cannot be bound again: the base image `{base}` has it")]
    Base {
        /// The slot's key.
        key: SlotKey,
        /// The base.
        base: Box<str>,
    },
    /// Code calls the function with another type.
    #[error("{key} cannot be bound to a function of type {given}: {} calls it as {expected}", .user.user())]
    OtherType {
        /// The slot's key.
        key: SlotKey,
        /// The first function that calls it.
        user: UseOf,
        /// The type with which it is called.
        expected: Box<str>,
        /// The type of the new function.
        given: Box<str>,
    },
}

/// A use of a definition by something outside of its unit, or of something of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UseOf {
    /// The name of the function, data object, section or global that is used.
    pub name: Box<str>,
    /// The module that uses it.
    pub module: ModuleName,
    /// The function or data object that uses it; empty if it has no name.
    pub user: Box<str>,
}

impl UseOf {
    /// Returns "`g` of module `m`", or "module `m`".
    pub(crate) fn user(&self) -> String {
        let Self { module, user, .. } = self;
        match &**user {
            "" => module.to_string(),
            user => format!("`{user}` of {module}"),
        }
    }
}

impl std::fmt::Display for UseOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&uses(&self.module, &self.user, &self.name))
    }
}
