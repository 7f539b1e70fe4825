//! Descriptions of objects, as a run-time system gives them.

use kiln_artifact::record::SymbolKind;

/// The most bytes that an object's address can be a multiple of: a page, because loaders keep no
/// larger alignment.
pub(crate) const MAX_ALIGN: usize = 4096;

/// An object in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object {
    /// The address of its first byte, a multiple of `align`.
    pub address: usize,
    /// Its size in bytes, at least 1.
    pub size: usize,
    /// Its alignment in bytes, a power of two up to 4096.
    pub align: usize,
    /// Whether the program writes it after it is loaded. Immutable objects are in read-only memory,
    /// which processes share.
    pub mutable: bool,
    /// How soon it is used after it is loaded.
    pub temperature: Temperature,
}

/// How soon an object is used. Objects of one temperature are on the same pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Temperature {
    /// As soon as the program runs.
    Hot,
    /// At some time.
    #[default]
    Cold,
    /// In few runs of the program, or never.
    Rare,
}

impl Temperature {
    /// All temperatures, in order of the file.
    pub const ALL: [Self; 3] = [Self::Hot, Self::Cold, Self::Rare];
}

/// The thing that a word leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// The object that has the byte at this address. It is saved, too.
    Object(Object),
    /// Something that has a name: a function or data of a module or of the host, or a global, of
    /// which the name is the key. The word is its address plus `offset`.
    Symbol {
        /// The kind of thing.
        kind: SymbolKind,
        /// The name, without zero bytes and not empty.
        name: &'a str,
        /// The distance from its start in bytes.
        offset: i64,
    },
    /// Nothing: the word is a number, and is copied as it is.
    Number,
}
