//! Tests of every store, and of the limits of the store in memory.

use std::sync::Arc;
use std::time::Duration;

use kiln_cache::{
    Counts, DiskStore, LayeredStore, Lineage, Lookup, MemoryStore, MissReason, Store, WriteBehind, explain,
};

use crate::common::{entry, key, recipe};

#[track_caller]
fn hit(store: &dyn Store, n: u32, version: u32) {
    match store.get(&key(n)) {
        Lookup::Hit(found, _) => assert!(found == entry(n, version, 100), "entry {n} has another content"),
        other => panic!("entry {n}: {other:?}"),
    }
}

#[track_caller]
fn miss(store: &dyn Store, n: u32) {
    assert!(matches!(store.get(&key(n)), Lookup::Miss), "entry {n}");
}

fn round_trip(store: &dyn Store) {
    miss(store, 1);
    store.put(&key(1), &entry(1, 0, 100)).unwrap();
    store.put(&key(2), &entry(2, 0, 100)).unwrap();
    hit(store, 1, 0);
    hit(store, 2, 0);
    store.put(&key(1), &entry(1, 1, 100)).unwrap();
    hit(store, 1, 1);
    miss(store, 3);

    store.quarantine(&key(1), "a test").unwrap();
    miss(store, 1);
    hit(store, 2, 0);
    store.quarantine(&key(3), "was never there").unwrap();
    store.put(&key(1), &entry(1, 2, 100)).unwrap();
    hit(store, 1, 2);

    assert_eq!(store.put(&key(1), &entry(2, 0, 100)).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    let mut wrong = entry(1, 0, 100);
    wrong.functions = [wrong.functions[0], wrong.functions[0]].into();
    assert_eq!(store.put(&key(1), &wrong).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    hit(store, 1, 2);

    let (one, two) = (Lineage::new("program", "one", "t"), Lineage::new("program", "two", "t"));
    assert_eq!(store.latest(&one), None);
    assert_eq!(explain(store, &one, &recipe(2)), (MissReason::New, None));
    store.set_latest(&one, &key(1)).unwrap();
    store.set_latest(&two, &key(2)).unwrap();
    store.set_latest(&one, &key(3)).unwrap();
    assert_eq!((store.latest(&one), store.latest(&two)), (Some(key(3)), Some(key(2))));
    assert_eq!(explain(store, &one, &recipe(3)), (MissReason::Gone, None));
    assert_eq!(explain(store, &one, &recipe(2)), (MissReason::Unknown, None));
    let (why, found) = explain(store, &two, &recipe(3));
    assert!(matches!(why, MissReason::Changed(differences) if differences.len() == 1));
    assert_eq!(found, Some(entry(2, 0, 100)));

    assert!(store.flush(Duration::from_secs(10)));
    hit(store, 1, 2);
    hit(store, 2, 0);
    assert_eq!(store.latest(&one), Some(key(3)));
}

#[test]
fn memory_round_trip() {
    round_trip(&MemoryStore::new());
    round_trip(&Arc::new(MemoryStore::with_limit(1 << 20)));
}

#[test]
fn disk_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    round_trip(&DiskStore::new(folder.path().join("not/yet there")));
    round_trip(&DiskStore::new(folder.path().join("synced")).sync(true));
}

#[test]
fn composed_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    round_trip(&LayeredStore::new(MemoryStore::new(), DiskStore::new(folder.path().join("1"))));
    round_trip(&WriteBehind::new(DiskStore::new(folder.path().join("2"))));
    let behind: Box<dyn Store> = Box::new(WriteBehind::new(DiskStore::new(folder.path().join("3"))));
    round_trip(&LayeredStore::new(MemoryStore::with_limit(1000), behind));
}

#[test]
fn a_hit_below_is_copied_up() {
    let (upper, lower) = (MemoryStore::new(), MemoryStore::new());
    lower.put(&key(1), &entry(1, 0, 100)).unwrap();
    lower.set_latest(&Lineage::new("program", "m", "t"), &key(1)).unwrap();
    let store = LayeredStore::new(&upper, &lower);
    hit(&store, 1, 0);
    hit(&upper, 1, 0);
    assert_eq!(store.latest(&Lineage::new("program", "m", "t")), Some(key(1)));
    assert_eq!(upper.latest(&Lineage::new("program", "m", "t")), Some(key(1)));
    hit(&store, 1, 0);
    assert_eq!(lower.stat().hits, 1, "the second time it is found above");
}

#[test]
fn what_is_damaged_above_is_healed_from_below() {
    let folder = tempfile::tempdir().unwrap();
    let counts = Arc::new(Counts::new());
    let upper = DiskStore::new(folder.path());
    let store = LayeredStore::new(upper.clone(), MemoryStore::new()).events(counts.clone());
    store.put(&key(1), &entry(1, 0, 100)).unwrap();
    std::fs::write(upper.path(&key(1)), b"").unwrap();
    hit(&store, 1, 0);
    hit(&upper, 1, 0);
    assert_eq!(counts.tally().to_string(), "corrupt 1, healed 1");
    // Damaged above and missing below: the answer is that of the upper store.
    store.lower().quarantine(&key(1), "").unwrap();
    std::fs::write(upper.path(&key(1)), b"").unwrap();
    assert!(matches!(store.get(&key(1)), Lookup::Corrupt(_)));
}

#[test]
fn memory_stays_within_its_limit_and_keeps_what_was_used_last() {
    let counts = Arc::new(Counts::new());
    let one = MemoryStore::new();
    one.put(&key(0), &entry(0, 0, 100)).unwrap();
    let cost = one.stat().bytes;
    assert!(cost > entry(0, 0, 100).file_len());

    let store = MemoryStore::with_limit(3 * cost).events(counts.clone());
    for n in 0..3 {
        store.put(&key(n), &entry(n, 0, 100)).unwrap();
    }
    hit(&store, 0, 0);
    store.put(&key(3), &entry(3, 0, 100)).unwrap();
    miss(&store, 1);
    for n in [0, 2, 3] {
        hit(&store, n, 0);
    }
    let stat = store.stat();
    assert_eq!((stat.entries, stat.bytes, stat.hits, stat.misses, stat.evicted), (3, 3 * cost, 4, 1, 1));
    assert_eq!(counts.tally().evicted, 1);

    // An entry that is too large is not kept, and its old version is removed.
    store.put(&key(3), &entry(3, 1, 100_000)).unwrap();
    miss(&store, 3);
    assert_eq!((store.len(), store.stat().bytes), (2, 2 * cost));
}
