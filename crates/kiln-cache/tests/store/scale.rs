//! The cost of operations with very many entries, compared with plain reads and writes of the same
//! bytes.
//!
//! 3,000 entries, or 100,000 with `KILN_CASES=100`.
//! `cargo test --release -p kiln-cache -- --nocapture scale` shows the figures.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kiln_cache::{DiskStore, Lineage, Lookup, Store};

use crate::common::{cases, entry, key};

fn timed(what: &str, count: usize, mut run: impl FnMut(u32)) -> Duration {
    let mut worst = Duration::ZERO;
    let start = Instant::now();
    for n in 0..u32::try_from(count).unwrap() {
        let start = Instant::now();
        run(n);
        worst = worst.max(start.elapsed());
    }
    let mean = start.elapsed() / u32::try_from(count).unwrap();
    println!(
        "{what:36} {count:7} x {:9.1} µs, worst {:9.1} µs",
        mean.as_secs_f64() * 1e6,
        worst.as_secs_f64() * 1e6
    );
    worst
}

/// Entries that were made before and are used repeatedly, so that only the store is measured.
fn measure(len: usize) {
    let folder = tempfile::tempdir().unwrap();
    let count = cases(100, 1000);
    let entries: Vec<_> = (0..u32::try_from(count).unwrap()).map(|n| entry(n, 0, len)).collect();
    let files: Vec<Vec<u8>> = entries.iter().map(|entry| entry.to_bytes()).collect();
    let keys: Vec<_> = (0..u32::try_from(count).unwrap()).map(key).collect();
    let store = DiskStore::new(folder.path().join("cache")).limit(u64::MAX);
    let path = |n: u32| -> PathBuf { folder.path().join(format!("{:02x}/{n}", n % 256)) };
    (0..256).for_each(|n| fs::create_dir(folder.path().join(format!("{n:02x}"))).unwrap());
    println!("entries of {} bytes, artifacts of {}", files[0].len(), entries[0].artifact.as_bytes().len());
    // Each store makes its folders first.
    timed("put (and make folders)", count, |n| store.put(&keys[n as usize], &entries[n as usize]).unwrap());
    store.gc(0).unwrap();
    timed("fs::write", count, |n| fs::write(path(n), &files[n as usize]).unwrap());
    timed("put", count, |n| store.put(&keys[n as usize], &entries[n as usize]).unwrap());
    timed("fs::read", count, |n| assert!(!fs::read(path(n)).unwrap().is_empty()));
    timed("get", count, |n| assert!(matches!(store.get(&keys[n as usize]), Lookup::Hit(..))));
    timed("get of nothing", count, |n| assert!(matches!(store.get(&key(n + 1_000_000)), Lookup::Miss)));
    let lineage = |n: u32| Lineage::new("program", &n.to_string(), "t");
    timed("set_latest", count, |n| store.set_latest(&lineage(n), &keys[n as usize]).unwrap());
    timed("set_latest, known", count, |n| store.set_latest(&lineage(n), &keys[n as usize]).unwrap());
    let synced = DiskStore::new(folder.path().join("synced")).sync(true);
    timed("put, synced", count.min(100), |n| synced.put(&keys[n as usize], &entries[n as usize]).unwrap());
}

#[test]
fn cost_of_one_entry() {
    measure(3_000);
    measure(60_000);
}

#[test]
fn very_many_entries() {
    let folder = tempfile::tempdir().unwrap();
    let count = cases(3_000, 100_000);
    let all = u32::try_from(count).unwrap();
    let store = DiskStore::new(folder.path()).limit(u64::MAX);
    let few = count / 20;
    timed("put", count, |n| store.put(&key(n), &entry(n, 0, 200)).unwrap());
    timed("get", few, |n| assert!(matches!(store.get(&key(n)), Lookup::Hit(..))));
    let stat = timed("stat", 1, |_| assert_eq!(store.stat().unwrap().entries, u64::from(all)));
    timed("entries", 1, |_| assert_eq!(store.entries().count(), count));
    let nothing = timed("gc of nothing", 1, |_| assert_eq!(store.gc(u64::MAX).unwrap().removed, 0));
    timed("verify", 1, |_| assert!(store.verify(&mut |_, _| ()).unwrap().broken.is_empty()));
    let full = DiskStore::new(folder.path()).limit(u64::from(all) * 4096);
    let worst = timed("put at the limit", few, |n| {
        full.put(&key(all + n), &entry(n + all, 0, 200)).unwrap();
    });
    let entries = store.stat().unwrap().entries;
    println!("entries at the limit of {all}: {entries}");
    assert!(entries < u64::from(all) * 11 / 10);
    timed("gc of half", 1, |_| {
        assert_eq!(store.gc(u64::from(all) / 2 * 4096).unwrap().kept, u64::from(all) / 2);
    });
    // The bounds are generous: they are to find quadratic time, not to measure.
    let limit = Duration::from_secs(2) + Duration::from_micros(200) * all;
    assert!(stat < limit && nothing < limit, "{stat:?}, {nothing:?}");
    assert!(worst < Duration::from_secs(5), "a write is held up by eviction: {worst:?}");
}
