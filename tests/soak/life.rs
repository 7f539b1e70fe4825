//! Threads that do everything at random.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use kiln::Session;
use kiln::globals::Bindings;
use kiln::image::Image;
use kiln::jit::Unit;

use crate::{End, constant, in_use, mappings, module, resident, session, turn};

const THREADS: usize = 4;
/// The names of each thread.
const NAMES: usize = 6;
/// A number of a thread is this many times the thread's, plus its name's times `GENERATIONS`, plus
/// how often the name was defined.
const NUMBERS: i64 = 1_000_000_000_000;
const GENERATIONS: i64 = 10_000_000_000;

type Get = extern "C" fn() -> i64;

/// The values of the replaceable function that each thread has: the last that it began to publish,
/// and the last that it has published.
#[derive(Default)]
struct Shared {
    begun: AtomicI64,
    done: AtomicI64,
}

/// A name that the thread itself has defined.
struct Known {
    unit: Unit,
    value: i64,
    /// The own name that it calls.
    callee: Option<usize>,
    /// The replaceable function of another thread that it calls.
    shared: Option<usize>,
}

struct Worker<'w> {
    session: &'w Session,
    shared: &'w [Shared; THREADS],
    thread: usize,
    random: u64,
    known: [Option<Known>; NAMES],
    generation: i64,
}

/// Calls a function. It must be protected.
fn call(session: &Session, name: &str) -> Option<i64> {
    let function = session.function(name)?;
    // SAFETY: every function has this type, and whoever calls this has a guard.
    Some(unsafe { function.typed::<Get>() }.expect("the type of the function")())
}

impl Worker<'_> {
    fn below(&mut self, limit: usize) -> usize {
        // Xorshift: each thread has its own numbers.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % limit as u64) as usize
    }

    fn name(&self, name: usize) -> String {
        format!("t{}_{name}", self.thread)
    }

    fn step(&mut self) {
        let name = self.below(NAMES);
        match self.below(20) {
            0..=6 if self.known[name].is_none() => self.add(name),
            0..=6 => self.remove(name),
            7..=10 => self.replace(),
            11..=17 => self.call_others(),
            18 => drop(self.session.jit().collect()),
            _ if self.below(8) == 0 => self.save(),
            _ => self.check(name),
        }
    }

    /// Adds a function: a constant, or the sum of a constant, an own function and a shared one.
    fn add(&mut self, name: usize) {
        self.generation += 1;
        let value = self.thread as i64 * NUMBERS + name as i64 * GENERATIONS + self.generation;
        let callee = Some(self.below(NAMES)).filter(|&other| other != name && self.known[other].is_some());
        let callee =
            callee.filter(|&other| self.known[other].as_ref().is_some_and(|known| known.callee.is_none()));
        let shared = Some(self.below(THREADS)).filter(|_| callee.is_none() && self.below(2) == 0);
        let mut text = format!("function %{}() -> i64 system_v {{\n", self.name(name));
        let callees = [callee.map(|other| self.name(other)), shared.map(|other| format!("shared{other}"))];
        let callees: Vec<String> = callees.into_iter().flatten().collect();
        for (number, callee) in callees.iter().enumerate() {
            text += &format!("fn{number} = %{callee}() -> i64 system_v\n");
        }
        text += &format!("block0:\nv0 = iconst.i64 {value}\n");
        for number in 0..callees.len() {
            text += &format!("v1{number} = call fn{number}()\n");
        }
        match callees.len() {
            0 => text += "return v0\n}",
            _ => text += "v2 = iadd v0, v10\nreturn v2\n}",
        }
        let unit = self.session.add(&[module(&text)]).expect("a new name");
        self.known[name] = Some(Known { unit, value, callee, shared });
        self.check(name);
    }

    /// Removes a function, and what calls it.
    fn remove(&mut self, name: usize) {
        let is_user = |known: &Option<Known>| known.as_ref().is_some_and(|known| known.callee == Some(name));
        let users = self.known.iter().filter(|known| is_user(known)).count();
        let unit = self.known[name].as_ref().expect("a known name").unit.clone();
        if self.below(2) == 0 {
            let removed = self.session.remove(&[unit]);
            assert_eq!(removed.is_err(), users > 0, "{removed:?}");
            if users > 0 {
                return;
            }
        } else {
            assert_eq!(self.session.remove_with_users(&[unit]), users + 1);
            self.known.iter_mut().filter(|known| is_user(known)).for_each(|known| *known = None);
        }
        self.known[name] = None;
        self.check(name);
    }

    /// Publishes a new value of the own shared function.
    fn replace(&mut self) {
        let shared = &self.shared[self.thread];
        let value = shared.begun.load(Ordering::SeqCst) + 1;
        shared.begun.store(value, Ordering::SeqCst);
        let new = constant("replaceable", &format!("shared{}", self.thread), value);
        self.session.replace(&[new]).expect("a replacement");
        shared.done.store(value, Ordering::SeqCst);
    }

    /// Calls a shared function: it returns the newest value, or one that is being published.
    fn call_shared(&self, thread: usize, call: impl FnOnce() -> i64) {
        let shared = &self.shared[thread];
        let done = shared.done.load(Ordering::SeqCst);
        let value = call();
        let begun = shared.begun.load(Ordering::SeqCst);
        assert!((done..=begun).contains(&value), "shared{thread} returns {value}, not {done} to {begun}");
    }

    /// Checks one of the own names.
    fn check(&self, name: usize) {
        let _guard = self.session.guard();
        let get = || call(self.session, &self.name(name));
        let Some(known) = &self.known[name] else {
            assert_eq!(get(), None);
            return;
        };
        if let Some(thread) = known.shared {
            self.call_shared(thread, || get().expect("an own name") - known.value);
            return;
        }
        let callee = known.callee.and_then(|callee| self.known[callee].as_ref());
        let Some(callee) = callee else {
            assert_eq!(get(), Some(known.value));
            return;
        };
        match callee.shared {
            Some(thread) => {
                self.call_shared(thread, || get().expect("an own name") - known.value - callee.value);
            }
            None => assert_eq!(get(), Some(known.value + callee.value)),
        }
    }

    /// Calls functions of other threads, which may be removed at any time.
    fn call_others(&mut self) {
        let (thread, name) = (self.below(THREADS), self.below(NAMES));
        let _guard = self.session.guard();
        let shared = format!("shared{thread}");
        self.call_shared(thread, || call(self.session, &shared).expect("a shared function"));
        if let Some(value) = call(self.session, &format!("t{thread}_{name}")) {
            // It may call another name, and a shared function; the thread is in the sum of both.
            assert!(value / NUMBERS == thread as i64 || value / NUMBERS == 2 * thread as i64, "{value}");
        }
    }

    /// The image has the own names as they are now.
    fn save(&mut self) {
        let image = self.session.image().expect("an image");
        let loaded = Image::from_bytes(&image).expect("an image").bind(&Bindings::new()).expect("no slots");
        for name in 0..NAMES {
            let function = loaded.function(&self.name(name));
            assert_eq!(function.is_some(), self.known[name].is_some());
            if let (Some(function), Some(known)) = (function, &self.known[name])
                && (known.shared, known.callee) == (None, None)
            {
                // SAFETY: every function has this type.
                assert_eq!(unsafe { function.typed::<Get>() }.expect("the type")(), known.value);
            }
        }
    }
}

