//! The steps from roots to an artifact.

use kiln_artifact::Artifact;
use kiln_artifact::record::SymbolKind;

use crate::collect::collect;
use crate::error::SnapshotError;
use crate::memory::Visit;
use crate::place::place;
use crate::write::write;

/// A root: the object that a global of the program is.
#[derive(Clone, Copy, Debug)]
pub struct Root<'a> {
    /// The key of the global.
    pub key: &'a str,
    /// The address that its binding has, in an object.
    pub address: usize,
}

/// The name of something that is no object of the heap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// What it is.
    pub kind: SymbolKind,
    /// The name or key.
    pub name: Box<str>,
    /// The distance of the address from its start in bytes.
    pub offset: i64,
}

/// What a snapshot is made of, besides the objects.
pub struct Input<'a> {
    /// The target triple of the program.
    pub triple: &'a str,
    /// The roots, in an order that the bytes depend on.
    pub roots: &'a [Root<'a>],
    /// Finds names of what the visitor does not know: code, data of modules, symbols of the host.
    /// The error says what it is that has no name, if that is known.
    pub names: &'a mut dyn FnMut(usize) -> Result<Name, Option<Box<str>>>,
}

impl std::fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { triple, roots, .. } = self;
        f.debug_struct("Input").field("triple", triple).field("roots", roots).finish_non_exhaustive()
    }
}

/// A saved heap.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The objects as data, which defines a global for each root. It has no code.
    pub artifact: Artifact,
    /// What was counted.
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
