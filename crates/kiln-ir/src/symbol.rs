//! Symbols, which a module defines or refers to. Each has a number and a name.

use cranelift_codegen::ir;

/// The number of a symbol in its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SymbolId(u32);

impl SymbolId {
    /// Returns the symbol at position `index` of a module's table.
    pub fn from_u32(index: u32) -> Self {
        Self(index)
    }

    /// Returns the position in the table.
    pub fn as_u32(self) -> u32 {
        self.0
    }

    /// Returns the position in the table.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The kind of thing that a symbol names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SymbolKind {
    /// Code.
    Function,
    /// Data, or a symbol of which only the address is used.
    Data,
    /// An object that is provided at run time. The symbol's name is its stable key.
    Global,
}

/// The visibility of a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Linkage {
    /// Defined in another module, or by the host.
    Import,
    /// Visible inside its module.
    Local,
    /// Visible to the modules it is linked with.
    Hidden,
    /// Visible everywhere.
    Export,
    /// Like `Export`, but another definition of the name is used instead of it, if there is one: a
    /// weak definition in the terms of ELF (`STB_WEAK`, `__attribute__((weak))`). An `Export` or
    /// `Hidden` definition of another module overrides it, and so does one outside the program; of
    /// several preemptible ones the first is used.
    ///
    /// That is decided once, when the modules are linked. It is *not* what ELF calls preemption or
    /// interposition: no definition in another library (`LD_PRELOAD`) takes the place of one in an
    /// image, whatever its linkage. To exchange a function at run time, make it
    /// [`Replaceable`](Self::Replaceable).
    Preemptible,
    /// A function, visible everywhere as with `Export`, whose code can be exchanged while the
    /// program runs, in memory and in a loaded image.
    ///
    /// Every call of it goes through its slot, also from its own module and from itself; so a swap
    /// of the address in the slot is a swap for all callers. Its address, as `func_addr`, data and
    /// the host see it, is that of a stub that jumps through the slot: it is the same everywhere,
    /// and stays the same when the function is replaced.
    ///
    /// A program may have several replaceable definitions of a name, all of one type. The last, in
    /// order of modules, is in force. A name that has a replaceable definition must have no other
    /// kind of definition. Data cannot be replaceable.
    Replaceable,
}

/// A symbol of a module.
#[derive(Clone, Debug)]
pub struct Symbol {
    /// The name for linking: `foo` for `%foo`, `u1:23` for `u1:23`. For a global it is the stable
    /// key; for an anonymous local symbol it is empty.
    pub name: Box<str>,
    /// The kind of thing it names.
    pub kind: SymbolKind,
    /// Its visibility.
    pub linkage: Linkage,
    /// The type of a function, as defined here or as first imported. `None` for data, for globals,
    /// and for functions of which only the address is used.
    pub signature: Option<ir::Signature>,
    /// The line of the definition, or of the first use of an import; 0 if the module was not read
    /// from text.
    pub line: u32,
}
