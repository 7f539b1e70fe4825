//! Functions found by name, with a type that is known only at run time.
//!
//! `kiln-jit` uses them too, so that functions in memory and in images are called in the same way.

use std::fmt;
use std::sync::Arc;

use kiln_artifact::Signature;

use super::pointer::FunctionPointer;

/// A function of a loaded image or of a JIT: its name, its address and its type.
///
/// It borrows from the [`Loaded`](super::Loaded) image or the JIT that it was taken from. The
/// address and the pointers that [`typed`](Self::typed) returns do not borrow from it, but are
/// valid only as long as it lives, and as long as the function is not removed from it.
#[derive(Clone, Debug)]
pub struct FunctionRef<'a> {
    text: Text<'a>,
    address: *const u8,
    /// The owner of the code, if it wants to know what is done with the address.
    owner: Option<&'a dyn Owner>,
}

/// An owner of code that prepares for those who get its addresses.
pub(super) trait Owner: fmt::Debug {
    /// Prepares for somebody who has an address, and may only look at it.
    fn give_out(&self);

    /// Prepares for somebody who calls the code.
    ///
    /// # Safety
    ///
    /// The code and its unwind rows are trusted.
    unsafe fn prepare_calls(&self);
}

/// The name and type of a function that may be removed at any time: a [`FunctionRef`] shares them.
pub trait FunctionText: fmt::Debug {
    /// Returns the name under which the function is exported.
    fn name(&self) -> &str;
    /// Returns the function's type, as [`Signature`] prints it.
    fn signature(&self) -> &str;
}

/// The name and type of a function.
#[derive(Clone, Debug)]
enum Text<'a> {
    Borrowed { name: &'a str, signature: &'a str },
    Shared(Arc<dyn FunctionText + Send + Sync + 'a>),
}

/// The error for a function whose type is not the one that its caller expects.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TypeMismatchError {
    /// The function's name.
    pub name: Box<str>,
    /// The type with which the function was compiled, as [`Signature`] prints it.
    pub found: Box<str>,
    /// The type that the caller wanted.
    pub wanted: Box<str>,
}

impl fmt::Display for TypeMismatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, found, wanted } = self;
        write!(f, "`{name}` has type {found}, not {wanted}")
    }
}

impl std::error::Error for TypeMismatchError {}

impl<'a> FunctionRef<'a> {
    /// Makes a reference to the function `name` at `address`, whose type is `signature`, as
    /// [`Signature`] prints it.
    ///
    /// # Safety
    ///
    /// `address` must be the address of executable code for as long as `'a` lasts, and `signature`
    /// must be the type that the code's compiler recorded for it.
    pub unsafe fn new(name: &'a str, address: *const u8, signature: &'a str) -> Self {
        Self { text: Text::Borrowed { name, signature }, address, owner: None }
    }

    /// Makes a reference whose owner learns when its address is given out.
    ///
    /// # Safety
    ///
    /// As for [`new`](Self::new).
    pub(super) unsafe fn owned(
        name: &'a str,
        address: *const u8,
        signature: &'a str,
        owner: &'a dyn Owner,
    ) -> Self {
        Self { text: Text::Borrowed { name, signature }, address, owner: Some(owner) }
    }

    /// Makes a reference to the function at `address` that `text` describes.
    ///
    /// # Safety
    ///
    /// As for [`new`](Self::new), but the code must be executable only until it is removed: who
    /// calls it makes sure that it is not.
    pub unsafe fn shared(text: Arc<dyn FunctionText + Send + Sync + 'a>, address: *const u8) -> Self {
        Self { text: Text::Shared(text), address, owner: None }
    }

    /// Returns the name under which the function is exported.
    pub fn name(&self) -> &str {
        match &self.text {
            Text::Borrowed { name, .. } => name,
            Text::Shared(text) => text.name(),
        }
    }

    /// Returns the address of the function's first instruction, for callers that learn its type at
    /// run time.
    pub fn address(&self) -> *const u8 {
        if let Some(owner) = self.owner {
            owner.give_out();
        }
        self.address
    }

    /// Returns the function's type, as [`Signature`] prints it.
    pub fn signature(&self) -> &str {
        match &self.text {
            Text::Borrowed { signature, .. } => signature,
            Text::Shared(text) => text.signature(),
        }
    }

    /// Returns the function as a Rust function pointer, `extern "C" fn(..)`, after comparing the
    /// types.
    ///
    /// # Errors
    ///
    /// [`TypeMismatchError`] names both types if they differ.
    ///
    /// # Safety
    ///
    /// Calling the function must be sound: its code, its recorded type and the unwind rows of its
    /// image must be trusted, the slots that it reads must hold what it expects, and the pointer
    /// must not be called once the image or JIT that it belongs to is dropped, or the function was
    /// removed from the JIT.
    pub unsafe fn typed<F: FunctionPointer>(&self) -> Result<F, TypeMismatchError> {
        let wanted = F::signature();
        let found = self.signature();
        if !found.parse::<Signature>().is_ok_and(|found| wanted.is_compatible(&found)) {
            let (name, found) = (self.name().into(), found.into());
            return Err(TypeMismatchError { name, found, wanted: wanted.to_string().into() });
        }
        if let Some(owner) = self.owner {
            // SAFETY: the caller of this function trusts the code and its rows.
            unsafe { owner.prepare_calls() };
        }
        // SAFETY: the caller of `new` promised executable code with this recorded type, which was
        // compared with `F`. The caller of this function trusts the code and its recorded type, and
        // keeps the code alive.
        Ok(unsafe { F::from_address(self.address) })
    }
}
