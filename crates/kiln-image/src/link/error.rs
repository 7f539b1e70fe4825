//! Why modules cannot be linked. Every error names the module, by its number, and the symbol.

use kiln_artifact::RelocKind;

/// Modules cannot be linked. Modules are numbered from 0, in the order in which they were given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Two modules define one name, and neither definition is preemptible.
    #[error("`{name}` is defined by module {first} and by module {second}")]
    DuplicateDefinition {
        /// The name.
        name: Box<str>,
        /// The module that defines it first.
        first: usize,
        /// Another module that defines it; may be the same.
        second: usize,
    },
    /// A module believes in another type of a function than its definition has.
    #[error(
        "module {importer} uses `{name}` as {import_signature}, but module {definer} defines it as {definition_signature}"
    )]
    SignatureConflict {
        /// The function.
        name: Box<str>,
        /// The module that uses it.
        importer: usize,
        /// The type that the user believes in.
        import_signature: Box<str>,
        /// The module that defines it.
        definer: usize,
        /// The type that the function has.
        definition_signature: Box<str>,
    },
    /// A module calls what is data.
    #[error("module {importer} uses `{name}` as a function, but module {definer} defines it as data")]
    KindConflict {
        /// The symbol.
        name: Box<str>,
        /// The module that uses it.
        importer: usize,
        /// The module that defines it.
        definer: usize,
    },
    /// Modules were compiled for different targets.
    #[error("module {module} was compiled for {triple}, but module 0 for {expected}")]
    TargetMismatch {
        /// The module.
        module: usize,
        /// Its target.
        triple: Box<str>,
        /// The target of module 0.
        expected: Box<str>,
    },
    /// The architecture is not one that can be linked.
    #[error("target {triple} cannot be linked")]
    UnsupportedTarget {
        /// The target.
        triple: Box<str>,
    },
    /// Code holds an absolute address, so it would have to be written to when it is loaded.
    #[error("module {module} needs a text relocation at {offset:#x} for `{symbol}`")]
    TextRelocation {
        /// The module.
        module: usize,
        /// The place, in bytes from the start of the module's code.
        offset: u64,
        /// The symbol.
        symbol: Box<str>,
    },
    /// A relocation is for another architecture than the module.
    #[error("module {module} has a relocation {kind:?} at {offset:#x}, which its target does not have")]
    ForeignRelocation {
        /// The module.
        module: usize,
        /// The place, in bytes from the start of the module's code.
        offset: u64,
        /// The relocation.
        kind: RelocKind,
    },
    /// The instruction at a relocation is not one that the relocation can patch.
    #[error(
        "module {module}: the instruction at {offset:#x} cannot take a relocation {kind:?} for `{symbol}`"
    )]
    Instruction {
        /// The module.
        module: usize,
        /// The place, in bytes from the start of the module's code.
        offset: u64,
        /// The relocation.
        kind: RelocKind,
        /// The symbol.
        symbol: Box<str>,
    },
    /// Code refers directly to a symbol that no module defines, and cannot be made to go through a slot.
    #[error(
        "module {module} refers at {offset:#x} directly to `{symbol}`, which no module defines; use a slot or a call"
    )]
    DirectReference {
        /// The module.
        module: usize,
        /// The place, in bytes from the start of the module's code.
        offset: u64,
        /// The symbol.
        symbol: Box<str>,
    },
    /// The distance between a place and its target does not fit.
    #[error("module {module}: `{symbol}` is {distance} bytes away from {offset:#x}, limit {limit}")]
    OutOfRange {
        /// The module.
        module: usize,
        /// The place, in bytes from the start of the module's code.
        offset: u64,
        /// The symbol.
        symbol: Box<str>,
        /// The distance, in bytes.
        distance: i64,
        /// The largest distance, in bytes.
        limit: u64,
    },
    /// An address is not a multiple of what the instruction can express.
    #[error("module {module}: `{symbol}` is misaligned for the instruction at {offset:#x}")]
    Misaligned {
        /// The module.
        module: usize,
        /// The place, in bytes from the start of the module's code.
        offset: u64,
        /// The symbol.
        symbol: Box<str>,
    },
    /// Unwind rows without a common information entry, or one that is not as long as it says.
    #[error("module {module} has malformed unwind information")]
    Unwind {
        /// The module.
        module: usize,
    },
    /// The program is larger than can be linked.
    #[error("{what} takes {size} bytes, limit {limit}")]
    TooLarge {
        /// The part that is too large.
        what: &'static str,
        /// Its size in bytes.
        size: u64,
        /// The largest size in bytes.
        limit: u64,
    },
    /// A module defines a name that the image itself needs.
    #[error("module {module} defines `{name}`, a name that the image itself needs")]
    ReservedName {
        /// The module.
        module: usize,
        /// The name.
        name: Box<str>,
    },
    /// Data asks for a section that images have for other things, or that means something to those who read images.
    #[error("module {module} has data in section `{section}`, a name that is not for data")]
    ReservedSection {
        /// The module.
        module: usize,
        /// The section.
        section: Box<str>,
    },
    /// One section is asked for by data that the program writes and by data that it does not.
    #[error(
        "section `{section}` has both writable and read-only data: that of module {first} and of module {second}"
    )]
    SectionConflict {
        /// The section.
        section: Box<str>,
        /// The module that asks for it first.
        first: usize,
        /// The module that disagrees; may be the same.
        second: usize,
    },
    /// Data asks for more sections than an image can have.
    #[error("{count} named sections, limit {limit}")]
    TooManySections {
        /// How many.
        count: usize,
        /// The largest number.
        limit: usize,
    },
    /// The image's own name cannot be written to an ELF string table.
    #[error("a soname that contains a zero byte: {name:?}")]
    Soname {
        /// The name.
        name: Box<str>,
    },
    /// A name or key that cannot be written to an ELF string table.
    #[error("module {module} has a visible symbol whose name contains a zero byte: {name:?}")]
    NameWithZero {
        /// The module.
        module: usize,
        /// The name.
        name: Box<str>,
    },
    /// The caller's buffers or addresses do not match the layout.
    #[error("{area} is {given} bytes, the layout says {expected}")]
    Buffer {
        /// The area.
        area: &'static str,
        /// Size of the buffer given, in bytes.
        given: u64,
        /// Size in the layout, in bytes.
        expected: u64,
    },
}

impl LinkError {
    /// The number of the module that is at fault; of two that disagree, the one that refers to the other or was given later.
    pub fn module(&self) -> Option<usize> {
        match *self {
            Self::DuplicateDefinition { second: module, .. }
            | Self::SignatureConflict { importer: module, .. }
            | Self::KindConflict { importer: module, .. }
            | Self::TargetMismatch { module, .. }
            | Self::TextRelocation { module, .. }
            | Self::ForeignRelocation { module, .. }
            | Self::Instruction { module, .. }
            | Self::DirectReference { module, .. }
            | Self::OutOfRange { module, .. }
            | Self::Misaligned { module, .. }
            | Self::Unwind { module }
            | Self::ReservedName { module, .. }
            | Self::ReservedSection { module, .. }
            | Self::SectionConflict { second: module, .. }
            | Self::NameWithZero { module, .. } => Some(module),
            Self::UnsupportedTarget { .. }
            | Self::TooLarge { .. }
            | Self::TooManySections { .. }
            | Self::Soname { .. }
            | Self::Buffer { .. } => None,
        }
    }
}
