//! `.note.gnu.property`: what all code of an image promises.
//!
//! On aarch64, the kernel and `dlopen` make pages guarded if all code has landing pads for indirect
//! branches (BTI). One module without them would fault, so the property is that of all modules. A
//! module has them if its target was set so, `use_bti`. Stubs have them always. Exception handlers
//! have none, and unwinders may go there by a branch, so a module with handlers does not have them.
//!
//! Format: ELF for the Arm 64-bit Architecture, section 6.2; Linux Extensions to gABI, section
//! 2.1.8.

use kiln_artifact::Artifact;
use object::{Endianness, elf};

use crate::arch::Arch;

/// The setting of Cranelift's that makes landing pads.
const LANDING_PADS: &str = "use_bti";

/// `GNU_PROPERTY_AARCH64_FEATURE_1_AND`, and its bit for landing pads.
const FEATURE_1_AND: u32 = 0xc000_0000;
const FEATURE_1_BTI: u32 = 1;

/// Returns the bytes of the note, or nothing if there is nothing to promise.
pub(crate) fn property_note(arch: Arch, artifacts: &[Artifact]) -> Vec<u8> {
    let asked_for = |artifact: &Artifact| artifact.features().any(|feature| feature == LANDING_PADS);
    let has_pads = |artifact: &Artifact| artifact.handlers().is_empty() && asked_for(artifact);
    if arch != Arch::Aarch64 || artifacts.is_empty() || !artifacts.iter().all(has_pads) {
        return Vec::new();
    }
    let number = |value: u32| match arch.endian() {
        Endianness::Little => value.to_le_bytes(),
        Endianness::Big => value.to_be_bytes(),
    };
    let head = [4, 16, elf::NT_GNU_PROPERTY_TYPE_0].map(number);
    let property = [FEATURE_1_AND, 4, FEATURE_1_BTI, 0];
    [head.as_flattened(), b"GNU\0", property.map(number).as_flattened()].concat()
}
