//! The build id, by which debuggers find the file with the debug information of an image.
//!
//! It is a hash of the note, which has the checksums of everything that is loaded, and of the debug
//! information. So images that differ in what they load have different ids, whatever was done to
//! their other parts, and to make an id takes no time worth mentioning. An image and a file with
//! debug information that do not belong together are not taken for each other.

use object::elf;

use crate::arch::Arch;

/// Bytes of a build id: as many as those of other linkers have.
const BUILD_ID: usize = 20;
/// Bytes of its note: three numbers, a name and the id.
pub(super) const BUILD_ID_NOTE: usize = 16 + BUILD_ID;

/// Returns the note of the build id of an image with this note, and debug information in these
/// `sections`.
pub(super) fn build_id_note<'s>(
    arch: Arch,
    note: &[u8],
    sections: impl Iterator<Item = &'s [u8]>,
) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(note);
    for section in sections {
        hasher.update_rayon(section);
    }
    let head = [4, BUILD_ID as u32, elf::NT_GNU_BUILD_ID].map(|number| arch.u32_bytes(number));
    [head.as_flattened(), b"GNU\0", &hasher.finalize().as_bytes()[..BUILD_ID]].concat()
}
