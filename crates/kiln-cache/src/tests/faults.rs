//! Runs the operations of a [`DiskStore`] repeatedly. In each run a different file operation fails,
//! or the process dies at it.
//!
//! Whatever fails, the entries that the operation does not concern are still there, every entry
//! that can be read is right, a later build replaces what is damaged or lost, and the files that a
//! dead process left behind are removed later.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::common::{cases, entry, is_right, key, quick_folder};
use super::shim::{EIO, ENOSPC, EROFS, Fault, Plan, READ_ONLY, Shim};
use crate::files::{Files, RealFiles};
use crate::{DiskStore, Lineage, Lookup, Store};

/// An operation on a store, during which something fails.
struct Case {
    name: &'static str,
    run: fn(&DiskStore),
    /// Returns whether the entry with this number may be gone afterwards.
    may_vanish: fn(u32) -> bool,
}

const OLD: u32 = 1;
const NEW: u32 = 100;
const FEW: u32 = 6;

fn lineage() -> Lineage {
    Lineage::new("program", "m", "t")
}

const CASES: &[Case] = &[
    Case {
        name: "put new",
        run: |store| drop(store.put(&key(NEW), &entry(NEW, 0, 300))),
        may_vanish: |_| false,
    },
    Case {
        name: "put over",
        run: |store| drop(store.put(&key(OLD), &entry(OLD, 1, 300))),
        may_vanish: |_| false,
    },
    Case { name: "get", run: |store| drop(store.get(&key(OLD))), may_vanish: |_| false },
    Case {
        name: "put and evict",
        run: |store| drop(store.clone().limit(3 * 4096).put(&key(NEW), &entry(NEW, 0, 300))),
        may_vanish: |_| true,
    },
    Case { name: "gc", run: |store| drop(store.gc(3 * 4096)), may_vanish: |_| true },
    Case { name: "gc of nothing", run: |store| drop(store.gc(1 << 30)), may_vanish: |_| false },
    Case {
        name: "quarantine",
        run: |store| drop(store.quarantine(&key(OLD), "wrong")),
        may_vanish: |n| n == OLD,
    },
    Case {
        name: "set latest",
        run: |store| drop(store.set_latest(&lineage(), &key(NEW))),
        may_vanish: |_| false,
    },
    Case { name: "verify", run: |store| drop(store.verify(&mut |_, _| ())), may_vanish: |_| false },
    Case { name: "stat", run: |store| drop(store.stat()), may_vanish: |_| false },
];

fn prepare(folder: &Path) {
    let store = DiskStore::new(folder);
    for n in 0..FEW {
        store.put(&key(n), &entry(n, 0, 300)).unwrap();
        // The time of last use is so long ago that the next use updates it.
        RealFiles
            .touch(&store.path(&key(n)), SystemTime::now() - Duration::from_secs(86_400 + u64::from(n)))
            .unwrap();
    }
    store.set_latest(&lineage(), &key(OLD)).unwrap();
    // A damaged entry, for `verify`.
    store.put(&key(50), &entry(50, 0, 300)).unwrap();
    std::fs::write(store.path(&key(50)), b"KilnEnt\0damaged").unwrap();
}

/// Checks what must be true whatever failed. `store` is the store in which the operation failed, if
/// its process survives, or one newly opened, as another process would open it.
fn check(case: &Case, store: &DiskStore, what: &dyn std::fmt::Debug) {
    let name = case.name;
    for n in (0..FEW).chain([NEW]) {
        match store.get(&key(n)) {
            Lookup::Hit(found, _) => assert!(is_right(n, &found), "{name}, {what:?}: entry {n} is wrong"),
            Lookup::Miss => assert!(n == NEW || (case.may_vanish)(n), "{name}, {what:?}: entry {n} is lost"),
            Lookup::Corrupt(reason) => panic!("{name}, {what:?}: entry {n} is damaged: {reason}"),
        }
    }
    assert!(!matches!(store.get(&key(50)), Lookup::Hit(..)));
    let latest = store.latest(&lineage());
    let evicted = (case.may_vanish)(0) && latest.is_none();
    assert!(evicted || latest == Some(key(OLD)) || latest == Some(key(NEW)), "{name}, {what:?}: {latest:?}");
}

fn heals(case: &Case, store: &DiskStore, what: &dyn std::fmt::Debug) {
    for n in (0..FEW).chain([NEW, 50]) {
        store.put(&key(n), &entry(n, 2, 300)).unwrap();
        let healed = matches!(store.get(&key(n)), Lookup::Hit(found, _) if found == entry(n, 2, 300));
        assert!(healed, "{}, {what:?}: entry {n} is not healed", case.name);
    }
    store.set_latest(&lineage(), &key(3)).unwrap();
    assert_eq!(store.latest(&lineage()), Some(key(3)));
    store.quarantine(&key(3), "").unwrap();
    assert!(matches!(store.get(&key(3)), Lookup::Miss));
}

/// Checks that the files that a dead process left behind are removed once they are old.
fn cleans(folder: &Path) {
    let late = Arc::new(Shim::default());
    late.set_ahead(Duration::from_secs(2 * 60 * 60));
    let store = DiskStore::with_files(folder.to_owned(), late);
    store.gc(1 << 30).unwrap();
    assert_eq!(store.stat().unwrap().leftovers, 0);
}

