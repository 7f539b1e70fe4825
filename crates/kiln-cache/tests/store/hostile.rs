//! Files that do not hold what their name says: they never give a wrong artifact, and storing again
//! heals them.

use kiln_cache::{DiskStore, Entry, EntryError, Lineage, Lookup, Recipe, Store};

use crate::common::{entry, key, quick_folder};

#[test]
fn every_altered_byte_and_every_truncation_is_corrupt() {
    let folder = quick_folder();
    let store = DiskStore::new(folder.path());
    store.put(&key(1), &entry(1, 0, 50)).unwrap();
    let good = std::fs::read(store.path(&key(1))).unwrap();
    for index in 0..good.len() {
        for bits in [1 << (index % 8), 0xff] {
            let mut bad = good.clone();
            bad[index] ^= bits;
            let read = Entry::from_bytes(&key(1), bad.clone());
            assert!(read.is_err(), "byte {index} altered by {bits:#x}");
            // Rewriting a file is slow, so this is a sample.
            if index % 16 == 5 {
                std::fs::write(store.path(&key(1)), &bad).unwrap();
                assert!(
                    matches!(store.get(&key(1)), Lookup::Corrupt(_)),
                    "byte {index} altered by {bits:#x}"
                );
            }
        }
        assert!(Entry::from_bytes(&key(1), good[..index].to_vec()).is_err(), "cut to {index} bytes");
        if index % 16 == 0 {
            std::fs::write(store.path(&key(1)), &good[..index]).unwrap();
            assert!(matches!(store.get(&key(1)), Lookup::Corrupt(_)), "cut to {index} bytes");
        }
    }
    std::fs::write(store.path(&key(1)), [&good[..], b"\0"].concat()).unwrap();
    assert!(matches!(store.get(&key(1)), Lookup::Corrupt(_)), "a byte too many");
    // Storing again heals the entry.
    store.put(&key(1), &entry(1, 0, 50)).unwrap();
    assert!(matches!(store.get(&key(1)), Lookup::Hit(..)));
}

#[test]
fn an_altered_byte_in_the_file_of_a_lineage_is_no_last_build() {
    let folder = quick_folder();
    let store = DiskStore::new(folder.path());
    let lineage = Lineage::new("program", "m", "t");
    store.set_latest(&lineage, &key(1)).unwrap();
    let name = lineage.to_string();
    let path = folder.path().join(&name[..2]).join(format!("latest-{}", &name[2..]));
    let good = std::fs::read(&path).unwrap();
    for index in 0..good.len() {
        let mut bad = good.clone();
        bad[index] ^= 1 << (index % 8);
        std::fs::write(&path, &bad).unwrap();
        assert_eq!(store.latest(&lineage), None, "byte {index} altered");
        std::fs::write(&path, &good[..index]).unwrap();
        assert_eq!(store.latest(&lineage), None, "cut to {index} bytes");
    }
    store.set_latest(&lineage, &key(2)).unwrap();
    assert_eq!(store.latest(&lineage), Some(key(2)));
}

