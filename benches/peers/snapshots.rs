//! Comparison S: loading an image with a heap, and deserialising the same structure.
//!
//! The structure is a balanced tree. Kiln has it at once; what it costs to touch all of it is a
//! part of its own. The peers make a new tree of bytes that are in memory already, which is their
//! best case. `rkyv` also reads its form in place, if a program is written for that form.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use kiln::globals::Bindings;
use kiln::heap::{Object, Target, Temperature, Visit};
use kiln::image::{Image, Loaded};
use kiln::{SavedHeap, Saving, Session, artifact, ir};
use rkyv::rancor::Error as RkyvError;

use crate::measure::{Contender, Series, interleave, timed};
use crate::open::{Library, dlsym};
use crate::report::{Comparison, Goal};
use crate::setup::{Failure, Setup};

/// Objects of the heap; together they have 96 MB.
const OBJECTS: u64 = 2_000_000;
/// One object of so many points at an object of the host.
const BOUND: u64 = 10_000;
/// The place of that pointer, and those of pointers in the tree.
const PLACE: usize = 24;
const LEFT: usize = 32;
const RIGHT: usize = 40;
const ROOT: &str = "bench:tree";
const HOST: &str = "bench:host";
static OF_HOST: u64 = 5;

/// A node, whose words have the same places in all contenders.
#[derive(serde::Serialize, serde::Deserialize, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(serialize_bounds(__S: rkyv::ser::Writer, __S::Error: rkyv::rancor::Source))]
#[rkyv(deserialize_bounds(__D::Error: rkyv::rancor::Source))]
#[repr(C)]
struct Node {
    key: u64,
    payload: [u64; 3],
    #[rkyv(omit_bounds)]
    left: Option<Box<Node>>,
    #[rkyv(omit_bounds)]
    right: Option<Box<Node>>,
}

const _: () = assert!(
    size_of::<Node>() == 48
        && std::mem::offset_of!(Node, left) == LEFT
        && std::mem::offset_of!(Node, right) == RIGHT
);

/// Makes the tree of these keys.
fn tree(keys: std::ops::Range<u64>) -> Option<Box<Node>> {
    if keys.is_empty() {
        return None;
    }
    let key = keys.start + (keys.end - keys.start) / 2;
    let host = if key.is_multiple_of(BOUND) { (&raw const OF_HOST).expose_provenance() as u64 } else { 3 };
    let (left, right) = (tree(keys.start..key), tree(key + 1..keys.end));
    Some(Box::new(Node { key, payload: [key ^ 1, key ^ 2, host], left, right }))
}

/// Adds up the keys of a tree, from all its nodes.
fn walk(node: &Node) -> u64 {
    let below = |child: &Option<Box<Node>>| child.as_ref().map_or(0, |child| walk(child));
    node.key + below(&node.left) + below(&node.right)
}

fn walk_archived(node: &ArchivedNode) -> u64 {
    let left = node.left.as_ref().map_or(0, |child| walk_archived(child));
    node.key.to_native() + left + node.right.as_ref().map_or(0, |child| walk_archived(child))
}

/// Knows that all pointers but one kind are at nodes.
struct Nodes;

// SAFETY: the tree has nothing but nodes, all of which are alive.
unsafe impl Visit for Nodes {
    fn target(&mut self, pointer: usize) -> Option<Target<'_>> {
        Some(if pointer == (&raw const OF_HOST).addr() {
            Target::Symbol { kind: artifact::record::SymbolKind::Global, name: HOST, offset: 0 }
        } else {
            let temperature = Temperature::Cold;
            Target::Object(Object { address: pointer, size: 48, align: 8, mutable: false, temperature })
        })
    }

    fn pointers(&mut self, object: &Object, report: &mut dyn FnMut(usize)) {
        // SAFETY: as above.
        let key = unsafe { std::ptr::with_exposed_provenance::<u64>(object.address).read() };
        if key.is_multiple_of(BOUND) {
            report(PLACE);
        }
        report(LEFT);
        report(RIGHT);
    }
}

fn bindings() -> Bindings {
    let mut bindings = Bindings::new();
    bindings.bind(HOST, (&raw const OF_HOST).expose_provenance());
    bindings
}

/// Loads the image of a tree, and returns it with the root.
fn load(image: Image) -> Result<(Loaded, *const Node), Failure> {
    let loaded = image.bind(&bindings())?;
    let root = loaded.address(ROOT).ok_or("no root")?.cast();
    Ok((loaded, root))
}

/// Returns how many pages of an image are copies of this process.
fn pages_written(loaded: &Loaded, len: usize) -> Result<f64, Failure> {
    let start = loaded.base().addr();
    let range = start..(start + len).next_multiple_of(4096);
    let (mut inside, mut kilobytes) = (false, 0.0);
    for line in std::fs::read_to_string("/proc/self/smaps")?.lines() {
        let address = line.split_once('-').and_then(|(first, _)| usize::from_str_radix(first, 16).ok());
        match (address, line.strip_prefix("Anonymous:")) {
            (Some(address), _) => inside = range.contains(&address),
            (None, Some(size)) if inside => {
                kilobytes += size.trim().trim_end_matches(" kB").parse::<f64>()?;
            }
            _ => {}
        }
    }
    Ok(kilobytes / 4.0)
}

