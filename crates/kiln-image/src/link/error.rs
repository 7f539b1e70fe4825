//! [`LinkError`]: the reasons why modules cannot be linked. An error about a module or a symbol has
//! the module's number or the symbol's name.

use kiln_artifact::RelocKind;

use crate::arch::Arch;
use crate::base::BaseSymbolKind;

/// Modules cannot be linked. Modules are numbered from 0, in the order in which they were given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Two definitions have the same name, and neither is weak.
    #[error("`{name}` is defined by module {first} and by module {second}")]
    DuplicateDefinition {
        /// The name.
        name: Box<str>,
        /// The module that defines it first.
        first: usize,
        /// The module that defines it again; can be the same module.
        second: usize,
    },
    /// A name has a replaceable definition and another one that is not.
    #[error("`{name}` is replaceable in module {replaceable}, but not in module {other}")]
    ReplaceableConflict {
        /// The name.
        name: Box<str>,
        /// The module whose definition is replaceable.
        replaceable: usize,
        /// The module whose definition is not.
        other: usize,
    },
    /// A replaceable function is replaced by one of another type.
    #[error(
        "module {module} defines `{name}` as {signature}, but the definition in module {replaced}, \
         which it replaces, is {replaced_signature}"
    )]
    ReplacedSignature {
        /// The function.
        name: Box<str>,
        /// The module whose definition is in force.
        module: usize,
        /// The type of that definition.
        signature: Box<str>,
        /// The module with the other definition.
        replaced: usize,
        /// The type of the other definition.
        replaced_signature: Box<str>,
    },
    /// A module uses a name as thread-local data that is something else, or that no module defines.
    #[error("module {module} uses `{name}` as thread-local data, but {}",
        if *.defined { "its definition is not thread-local" } else { "no module of the program defines it" })]
    NotThreadLocal {
        /// The module.
        module: usize,
        /// The name.
        name: Box<str>,
        /// Whether it is defined, as something else.
        defined: bool,
    },
    /// A module uses the address of thread-local data as if it were the same in all threads.
    #[error("module {module} uses `{name}` as if it were not thread-local, as its definition says")]
    ThreadLocal {
        /// The module.
        module: usize,
        /// The name.
        name: Box<str>,
    },
    /// Code in memory cannot have thread-local data on this machine: on aarch64 and s390x, code
    /// finds it through a function with conventions of its own.
    #[error("module {module} has thread-local data, which on {} code in memory cannot have", .arch.name())]
    ThreadLocalInMemory {
        /// The module.
        module: usize,
        /// The architecture.
        arch: Arch,
    },
    /// A relocatable object cannot have thread-local data.
    #[error("module {module} has thread-local data, which objects cannot have yet")]
    ThreadLocalInObject {
        /// The module.
        module: usize,
    },
    /// A module declares a function with a type that differs from its definition's.
    #[error(
        "{} uses `{name}` as {import_signature}, but module {definer} defines it as {definition_signature}",
        used_by(*.importer, .user)
    )]
    SignatureConflict {
        /// The function.
        name: Box<str>,
        /// The module that uses it.
        importer: usize,
        /// The first function of that module that uses it; empty if none is known.
        user: Box<str>,
        /// The type with which it is declared.
        import_signature: Box<str>,
        /// The module that defines it.
        definer: usize,
        /// The type of the definition.
        definition_signature: Box<str>,
    },
    /// A module uses data as a function.
    #[error("{} uses `{name}` as a function, but module {definer} defines it as data", used_by(*.importer, .user))]
    KindConflict {
        /// The symbol.
        name: Box<str>,
        /// The module that uses it.
        importer: usize,
        /// The first function of that module that uses it; empty if none is known.
        user: Box<str>,
        /// The module that defines it.
        definer: usize,
    },
    /// A module has a weak definition of data, and the definition of a function overrides it.
    #[error("module {overridden} defines `{name}` as data, but module {definer} defines it as a function")]
    DataConflict {
        /// The symbol.
        name: Box<str>,
        /// The module whose definition is overridden.
        overridden: usize,
        /// The module that defines the function.
        definer: usize,
    },
    /// Modules were compiled for different targets.
    #[error("module {module} was compiled for {triple}, but module 0 for {expected}")]
    TargetMismatch {
        /// The module.
        module: usize,
        /// Its target triple.
        triple: Box<str>,
        /// The target triple of module 0.
        expected: Box<str>,
    },
    /// The linker does not support the target of the modules.
    #[error("target {triple} cannot be linked")]
    UnsupportedTarget {
        /// The target triple.
        triple: Box<str>,
    },
    /// Code that reaches globals through slots would hold an absolute address.
    #[error("{} needs a text relocation for `{symbol}`", site(*.module, .function, *.offset))]
    TextRelocation {
        /// The module.
        module: usize,
        /// The function with the patch site; empty if it has no name.
        function: Box<str>,
        /// The patch site, in bytes from the start of the module's code.
        offset: u64,
        /// The symbol.
        symbol: Box<str>,
    },
    /// A relocation belongs to another architecture than the module's.
    #[error("{} has a relocation {kind:?}, which its target does not have", site(*.module, .function, *.offset))]
    ForeignRelocation {
        /// The module.
        module: usize,
        /// The function with the patch site; empty if it has no name.
        function: Box<str>,
        /// The patch site, in bytes from the start of the module's code.
        offset: u64,
        /// The kind of the relocation.
        kind: RelocKind,
    },
    /// The relocation cannot patch the instruction at its offset.
    #[error(
        "{}: the instruction cannot take a relocation {kind:?} for `{symbol}`",
        site(*.module, .function, *.offset)
    )]
    Instruction {
        /// The module.
        module: usize,
        /// The function with the patch site; empty if it has no name.
        function: Box<str>,
        /// The patch site, in bytes from the start of the module's code.
        offset: u64,
        /// The kind of the relocation.
        kind: RelocKind,
        /// The symbol.
        symbol: Box<str>,
    },
    /// Code refers directly to a symbol that no module defines, and the access cannot be changed to
    /// go through a slot.
    #[error(
        "{} refers directly to `{symbol}`, which no module defines; use a slot or a call",
        site(*.module, .function, *.offset)
    )]
    DirectReference {
        /// The module.
        module: usize,
        /// The function with the patch site; empty if it has no name.
        function: Box<str>,
        /// The patch site, in bytes from the start of the module's code.
        offset: u64,
        /// The symbol.
        symbol: Box<str>,
    },
    /// The distance between a patch site and its target is too large for the instruction.
    #[error("{}: `{symbol}` is {distance} bytes away, limit {limit}", site(*.module, .function, *.offset))]
    OutOfRange {
        /// The module.
        module: usize,
        /// The function with the patch site; empty if it has no name.
        function: Box<str>,
        /// The patch site, in bytes from the start of the module's code.
        offset: u64,
        /// The symbol.
        symbol: Box<str>,
        /// The distance, in bytes.
        distance: i64,
        /// The largest distance, in bytes.
        limit: u64,
    },
    /// The target's address does not have the alignment that the instruction needs.
    #[error("{}: `{symbol}` is misaligned for the instruction", site(*.module, .function, *.offset))]
    Misaligned {
        /// The module.
        module: usize,
        /// The function with the patch site; empty if it has no name.
        function: Box<str>,
        /// The patch site, in bytes from the start of the module's code.
        offset: u64,
        /// The symbol.
        symbol: Box<str>,
    },
    /// A module has unwind rows but no common information entry (CIE), or the length field of the
    /// CIE is wrong.
    #[error("module {module} has malformed unwind information")]
    Unwind {
        /// The module.
        module: usize,
    },
    /// The program or a part of it is larger than the linker or the file format can handle.
    #[error("{}{what} is too large: {size} bytes, limit {limit}", with_module(*.module))]
    TooLarge {
        /// The module that the error is about; `None` if it is not about a particular module.
        module: Option<usize>,
        /// A description of what is too large.
        what: Box<str>,
        /// Its size in bytes, including the piece that does not fit.
        size: u64,
        /// The largest size in bytes.
        limit: u64,
    },
    /// A module defines or imports a name that the image itself needs.
    #[error("module {module} uses `{name}`, a name that the image itself needs")]
    ReservedName {
        /// The module.
        module: usize,
        /// The name.
        name: Box<str>,
    },
    /// A module places data in a section with a reserved name: images use the section for something
    /// else, or the name has a meaning to loaders, debuggers or linkers.
    #[error("module {module} has data in section `{section}`, a name that is not for data")]
    ReservedSection {
        /// The module.
        module: usize,
        /// The section.
        section: Box<str>,
    },
    /// One section would have both writable and read-only data.
    #[error(
        "section `{section}` has both writable and read-only data: that of module {first} and of module {second}"
    )]
    SectionConflict {
        /// The section.
        section: Box<str>,
        /// The first module that has data in it.
        first: usize,
        /// A module whose data is of the other kind; can be the same module.
        second: usize,
    },
    /// Data of a relocatable object would hold the address of a global, which is known only to who
    /// fills the slots. If globals are symbols, the object can hold it.
    #[error(
        "module {module} has the address of global `{global}` in data, which an object whose globals \
         have slots cannot hold; let globals be symbols"
    )]
    GlobalInData {
        /// The module.
        module: usize,
        /// The key of the global.
        global: Box<str>,
    },
    /// A module of a relocatable object reaches globals directly. What other linkers make of such
    /// code is not position independent, and they may refuse it.
    #[error(
        "module {module} reaches globals directly, which the code of an object cannot; compile it with slots"
    )]
    DirectObject {
        /// The module.
        module: usize,
    },
    /// A routine of the C library would be a definition of a relocatable object, because both have
    /// the same name and the linker knows only names.
    #[error(
        "module {definer} defines `{name}`, and {} needs the C library's; an object cannot have both",
        used_by(*.module, .user)
    )]
    RoutineConflict {
        /// The routine.
        name: Box<str>,
        /// A module whose code calls it.
        module: usize,
        /// The first function of that module that does; empty if none is known.
        user: Box<str>,
        /// The module that defines something else under the same name.
        definer: usize,
    },
    /// Programs for several levels of a processor are not of the same modules.
    #[error("programs for several levels of a processor cannot be joined: {}{what}", with_module(*.module))]
    Levels {
        /// The module, if it is one.
        module: Option<usize>,
        /// The reason.
        what: &'static str,
    },
    /// A root of a leaner program is defined by no module, or is private.
    #[error("no module defines `{name}`, which is to be a root, for others")]
    UnknownRoot {
        /// The name.
        name: Box<str>,
    },
    /// There are more named sections than an image can have.
    #[error("{count} named sections, limit {limit}")]
    TooManySections {
        /// The number of sections.
        count: usize,
        /// The largest number.
        limit: usize,
    },
    /// An address that no image can be made for.
    #[error("an image cannot be made for the address {base:#x}, but for multiples of 4 GiB below 2^47")]
    Base {
        /// The address.
        base: u64,
    },
    /// The image's own name (`DT_SONAME`) contains a zero byte, so no ELF string table can hold it.
    #[error("a soname that contains a zero byte: {name:?}")]
    Soname {
        /// The name.
        name: Box<str>,
    },
    /// The name of a library that the image needs (`DT_NEEDED`) is empty or contains a zero byte.
    #[error("the name of a needed library that is empty or contains a zero byte: {name:?}")]
    Needed {
        /// The name.
        name: Box<str>,
    },
    /// The list of exports has a name that nothing visible in the program has.
    #[error("the list of exports names `{name}`, which no module exports")]
    NoExport {
        /// The name.
        name: Box<str>,
    },
    /// The alignment of code is not a power of two, or too large.
    #[error("code cannot be aligned to {align} bytes: a power of two up to {limit} can be given")]
    TextAlign {
        /// The alignment, in bytes.
        align: u64,
        /// The largest alignment, in bytes.
        limit: u64,
    },
    /// The name of a visible symbol contains a zero byte, so no ELF string table can hold it.
    #[error("module {module} has a visible symbol whose name contains a zero byte: {name:?}")]
    NameWithZero {
        /// The module.
        module: usize,
        /// The name.
        name: Box<str>,
    },
    /// A base is for another target than the modules that are linked on it.
    #[error("base image `{base}` is for {triple}, but module 0 was compiled for {expected}")]
    BaseTarget {
        /// The base.
        base: Box<str>,
        /// Its target triple.
        triple: Box<str>,
        /// The target triple of module 0.
        expected: Box<str>,
    },
    /// Two bases export a name that a module uses, so it means either.
    #[error("`{name}` is in the base images `{first}` and `{second}`, so it is not known which is meant")]
    AmbiguousBase {
        /// The name.
        name: Box<str>,
        /// The first base that exports it.
        first: Box<str>,
        /// Another base that does.
        second: Box<str>,
    },
    /// A module defines a name that a base exports, and that is not a replaceable function of both.
    #[error("module {module} defines `{name}`, which is {kind} of the base image `{base}`{}", may_replace(*.kind))]
    DefinedInBase {
        /// The name.
        name: Box<str>,
        /// The module.
        module: usize,
        /// The base.
        base: Box<str>,
        /// The kind of what the base exports.
        kind: BaseSymbolKind,
    },
    /// The heap of a layer points into an image that is not a base of this link.
    #[error("module {module} points into the image whose start is `{name}`, which is no base here")]
    PlaceOfOtherImage {
        /// The name of the start of that image, with its id.
        name: Box<str>,
        /// The module.
        module: usize,
    },
    /// A module uses a function of a base as data, or data as a function.
    #[error("{} uses `{name}` as something else than {found}, which it is in the base image `{base}`",
        used_by(*.importer, .user))]
    BaseKind {
        /// The symbol.
        name: Box<str>,
        /// The module that uses it.
        importer: usize,
        /// The first function of that module that uses it; empty if none is known.
        user: Box<str>,
        /// The base.
        base: Box<str>,
        /// The kind of what the base exports.
        found: BaseSymbolKind,
    },
    /// A module uses a function of a base with another type than it has.
    #[error(
        "{} uses `{name}` as {import_signature}, but the base image `{base}` has it as {definition_signature}",
        used_by(*.importer, .user)
    )]
    BaseSignature {
        /// The function.
        name: Box<str>,
        /// The module that uses it.
        importer: usize,
        /// The first function of that module that uses it; empty if none is known.
        user: Box<str>,
        /// The type with which it is declared.
        import_signature: Box<str>,
        /// The base.
        base: Box<str>,
        /// The type that it has there.
        definition_signature: Box<str>,
    },
    /// A layer would use thread-local data of a base, which only code in memory can yet.
    #[error("`{name}` is thread-local data of the base image `{base}`, which a layer cannot use yet")]
    ThreadLocalOfBase {
        /// The name.
        name: Box<str>,
        /// The base.
        base: Box<str>,
    },
    /// There are more bases than an image can have.
    #[error("{count} base images, limit {limit}")]
    TooManyBases {
        /// The number of bases.
        count: usize,
        /// The largest number.
        limit: usize,
    },
    /// A base has no name, by which the layer could be told which image it needs.
    #[error("base image number {number} has no name: open it from a file")]
    NamelessBase {
        /// The position of the base.
        number: usize,
    },
    /// A buffer given by the caller does not have the size that the layout says.
    #[error("{area} is {given} bytes, the layout says {expected}")]
    Buffer {
        /// The area.
        area: &'static str,
        /// Size of the caller's buffer, in bytes.
        given: u64,
        /// Size in the layout, in bytes.
        expected: u64,
    },
}

