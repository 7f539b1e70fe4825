//! The same round again and again, and code that runs while it is removed.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Instant;

use kiln::Compiler;
use kiln::ir::Target;

use crate::{constant, in_use, mappings, module, resident, rounds, session, turn};

/// `KILN_CASES=1000000 cargo test --release --test soak rounds -- --nocapture` prints how time and
/// memory develop.
#[test]
fn rounds_of_publish_call_and_remove() {
    let _turn = turn();
    let session = session();
    let compiled = Compiler::new(Target::host()).compile(&[constant("", "f", 5)]).unwrap();
    let (empty, before) = (in_use(&session), mappings());
    let all = rounds(2000);
    let part = all.div_ceil(10);
    for first in (0..all).step_by(part) {
        let start = Instant::now();
        let count = part.min(all - first);
        for _ in 0..count {
            let unit = session.add_artifacts(&compiled.artifacts).unwrap();
            let guard = session.guard();
            let function = session.function("f").unwrap();
            // SAFETY: the function has this type, and the guard keeps its code.
            assert_eq!(unsafe { function.typed::<extern "C" fn() -> i64>() }.unwrap()(), 5);
            drop(guard);
            session.remove(&[unit]).unwrap();
        }
        let each = start.elapsed().as_secs_f64() * 1e6 / count as f64;
        let (resident, mappings) = (resident(), mappings());
        println!("after {} rounds: {each:.2} us a round, {resident} KiB, {mappings} mappings", first + count);
    }
    assert!(session.jit().collect());
    assert_eq!((in_use(&session), mappings()), (empty, before));
}

/// Ends the loops when it is dropped, also if the test fails.
struct End<'e>(&'e AtomicI64);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(1, Ordering::SeqCst);
    }
}

#[test]
fn code_that_runs_while_it_is_removed_stays() {
    let _turn = turn();
    let text = "function %spin(i64, i64) -> i64 system_v {
        block0(v0: i64, v1: i64):
            jump block1
        block1:
            v2 = iconst.i64 1
            v3 = atomic_rmw.i64 add v0, v2
            v4 = atomic_load.i64 v1
            brif v4, block2, block1
        block2:
            v5 = iconst.i64 42
            return v5
        }";
    let session = session();
    let empty = in_use(&session);
    for _ in 0..rounds(3).min(1000) {
        let unit = session.add(&[module(text)]).unwrap();
        // How often the loop was run, whether it shall end, and how many threads are in it.
        let (turns, end, inside) = (AtomicI64::new(0), AtomicI64::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let spin = || {
                let _guard = session.guard();
                let function = session.function("spin").unwrap();
                // SAFETY: the function has this type, and the guard keeps its code.
                let function = unsafe { function.typed::<extern "C" fn(i64, i64) -> i64>() }.unwrap();
                inside.fetch_add(1, Ordering::SeqCst);
                function(turns.as_ptr() as i64, end.as_ptr() as i64)
            };
            let threads = [(); 2].map(|()| scope.spawn(spin));
            let stop = End(&end);
            while inside.load(Ordering::SeqCst) < 2 || turns.load(Ordering::SeqCst) < 1000 {
                std::thread::yield_now();
            }
            session.remove(&[unit]).unwrap();
            assert!(session.function("spin").is_none());
            // What is added now would overwrite the loop if its memory was free.
            const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
            for _ in 0..20 {
                let units = NAMES.map(|name| session.add(&[constant("", name, 7)]).unwrap());
                session.remove(&units).unwrap();
            }
            let [_, retired] = in_use(&session);
            assert!(retired > 0);
            let before = turns.load(Ordering::SeqCst);
            while turns.load(Ordering::SeqCst) < before + 1000 {
                std::thread::yield_now();
            }
            drop(stop);
            assert_eq!(threads.map(|thread| thread.join().unwrap()), [42; 2]);
        });
        assert!(session.jit().collect());
        assert_eq!(in_use(&session), empty);
    }
}
