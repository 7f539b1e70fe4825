//! Data objects that a module defines.

use crate::symbol::SymbolId;

/// The largest alignment of a datum, in bytes: a page, which is what images and memory are laid out in.
pub const MAX_ALIGN: u32 = 4096;

/// A datum that a module defines.
#[derive(Clone, Debug)]
pub struct DataObject {
    /// Its symbol.
    pub symbol: SymbolId,
    /// Whether the program may write it.
    pub writable: bool,
    /// Alignment in bytes, a power of two up to [`MAX_ALIGN`].
    pub align: u32,
    /// Initial content.
    pub init: Init,
    /// Section of an image it is to lie in, if not where others like it do. Data of all modules that asks for one section
    /// lies side by side there, in order of modules and definitions, writable or not, but not both; if the name is an
    /// identifier of C, imports called `__start_NAME` and `__stop_NAME` are its bounds. An empty datum takes no room in it.
    pub section: Option<Box<str>>,
    /// Addresses inside the content, by ascending offset, not overlapping.
    pub addresses: Vec<DataAddress>,
    /// Line of the definition; 0 if the module was not read from text.
    pub line: u32,
}

/// Initial content of a datum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Init {
    /// So many zeros; takes no room in an image if the datum is writable, holds no address and asks for no section.
    Zeros(u64),
    /// These bytes; places of addresses are zero.
    Bytes(Vec<u8>),
}

impl Init {
    /// `bytes`, or so many zeros if that is what they are and nothing else will be `alone` in them.
    pub(crate) fn of(bytes: Vec<u8>, alone: bool) -> Self {
        if alone && bytes.iter().all(|byte| *byte == 0) {
            Self::Zeros(bytes.len() as u64)
        } else {
            Self::Bytes(bytes)
        }
    }

    /// Size in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Zeros(len) => *len,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Whether there is no content.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A pointer inside a datum: 8 bytes that hold the address of `symbol` plus `addend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataAddress {
    /// Where in the datum.
    pub offset: u64,
    /// Whose address.
    pub symbol: SymbolId,
    /// What is added to it.
    pub addend: i64,
}
