//! Replaces functions of a loaded image.

use std::fmt;

use kiln_artifact::signatures_agree;

use super::bind::Loaded;
use super::function::{FunctionRef, TypeMismatchError};

/// The reason why a function of an image cannot be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplaceError {
    /// The image exports no replaceable function of this name.
    NotReplaceable {
        /// The name.
        name: Box<str>,
    },
    /// The new function has another type.
    Type(TypeMismatchError),
    /// The new function is the image's own function of this name: calling it would never end,
    /// because its address is that of the stub, which jumps to the code that is in force.
    Itself {
        /// The name.
        name: Box<str>,
    },
}

impl fmt::Display for ReplaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReplaceable { name } => write!(f, "the image has no replaceable function `{name}`"),
            Self::Type(error) => error.fmt(f),
            Self::Itself { name } => write!(f, "`{name}` cannot be replaced by itself"),
        }
    }
}

impl std::error::Error for ReplaceError {}

impl From<TypeMismatchError> for ReplaceError {
    fn from(error: TypeMismatchError) -> Self {
        Self::Type(error)
    }
}

impl Loaded {
    /// Makes `function` the code of the replaceable function `name`, for all callers at once: the
    /// code of the image, and everyone who has the function's address. Returns the address of the
    /// code that was in force, which may be given back with [`FunctionRef::new`].
    ///
    /// [`function`](Self::function) and [`address`](Self::address) give the same address as before.
    /// A thread that is in the old code finishes there, and a call that begins when this returns
    /// runs the new code. Several threads may replace the same function; the last one wins. Each
    /// function is replaced for itself: other threads may see one of two functions replaced and not
    /// the other.
    ///
    /// # Errors
    ///
    /// [`ReplaceError`]; then nothing is changed.
    ///
    /// # Safety
    ///
    /// Calling `function` must be sound wherever the image calls `name`, and its code must stay
    /// callable as long as the image lives, or until it is replaced and no thread is in it. On
    /// machines with caches of instructions that must be told about new code, that has been done.
    pub unsafe fn replace(&self, name: &str, function: FunctionRef<'_>) -> Result<*const u8, ReplaceError> {
        let missing = || ReplaceError::NotReplaceable { name: name.into() };
        let symbol = self.mapped.lookup(name).ok_or_else(missing)?;
        let note = self.mapped.tables().note;
        let slot = note.replaceable_slot(symbol.index).ok_or_else(missing)?;
        let found = self.mapped.signature(symbol.index, name.as_bytes()).ok_or_else(missing)?;
        if !signatures_agree(found, function.signature()) {
            let (wanted, found) = (found.into(), function.signature().into());
            return Err(TypeMismatchError { name: name.into(), found, wanted }.into());
        }
        if Some(function.address()) == self.address(name) {
            return Err(ReplaceError::Itself { name: name.into() });
        }
        let offset = self.writable(slot, 8).ok_or_else(missing)?;
        // SAFETY: `writable` found the 8 bytes in a segment that is writable. `View` has checked
        // that they are an aligned slot, which after binding nothing accesses but this function and
        // code of the image.
        Ok(unsafe { self.mapped.memory.swap(offset, function.address() as usize) } as *const u8)
    }
}
