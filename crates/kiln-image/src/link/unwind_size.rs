//! Sizes of unwind information, which are known before anything is laid out.

use kiln_artifact::Artifact;

/// The fixed part of an FDE, in bytes: length, CIE pointer, first address, number of bytes, length
/// of the augmentation.
pub(super) const FDE_FIXED: u64 = 4 + 4 + 4 + 4 + 1;
/// The size of an entry of the index, in bytes.
pub(super) const HDR_LINE: u64 = 8;

/// Returns the size of an FDE with so many bytes of rows.
pub(super) fn fde_size(rows: u32) -> u64 {
    (FDE_FIXED + u64::from(rows)).next_multiple_of(8)
}

/// Returns the length of the unwind rows, in bytes, of each function that has some.
pub(super) fn row_lengths(artifact: &Artifact) -> impl Iterator<Item = u32> {
    artifact.functions().iter().map(|function| function.unwind_len.get()).filter(|&len| len > 0)
}

/// Returns an upper bound of the size, in bytes, of a module's entries in `.eh_frame` and in the
/// index.
pub(super) fn size_bound(artifact: &Artifact) -> u64 {
    let entries: u64 = row_lengths(artifact).map(|len| fde_size(len) + HDR_LINE).sum();
    let plain = if has_veneers(artifact) { artifact.functions().len() as u64 } else { 0 };
    // The module's own stubs, and the stubs that all modules share.
    entries + (plain + 2) * (fde_size(0) + HDR_LINE) + artifact.cie().len() as u64 + 8
}

/// The smallest size of code for which the compiler may have made veneers, in bytes. It makes them
/// only on aarch64, for code that may be larger than a call reaches.
const VENEERS_FROM: u64 = 1 << 24;
/// Whether a module may have veneers between its functions.
pub(super) fn has_veneers(artifact: &Artifact) -> bool {
    artifact.text().len() as u64 >= VENEERS_FROM
}
