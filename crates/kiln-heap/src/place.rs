//! Places objects: each in the group of what is done to it, in order of their numbers.

use kiln_artifact::record::SectionKind;

use crate::collect::{Found, Heap};
use crate::object::{MAX_ALIGN, Temperature};

/// A group of objects to which the same is done after they are mapped, in order of the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    /// Nothing, ever.
    Leaf,
    /// It is moved, if the image is not where it wants to be.
    Linked,
    /// The loader writes addresses that it alone knows.
    Bound,
    /// The program writes it.
    Written,
    /// Both do.
    WrittenBound,
}

impl Group {
    const ALL: [(Self, [&str; 3]); 5] = [
        (Self::Leaf, [".heap.leaf.hot", ".heap.leaf.cold", ".heap.leaf.rare"]),
        (Self::Linked, [".heap.linked.hot", ".heap.linked.cold", ".heap.linked.rare"]),
        (Self::Bound, [".heap.bound.hot", ".heap.bound.cold", ".heap.bound.rare"]),
        (Self::Written, [".heap.written.hot", ".heap.written.cold", ".heap.written.rare"]),
        (
            Self::WrittenBound,
            [".heap.written.bound.hot", ".heap.written.bound.cold", ".heap.written.bound.rare"],
        ),
    ];

    fn of(found: &Found, has_pointers: bool) -> Self {
        match (found.object.mutable, found.bound) {
            (true, true) => Self::WrittenBound,
            (true, false) => Self::Written,
            (false, true) => Self::Bound,
            (false, false) if has_pointers => Self::Linked,
            (false, false) => Self::Leaf,
        }
    }

    fn section(self) -> SectionKind {
        match self {
            Self::Leaf | Self::Linked | Self::Bound => SectionKind::ReadOnly,
            Self::Written | Self::WrittenBound => SectionKind::Writable,
        }
    }
}

/// A run of objects: a group of one temperature.
pub(crate) struct Run {
    pub(crate) name: &'static str,
    pub(crate) section: SectionKind,
    /// Offset of the first byte in the module's section.
    pub(crate) start: usize,
    pub(crate) len: usize,
}

/// The places of all objects.
pub(crate) struct Places {
    /// The runs that are not empty, in order of sections and starts.
    pub(crate) runs: Vec<Run>,
    /// For each object the number of its run, and its offset in the run.
    pub(crate) objects: Vec<(u32, u32)>,
}

/// The alignment of runs: a page.
pub(crate) const RUN_ALIGN: usize = MAX_ALIGN;

/// Places all objects.
pub(crate) fn place(heap: &Heap) -> Places {
    let temperatures = Temperature::ALL.len();
    let mut lens = vec![0; Group::ALL.len() * temperatures];
    let mut objects = Vec::with_capacity(heap.objects.len());
    for (number, found) in heap.objects.iter().enumerate() {
        let group = Group::of(found, !heap.pointers(number).is_empty());
        let run = group as usize * temperatures + found.object.temperature as usize;
        let offset = usize::next_multiple_of(lens[run], found.object.align);
        lens[run] = offset + found.object.size;
        objects.push((run as u32, offset as u32));
    }
    // Runs without objects are left out, and the others get new numbers.
    let mut runs: Vec<Run> = Vec::new();
    let mut numbers = Vec::with_capacity(lens.len());
    let all = Group::ALL.iter().flat_map(|(group, names)| names.iter().map(move |&name| (*group, name)));
    for ((group, name), len) in all.zip(lens) {
        numbers.push(runs.len() as u32);
        if len > 0 {
            let section = group.section();
            let before = runs.last().filter(|run| run.section == section);
            // An artifact wants a gap between runs, which an image does not have.
            let start = before.map_or(0, |run| (run.start + run.len + 1).next_multiple_of(RUN_ALIGN));
            runs.push(Run { name, section, start, len });
        }
    }
    for (run, _) in &mut objects {
        *run = numbers[*run as usize];
    }
    Places { runs, objects }
}
