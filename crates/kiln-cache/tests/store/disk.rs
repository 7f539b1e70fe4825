//! Folders: limits, clocks, changes by others, and the findings of tools.

use std::fs::{self, File, FileTimes};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kiln_cache::{Counts, DiskStore, Lineage, Lookup, Store};

use crate::common::{entry, key};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) fn age(path: &Path, time: SystemTime) {
    File::open(path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
}

fn ago(days: u32) -> SystemTime {
    SystemTime::now() - days * DAY
}

fn is_hit(store: &DiskStore, n: u32) -> bool {
    matches!(store.get(&key(n)), Lookup::Hit(..))
}

#[test]
fn a_folder_stays_near_its_limit_and_keeps_what_was_used_last() {
    let folder = tempfile::tempdir().unwrap();
    let counts = Arc::new(Counts::new());
    // Room for 40 entries of one block each.
    let store = DiskStore::new(folder.path()).limit(40 * 4096).events(counts.clone());
    for n in 0..40 {
        store.put(&key(n), &entry(n, 0, 100)).unwrap();
        age(&store.path(&key(n)), ago(100 - n));
    }
    assert!((0..40).all(|n| fs::exists(store.path(&key(n))).unwrap()), "nothing is evicted before the limit");
    // A read is a use.
    assert!(is_hit(&store, 0));
    for n in 40..60 {
        store.put(&key(n), &entry(n, 0, 100)).unwrap();
        let stat = store.stat().unwrap();
        assert!(stat.disk_bytes <= 40 * 4096 * 5 / 4, "at most a quarter too much: {stat:?}");
    }
    assert!(is_hit(&store, 0), "used just now");
    assert!((1..5).all(|n| !is_hit(&store, n)), "the oldest are gone");
    assert!((40..60).all(|n| is_hit(&store, n)), "the newest are there");
    assert_eq!(counts.tally().evicted, 60 - store.stat().unwrap().entries);

    let report = store.gc(10 * 4096).unwrap();
    assert_eq!((report.kept, report.failed, store.stat().unwrap().entries), (10, 0, 10));
    assert_eq!(store.entries().count(), 10);
}

#[test]
fn a_lower_limit_is_reached_step_by_step() {
    let folder = tempfile::tempdir().unwrap();
    let store = DiskStore::new(folder.path());
    for n in 0..2000 {
        store.put(&key(n), &entry(n, 0, 100)).unwrap();
    }
    let small = DiskStore::new(folder.path()).limit(500 * 4096);
    let mut last = 2000;
    for n in 2000..3000 {
        small.put(&key(n), &entry(n, 0, 100)).unwrap();
        if n % 50 == 0 {
            let now = small.stat().unwrap().entries;
            assert!(now + 16 * 50 >= last, "no large step");
            last = now;
        }
    }
    let entries = small.stat().unwrap().entries;
    assert!((350..=650).contains(&entries), "{entries} of 500");
    // The oldest were evicted, roughly: of the newest 200, nearly all are there.
    let newest = (2800..3000).filter(|&n| is_hit(&small, n)).count();
    assert!(newest >= 180, "{newest} of 200");
}

#[test]
fn an_entry_larger_than_the_limit_is_an_error_and_harms_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = DiskStore::new(folder.path()).limit(8192);
    store.put(&key(1), &entry(1, 0, 100)).unwrap();
    let error = store.put(&key(2), &entry(2, 0, 10_000)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::FileTooLarge);
    assert!(is_hit(&store, 1));
}

#[test]
fn use_is_noted_but_not_every_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = DiskStore::new(folder.path());
    store.put(&key(1), &entry(1, 0, 100)).unwrap();
    let path = store.path(&key(1));
    let time = || fs::metadata(&path).unwrap().modified().unwrap();
    let recent = SystemTime::now() - Duration::from_secs(30 * 60);
    age(&path, recent);
    assert!(is_hit(&store, 1));
    assert_eq!(time(), recent, "half an hour is not worth a write");
    age(&path, ago(1));
    assert!(is_hit(&store, 1));
    assert!(time() > recent);
    // The last key of a lineage is noted as used as well.
    let lineage = Lineage::new("program", "m", "t");
    store.set_latest(&lineage, &key(1)).unwrap();
    let name = lineage.to_string();
    let path = folder.path().join(&name[..2]).join(format!("latest-{}", &name[2..]));
    age(&path, ago(1));
    store.set_latest(&lineage, &key(1)).unwrap();
    assert!(fs::metadata(&path).unwrap().modified().unwrap() > recent);
}

#[test]
fn a_clock_that_was_set_back_makes_files_age_from_now_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = DiskStore::new(folder.path()).limit(20 * 4096);
    for n in 0..20 {
        store.put(&key(n), &entry(n, 0, 100)).unwrap();
        age(&store.path(&key(n)), SystemTime::now() + 365 * DAY);
    }
    // New entries look older than all others, and still must not be evicted at once.
    for n in 20..40 {
        store.put(&key(n), &entry(n, 0, 100)).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    let new = (30..40).filter(|&n| fs::exists(store.path(&key(n))).unwrap()).count();
    assert!(new >= 8, "{new} of the 10 newest");
    let soon = SystemTime::now() + Duration::from_secs(2 * 60 * 60);
    assert!(store.gc(u64::MAX).is_ok());
    assert!(store.entries().all(|entry| entry.last_used < soon), "times ahead were set to now");
}