/// Runs a case with one plan. Returns whether the plan's operation was reached.
fn try_plan(case: &Case, plan: Plan) -> bool {
    let folder = quick_folder();
    prepare(folder.path());
    let shim = Arc::new(Shim::default());
    let store = DiskStore::with_files(folder.path().to_owned(), shim.clone());
    shim.plan(Some(plan));
    (case.run)(&store);
    let fired = shim.fired();
    if plan.fault == Fault::Kill {
        drop(store);
    } else {
        // The process survives, and file operations work again.
        shim.plan(None);
        check(case, &store, &plan);
        if matches!(plan.fault, Fault::Error(_)) && case.name.starts_with("put") {
            let left = store.stat().unwrap().leftovers;
            // After one failure the process can still remove its temporary file.
            assert_eq!(left, 0, "{}, {plan:?}", case.name);
        }
    }
    let other = DiskStore::new(folder.path());
    check(case, &other, &plan);
    heals(case, &other, &plan);
    cleans(folder.path());
    fired
}

#[test]
fn nothing_is_lost_or_wrong_wherever_an_operation_fails_or_the_process_dies() {
    let len = usize::try_from(entry(NEW, 0, 300).file_len()).unwrap();
    let faults = [
        Fault::Error(EIO),
        Fault::ErrorFrom(EROFS),
        Fault::Kill,
        Fault::Error(ENOSPC),
        Fault::ErrorFrom(ENOSPC),
    ];
    let faults = &faults[..cases(3, faults.len())];
    for case in CASES {
        let mut operations = 0;
        for &fault in faults {
            for at in 0.. {
                if !try_plan(case, Plan { at, fault, partial: 0, only_writes: false }) {
                    operations = at;
                    break;
                }
            }
            // Writes that stop in the middle. Only writing a file's content can stop there, and an
            // entry's content is among the first operations that change something.
            let lens: &[usize] =
                if case.name.starts_with("put") { &[1, 104, len / 2, len - 1, len] } else { &[] };
            for &partial in lens {
                for at in 0..3 {
                    try_plan(case, Plan { at, fault, partial, only_writes: true });
                }
            }
        }
        println!("{}: {operations} operations", case.name);
        assert!(operations > 0, "{}: nothing is done", case.name);
    }
}

#[test]
fn a_folder_that_is_only_read_serves_and_reports() {
    let folder = quick_folder();
    prepare(folder.path());
    let shim = Arc::new(Shim::default());
    shim.plan(Some(READ_ONLY));
    let store = DiskStore::with_files(folder.path().to_owned(), shim);
    for n in 0..FEW {
        assert!(matches!(store.get(&key(n)), Lookup::Hit(..)));
    }
    assert_eq!(store.put(&key(NEW), &entry(NEW, 0, 300)).unwrap_err().raw_os_error(), Some(EROFS));
    // The last builds that other users stored are found. A hit on another entry sets the last
    // build, which must not fail although nothing can be written.
    assert!(store.set_latest(&lineage(), &key(2)).is_ok() && store.latest(&lineage()) == Some(key(OLD)));
    assert!(store.set_latest(&lineage(), &key(OLD)).is_ok(), "nothing to do");
    assert_eq!(store.latest(&lineage()), Some(key(OLD)));
    // The entry cannot be moved to quarantine, but this store and its clones do not use it again.
    assert!(store.quarantine(&key(OLD), "wrong").is_err());
    assert!(matches!(store.get(&key(OLD)), Lookup::Miss));
    assert!(matches!(store.clone().get(&key(OLD)), Lookup::Miss));
    assert!(matches!(store.get(&key(2)), Lookup::Hit(..)));
    assert_eq!(store.gc(0).unwrap().removed, 0);
    let report = store.verify(&mut |_, _| ()).unwrap();
    assert_eq!((report.broken.len(), report.unreadable.len()), (0, 1));
    assert_eq!(store.stat().unwrap().entries, u64::from(FEW) + 1);
}

#[test]
fn a_disk_that_is_full_is_an_error_until_there_is_room() {
    let folder = quick_folder();
    let shim = Arc::new(Shim::default());
    let store = DiskStore::with_files(folder.path().to_owned(), shim.clone());
    store.put(&key(1), &entry(1, 0, 300)).unwrap();
    for partial in [0, 1, 200] {
        // The first write fails, after `partial` bytes.
        shim.plan(Some(Plan { at: 0, fault: Fault::Error(ENOSPC), partial, only_writes: true }));
        let error = store.put(&key(1), &entry(1, 1, 300)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        assert!(matches!(store.get(&key(1)), Lookup::Hit(found, _) if found == entry(1, 0, 300)));
        assert_eq!(store.stat().unwrap().leftovers, 0, "a full disk is not filled with leftovers");
    }
    shim.plan(None);
    store.put(&key(1), &entry(1, 1, 300)).unwrap();
    assert!(matches!(store.get(&key(1)), Lookup::Hit(found, _) if found == entry(1, 1, 300)));
}
