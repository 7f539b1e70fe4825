//! Equal heaps give equal bytes, and what is in them is what was in memory.

use kiln_artifact::record::{Linkage, SectionKind, SymbolKind};
use kiln_heap::Temperature;

use crate::arena::{Arena, Node, Random, Word, node, random_heap};

#[test]
fn the_bytes_do_not_depend_on_addresses() {
    let mut random = Random(7);
    for count in [1, 2, 10, 300] {
        let nodes = random_heap(&mut random, count);
        let roots = [("first", 0), ("last", count - 1)];
        let reference = Arena::new(&nodes, false, 0).save(&roots).unwrap();
        for (backwards, gap) in [(true, 0), (false, 3), (true, 5)] {
            let other = Arena::new(&nodes, backwards, gap).save(&roots).unwrap();
            assert!(other.artifact.as_bytes() == reference.artifact.as_bytes(), "{count} objects");
            assert_eq!(other.stats, reference.stats);
        }
        // But on what is in them, and on the order of the roots.
        let swapped = Arena::new(&nodes, false, 0).save(&[roots[1], roots[0]]).unwrap();
        assert!(count == 1 || swapped.artifact.as_bytes() != reference.artifact.as_bytes());
    }
}

#[test]
fn shared_and_cyclic_objects_are_saved_once() {
    use Word::{Null, Number, Pointer};
    let nodes = [
        node([Pointer(1, 0), Pointer(2, 0), Pointer(0, 0)]),
        node([Number(5), Pointer(2, 8)]),
        node([Number(6), Pointer(0, 16), Null]),
        node([Number(7)]), // not reachable
    ];
    let saved = Arena::new(&nodes, false, 1).save(&[("root", 0)]).unwrap();
    assert_eq!((saved.stats.objects, saved.stats.pointers, saved.stats.bytes), (3, 5, 64));
    let relocs = saved.artifact.read_only_relocs();
    // In order of discovery: 0 at 0, 1 at 24, 2 at 40, all in the first run.
    let pointers: Vec<_> = relocs.iter().map(|it| (it.offset.get(), it.addend.get())).collect();
    assert_eq!(pointers, [(0, 24), (8, 40), (16, 0), (32, 48), (48, 16)]);
    assert_eq!(saved.artifact.read_only().len(), 64);
    let root = saved.artifact.symbols().last().unwrap();
    assert_eq!((root.kind(), root.linkage()), (SymbolKind::Global, Linkage::Export));
    assert_eq!((root.section(), root.offset.get(), root.size.get()), (SectionKind::ReadOnly, 0, 24));
}

#[test]
fn kinds_and_temperatures_have_pages_of_their_own() {
    use Word::{Named, Number, Pointer};
    let of = |words: &[Word], mutable, temperature| Node { mutable, temperature, ..node(words) };
    let mut nodes = vec![node((1..=15).map(|other| Pointer(other, 0)).collect::<Vec<_>>())];
    for temperature in [Temperature::Rare, Temperature::Hot, Temperature::Cold] {
        nodes.push(of(&[Number(1)], false, temperature));
        nodes.push(of(&[Pointer(0, 0)], false, temperature));
        nodes.push(of(&[Named("host")], false, temperature));
        nodes.push(of(&[Pointer(0, 0)], true, temperature));
        nodes.push(of(&[Named("host")], true, temperature));
    }
    let saved = Arena::new(&nodes, false, 0).save(&[("root", 0)]).unwrap();
    let runs = saved.artifact.named_data();
    let names: Vec<_> = runs.iter().map(|run| saved.artifact.section_name(run)).collect();
    let kinds = ["leaf", "linked", "bound", "written", "written.bound"];
    let expected =
        kinds.iter().flat_map(|kind| ["hot", "cold", "rare"].map(|how| format!(".heap.{kind}.{how}")));
    assert_eq!(names, expected.collect::<Vec<_>>());
    assert!(runs.iter().all(|run| run.align.get() == 4096));
    let sections: Vec<_> = runs.iter().map(|run| run.section() == SectionKind::Writable).collect();
    assert_eq!(sections, [vec![false; 9], vec![true; 6]].concat());
    assert_eq!((saved.stats.bound, saved.stats.mutable), (6, 6));
}
