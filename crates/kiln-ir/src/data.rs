//! Data objects that a module defines.

use kiln_globals::THREAD_LOCAL_SECTION;

use crate::symbol::SymbolId;

/// The largest alignment of a data object, in bytes: the size of a page, which is the unit of
/// layout in images and memory.
pub const MAX_ALIGN: u32 = 4096;

/// A data object that a module defines.
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
    /// The name of the section of an image that the object is placed in; `None` for the default
    /// section.
    ///
    /// A named section has the objects of all modules that name it, in order of modules and
    /// definitions. Either all these objects are writable or none is. If the name is an identifier
    /// of C, imports called `__start_NAME` and `__stop_NAME` are the section's bounds. An empty
    /// object takes no room in it.
    pub section: Option<Box<str>>,
    /// Pointers in the content, in order of offset. They do not overlap.
    pub addresses: Vec<DataAddress>,
    /// The line of the definition; 0 if the module was not read from text.
    pub line: u32,
}

impl DataObject {
    /// Whether each thread has a copy of the object. Such an object is writable, and in the section
    /// [`THREAD_LOCAL_SECTION`](kiln_globals::THREAD_LOCAL_SECTION). Functions refer to it by a
    /// thread-local symbol, whose address `tls_value` computes.
    pub fn is_thread_local(&self) -> bool {
        self.section.as_deref() == Some(THREAD_LOCAL_SECTION)
    }
}

/// The initial content of a data object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Init {
    /// A number of zero bytes. They take no room in an image if the object is writable, has no
    /// pointers and names no section.
    Zeros(u64),
    /// These bytes, with zeros at the offsets of pointers.
    Bytes(Vec<u8>),
}

impl Init {
    /// Returns `bytes`, or their number if they are all zeros and the object has no pointers
    /// (`alone`).
    pub(crate) fn of(bytes: Vec<u8>, alone: bool) -> Self {
        if alone && bytes.iter().all(|byte| *byte == 0) {
            Self::Zeros(bytes.len() as u64)
        } else {
            Self::Bytes(bytes)
        }
    }

    /// Returns the size in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Zeros(len) => *len,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Tells whether there is no content.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A pointer in a data object: 8 bytes that hold the address of `symbol` plus `addend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataAddress {
    /// Its offset in the object, in bytes.
    pub offset: u64,
    /// The symbol whose address it is.
    pub symbol: SymbolId,
    /// The number that is added to the address.
    pub addend: i64,
}
