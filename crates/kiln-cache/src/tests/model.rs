//! Random sequences of operations on every store, compared with a model that knows the possible
//! answers.
//!
//! Without failures, a store without a limit must answer exactly as the model does. An operation
//! that failed leaves one of two states. After an eviction or damage, an entry may also be gone. A
//! store never returns an entry that was not stored.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::common::{entry, key, quick_folder};
use super::shim::{EIO, ENOSPC, Fault, Plan, Shim};
use crate::{DiskStore, LayeredStore, Lineage, Lookup, MemoryStore, Store, WriteBehind};

#[derive(Clone, Debug)]
enum Op {
    Put {
        n: u32,
        version: u32,
        len: usize,
    },
    Get {
        n: u32,
    },
    Quarantine {
        n: u32,
    },
    SetLatest {
        lineage: u32,
        n: u32,
    },
    /// The next operations on files fail, until there is another plan.
    Trouble {
        at: usize,
        fault: u8,
        partial: usize,
    },
    Calm,
    Damage {
        n: u32,
        at: usize,
    },
    Truncate {
        n: u32,
        len: u64,
    },
    RemoveFolder,
    Gc {
        blocks: u64,
    },
    Verify,
    Clock {
        hours: u64,
    },
    /// Another process opens the folder.
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let n = 0..6_u32;
    prop_oneof![
        8 => (n.clone(), 0..4_u32, 0..600_usize).prop_map(|(n, version, len)| Op::Put { n, version, len }),
        8 => n.clone().prop_map(|n| Op::Get { n }),
        2 => n.clone().prop_map(|n| Op::Quarantine { n }),
        2 => (0..2_u32, n.clone()).prop_map(|(lineage, n)| Op::SetLatest { lineage, n }),
        2 => (0..12_usize, 0..3_u8, 0..700_usize).prop_map(|(at, fault, partial)| Op::Trouble { at, fault, partial }),
        2 => Just(Op::Calm),
        1 => (n.clone(), 0..700_usize).prop_map(|(n, at)| Op::Damage { n, at }),
        1 => (n, 0..700_u64).prop_map(|(n, len)| Op::Truncate { n, len }),
        1 => Just(Op::RemoveFolder),
        1 => (0..6_u64).prop_map(|blocks| Op::Gc { blocks }),
        1 => Just(Op::Verify),
        1 => (0..1000_u64).prop_map(|hours| Op::Clock { hours }),
        1 => Just(Op::Reopen),
    ]
}

/// The possible answers for a key.
#[derive(Clone, Debug, Default)]
struct May {
    versions: HashSet<(u32, usize)>,
    miss: bool,
    corrupt: bool,
}

#[derive(Default)]
struct Model {
    keys: HashMap<u32, May>,
    latest: HashMap<u32, HashSet<Option<u32>>>,
}

impl Model {
    fn may(&mut self, n: u32) -> &mut May {
        self.keys.entry(n).or_insert_with(|| May { miss: true, ..May::default() })
    }

    fn put(&mut self, n: u32, content: (u32, usize), worked: bool) {
        let may = self.may(n);
        if worked {
            *may = May::default();
        }
        may.versions.insert(content);
    }

    fn quarantined(&mut self, n: u32, worked: bool) {
        let may = self.may(n);
        if worked {
            *may = May::default();
        }
        may.miss = true;
    }

    /// From now on, any entry may be gone.
    fn forget(&mut self) {
        self.keys.values_mut().for_each(|may| may.miss = true);
        self.latest.values_mut().for_each(|may| may.extend([None]));
    }

    fn check(&mut self, n: u32, found: &Lookup) -> Result<(), TestCaseError> {
        let may = self.may(n).clone();
        let fits = match found {
            Lookup::Hit(found, _) => {
                may.versions.iter().any(|&(version, len)| *found == entry(n, version, len))
            }
            Lookup::Miss => may.miss,
            Lookup::Corrupt(_) => may.corrupt,
        };
        prop_assert!(fits, "entry {}: {:?}, but {:?}", n, found, may);
        Ok(())
    }

    fn check_latest(&self, store: &dyn Store) -> Result<(), TestCaseError> {
        for (lineage, may) in &self.latest {
            let found = store.latest(&Lineage::new("program", "m", &lineage.to_string()));
            prop_assert!(
                may.iter().any(|n| n.map(key) == found),
                "lineage {}: {:?} of {:?}",
                lineage,
                found,
                may
            );
        }
        Ok(())
    }
}

/// A store, and the disk below it if there is one.
struct Place {
    store: Box<dyn Store>,
    disk: Option<(DiskStore, Arc<Shim>)>,
    /// Whether memory or a queue is above the disk. It may hide changes of the disk, and failures.
    hides: bool,
    limited: bool,
}

fn place(kind: usize, folder: &std::path::Path) -> Place {
    let shim = Arc::new(Shim::default());
    let disk = DiskStore::with_files(folder.join("cache"), shim.clone());
    let below = Some((disk.clone(), shim));
    match kind {
        0 => Place { store: Box::new(MemoryStore::new()), disk: None, hides: false, limited: false },
        1 => {
            Place { store: Box::new(MemoryStore::with_limit(3500)), disk: None, hides: false, limited: true }
        }
        2 => Place { store: Box::new(disk), disk: below, hides: false, limited: false },
        3 => Place { store: Box::new(disk.limit(3 * 4096)), disk: below, hides: false, limited: true },
        4 => {
            let store = LayeredStore::new(MemoryStore::with_limit(3500), disk);
            Place { store: Box::new(store), disk: below, hides: true, limited: false }
        }
        _ => {
            let store = LayeredStore::new(MemoryStore::with_limit(3500), WriteBehind::new(disk));
            Place { store: Box::new(store), disk: below, hides: true, limited: false }
        }
    }
}

