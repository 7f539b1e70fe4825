//! Two machines that build the same program, with a server between them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use kiln_cache::{Event, Events, Key, Lineage, Lookup, Store};
use kiln_remote::{Endpoint, Policy, RemoteOptions, RemoteStore};

use crate::common::{entry, is_right, key};

/// Microseconds for which this process did not run, as far as the thread of [`Stopwatch`] knows.
static STOOD: AtomicU64 = AtomicU64::new(0);

/// Measures the time that this process had. A test of limits must not fail because somebody stopped
/// the process for a while, as debuggers and measurements of others do, or gave it no processor.
pub(crate) struct Stopwatch {
    start: Instant,
    stood: Duration,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        static BEAT: Once = Once::new();
        BEAT.call_once(|| {
            std::thread::spawn(|| {
                let pause = Duration::from_millis(5);
                loop {
                    let start = Instant::now();
                    std::thread::sleep(pause);
                    let late = start.elapsed().saturating_sub(pause);
                    // A little lateness is usual.
                    if late > Duration::from_millis(50) {
                        STOOD.fetch_add(late.as_micros() as u64, Relaxed);
                    }
                }
            });
        });
        Self { start: Instant::now(), stood: Self::stood() }
    }

    fn stood() -> Duration {
        Duration::from_micros(STOOD.load(Relaxed))
    }

    /// Returns the time since the start, without that for which the process stood.
    pub(crate) fn elapsed(&self) -> Duration {
        // The thread notes the time when it runs again, which may be a little later.
        if self.start.elapsed() > Duration::from_millis(500) {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.start.elapsed().saturating_sub(Self::stood() - self.stood)
    }
}

/// The events of a store, as text.
#[derive(Default)]
pub(crate) struct Log(pub(crate) Mutex<Vec<String>>);

impl Events for Log {
    fn report(&self, event: &Event<'_>) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }
}

impl Log {
    pub(crate) fn has(&self, text: &str) -> bool {
        self.0.lock().unwrap().iter().any(|event| event.contains(text))
    }
}

/// The lineage of a source.
pub(crate) fn source(n: u32) -> Lineage {
    Lineage::of_source("program", &n.to_string(), "1", &n.to_le_bytes(), &Key::from_bytes([1; 32]))
}

/// Bytes of code of the entry with this number.
pub(crate) fn size(n: u32) -> usize {
    // One of them is too long for a batch.
    if n == 3 { 300_000 } else { 5000 + 111 * n as usize }
}

pub(crate) fn writer() -> Policy {
    Policy { write: true, ..Policy::default() }
}

/// Opens a store, with a log of its events.
pub(crate) fn open_with(endpoint: &Endpoint, options: RemoteOptions) -> (RemoteStore, Arc<Log>) {
    let log = Arc::new(Log::default());
    let options = RemoteOptions { events: Some(log.clone()), ..options };
    (RemoteStore::open(endpoint, options).unwrap(), log)
}

/// Opens a store whose builds wait as long as a busy server takes, for tests of what is found: a
/// build with the usual patience goes on without what comes late.
pub(crate) fn open(endpoint: &Endpoint, policy: Policy) -> (RemoteStore, Arc<Log>) {
    let long = Duration::from_secs(60);
    open_with(endpoint, RemoteOptions { policy, patience: long, drop_wait: long, ..RemoteOptions::default() })
}

/// Opens a store with the usual patience, for tests of what a server costs.
pub(crate) fn open_impatient(endpoint: &Endpoint, policy: Policy) -> (RemoteStore, Arc<Log>) {
    open_with(endpoint, RemoteOptions { policy, ..RemoteOptions::default() })
}

/// Stores entries and their sources as a build does. Returns whether everything was sent in time.
pub(crate) fn build_cold(store: &RemoteStore, numbers: std::ops::Range<u32>) -> bool {
    for n in numbers {
        store.put(&key(n), &entry(n, 0, size(n))).unwrap();
        store.set_latest(&source(n), &key(n)).unwrap();
    }
    let start = Stopwatch::start();
    let limit = Duration::from_secs(20);
    while !store.flush(limit) {
        if start.elapsed() >= limit {
            return false;
        }
    }
    true
}

/// Looks everything up as a build does, in two threads. Returns how much was found, and the time
/// that it took.
///
/// Asserts that nothing wrong was found.
pub(crate) fn build_warm(store: &RemoteStore, numbers: std::ops::Range<u32>) -> (usize, Duration) {
    let start = Stopwatch::start();
    let sources: Vec<Lineage> = numbers.clone().map(source).collect();
    store.announce(&sources, &[]);
    let look_up = |n: &u32| {
        let by_source = store.latest(&source(*n)).map(|found| {
            assert_eq!(found, key(*n));
            store.get(&found)
        });
        // Without it, the build reads the source, and asks for the key.
        let found = match by_source {
            Some(found @ Lookup::Hit(..)) => found,
            _ => store.get(&key(*n)),
        };
        match found {
            Lookup::Hit(found, place) => {
                assert!(is_right(*n, &found) && found.artifact.text().len() == size(*n));
                assert_eq!(place, kiln_cache::Place::Remote);
                true
            }
            Lookup::Miss | Lookup::Corrupt(_) => false,
        }
    };
    let numbers: Vec<u32> = numbers.collect();
    let (left, right) = numbers.split_at(numbers.len() / 2);
    let found = std::thread::scope(|scope| {
        let count = |numbers: &[u32]| numbers.iter().filter(|n| look_up(n)).count();
        let other = scope.spawn(move || count(right));
        count(left) + other.join().unwrap()
    });
    (found, start.elapsed())
}
