//! Ids and symbols: all that a layer knows of the images that it builds on.
//!
//! An image that is built on others is a *layer*, and those are its *bases*. It refers to their
//! functions and data by name, and to the bases by their ids. Layers are linked by
//! `link::bases` and loaded by `load::layer`.

use std::fmt;

use crate::note::ID_LEN;

/// The name under which an image exports its external slots. No module may use this name, not even
/// in a link into memory, because every such program must also have an image.
#[cfg_attr(not(any(feature = "link", feature = "load")), expect(dead_code, reason = "it is only shown"))]
pub(crate) const SLOTS_SYMBOL: &str = "kiln_slots";

/// The beginning of the name that each image has for its first byte in memory; its id follows. No
/// table has it: layers use it for what else has no name in a base, so they fit that image alone.
#[cfg_attr(not(any(feature = "link", feature = "load")), expect(dead_code, reason = "it is only used there"))]
pub(crate) const START_SYMBOL: &str = "kiln_start:";

/// The id of an image, by which layers name it: BLAKE3 of its note, which has checksums of all that
/// is loaded. So images that differ in content have different ids. It is in the note, and to
/// compare ids takes no reading of the rest. That the rest is what the checksums say is asked of
/// `verify_bytes`, or of the hash of all bytes that is signed, `content_hash`. Tools that change
/// nothing of what is loaded, `strip` for example, keep it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageId(pub [u8; ID_LEN]);

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The kind of what a base exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaseSymbolKind {
    /// A function.
    Function,
    /// A function that may be replaced.
    Replaceable,
    /// Data that all threads share.
    Data,
    /// Data of which each thread has a copy.
    ThreadLocal,
    /// The object of a global, in a saved heap; the name is the key.
    Global,
}

impl BaseSymbolKind {
    /// Whether it is a function.
    pub fn is_function(self) -> bool {
        matches!(self, Self::Function | Self::Replaceable)
    }
}

impl fmt::Display for BaseSymbolKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Function => "a function",
            Self::Replaceable => "a replaceable function",
            Self::Data => "data",
            Self::ThreadLocal => "thread-local data",
            Self::Global => "the object of a global",
        })
    }
}

/// An export of an image, as layers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BaseSymbol<'b> {
    /// The kind.
    pub kind: BaseSymbolKind,
    /// A function's type, as `kiln_artifact::Signature` prints it, if the image records it.
    pub signature: Option<&'b str>,
    /// The size of data in bytes.
    pub size: u64,
}

/// An image that others can be built on: an [`Image`](crate::Image) or a
/// [`Loaded`](crate::Loaded) one.
pub trait Base: Sync {
    /// Returns the name by which layers name the image: that of its file, without the folder; empty
    /// if it has no file.
    fn name(&self) -> &str;

    /// Returns the id of the image.
    fn id(&self) -> ImageId;

    /// Returns the target triple.
    fn triple(&self) -> &str;

    /// Returns what the image exports as `name`.
    fn find(&self, name: &str) -> Option<BaseSymbol<'_>>;

    /// Returns the number of the external slot of the global `key`.
    fn slot_of_global(&self, key: &str) -> Option<u32>;
}