impl LinkError {
    /// Returns the number of the module that the error is about, or `None` if it is not about a
    /// particular module. If two modules disagree, this is the module that refers to the other,
    /// whose definition is overridden, or that was given later.
    pub fn module(&self) -> Option<usize> {
        self.parties().0
    }

    /// Returns the number of the other module, if two modules disagree. It can be the same module.
    pub fn other_module(&self) -> Option<usize> {
        self.parties().1
    }

    /// Returns the message with the modules' names after it, for callers who know more of a module
    /// than its number: "`f` is defined by module 0 and by module 1; module 0 is a.clif, module 1
    /// is b.clif". An empty name is left out.
    ///
    /// ```
    /// use kiln_image::link::LinkError;
    ///
    /// let error = LinkError::DuplicateDefinition { name: "f".into(), first: 0, second: 1 };
    /// let names = ["a.clif", "b.clif"];
    /// assert_eq!(
    ///     error.with_names(|module| names[module]),
    ///     "`f` is defined by module 0 and by module 1; module 0 is a.clif, module 1 is b.clif"
    /// );
    /// ```
    pub fn with_names<N: std::fmt::Display>(&self, name: impl Fn(usize) -> N) -> String {
        let (module, other) = self.parties();
        let mut modules: Vec<usize> = module.into_iter().chain(other).collect();
        modules.sort_unstable();
        modules.dedup();
        let named = modules.into_iter().map(|module| (module, name(module).to_string()));
        let named = named.filter(|(_, name)| !name.is_empty());
        let is = named.map(|(module, name)| format!("module {module} is {name}")).collect::<Vec<_>>();
        let separator = if is.is_empty() { "" } else { "; " };
        format!("{self}{separator}{}", is.join(", "))
    }

