//! The error, which says how the object is reached that cannot be saved.

use std::fmt;

/// The way from a root to an object: the key of the root, then the offset of the pointer in each
/// object that leads to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// The key of the root.
    pub root: Box<str>,
    /// The offsets, in bytes, from the root on; of one of the shortest ways.
    pub offsets: Vec<usize>,
}

/// The number of offsets at each end of a long path that a message shows.
const SHOWN: usize = 6;

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.root)?;
        let (count, shown) = (self.offsets.len(), 2 * SHOWN);
        let hidden = if count > shown + 1 { SHOWN..count - SHOWN } else { 0..0 };
        for (index, offset) in self.offsets.iter().enumerate() {
            if hidden.contains(&index) {
                if index == hidden.start {
                    write!(f, " ... {} more ...", hidden.len())?;
                }
                continue;
            }
            write!(f, " +{offset}")?;
        }
        Ok(())
    }
}

/// A heap cannot be saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotError {
    /// The way to the object.
    pub path: Path,
    /// The reason.
    pub fault: Fault,
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {}: {}", self.path, self.fault)
    }
}

impl std::error::Error for SnapshotError {}

/// The reason why an object cannot be saved. Offsets are in bytes from the object's start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each field is named after what it is, and the messages say more")]
pub enum Fault {
    /// A pointer leads to nothing that the visitor knows, and that has no name.
    #[error("the word {word:#x} at offset {offset} leads to nothing that can be saved")]
    Unknown { offset: usize, word: usize },
    /// A pointer leads to something that has no name in an image, and `what` says what it is.
    #[error("the word {word:#x} at offset {offset} leads to {what}")]
    Unnamed { offset: usize, word: usize, what: Box<str> },
    /// A root is null, a number, or a symbol, and not an object.
    #[error("a root that is not an object, but {word:#x}")]
    NotAnObject { word: usize },
    /// Two roots have the same key, or a key is empty or has a zero byte.
    #[error("a key that another root has, that is empty, or that has a zero byte")]
    Key,
    /// A symbol has no name, or a name with a zero byte.
    #[error("the word at offset {offset} leads to a name that is empty or has a zero byte")]
    Name { offset: usize },
    /// The visitor says that an object has no byte, or ends after the last address.
    #[error("an object of {size} bytes at {address:#x}")]
    Size { address: usize, size: usize },
    /// The visitor says that an object has an alignment that it cannot have.
    #[error("an object at {address:#x} with an alignment of {align} bytes")]
    Align { address: usize, align: usize },
    /// The visitor says that a pointer leads to an object, but it leads elsewhere.
    #[error(
        "the word {word:#x} at offset {offset} is not in the object {address:#x}..{end:#x} that it leads to"
    )]
    Outside { offset: usize, word: usize, address: usize, end: usize },
    /// The visitor says two things about the same object.
    #[error("the object at {address:#x} was described in another way before")]
    Contradiction { address: usize },
    /// The visitor says that two objects have bytes in common.
    #[error("an object that overlaps the one at {other}")]
    Overlap { other: Path },
    /// The visitor says that there is a pointer at an offset that is not inside the object.
    #[error("a pointer at offset {offset} of an object of {size} bytes")]
    PointerOutside { offset: usize, size: usize },
    /// The visitor says that two pointers share bytes, or its offsets are not in ascending order.
    #[error("a pointer at offset {offset} after one at offset {before}")]
    PointerOrder { offset: usize, before: usize },
    /// Another thread has changed an object while the snapshot was made.
    #[error("another thread changed the object, at offset {offset}, while the snapshot was made")]
    Changed { offset: usize },
    /// The objects together are larger than an image can be.
    #[error("a heap of more than {limit} bytes")]
    TooLarge { limit: u64 },
}