#[test]
fn threads_do_everything_at_random() {
    let _turn = turn();
    let session = session();
    let empty = in_use(&session);
    let first: Vec<_> =
        (0..THREADS).map(|thread| constant("replaceable", &format!("shared{thread}"), 0)).collect();
    // One unit each, so that replacing one makes its unit superfluous.
    first.iter().for_each(|module| drop(session.add(std::slice::from_ref(module)).unwrap()));
    let (start, before) = (in_use(&session), mappings());
    let shared: [Shared; THREADS] = Default::default();
    let (end, parts) = (End::new(400), AtomicUsize::new(0));
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (session, shared, failed, end, parts) = (&session, &shared, &failed, &end, &parts);
            scope.spawn(move || {
                let random = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(thread as u64 + 1);
                let known = Default::default();
                let mut worker = Worker { session, shared, thread, random, known, generation: 0 };
                for round in 0.. {
                    let Some(part) = end.part(round) else { break };
                    if failed.load(Ordering::Relaxed) {
                        return;
                    }
                    let step = std::panic::AssertUnwindSafe(|| worker.step());
                    if let Err(panic) = std::panic::catch_unwind(step) {
                        failed.store(true, Ordering::Relaxed);
                        eprintln!("thread {thread} failed in round {round}");
                        std::panic::resume_unwind(panic);
                    }
                    if thread == 0 && part > parts.swap(part, Ordering::Relaxed) {
                        let (used, resident) = (in_use(session), resident());
                        println!(
                            "round {round}: used and retired {used:?}, {resident} KiB, {} mappings",
                            mappings()
                        );
                    }
                }
                // Users first.
                (0..NAMES).filter_map(|name| worker.known[name].take()).for_each(|known| {
                    session.remove_with_users(&[known.unit]);
                });
            });
        }
    });
    assert!(session.jit().collect());
    assert_eq!(session.jit().units().len(), THREADS);
    assert_eq!((in_use(&session), mappings()), (start, before));
    session.remove(&session.jit().units()).unwrap();
    assert_eq!(in_use(&session), empty);
}