/// Writes `bytes` to the file of the entry `n`.
fn plant(store: &DiskStore, n: u32, bytes: &[u8]) {
    let path = store.path(&key(n));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn an_entry_under_another_name_is_corrupt() {
    let folder = quick_folder();
    let store = DiskStore::new(folder.path());
    plant(&store, 2, &entry(1, 0, 50).to_bytes());
    assert!(matches!(store.get(&key(2)), Lookup::Corrupt(EntryError::OtherKey)));
}

/// An entry with a changed header, whose checksum is right.
fn forged(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = entry(1, 0, 50).to_bytes();
    change(&mut bytes);
    let body = *blake3::hash(&bytes[104..]).as_bytes();
    bytes[64..96].copy_from_slice(&body);
    let sum = *blake3::hash(&bytes[..96]).as_bytes();
    bytes[96..104].copy_from_slice(&sum[..8]);
    bytes
}

#[test]
fn forged_entries_with_right_checksums_are_refused() {
    let folder = quick_folder();
    let store = DiskStore::new(folder.path());
    plant(&store, 1, &forged(|_| ()));
    assert!(matches!(store.get(&key(1)), Lookup::Hit(..)), "the forger works");

    let reason = |bytes: &[u8]| {
        plant(&store, 1, bytes);
        match store.get(&key(1)) {
            Lookup::Corrupt(reason) => reason,
            other => panic!("{other:?}"),
        }
    };
    // Another version of the entry's format, older or newer.
    for version in [0, 1, 3, u32::MAX] {
        let bytes = forged(|bytes| bytes[8..12].copy_from_slice(&version.to_le_bytes()));
        assert!(matches!(reason(&bytes), EntryError::OtherVersion));
        // It is left for the version that wrote it.
        assert_eq!(store.verify(&mut |_, _| ()).unwrap().other_versions, 1);
        assert!(matches!(reason(&bytes), EntryError::OtherVersion));
    }
    assert!(matches!(reason(&forged(|bytes| bytes[0] ^= 1)), EntryError::Foreign));
    // Lengths whose sum is wrong or overflows.
    for place in [12..16, 48..52, 56..60, 60..64] {
        for value in [0_u32, 1, 1 << 16, u32::MAX] {
            let bytes = forged(|bytes| bytes[place.clone()].copy_from_slice(&value.to_le_bytes()));
            if bytes != forged(|_| ()) {
                let _ = reason(&bytes);
            }
        }
    }
    // The recipe of another target, under this key.
    let other = forged(|bytes| {
        let at = bytes.windows(6).position(|text| text == b"x86_64").unwrap();
        bytes[at..at + 6].copy_from_slice(b"x86_65");
    });
    assert!(matches!(reason(&other), EntryError::Recipe));
    // An artifact of another version of its format.
    let other = forged(|bytes| {
        let at = bytes.windows(8).position(|text| text == b"KilnArt\0").unwrap();
        bytes[at + 8] ^= 0x40;
    });
    assert!(matches!(reason(&other), EntryError::Artifact(_)));
    // Function keys taken away: the lengths agree, the numbers do not.
    let mut wrong = entry(1, 0, 50);
    wrong.functions = [wrong.functions[0], wrong.functions[0]].into();
    assert!(matches!(reason(&wrong.to_bytes()), EntryError::FunctionKeys { keys: 2, functions: 1 }));
}

#[test]
fn an_artifact_of_another_format_is_not_read_and_not_removed() {
    let folder = quick_folder();
    let store = DiskStore::new(folder.path());
    // A sound entry, whose recipe says that its artifact has another format.
    let mut recipe = entry(1, 0, 50).recipe.to_bytes();
    recipe[0] += 1;
    let other = Entry { recipe: Recipe::from_bytes(&recipe).unwrap(), ..entry(1, 0, 50) };
    let key = other.recipe.key();
    store.put(&key, &other).unwrap();
    assert!(matches!(store.get(&key), Lookup::Corrupt(EntryError::OtherVersion)));
    let report = store.verify(&mut |_, _| ()).unwrap();
    assert_eq!((report.other_versions, report.broken.len(), store.stat().unwrap().entries), (1, 0, 1));
}

#[test]
fn a_folder_or_link_in_place_of_an_entry_is_corrupt_and_not_fatal() {
    let folder = quick_folder();
    let store = DiskStore::new(folder.path());
    std::fs::create_dir_all(store.path(&key(1))).unwrap();
    assert!(matches!(store.get(&key(1)), Lookup::Corrupt(EntryError::Unreadable(_))));
    assert!(store.put(&key(1), &entry(1, 0, 50)).is_err());
    plant(&store, 2, b"");
    std::fs::remove_file(store.path(&key(2))).unwrap();
    std::os::unix::fs::symlink(store.path(&key(2)), store.path(&key(2))).unwrap();
    assert!(matches!(store.get(&key(2)), Lookup::Corrupt(EntryError::Unreadable(_))));
    store.put(&key(2), &entry(2, 0, 50)).unwrap();
    assert!(matches!(store.get(&key(2)), Lookup::Hit(..)));
    // No temporary file is left.
    assert_eq!(store.stat().unwrap().leftovers, 0);
    assert_eq!(store.gc(0).unwrap().failed, 0);
}
