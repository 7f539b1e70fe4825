//! The protocol of guards in all orders of a few threads: publish, look up, remove, free.
//!
//! `src/epoch.rs` is compiled here a second time, with loom's atomics. An object is free once a
//! remover has taken it back, and its epoch is past. Loom reports an access to an object that is
//! not ordered before the object is freed.

#![expect(unreachable_pub, reason = "`epoch.rs` has public items, which the crate exports")]

#[path = "../src/epoch.rs"]
#[expect(dead_code, reason = "some of it is for children of `fork`, which loom does not have")]
mod epoch;

/// Loom's atomics, for `epoch`.
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicUsize, Ordering, fence};

    /// Adds 1, before everything that this thread reads afterwards.
    pub(crate) fn count_and_fence(count: &AtomicUsize) {
        count.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Two, so that a thread can miss the count of another one.
    pub(crate) const SHARDS: usize = 2;

    loom::thread_local! {
        static SHARD: std::cell::Cell<usize> = std::cell::Cell::new(0);
    }

    /// Chooses the shard of this thread.
    pub(crate) fn set_shard(shard: usize) {
        SHARD.with(|current| current.set(shard));
    }

    pub(crate) fn shard() -> usize {
        SHARD.with(std::cell::Cell::get)
    }
}

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread::{self, JoinHandle};

use self::epoch::{Epoch, Epochs};

/// The parts of a `Jit`: names that are looked up without a lock, memory, and a quarantine under a
/// lock.
struct Program {
    epochs: Epochs,
    /// The object that is published: its number plus one, or 0.
    published: AtomicUsize,
    /// The memory of each object. It holds the object's number while it is in use.
    objects: [UnsafeCell<usize>; 2],
    quarantine: Mutex<Vec<(Epoch, usize)>>,
}

/// The content of memory that is free.
const FREE: usize = usize::MAX;

impl Program {
    /// Object 0 is published.
    fn new() -> Arc<Self> {
        Arc::new(Self {
            epochs: Epochs::default(),
            published: AtomicUsize::new(1),
            objects: [UnsafeCell::new(0), UnsafeCell::new(FREE)],
            quarantine: Mutex::new(Vec::new()),
        })
    }

    /// Looks the name up and uses what it finds, as compiled code does.
    fn call(&self) {
        if let Some(object) = self.published.load(Ordering::Acquire).checked_sub(1) {
            // SAFETY: loom checks that nobody writes to it meanwhile.
            let content = self.objects[object].with(|memory| unsafe { *memory });
            assert_eq!(content, object, "the object was freed");
        }
    }

    /// Writes object 1, and publishes it in place of object 0.
    fn replace(&self) {
        // SAFETY: loom checks that nobody else uses it.
        self.objects[1].with_mut(|memory| unsafe { *memory = 1 });
        self.published.store(2, Ordering::Release);
        self.retire(0);
    }

    /// Takes the name back.
    fn remove(&self, object: usize) {
        // The weakest order: what follows must do the rest.
        self.published.store(0, Ordering::Relaxed);
        self.retire(object);
    }

    fn retire(&self, object: usize) {
        let mut quarantine = self.quarantine.lock().unwrap();
        quarantine.push((self.epochs.now(), object));
        drop(quarantine);
        self.collect();
    }

    /// Frees what nobody can use any more. Returns whether that is all.
    fn collect(&self) -> bool {
        let mut quarantine = self.quarantine.lock().unwrap();
        self.epochs.advance();
        let (past, rest): (Vec<_>, _) =
            quarantine.drain(..).partition(|(epoch, _)| self.epochs.is_past(*epoch));
        *quarantine = rest;
        let is_empty = quarantine.is_empty();
        drop(quarantine);
        for (_, object) in past {
            // SAFETY: loom checks that nobody else uses it.
            self.objects[object].with_mut(|memory| unsafe { *memory = FREE });
        }
        is_empty
    }
}

/// Starts a thread that counts its guards in a shard.
fn spawn(program: &Arc<Program>, shard: usize, work: fn(&Program)) -> JoinHandle<()> {
    let program = program.clone();
    thread::spawn(move || {
        sync::set_shard(shard);
        work(&program);
    })
}

fn call_with_guard(program: &Program) {
    let guard = program.epochs.enter();
    program.call();
    drop(guard);
}

/// Runs all orders in which threads are interrupted at most this often before they wait.
fn all_orders(interruptions: usize, threads: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(interruptions);
    builder.check(threads);
}

#[test]
fn what_a_thread_calls_is_not_freed() {
    all_orders(3, || {
        let program = Program::new();
        let reader = spawn(&program, 0, |program| {
            // Twice, so that the second guard may be in another phase.
            call_with_guard(program);
            call_with_guard(program);
        });
        program.remove(0);
        program.collect();
        reader.join().unwrap();
        assert!(program.collect());
    });
}

#[test]
fn threads_of_several_shards_are_seen() {
    all_orders(3, || {
        let program = Program::new();
        let readers = [0, 1].map(|shard| spawn(&program, shard, call_with_guard));
        program.remove(0);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        assert!(program.collect());
    });
}

#[test]
fn a_guard_that_is_refreshed_protects_what_is_looked_up_afterwards() {
    all_orders(3, || {
        let program = Program::new();
        let reader = spawn(&program, 1, |program| {
            let mut guard = program.epochs.enter();
            program.call();
            guard.refresh();
            program.call();
        });
        program.replace();
        reader.join().unwrap();
        assert!(program.collect());
    });
}

#[test]
fn threads_that_remove_and_free_at_once() {
    all_orders(3, || {
        let program = Program::new();
        let reader = spawn(&program, 0, call_with_guard);
        let collector = spawn(&program, 0, |program| {
            program.collect();
        });
        program.replace();
        program.remove(1);
        [reader, collector].into_iter().for_each(|thread| thread.join().unwrap());
        assert!(program.collect());
    });
}