    /// Returns the module that the error is about, and the other one if two disagree.
    fn parties(&self) -> (Option<usize>, Option<usize>) {
        match *self {
            Self::DuplicateDefinition { first: other, second: module, .. }
            | Self::ReplacedSignature { module, replaced: other, .. }
            | Self::SignatureConflict { importer: module, definer: other, .. }
            | Self::KindConflict { importer: module, definer: other, .. }
            | Self::DataConflict { overridden: module, definer: other, .. }
            | Self::SectionConflict { first: other, second: module, .. } => (Some(module), Some(other)),
            Self::RoutineConflict { module, definer, .. } => (Some(module), Some(definer)),
            Self::TargetMismatch { module, .. } => (Some(module), Some(0)),
            Self::BaseKind { importer: module, .. } | Self::BaseSignature { importer: module, .. } => {
                (Some(module), None)
            }
            Self::ReplaceableConflict { replaceable, other, .. } => {
                (Some(replaceable.max(other)), Some(replaceable.min(other)))
            }
            Self::TextRelocation { module, .. }
            | Self::ForeignRelocation { module, .. }
            | Self::Instruction { module, .. }
            | Self::DirectReference { module, .. }
            | Self::OutOfRange { module, .. }
            | Self::Misaligned { module, .. }
            | Self::Unwind { module }
            | Self::NotThreadLocal { module, .. }
            | Self::ThreadLocal { module, .. }
            | Self::ThreadLocalInObject { module }
            | Self::ThreadLocalInMemory { module, .. }
            | Self::DirectObject { module }
            | Self::ReservedName { module, .. }
            | Self::ReservedSection { module, .. }
            | Self::GlobalInData { module, .. }
            | Self::DefinedInBase { module, .. }
            | Self::PlaceOfOtherImage { module, .. }
            | Self::NameWithZero { module, .. } => (Some(module), None),
            Self::TooLarge { module, .. } | Self::Levels { module, .. } => (module, None),
            Self::UnsupportedTarget { .. }
            | Self::UnknownRoot { .. }
            | Self::TooManySections { .. }
            | Self::Base { .. }
            | Self::Soname { .. }
            | Self::Needed { .. }
            | Self::NoExport { .. }
            | Self::TextAlign { .. }
            | Self::BaseTarget { .. }
            | Self::AmbiguousBase { .. }
            | Self::TooManyBases { .. }
            | Self::ThreadLocalOfBase { .. }
            | Self::NamelessBase { .. }
            | Self::Buffer { .. } => (None, None),
        }
    }
}

/// Returns "function `f` of module 3", or "module 3" if the function has no name.
fn used_by(module: usize, function: &str) -> String {
    if function.is_empty() {
        format!("module {module}")
    } else {
        format!("function `{function}` of module {module}")
    }
}

/// Returns, for example, "function `f` of module 3 (at 0x2a of its code)".
fn site(module: usize, function: &str, offset: u64) -> String {
    format!("{} (at {offset:#x} of its code)", used_by(module, function))
}

/// Returns what there is to say if a replaceable function of a base is defined in another way.
fn may_replace(kind: BaseSymbolKind) -> &'static str {
    match kind {
        BaseSymbolKind::Replaceable => "; define it as replaceable",
        _ => "",
    }
}

/// Returns "module 3: ", or an empty string.
fn with_module(module: Option<usize>) -> String {
    module.map_or_else(String::new, |module| format!("module {module}: "))
}