#[test]
fn leftovers_of_killed_writers_go_and_foreign_files_stay() {
    let folder = tempfile::tempdir().unwrap();
    let counts = Arc::new(Counts::new());
    let store = DiskStore::new(folder.path()).limit(1 << 30).events(counts.clone());
    store.put(&key(1), &entry(1, 0, 100)).unwrap();
    let shard = store.path(&key(1)).parent().unwrap().to_owned();
    let (old, young) = (shard.join(".kiln-new-1-0"), shard.join(".kiln-new-2-0"));
    let foreign = [shard.join("notes.txt"), folder.path().join("README"), shard.join("latest-of-all")];
    for path in foreign.iter().chain([&old, &young]) {
        fs::write(path, b"x").unwrap();
        age(path, ago(400));
    }
    age(&young, SystemTime::now());
    let stat = store.stat().unwrap();
    assert_eq!((stat.entries, stat.leftovers, stat.foreign), (1, 2, 3));
    // A later build.
    let store = DiskStore::new(folder.path()).limit(1 << 30).events(counts.clone());
    for n in 2..60 {
        store.put(&key(n), &entry(n, 0, 100)).unwrap();
    }
    assert!(!fs::exists(&old).unwrap(), "a sweep removes it");
    assert!(fs::exists(&young).unwrap(), "somebody may be writing it");
    assert_eq!(counts.tally().leftovers_removed, 1);
    age(&young, ago(1));
    assert_eq!(store.gc(0).unwrap().leftovers, 1);
    assert_eq!(store.stat().unwrap().entries, 0);
    assert!(foreign.iter().all(|path| fs::exists(path).unwrap()));
}

#[test]
fn a_folder_that_is_removed_in_the_middle_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("cache");
    let store = DiskStore::new(&inner);
    for round in 0..3 {
        assert!(!is_hit(&store, 1), "round {round}");
        store.put(&key(1), &entry(1, 0, 100)).unwrap();
        store.set_latest(&Lineage::new("program", "m", "t"), &key(1)).unwrap();
        assert!(is_hit(&store, 1));
        fs::remove_dir_all(&inner).unwrap();
        assert_eq!(store.latest(&Lineage::new("program", "m", "t")), None);
        assert_eq!(store.stat().unwrap(), kiln_cache::DiskStat::default());
        assert_eq!(store.verify(&mut |_, _| ()).unwrap().checked, 0);
        assert_eq!(store.gc(0).unwrap().removed, 0);
        store.quarantine(&key(1), "gone").unwrap();
        let _ = fs::remove_dir_all(&inner);
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_not_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a file");
    fs::write(&file, b"").unwrap();
    let store = DiskStore::new(&file);
    assert!(store.put(&key(1), &entry(1, 0, 100)).is_err());
    assert!(!is_hit(&store, 1));
    assert!(store.set_latest(&Lineage::new("program", "m", "t"), &key(1)).is_err());
    assert!(store.stat().is_err() && store.gc(0).is_err() && store.verify(&mut |_, _| ()).is_err());
}

#[test]
fn verify_puts_damaged_entries_aside_and_keeps_a_few() {
    let folder = tempfile::tempdir().unwrap();
    let counts = Arc::new(Counts::new());
    let store = DiskStore::new(folder.path()).events(counts.clone());
    for n in 0..40 {
        store.put(&key(n), &entry(n, 0, 100)).unwrap();
    }
    for n in 0..20 {
        let path = store.path(&key(n));
        let len = fs::metadata(&path).unwrap().len();
        File::options().write(true).open(&path).unwrap().set_len(len - 1 - u64::from(n)).unwrap();
    }
    let mut calls = Vec::new();
    let report = store.verify(&mut |done, all| calls.push((done, all))).unwrap();
    assert_eq!(calls, (0..=40).map(|done| (done, 40)).collect::<Vec<_>>());
    assert_eq!((report.checked, report.broken.len(), report.unreadable.len()), (40, 20, 0));
    assert!((0..20).all(|n| matches!(store.get(&key(n)), Lookup::Miss)));
    assert!((20..40).all(|n| is_hit(&store, n)));
    assert_eq!(counts.tally().quarantined, 20);
    let stat = store.stat().unwrap();
    assert_eq!((stat.entries, stat.quarantined), (20, 16));
    assert_eq!(fs::read_dir(folder.path().join("quarantine")).unwrap().count(), 32, "each with its reason");
    assert_eq!(store.verify(&mut |_, _| ()).unwrap().broken.len(), 0);
    // A quarantined entry can be stored again.
    store.put(&key(1), &entry(1, 0, 100)).unwrap();
    assert!(is_hit(&store, 1));
}
