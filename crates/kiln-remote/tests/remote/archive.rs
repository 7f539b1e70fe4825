//! Archives: what is in them, and what happens if they are damaged or made to do harm.

use std::io::Write;

use kiln_cache::{DiskStore, Lineage, Lookup, Store};
use kiln_remote::List;
use kiln_remote::archive::{ArchiveError, ArchiveReport, export, import};

use crate::common::{cases, entry, is_right, key, quick_folder};

fn lineage(n: u32) -> Lineage {
    Lineage::new("program", &n.to_string(), "target")
}

/// A folder with these entries, stored in this order, and their last builds.
fn folder(numbers: impl IntoIterator<Item = u32>) -> (tempfile::TempDir, DiskStore) {
    let folder = quick_folder();
    let store = DiskStore::new(folder.path());
    for n in numbers {
        store.put(&key(n), &entry(n, 0, 100 + 37 * n as usize)).unwrap();
        store.set_latest(&lineage(n), &key(n)).unwrap();
    }
    (folder, store)
}

fn archive(store: &DiskStore, list: Option<&List>) -> (Vec<u8>, ArchiveReport) {
    let mut file = Vec::new();
    let report = export(store, list, &mut file).unwrap();
    (file, report)
}

fn has(store: &DiskStore, n: u32) -> bool {
    match store.get(&key(n)) {
        Lookup::Hit(found, _) => {
            assert!(is_right(n, &found));
            true
        }
        Lookup::Miss => false,
        Lookup::Corrupt(reason) => panic!("{reason}"),
    }
}

#[test]
fn archives_are_equal_and_complete() {
    let (_one, one) = folder(0..20);
    let (_other, other) = folder((0..20).rev());
    let (file, report) = archive(&one, None);
    assert!(file == archive(&other, None).0);
    assert_eq!((report.entries, report.last_builds, report.skipped), (20, 20, 0));

    let (_new, new) = folder([3]);
    new.set_latest(&lineage(5), &key(3)).unwrap();
    let imported = import(&new, &*file).unwrap();
    assert_eq!((imported.entries, imported.bytes, imported.skipped), (20, report.bytes, 1));
    assert!((0..20).all(|n| has(&new, n)));
    // This machine's last builds stay.
    assert_eq!((new.latest(&lineage(4)), new.latest(&lineage(5))), (Some(key(4)), Some(key(3))));
    assert_eq!(import(&new, &*file).unwrap().skipped, 20);
}

#[test]
fn a_list_says_what_is_exported() {
    let (_folder, store) = folder(0..9);
    let list = List { keys: [2, 7, 50].map(key).into(), lineages: [lineage(2), lineage(50)].into() };
    let (file, report) = archive(&store, Some(&list));
    assert_eq!((report.entries, report.last_builds, report.skipped), (2, 1, 1));
    let (_new, new) = folder([]);
    import(&new, &*file).unwrap();
    assert!((0..9).all(|n| has(&new, n) == [2, 7].contains(&n)));
}

#[test]
fn damaged_archives_are_errors_and_never_wrong_entries() {
    let (_folder, store) = folder(0..3);
    let (file, _) = archive(&store, None);
    let (_new, new) = folder([]);
    for len in 0..file.len() {
        assert!(import(&new, &file[..len]).is_err(), "{len} of {} bytes", file.len());
    }
    for place in 0..file.len() {
        for bit in [1, 0x80] {
            let mut file = file.clone();
            file[place] ^= bit;
            // Some bits of a frame's header change nothing.
            if let Ok(report) = import(&new, &*file) {
                assert_eq!((report.entries, report.last_builds), (3, 3));
            }
        }
    }
    let mut longer = file.clone();
    longer.push(0);
    assert!(matches!(import(&new, &*longer), Err(ArchiveError::Malformed { .. })));
    let twice = [&*file, &file].concat();
    assert!(matches!(import(&new, &*twice), Err(ArchiveError::Malformed { .. })));
    assert!((0..3).all(|n| has(&new, n)));
}

/// Compresses the content of an archive.
fn pack(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = zstd::Encoder::new(Vec::new(), 1).unwrap();
    parts.iter().for_each(|part| out.write_all(part).unwrap());
    out.finish().unwrap()
}

#[test]
fn archives_that_mean_harm_are_errors() {
    let (_new, new) = folder([]);
    let head: &[u8] = b"KilnArc\0\x01\0\0\0";
    let refused = |file: Vec<u8>| import(&new, &*file).unwrap_err();
    assert!(matches!(refused(b"#!/bin/sh\n".to_vec()), ArchiveError::Foreign));
    assert!(matches!(refused(pack(&[b"KilnEnt\0\x01\0\0\0"])), ArchiveError::Foreign));
    assert!(matches!(refused(pack(&[b"KilnArc\0\x02\0\0\0"])), ArchiveError::OtherVersion(2)));
    // Lengths that nothing follows take no memory.
    for len in [u64::MAX, 1 << 40, 1 << 30] {
        refused(pack(&[head, &[1], key(1).as_bytes(), &len.to_le_bytes()]));
    }
    // The entry of another key.
    let bytes = entry(1, 0, 50).to_bytes();
    let len = (bytes.len() as u64).to_le_bytes();
    let other = refused(pack(&[head, &[1], key(2).as_bytes(), &len, &bytes]));
    assert!(matches!(other, ArchiveError::Entry { at: 12, .. }), "{other}");
    // Two items with one name.
    let (key, lineage) = (key(1), lineage(1));
    let item: &[&[u8]] = &[&[1], key.as_bytes(), &len, &bytes];
    let twice = refused(pack(&[&[head], item, item].concat()));
    assert!(matches!(twice, ArchiveError::Malformed { .. }), "{twice}");
    // Entries after last builds, and an end without a checksum.
    let last: &[&[u8]] = &[&[2], lineage.as_bytes(), key.as_bytes()];
    assert!(matches!(refused(pack(&[&[head], last, item].concat())), ArchiveError::Malformed { .. }));
    assert!(matches!(refused(pack(&[head, &[0], &[7; 32]])), ArchiveError::Malformed { .. }));
    assert!(matches!(refused(pack(&[head, &[9]])), ArchiveError::Malformed { .. }));
}

#[test]
fn an_import_shares_the_folder_with_others() {
    let (_folder, store) = folder(0..60);
    let (file, _) = archive(&store, None);
    let (_new, new) = folder([]);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| import(&new, &*file).unwrap());
        }
        scope.spawn(|| (0..60).for_each(|n| new.put(&key(n), &entry(n, 0, 40)).unwrap()));
        scope.spawn(|| {
            (0..cases(600, 60_000) as u32).map(|n| has(&new, n % 60)).filter(|found| *found).count()
        });
        scope.spawn(|| (0..30).for_each(|n| new.quarantine(&key(2 * n), "test").unwrap()));
        scope.spawn(|| (0..10).for_each(|_| drop(archive(&new, None))));
    });
    import(&new, &*file).unwrap();
    assert!((0..60).all(|n| has(&new, n)));
    let stat = new.stat().unwrap();
    assert_eq!((stat.leftovers, stat.foreign), (0, 0));
}
