//! Many processes in one folder, and processes that are killed.
//!
//! This test program starts itself again as a child, which does what an environment variable says.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kiln_cache::{DiskStore, Key, Lineage, Lookup, Store};

use crate::common::{cases, entry, is_right, key};

const TASK: &str = "KILN_CACHE_TEST_TASK";
const FOLDER: &str = "KILN_CACHE_TEST_FOLDER";
const SEED: &str = "KILN_CACHE_TEST_SEED";
const KEYS: u32 = 60;
const LIMIT: u64 = 60 * 4 * 4096;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32 % limit
    }
}

fn start(task: &str, folder: &Path, seed: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "processes::child", "--nocapture", "--test-threads=1"])
        .env(TASK, task)
        .env(FOLDER, folder)
        .env(SEED, seed.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The work of the children; it is not a test.
#[test]
fn child() {
    let Ok(task) = std::env::var(TASK) else { return };
    let store = DiskStore::new(std::env::var_os(FOLDER).unwrap()).limit(LIMIT);
    let mut random = Random(std::env::var(SEED).unwrap().parse().unwrap());
    println!("\nready");
    match task.as_str() {
        "write" => loop {
            let (n, version, len) = (random.below(KEYS), random.below(4), random.below(30_000));
            store.put(&key(n), &entry(n, version, len as usize)).unwrap();
            store.set_latest(&Lineage::new("program", &n.to_string(), "t"), &key(n)).unwrap();
        },
        "mixed" | "mixed, in a folder that vanishes" => {
            let end = Instant::now() + Duration::from_millis(cases(1000, 5000) as u64);
            let (mut hits, mut failed) = (0, 0);
            while Instant::now() < end {
                let n = random.below(KEYS);
                match random.below(20) {
                    0..10 => match store.get(&key(n)) {
                        Lookup::Hit(found, _) => {
                            assert!(is_right(n, &found), "entry {n} is wrong");
                            hits += 1;
                        }
                        Lookup::Miss => {}
                        Lookup::Corrupt(reason) => panic!("entry {n}: {reason}"),
                    },
                    10..17 => {
                        let entry = entry(n, random.below(4), random.below(20_000) as usize);
                        failed += u32::from(store.put(&key(n), &entry).is_err());
                    }
                    17 => {
                        let lineage = Lineage::new("program", &n.to_string(), "t");
                        failed += u32::from(store.set_latest(&lineage, &key(n)).is_err());
                        assert!(store.latest(&lineage).is_none_or(|found| found == key(n)));
                    }
                    18 => failed += u32::from(store.quarantine(&key(n), "a test").is_err()),
                    _ => match random.below(3) {
                        0 => drop(store.gc(LIMIT / 2).unwrap()),
                        1 => drop(store.stat().unwrap()),
                        _ => assert!(store.verify(&mut |_, _| ()).unwrap().broken.is_empty()),
                    },
                }
            }
            println!("{hits} hits, {failed} failed");
            assert!(hits > 0);
            assert!(failed == 0 || task != "mixed", "{failed} operations failed");
        }
        other => panic!("unknown task {other}"),
    }
}

/// Checks everything in the folder. Returns the number of entries.
fn all_right(store: &DiskStore) -> usize {
    let numbers: HashMap<Key, u32> = (0..KEYS).map(|n| (key(n), n)).collect();
    let entries: Vec<_> = store.entries().collect();
    for info in &entries {
        match store.get(&info.key) {
            Lookup::Hit(found, _) => assert!(is_right(numbers[&info.key], &found), "{info:?} is wrong"),
            other => panic!("{info:?}: {other:?}"),
        }
    }
    for n in 0..KEYS {
        assert!(
            store.latest(&Lineage::new("program", &n.to_string(), "t")).is_none_or(|found| found == key(n))
        );
    }
    entries.len()
}

#[test]
fn a_writer_killed_at_any_moment_damages_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = DiskStore::new(folder.path());
    let rounds = cases(12, 100);
    let mut random = Random(7);
    let mut read = 0;
    for round in 0..rounds {
        let mut child = start("write", folder.path(), round as u64);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "ready"), "the child began");
        std::thread::sleep(Duration::from_micros(u64::from(random.below(25_000))));
        child.kill().unwrap();
        child.wait().unwrap();
        read += all_right(&store);
    }
    let stat = store.stat().unwrap();
    println!("{rounds} killed, {read} entries read, {} leftovers", stat.leftovers);
    assert!(read > 0 && stat.foreign == 0);
    // Each killed writer was writing one file at most, and the next writer removed it.
    assert!(stat.leftovers <= 1, "{stat:?}");
    // A later build cleans up at once, however young they are, and heals.
    let store = DiskStore::new(folder.path());
    store.put(&key(0), &entry(0, 0, 100)).unwrap();
    assert_eq!(store.stat().unwrap().leftovers, 0);
    for n in 0..KEYS {
        store.put(&key(n), &entry(n, 0, 100)).unwrap();
    }
    assert_eq!(all_right(&store), KEYS as usize);
}

fn eight(task: &str, remove: bool) {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("cache");
    let children: Vec<Child> = (0..8).map(|seed| start(task, &inner, seed)).collect();
    if remove {
        for _ in 0..5 {
            std::thread::sleep(Duration::from_millis(cases(150, 800) as u64));
            let _ = std::fs::remove_dir_all(&inner);
        }
    }
    for child in children {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
    }
    let store = DiskStore::new(&inner);
    all_right(&store);
    let stat = store.stat().unwrap();
    assert_eq!((stat.leftovers, stat.foreign), (0, 0));
    assert!(stat.disk_bytes <= LIMIT * 3 / 2, "{stat:?}");
}

#[test]
fn eight_processes_read_write_and_evict_in_one_folder() {
    eight("mixed", false);
}

#[test]
fn eight_processes_survive_that_the_folder_is_removed() {
    eight("mixed, in a folder that vanishes", true);
}
