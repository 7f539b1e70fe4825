//! Writing in the background: nothing waits longer than allowed, and everything queued is visible.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kiln_cache::{Counts, Entry, Key, Lineage, Lookup, MemoryStore, Store, WriteBehind};

use crate::common::{entry, key};

/// A store whose every write reports that it begins, and waits for permission.
struct Gate {
    inner: Arc<MemoryStore>,
    begun: Mutex<Sender<Key>>,
    open: Mutex<Receiver<io::Result<()>>>,
}

impl Store for Gate {
    fn get(&self, key: &Key) -> Lookup {
        self.inner.get(key)
    }

    fn put(&self, key: &Key, entry: &Entry) -> io::Result<()> {
        self.begun.lock().unwrap().send(*key).unwrap();
        let verdict = self.open.lock().unwrap().recv();
        verdict.unwrap_or(Ok(()))?;
        self.inner.put(key, entry)
    }

    fn quarantine(&self, key: &Key, reason: &str) -> io::Result<()> {
        self.inner.quarantine(key, reason)
    }

    fn latest(&self, lineage: &Lineage) -> Option<Key> {
        self.inner.latest(lineage)
    }

    fn set_latest(&self, lineage: &Lineage, key: &Key) -> io::Result<()> {
        self.inner.set_latest(lineage, key)
    }
}

struct Place {
    store: WriteBehind<Gate>,
    memory: Arc<MemoryStore>,
    begun: Receiver<Key>,
    open: Sender<io::Result<()>>,
    counts: Arc<Counts>,
}

fn place(queue_bytes: u64) -> Place {
    let memory = Arc::new(MemoryStore::new());
    let (begun_sender, begun) = channel();
    let (open, open_receiver) = channel();
    let gate =
        Gate { inner: memory.clone(), begun: Mutex::new(begun_sender), open: Mutex::new(open_receiver) };
    let counts = Arc::new(Counts::new());
    let store = WriteBehind::new(gate)
        .queue_bytes(queue_bytes)
        .drop_wait(Duration::from_millis(50))
        .events(counts.clone());
    Place { store, memory, begun, open, counts }
}

const SOON: Duration = Duration::from_secs(20);

#[test]
fn what_is_queued_or_being_written_is_seen_and_arrives() {
    let Place { store, memory, begun, open, .. } = place(1 << 20);
    let lineage = Lineage::new("program", "m", "t");
    for n in 0..3 {
        store.put(&key(n), &entry(n, 0, 100)).unwrap();
    }
    store.set_latest(&lineage, &key(1)).unwrap();
    assert_eq!(begun.recv_timeout(SOON).unwrap(), key(0));
    // Entry 0 is being written, the others wait.
    for n in 0..3 {
        assert!(matches!(store.get(&key(n)), Lookup::Hit(found, _) if found == entry(n, 0, 100)), "{n}");
    }
    assert_eq!(store.latest(&lineage), Some(key(1)));
    assert!(memory.is_empty() && memory.latest(&lineage).is_none());
    assert!(!store.flush(Duration::from_millis(20)));
    // It is stored again while it is being written: the later entry wins.
    store.put(&key(0), &entry(0, 1, 100)).unwrap();
    assert!(matches!(store.get(&key(0)), Lookup::Hit(found, _) if found == entry(0, 1, 100)));
    // It is stored again while it waits: it is written once.
    store.put(&key(2), &entry(2, 1, 100)).unwrap();
    for _ in 0..4 {
        open.send(Ok(())).unwrap();
    }
    assert!(store.flush(SOON));
    let rest: Vec<Key> = begun.try_iter().collect();
    assert_eq!(rest, [key(1), key(2), key(0)]);
    for (n, version) in [(0, 1), (1, 0), (2, 1)] {
        assert!(
            matches!(memory.get(&key(n)), Lookup::Hit(found, _) if found == entry(n, version, 100)),
            "{n}"
        );
    }
    assert_eq!(memory.latest(&lineage), Some(key(1)));
}

#[test]
fn a_full_queue_drops_and_counts_and_does_not_wait() {
    let len = entry(0, 0, 100).file_len();
    let Place { store, memory, begun, open, counts } = place(2 * len);
    let start = Instant::now();
    for n in 0..10 {
        store.put(&key(n), &entry(n, 0, 100)).unwrap();
    }
    assert!(start.elapsed() < SOON / 2);
    assert_eq!(counts.tally().dropped_writes, 8);
    drop(open);
    assert!(store.flush(SOON));
    assert_eq!((memory.len(), begun.try_iter().count()), (2, 2));
    // There is room again, and an entry that is larger than the queue is taken if nothing else
    // waits.
    store.put(&key(20), &entry(20, 0, 10_000)).unwrap();
    assert!(store.flush(SOON));
    assert_eq!((memory.len(), counts.tally().dropped_writes), (3, 8));
}

