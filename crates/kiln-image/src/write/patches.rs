//! The list of patches of an image, and their relocations for `dlopen`.
//!
//! Our loader reads the list, [`crate::patch_list`]. Other loaders do not know it, so each patch
//! has a relocation, too, after those that our loader applies, and `.dynamic` says that code is
//! relocated (`DT_TEXTREL`). A global that is patched into code is an undefined symbol for them:
//! unlike a slot, a patch cannot be left to the host, so a name that they do not find must be an
//! error.

use std::collections::HashSet;

use kiln_artifact::Artifact;
use kiln_globals::SlotKey;

use crate::link::{Addresses, Area, LinkError, PatchSource, Plan, TextPatch};
use crate::patch_list::{PATCH_LEN, Patch, PatchValue, push};

/// The patches of an image, in order of their places.
pub(super) struct TextPatches {
    list: Vec<TextPatch>,
    /// Length of the list in bytes.
    len: usize,
    /// The slots of globals that are patched into code.
    pub(super) globals: HashSet<u32>,
}

impl TextPatches {
    /// Returns the patches of a program, before addresses are known.
    ///
    /// # Errors
    ///
    /// [`LinkError::NameWithZero`] for a global that cannot be the name of a symbol.
    pub(super) fn of(plan: &Plan<'_>) -> Result<Self, LinkError> {
        let list = sorted(plan.text_patches().collect());
        let mut globals = HashSet::new();
        for patch in &list {
            let PatchSource::Slot(slot) = patch.source else { continue };
            let SlotKey::Global(key) = &plan.slots().keys()[slot as usize] else { continue };
            if globals.insert(slot) && key.contains('\0') {
                let mut modules = plan.artifacts().iter();
                let uses = |it: &Artifact| it.symbols().iter().any(|symbol| it.name(symbol) == &**key);
                let module = modules.position(uses).unwrap_or_default();
                return Err(LinkError::NameWithZero { module, name: (&**key).into() });
            }
        }
        let len = encode(&list, 0).len();
        Ok(Self { list, len, globals })
    }

    /// Returns the number of patches.
    pub(super) fn count(&self) -> usize {
        self.list.len()
    }

    /// Returns the length of the list, in bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

fn sorted(mut patches: Vec<TextPatch>) -> Vec<TextPatch> {
    patches.sort_unstable();
    patches
}

/// Returns the bytes of a list, for an image that begins at `base`. Their number does not depend on
/// addresses.
fn encode(patches: &[TextPatch], base: u64) -> Vec<u8> {
    let (mut bytes, mut end) = (Vec::with_capacity(4 * patches.len()), 0);
    for &TextPatch { offset, source, addend } in patches {
        let value = match source {
            PatchSource::Program(address) => {
                PatchValue::Image(address.wrapping_add_signed(addend).wrapping_sub(base))
            }
            PatchSource::Slot(slot) => PatchValue::Slot { slot: slot.into(), addend: addend as u64 },
            PatchSource::KnownSlot(_) => unreachable!("an image has no slots outside of it"),
        };
        push(&mut bytes, end, Patch { offset, value });
        end = offset + PATCH_LEN;
    }
    bytes
}

/// A relocation of an address in code.
pub(super) struct TextRelocation {
    pub(super) address: u64,
    /// The slot whose symbol it is against; `None` for an address of the image itself.
    pub(super) slot: Option<u32>,
    /// The number that is added to the symbol's address or to the load address.
    pub(super) addend: u64,
}

/// Returns the bytes of the list, and the relocations, once addresses are known.
pub(super) fn write_patches(
    patches: &[TextPatch],
    addresses: &Addresses,
    base: u64,
) -> (Vec<u8>, Vec<TextRelocation>) {
    let patches = sorted(patches.to_vec());
    let relocations = patches.iter().map(|&TextPatch { offset, source, addend }| {
        let address = addresses[Area::Text] + offset;
        match source {
            PatchSource::Program(target) => {
                TextRelocation { address, slot: None, addend: target.wrapping_add_signed(addend) }
            }
            PatchSource::Slot(slot) => TextRelocation { address, slot: Some(slot), addend: addend as u64 },
            PatchSource::KnownSlot(_) => unreachable!("an image has no slots outside of it"),
        }
    });
    let relocations = relocations.collect();
    (encode(&patches, base), relocations)
}
