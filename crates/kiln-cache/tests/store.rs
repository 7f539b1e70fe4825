//! Both stores: what is stored comes back, and nothing else does.

use kiln_artifact::{Artifact, Contents};
use kiln_cache::{DiskStore, Key, KeyParts, Lookup, MemoryStore, Store};

fn artifact(text: &[u8]) -> Artifact {
    let mut contents = Contents::default();
    contents.text = text.to_vec();
    contents.finish()
}

fn key(n: u8) -> Key {
    KeyParts {
        fingerprint: &[n; 32],
        names: b"",
        target: "t",
        settings: "",
        producer: "test",
        revision: 0,
        abi: b"",
    }
    .key()
}

fn round_trip(store: &dyn Store) {
    assert!(matches!(store.get(&key(1)), Lookup::Miss));
    store.put(&key(1), &artifact(b"one")).unwrap();
    store.put(&key(2), &artifact(b"two")).unwrap();
    assert!(matches!(store.get(&key(1)), Lookup::Hit(found) if found == artifact(b"one")));
    assert!(matches!(store.get(&key(2)), Lookup::Hit(found) if found == artifact(b"two")));
    store.put(&key(1), &artifact(b"three")).unwrap();
    assert!(matches!(store.get(&key(1)), Lookup::Hit(found) if found == artifact(b"three")));
    assert!(matches!(store.get(&key(3)), Lookup::Miss));
}

#[test]
fn memory_round_trip() {
    round_trip(&MemoryStore::new());
}

#[test]
fn disk_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    round_trip(&DiskStore::new(folder.path().join("not yet there")));
}

#[test]
fn a_second_process_sees_the_first_ones_entries() {
    let folder = tempfile::tempdir().unwrap();
    DiskStore::new(folder.path()).put(&key(1), &artifact(b"one")).unwrap();
    assert!(matches!(DiskStore::new(folder.path()).get(&key(1)), Lookup::Hit(_)));
}

#[test]
fn every_altered_byte_and_every_truncation_is_corrupt() {
    let folder = tempfile::tempdir().unwrap();
    let store = DiskStore::new(folder.path());
    store.put(&key(1), &artifact(b"some code")).unwrap();
    let good = std::fs::read(store.path(&key(1))).unwrap();
    for index in 0..good.len() {
        let mut bad = good.clone();
        bad[index] ^= 0x20;
        std::fs::write(store.path(&key(1)), &bad).unwrap();
        assert!(matches!(store.get(&key(1)), Lookup::Corrupt(_)), "byte {index} altered");
        std::fs::write(store.path(&key(1)), &good[..index]).unwrap();
        assert!(matches!(store.get(&key(1)), Lookup::Corrupt(_)), "cut to {index} bytes");
    }
    // Storing anew heals the entry.
    store.put(&key(1), &artifact(b"some code")).unwrap();
    assert!(matches!(store.get(&key(1)), Lookup::Hit(_)));
}

#[test]
fn an_entry_under_another_name_is_corrupt() {
    let folder = tempfile::tempdir().unwrap();
    let store = DiskStore::new(folder.path());
    store.put(&key(1), &artifact(b"one")).unwrap();
    std::fs::create_dir_all(store.path(&key(2)).parent().unwrap()).unwrap();
    std::fs::copy(store.path(&key(1)), store.path(&key(2))).unwrap();
    assert!(matches!(store.get(&key(2)), Lookup::Corrupt(kiln_cache::Corrupt::OtherKey)));
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_not_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a file");
    std::fs::write(&file, b"").unwrap();
    let store = DiskStore::new(&file);
    assert!(store.put(&key(1), &artifact(b"one")).is_err());
    assert!(!matches!(store.get(&key(1)), Lookup::Hit(_)));
}