#[test]
fn dropping_waits_no_longer_than_it_may() {
    let Place { store, memory, begun, open, counts } = place(1 << 20);
    for n in 0..5 {
        store.put(&key(n), &entry(n, 0, 100)).unwrap();
    }
    begun.recv_timeout(SOON).unwrap();
    let start = Instant::now();
    drop(store);
    let waited = start.elapsed();
    assert!((Duration::from_millis(50)..SOON / 2).contains(&waited), "{waited:?}");
    assert_eq!(counts.tally().dropped_writes, 4);
    // The write that hung returns later, and is the last one.
    open.send(Ok(())).unwrap();
    assert!(begun.recv_timeout(SOON).is_err(), "the thread ended");
    assert_eq!(memory.len(), 1);
}

#[test]
fn dropping_writes_what_is_queued_if_that_is_quick() {
    let memory = Arc::new(MemoryStore::new());
    let store = WriteBehind::new(memory.clone()).drop_wait(SOON);
    for n in 0..100 {
        store.put(&key(n), &entry(n, 0, 100)).unwrap();
    }
    drop(store);
    assert_eq!(memory.len(), 100);
    assert_eq!(Arc::strong_count(&memory), 1, "the thread ended");
}

#[test]
fn failures_and_panics_of_the_store_are_reported_and_survived() {
    let Place { store, memory, begun, open, counts } = place(1 << 20);
    store.put(&key(0), &entry(0, 0, 100)).unwrap();
    open.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
    assert!(store.flush(SOON));
    assert_eq!((counts.tally().failed_writes, memory.len()), (1, 0));
    assert!(matches!(store.get(&key(0)), Lookup::Miss), "what was not written is not remembered");
    drop(begun); // From now on the store panics.
    store.put(&key(1), &entry(1, 0, 100)).unwrap();
    store.put(&key(2), &entry(2, 0, 100)).unwrap();
    assert!(store.flush(SOON));
    assert_eq!(counts.tally().failed_writes, 3);
}

#[test]
fn what_is_quarantined_while_it_waits_or_is_written_does_not_come_back() {
    let Place { store, memory, begun, open, .. } = place(1 << 20);
    store.put(&key(0), &entry(0, 0, 100)).unwrap();
    store.put(&key(1), &entry(1, 0, 100)).unwrap();
    begun.recv_timeout(SOON).unwrap();
    store.quarantine(&key(0), "wrong").unwrap();
    store.quarantine(&key(1), "wrong").unwrap();
    assert!(matches!(store.get(&key(0)), Lookup::Miss));
    assert!(matches!(store.get(&key(1)), Lookup::Miss));
    // It is stored again while the wrong entry is still being written.
    store.put(&key(0), &entry(0, 1, 100)).unwrap();
    assert!(matches!(store.get(&key(0)), Lookup::Hit(found, _) if found == entry(0, 1, 100)));
    drop(open);
    assert!(store.flush(SOON));
    assert_eq!(memory.len(), 1);
    assert!(matches!(store.get(&key(0)), Lookup::Hit(found, _) if found == entry(0, 1, 100)));
    assert!(matches!(store.get(&key(1)), Lookup::Miss));
}

#[test]
fn sinks_are_called_without_a_lock() {
    // The sink calls the store. It would hang if it were called under the store's lock.
    let memory = Arc::new(MemoryStore::new());
    let seen = Arc::new(Mutex::new(HashMap::new()));
    let store: Arc<WriteBehind<Arc<MemoryStore>>> =
        Arc::new_cyclic(|weak: &std::sync::Weak<WriteBehind<_>>| {
            let (weak, seen) = (weak.clone(), seen.clone());
            WriteBehind::new(memory).queue_bytes(0).events(Arc::new(move |event: &kiln_cache::Event<'_>| {
                if let (kiln_cache::Event::WriteDropped { key }, Some(store)) = (event, weak.upgrade()) {
                    let found = matches!(store.get(key), Lookup::Hit(..));
                    seen.lock().unwrap().insert(**key, found);
                }
            }))
        });
    for n in 0..1000 {
        store.put(&key(n), &entry(n, 0, 100)).unwrap();
    }
    assert!(store.flush(SOON));
    assert!(seen.lock().unwrap().values().all(|found| !found));
}

/// The last build of `lineage` in `memory` after everything was written.
fn settled(store: &WriteBehind<Gate>, memory: &MemoryStore, lineage: &Lineage) -> Option<Key> {
    assert!(store.flush(SOON));
    memory.latest(lineage)
}