/// Measures loading a heap, and its peers.
pub(crate) fn compare(setup: &Setup, folder: &Path) -> Result<Comparison, Failure> {
    let mut comparison = Comparison::new(
        "a tree of 2,000,000 objects",
        "S. having the objects of a saved heap (files in the page cache)",
    );
    let root = tree(0..OBJECTS).ok_or("no tree")?;
    let sum = walk(&root);
    let path = folder.join("heap.so");
    let session = Session::new(ir::Target::host())?;
    session.bind_global(ROOT, (&raw const *root).expose_provenance())?;
    session.bind_global(HOST, (&raw const OF_HOST).expose_provenance())?;
    let heap = SavedHeap { roots: &[ROOT], visitor: &mut Nodes };
    let (time, image) = timed(|| session.image_with(Saving { heap: Some(heap), ..Saving::default() }));
    let image = image?;
    comparison.note(format!("kiln saves an image of {} MB in {time:.2?}", image.len() / 1_000_000));
    std::fs::write(&path, &image)?;
    let len = image.len();
    drop(image);
    let postcard = postcard::to_extend(&root, Vec::new())?;
    let rkyv = rkyv::to_bytes::<RkyvError>(&*root)?;
    comparison.note(format!(
        "postcard has {} MB, rkyv {} MB",
        postcard.len() / 1_000_000,
        rkyv.len() / 1_000_000
    ));
    drop(root);

    let right = |found: u64| if found == sum { Ok(()) } else { Err(Failure::from("a wrong tree")) };
    // SAFETY: the image has a tree of nodes, which nobody writes, and is alive.
    let walk_image = |(_, root): &(Loaded, *const Node)| right(walk(unsafe { &**root }));
    // SAFETY: the bytes are what rkyv wrote.
    let archived = || unsafe { rkyv::access_unchecked::<ArchivedNode>(&rkyv) };
    let c_path = CString::new(path.as_os_str().as_bytes())?;
    let parts: &[&str] = &["have", "touch all"];
    let (kiln, moved, dynamic) = ("kiln: open, bind", "kiln: open_anywhere, bind", "dlopen(RTLD_NOW)");
    let (by_postcard, by_rkyv, in_place) = ("postcard::from_bytes", "rkyv::deserialize", "rkyv: in place");
    let series = interleave(
        setup.rounds,
        vec![
            Contender::in_parts(kiln, parts, || {
                let (time, image) = timed(|| load(Image::open(&path)?));
                let image = image?;
                Ok(vec![time, timed(|| walk_image(&image)).0])
            }),
            Contender::in_parts(moved, parts, || {
                let (time, image) = timed(|| load(Image::open_anywhere(&path)?));
                let image = image?;
                Ok(vec![time, timed(|| walk_image(&image)).0])
            }),
            Contender::in_parts(dynamic, parts, || {
                let (time, library) = timed(|| Library::open(&c_path));
                let library = library?;
                // SAFETY: the handle is open.
                let root = unsafe { dlsym(library.handle(), c"bench:tree".as_ptr()) };
                // SAFETY: as for `walk_image`.
                Ok(vec![time, timed(|| right(walk(unsafe { &*root.cast::<Node>() }))).0])
            }),
            Contender::in_parts(by_postcard, parts, || {
                let (time, root) = timed(|| postcard::from_bytes::<Box<Node>>(&postcard));
                let root = root?;
                let (touch, result) = timed(|| right(walk(&root)));
                result?;
                Ok(vec![time, touch])
            }),
            Contender::in_parts(by_rkyv, parts, || {
                let (time, root) = timed(|| rkyv::deserialize::<Node, RkyvError>(archived()));
                let root = root?;
                let (touch, result) = timed(|| right(walk(&root)));
                result?;
                Ok(vec![time, touch])
            }),
            Contender::in_parts(in_place, parts, || {
                let (time, root) = timed(archived);
                let (touch, result) = timed(|| right(walk_archived(root)));
                result?;
                Ok(vec![time, touch])
            }),
        ],
    )?;
    let having: Vec<f64> = seconds(&series, kiln, "have").iter().map(|time| time * 1e3).collect();
    comparison.add(series);
    comparison.values("kiln: open, bind, ms", &having, Goal::AtMost(2.0));
    // With the time that it takes to touch all of it.
    comparison.ratio(kiln, by_postcard, Goal::AtMost(1.0));
    comparison.ratio(kiln, by_rkyv, Goal::AtMost(1.0));
    comparison.ratio(kiln, in_place, Goal::None);
    comparison.ratio(moved, by_rkyv, Goal::None);

    let image = load(Image::open(&path)?)?;
    walk_image(&image)?;
    // Objects with a pointer at the host have pages of their own; one more has the slots.
    let bound = (OBJECTS / BOUND * 48).div_ceil(4096) as f64 + 1.0;
    comparison.value("pages written by kiln", pages_written(&image.0, len)?, Goal::AtMost(bound));
    drop(image);
    let image = load(Image::open_anywhere(&path)?)?;
    comparison.value("pages written by kiln, moved", pages_written(&image.0, len)?, Goal::None);
    comparison.check("all trees have the same keys");
    Ok(comparison)
}

/// Returns the times of a part of a contender.
fn seconds<'s>(series: &'s [Series], name: &str, part: &str) -> &'s [f64] {
    series.iter().find(|it| it.name == name && it.part == part).map_or(&[], |it| &it.seconds)
}
