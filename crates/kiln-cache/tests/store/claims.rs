//! Claims: of many who miss an entry at the same time, one compiles it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use kiln_cache::{Claims, DiskStore, LayeredStore, Lookup, MemoryStore, Store, WriteBehind};

use crate::common::{entry, is_right, key};

const LIMIT: Duration = Duration::from_secs(60);

/// Opens a folder as a process does.
fn open(folder: &std::path::Path, limit: Duration) -> impl Store + Send + use<> {
    let disk = Claims::of(DiskStore::new(folder), limit);
    LayeredStore::new(MemoryStore::new(), WriteBehind::new(disk))
}

/// Looks up as a build does. Returns whether it compiled.
fn build(store: &impl Store, n: u32, compile: impl Fn()) -> bool {
    if matches!(store.get(&key(n)), Lookup::Hit(..)) {
        return false;
    }
    match store.claim(&key(n)) {
        Lookup::Hit(found, _) => {
            assert!(is_right(n, &found));
            false
        }
        _ => {
            compile();
            store.put(&key(n), &entry(n, 0, 3000)).unwrap();
            true
        }
    }
}

#[test]
fn one_of_many_compiles() {
    let folder = tempfile::tempdir().unwrap();
    // Four stores of two threads each, as of four processes: locks of files that one process opened
    // twice exclude each other too.
    let compiled = Arc::new(AtomicUsize::new(0));
    let barrier = Arc::new(std::sync::Barrier::new(8));
    let stores: Vec<_> = (0..4).map(|_| Arc::new(open(folder.path(), LIMIT))).collect();
    let threads = stores.iter().chain(&stores).map(|store| {
        let (store, compiled, barrier) = (Arc::clone(store), Arc::clone(&compiled), Arc::clone(&barrier));
        std::thread::spawn(move || {
            for n in 0..20 {
                barrier.wait();
                let one = build(&*store, n, || std::thread::sleep(Duration::from_millis(20)));
                compiled.fetch_add(one.into(), Relaxed);
            }
        })
    });
    threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(compiled.load(Relaxed), 20);
}

#[test]
fn nobody_waits_long_or_for_the_dead() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (open(folder.path(), LIMIT), open(folder.path(), Duration::from_millis(100)));
    assert!(matches!(first.claim(&key(1)), Lookup::Miss));
    // It takes too long: the other compiles too.
    let start = Instant::now();
    assert!(matches!(second.claim(&key(1)), Lookup::Miss));
    assert!(start.elapsed() >= Duration::from_millis(100));
    // A process that ends without the entry leaves nothing.
    drop(first);
    let third = open(folder.path(), LIMIT);
    let start = Instant::now();
    assert!(matches!(third.claim(&key(1)), Lookup::Miss));
    // A thread that has a claim waits for nobody.
    let other = open(folder.path(), LIMIT);
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(matches!(other.claim(&key(2)), Lookup::Miss)));
    });
    assert!(matches!(third.claim(&key(2)), Lookup::Miss));
    assert!(start.elapsed() < LIMIT / 2);
    // What the process itself does not store for long is free again.
    let short = open(folder.path(), Duration::from_millis(10));
    assert!(matches!(short.claim(&key(3)), Lookup::Miss));
    std::thread::sleep(Duration::from_millis(20));
    let another = std::thread::scope(|scope| scope.spawn(|| short.claim(&key(3))).join().unwrap());
    assert!(matches!(another, Lookup::Miss));
}

#[test]
fn without_locks_everybody_compiles() {
    let folder = tempfile::tempdir().unwrap();
    // A file is where the folder of claims should be.
    std::fs::write(folder.path().join("claims"), "").unwrap();
    let stores = [open(folder.path(), LIMIT), open(folder.path(), LIMIT)];
    for store in &stores {
        assert!(matches!(store.claim(&key(1)), Lookup::Miss));
    }
    assert!(build(&stores[0], 2, || {}) && stores[0].flush(LIMIT) && !build(&stores[1], 2, || {}));
}
