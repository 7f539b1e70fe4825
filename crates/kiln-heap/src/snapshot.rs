//! The steps from roots to an artifact.

use kiln_artifact::Artifact;

use crate::collect::collect;
use crate::error::SnapshotError;
use crate::input::Input;
use crate::memory::Visit;
use crate::place::place;
use crate::write::write;

/// A saved heap.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The objects as data, which defines a global for each root. It has no code.
    pub artifact: Artifact,
    /// The numbers of what is in it.
    pub stats: Stats,
}

/// The size of a heap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Objects.
    pub objects: usize,
    /// Bytes of all objects.
    pub bytes: usize,
    /// Pointers that are not null.
    pub pointers: usize,
    /// Objects with a pointer to something with a name.
    pub bound: usize,
    /// Objects that the program may write.
    pub mutable: usize,
}

/// Saves what is reachable from the roots.
///
/// Memory is read twice; the objects must not change meanwhile. See the
/// [crate's documentation](crate) for what that finds.
///
/// # Errors
///
/// [`SnapshotError`], with the way to the first object that cannot be saved.
pub fn snapshot(input: &mut Input<'_>, visitor: &mut dyn Visit) -> Result<Snapshot, SnapshotError> {
    let heap = collect(input, visitor)?;
    let places = place(&heap);
    let artifact = write(input, &heap, &places);
    let stats = Stats {
        objects: heap.objects.len(),
        bytes: heap.byte_count(),
        pointers: heap.pointer_count(),
        bound: heap.objects.iter().filter(|found| found.bound).count(),
        mutable: heap.objects.iter().filter(|found| found.object.mutable).count(),
    };
    Ok(Snapshot { artifact, stats })
}