fn run(kind: usize, ops: &[Op]) -> Result<(), TestCaseError> {
    let folder = quick_folder();
    let mut place = place(kind, folder.path());
    let mut model = Model::default();
    let mut trouble = false;
    let background = kind == 5;
    for op in ops {
        match (op, &place.disk) {
            (&Op::Put { n, version, len }, _) => {
                let worked = place.store.put(&key(n), &entry(n, version, len)).is_ok();
                model.put(n, (version, len), worked);
                if place.limited {
                    model.forget();
                }
                // In the background the write may fail later, and then the old entry is still
                // there.
                if background && trouble {
                    let may = model.may(n);
                    (may.miss, may.corrupt) = (true, true);
                    may.versions.extend((0..4).flat_map(|version| (0..600).map(move |len| (version, len))));
                }
            }
            (&Op::Get { n }, _) => {
                let found = place.store.get(&key(n));
                if trouble {
                    // The entry may be unreadable, or seem to be missing.
                    let may = model.may(n).clone();
                    (model.may(n).miss, model.may(n).corrupt) = (true, true);
                    model.check(n, &found)?;
                    *model.may(n) = may;
                } else {
                    model.check(n, &found)?;
                }
            }
            (&Op::Quarantine { n }, _) => {
                let worked = place.store.quarantine(&key(n), "model").is_ok();
                model.quarantined(n, worked && !(background && trouble));
            }
            (&Op::SetLatest { lineage, n }, _) => {
                let worked = place
                    .store
                    .set_latest(&Lineage::new("program", "m", &lineage.to_string()), &key(n))
                    .is_ok();
                let may = model.latest.entry(lineage).or_insert_with(|| HashSet::from([None]));
                if worked && !(background && trouble) {
                    may.clear();
                }
                may.insert(Some(n));
                if place.limited {
                    may.insert(None);
                }
            }
            (&Op::Trouble { at, fault, partial }, Some((_, shim))) => {
                place.store.flush(Duration::from_secs(10));
                let fault = [Fault::Error(ENOSPC), Fault::ErrorFrom(EIO), Fault::Kill][usize::from(fault)];
                shim.plan(Some(Plan { at, fault, partial, only_writes: false }));
                trouble = true;
            }
            (Op::Calm, Some((_, shim))) => {
                place.store.flush(Duration::from_secs(10));
                shim.plan(None);
                trouble = false;
                // A write may have reached the upper layer only, or the lower layer only.
                if place.hides {
                    model.forget();
                }
            }
            (&Op::Damage { n, at }, Some((disk, _))) => {
                place.store.flush(Duration::from_secs(10));
                if let Ok(mut bytes) = std::fs::read(disk.path(&key(n))) {
                    let at = at % bytes.len().max(1);
                    bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 0x10);
                    std::fs::write(disk.path(&key(n)), bytes).unwrap();
                    (model.may(n).corrupt, model.may(n).miss) = (true, true);
                }
            }
            (&Op::Truncate { n, len }, Some((disk, _))) => {
                place.store.flush(Duration::from_secs(10));
                if let Ok(file) = std::fs::File::options().write(true).open(disk.path(&key(n))) {
                    file.set_len(len).unwrap();
                    (model.may(n).corrupt, model.may(n).miss) = (true, true);
                }
            }
            (Op::RemoveFolder, Some((disk, _))) => {
                place.store.flush(Duration::from_secs(10));
                let _ = std::fs::remove_dir_all(disk.folder());
                model.forget();
            }
            (&Op::Gc { blocks }, Some((disk, _))) => {
                place.store.flush(Duration::from_secs(10));
                let _ = disk.gc(blocks * 4096);
                model.forget();
            }
            (Op::Verify, Some((disk, _))) => {
                place.store.flush(Duration::from_secs(10));
                let damaged: Vec<u32> =
                    model.keys.iter().filter(|(_, may)| may.corrupt).map(|(&n, _)| n).collect();
                let sound = disk.verify(&mut |_, _| ()).is_ok_and(|report| report.unreadable.is_empty());
                for n in damaged.into_iter().filter(|_| sound && !trouble) {
                    (model.may(n).corrupt, model.may(n).miss) = (false, true);
                }
            }
            (&Op::Clock { hours }, Some((_, shim))) => shim.set_ahead(Duration::from_secs(hours * 3600)),
            (Op::Reopen, Some((_, shim))) if kind == 2 => {
                // Another process sees an entry again that was quarantined and could not be moved.
                // `quarantined` allowed that.
                let shim = shim.clone();
                let disk = DiskStore::with_files(folder.path().join("cache"), shim.clone());
                place.store = Box::new(disk.clone());
                place.disk = Some((disk, shim));
            }
            _ => {}
        }
        if !trouble {
            model.check_latest(&*place.store)?;
        }
    }
    if let Some((_, shim)) = &place.disk {
        place.store.flush(Duration::from_secs(10));
        shim.plan(None);
        if place.hides {
            model.forget();
        }
    }
    for n in 0..6 {
        model.check(n, &place.store.get(&key(n)))?;
        // A later build heals.
        place.store.put(&key(n), &entry(n, 1, 50)).unwrap();
        let found = place.store.get(&key(n));
        prop_assert!(matches!(&found, Lookup::Hit(found, _) if *found == entry(n, 1, 50)), "{:?}", found);
    }
    Ok(())
}

fn config() -> ProptestConfig {
    let cases = u32::try_from(super::common::cases(60, 6000)).unwrap();
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn stores_behave_like_the_model(kind in 0..6_usize, ops in prop::collection::vec(op(), 1..60)) {
        run(kind, &ops)?;
    }
}
