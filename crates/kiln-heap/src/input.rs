//! Roots and names: the things that a snapshot is made of, besides objects.

use kiln_artifact::record::SymbolKind;

/// A root: the object that a global of the program is.
#[derive(Clone, Copy, Debug)]
pub struct Root<'a> {
    /// The key of the global.
    pub key: &'a str,
    /// The address that its binding has, in an object.
    pub address: usize,
}

/// The name of something that is no object of the heap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The kind of thing.
    pub kind: SymbolKind,
    /// The name or key.
    pub name: Box<str>,
    /// The distance of the address from its start in bytes.
    pub offset: i64,
}

/// The things that a snapshot is made of, besides objects.
pub struct Input<'a> {
    /// The target triple of the program.
    pub triple: &'a str,
    /// The roots, in an order that the bytes depend on.
    pub roots: &'a [Root<'a>],
    /// Finds names of what the visitor does not know: code, data of modules, symbols of the host.
    /// The error says what it is that has no name, if that is known.
    pub names: &'a mut dyn FnMut(usize) -> Result<Name, Option<Box<str>>>,
}

impl std::fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { triple, roots, .. } = self;
        f.debug_struct("Input").field("triple", triple).field("roots", roots).finish_non_exhaustive()
    }
}