#[test]
fn nothing_points_to_an_entry_that_was_dropped() {
    let Place { store, memory, begun, open, counts } = place(0);
    let (one, two) = (Lineage::new("program", "one", "t"), Lineage::new("program", "two", "t"));
    store.put(&key(0), &entry(0, 0, 100)).unwrap();
    begun.recv_timeout(SOON).unwrap();
    store.put(&key(1), &entry(1, 0, 100)).unwrap();
    store.set_latest(&one, &key(0)).unwrap();
    store.set_latest(&two, &key(1)).unwrap();
    assert_eq!((store.latest(&one), store.latest(&two)), (Some(key(0)), None));
    drop(open);
    assert_eq!(settled(&store, &memory, &one), Some(key(0)));
    assert_eq!(memory.latest(&two), None);
    assert_eq!(counts.tally().dropped_writes, 1, "the pointer is not counted beside its entry");
    // As soon as the entry is stored, by this process or another one, pointers to it are written.
    store.put(&key(1), &entry(1, 0, 100)).unwrap();
    store.set_latest(&two, &key(1)).unwrap();
    assert_eq!(settled(&store, &memory, &two), Some(key(1)));
}

#[test]
fn nothing_points_to_an_entry_that_could_not_be_written() {
    let Place { store, memory, begun, open, counts } = place(1 << 20);
    let (before, after) = (Lineage::new("program", "before", "t"), Lineage::new("program", "after", "t"));
    // The pointer is set while its entry is being written, or after the write failed.
    store.put(&key(0), &entry(0, 0, 100)).unwrap();
    begun.recv_timeout(SOON).unwrap();
    store.set_latest(&before, &key(0)).unwrap();
    open.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
    assert_eq!(settled(&store, &memory, &before), None);
    store.set_latest(&after, &key(0)).unwrap();
    assert_eq!(settled(&store, &memory, &after), None);
    assert_eq!(counts.tally().failed_writes, 1);
    // Another process has stored the entry, which `get` notices.
    memory.put(&key(0), &entry(0, 0, 100)).unwrap();
    assert!(matches!(store.get(&key(0)), Lookup::Hit(..)));
    store.set_latest(&after, &key(0)).unwrap();
    assert_eq!(settled(&store, &memory, &after), Some(key(0)));
}

#[test]
fn a_pointer_waits_for_its_own_entry() {
    let Place { store, memory, begun, open, .. } = place(1 << 20);
    let lineage = Lineage::new("program", "m", "t");
    store.put(&key(0), &entry(0, 0, 100)).unwrap();
    store.set_latest(&lineage, &key(0)).unwrap();
    begun.recv_timeout(SOON).unwrap();
    // The module is built again before anything is written: the pointer is before the second entry
    // in the queue.
    store.put(&key(1), &entry(1, 0, 100)).unwrap();
    store.set_latest(&lineage, &key(1)).unwrap();
    open.send(Ok(())).unwrap();
    assert_eq!(begun.recv_timeout(SOON).unwrap(), key(1));
    assert_eq!((memory.latest(&lineage), store.latest(&lineage)), (None, Some(key(1))));
    open.send(Ok(())).unwrap();
    assert_eq!(settled(&store, &memory, &lineage), Some(key(1)));
}

#[test]
fn pointers_that_are_lost_are_counted() {
    /// Takes entries only, and each when it is permitted.
    struct NoPointers(Gate);
    impl Store for NoPointers {
        fn get(&self, key: &Key) -> Lookup {
            self.0.get(key)
        }
        fn put(&self, key: &Key, entry: &Entry) -> io::Result<()> {
            self.0.put(key, entry)
        }
        fn quarantine(&self, key: &Key, reason: &str) -> io::Result<()> {
            self.0.quarantine(key, reason)
        }
        fn set_latest(&self, _: &Lineage, _: &Key) -> io::Result<()> {
            Err(io::ErrorKind::StorageFull.into())
        }
    }
    let (begun_sender, begun) = channel();
    let (open, open_receiver) = channel();
    let gate = Gate {
        inner: Arc::new(MemoryStore::new()),
        begun: Mutex::new(begun_sender),
        open: Mutex::new(open_receiver),
    };
    let counts = Arc::new(Counts::new());
    let store =
        WriteBehind::new(NoPointers(gate)).drop_wait(Duration::from_millis(50)).events(counts.clone());
    let lineage = |n: u32| Lineage::new("program", &n.to_string(), "t");
    store.set_latest(&lineage(0), &key(0)).unwrap();
    assert!(store.flush(SOON));
    assert_eq!((counts.tally().failed_writes, counts.tally().dropped_writes), (1, 0));
    // The store is dropped with two pointers in the queue. One of them is lost with its entry.
    store.put(&key(1), &entry(1, 0, 100)).unwrap();
    begun.recv_timeout(SOON).unwrap();
    store.put(&key(2), &entry(2, 0, 100)).unwrap();
    store.set_latest(&lineage(2), &key(2)).unwrap();
    store.set_latest(&lineage(3), &key(3)).unwrap();
    drop(store);
    assert_eq!((counts.tally().failed_writes, counts.tally().dropped_writes), (1, 2));
    drop(open);
}
