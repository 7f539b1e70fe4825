//! Code of others for the replaceable functions of a loaded image, which is taken back.
//!
//! Layers and sessions replace functions of their bases while they live. Whoever comes last is in
//! force; when it goes, the one before is again, and at the end the image's own code.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};

use kiln_artifact::signatures_agree;

use super::bind::Loaded;
use super::function::TypeMismatchError;
use super::overridden::{Code, Kept, Overridden};
use super::replace::ReplaceError;

/// The numbers of all overrides.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// The right to give a replaceable function of a loaded image other code. As long as it has none,
/// nothing changes. When it is dropped, its code is taken back, and the image stays loaded until
/// then.
#[derive(Debug)]
pub struct Override {
    image: Arc<Loaded>,
    /// The offset of the function's slot.
    slot: usize,
    owner: u64,
    /// The function's address, that of its stub.
    address: usize,
}

impl Loaded {
    /// Prepares to give the replaceable function `name` other code, of this type, until what this
    /// returns is dropped. Unlike [`replace`](Self::replace), which is for good, it remembers the
    /// code of before, and that of others who do the same.
    ///
    /// # Errors
    ///
    /// [`ReplaceError`].
    pub fn override_function(
        self: &Arc<Self>,
        name: &str,
        signature: &str,
    ) -> Result<Override, ReplaceError> {
        let missing = || ReplaceError::NotReplaceable { name: name.into() };
        let symbol = self.mapped.lookup(name).ok_or_else(missing)?;
        let slot = self.mapped.tables().note.replaceable_slot(symbol.index).ok_or_else(missing)?;
        let found = self.mapped.signature(symbol.index, name.as_bytes()).ok_or_else(missing)?;
        if !signatures_agree(found, signature) {
            let (wanted, found) = (found.into(), signature.into());
            return Err(TypeMismatchError { name: name.into(), found, wanted }.into());
        }
        let slot = self.writable(slot, 8).ok_or_else(missing)?;
        let address = self.address(name).ok_or_else(missing)?.addr();
        let owner = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Override { image: self.clone(), slot, owner, address })
    }

    fn overridden(&self) -> MutexGuard<'_, Overridden> {
        self.overridden.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores an address in a slot, and returns the one of before.
    fn store(&self, slot: usize, address: usize) -> usize {
        // SAFETY: `override_function` found the 8 bytes in a segment that is writable. `View` has
        // checked that they are an aligned slot, which after binding is accessed as a whole only.
        unsafe { self.mapped.memory.swap(slot, address) }
    }
}

impl Override {
    /// Returns the address of the function, which stays the same whatever code it has.
    pub fn address(&self) -> *const u8 {
        self.image.mapped.memory.base().with_addr(self.address)
    }

    /// Gives the function the code at an address, for all callers at once. If there is code of this
    /// override already, it is replaced; it then keeps its place among that of others.
    ///
    /// # Safety
    ///
    /// The code must be sound to call wherever the function is, and stay callable until it is
    /// replaced or taken back and no thread is in it.
    pub unsafe fn set(&self, code: *const u8) {
        let mut overridden = self.image.overridden();
        let codes = overridden.0.entry(self.slot).or_default();
        let new = Code { owner: self.owner, address: code.addr() };
        match codes.iter().position(|code| code.owner == self.owner) {
            Some(own) => {
                codes[own] = new;
                if own + 1 == codes.len() {
                    self.image.store(self.slot, new.address);
                }
            }
            None => {
                let before = self.image.store(self.slot, new.address);
                if codes.is_empty() {
                    codes.push(Code { owner: 0, address: before });
                }
                codes.push(new);
            }
        }
    }

    /// Takes its code back, if it has some.
    pub fn clear(&self) {
        let mut overridden = self.image.overridden();
        let Some(codes) = overridden.0.get_mut(&self.slot) else { return };
        let Some(own) = codes.iter().position(|code| code.owner == self.owner) else { return };
        codes.remove(own);
        if let Some(last) = codes.last().filter(|_| own == codes.len()) {
            self.image.store(self.slot, last.address);
        }
        if codes.len() == 1 {
            overridden.0.remove(&self.slot);
        }
    }
}

impl Drop for Override {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Kept for Override {}
