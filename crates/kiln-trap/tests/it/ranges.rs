//! Ranges are registered and taken back by many threads while others look them up.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use kiln_trap::{
    CallInfo, CodeFrame, CodeLookup, CodeTable, FunctionInfo, HandlerInfo, RegisterError, RootInfo,
    SourceInfo, TableFunction, register,
};

/// Addresses that nothing is at: of the kernel's half.
const FREE: usize = 0xffff_8000_0000_0000;

fn table(start: usize) -> CodeTable {
    let name = format!("{start:x}");
    CodeTable::new(vec![TableFunction { name, start, len: 16, ..TableFunction::default() }])
}

#[test]
fn a_range_is_registered_once() {
    let one = table(FREE);
    let lookup: *const CodeTable = &raw const one;
    let start = FREE + 0x1000_0000;
    // SAFETY: the table lives longer than the registrations, and describes no code that runs.
    let register = |range| unsafe { register(range, lookup) };
    assert_eq!(register(start..start).unwrap_err(), RegisterError::Empty { start });
    let middle = register(start + 16..start + 32).unwrap();
    for (from, to) in [(0, 17), (16, 32), (31, 40), (0, 48), (20, 24)] {
        let new = start + from..start + to;
        let registered = start + 16..start + 32;
        assert_eq!(register(new.clone()).unwrap_err(), RegisterError::Overlap { new, registered });
    }
    let (before, after) = (register(start..start + 16).unwrap(), register(start + 32..start + 48).unwrap());
    drop(middle);
    drop(register(start + 16..start + 32).unwrap());
    drop((before, after));
}

#[test]
fn lookups_run_while_ranges_come_and_go() {
    const PLACES: usize = 64;
    let start = FREE + 0x2000_0000;
    let (done, found) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let (done, found) = (&done, &found);
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                scope.spawn(move || {
                    for round in 0..400 {
                        let place = start + (writer * PLACES + round * 7 % PLACES) * 16;
                        // In a box, which is freed right behind the registration.
                        let one = Box::new(table(place));
                        let lookup: *const CodeTable = &raw const *one;
                        // SAFETY: the table is dropped after the registration.
                        let registration = unsafe { register(place..place + 16, lookup) }.unwrap();
                        assert_eq!(CodeFrame::at(place + 3).unwrap().function, format!("{place:x}"));
                        drop(registration);
                        assert_eq!(CodeFrame::at(place + 3), None);
                        drop(one);
                    }
                })
            })
            .collect();
        for reader in 0..2 {
            scope.spawn(move || {
                let mut number = reader;
                while !done.load(Ordering::Relaxed) {
                    let place = start + number % (3 * PLACES) * 16;
                    if let Some(frame) = CodeFrame::at(place + 15) {
                        assert_eq!((frame.function, frame.offset), (format!("{place:x}"), 15));
                        found.fetch_add(1, Ordering::Relaxed);
                    }
                    number += 1;
                }
            });
        }
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::Relaxed);
    });
}

/// Answers slowly.
#[derive(Default)]
struct Slow {
    asked: AtomicBool,
    answered: AtomicBool,
}

// SAFETY: it describes no code that runs, and is asked in no signal handler.
unsafe impl CodeLookup for Slow {
    fn function_at(&self, _: usize, _: &mut dyn FnMut(FunctionInfo<'_>)) {
        self.asked.store(true, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(100));
        self.answered.store(true, Ordering::SeqCst);
    }
    fn trap_at(&self, _: usize) -> Option<u8> {
        None
    }
    fn source_at(&self, _: usize, _: &mut dyn FnMut(SourceInfo<'_>)) {}
    fn call_at(&self, _: usize) -> Option<CallInfo> {
        None
    }
    fn handlers_at(&self, _: usize, _: &mut dyn FnMut(HandlerInfo) -> ControlFlow<()>) {}
    fn stack_map_at(&self, _: usize, _: &mut dyn FnMut(RootInfo)) -> Option<u32> {
        None
    }
}

#[test]
fn taking_a_range_back_waits_for_a_lookup() {
    let start = FREE + 0x3000_0000;
    let slow = Slow::default();
    let lookup: *const Slow = &raw const slow;
    // SAFETY: it lives longer than the registration.
    let registration = unsafe { register(start..start + 16, lookup) }.unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(CodeFrame::at(start), None));
        while !slow.asked.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        drop(registration);
        assert!(slow.answered.load(Ordering::SeqCst), "a lookup still runs");
    });
}

#[test]
fn a_child_of_fork_waits_for_no_thread_of_its_parent() {
    let start = FREE + 0x4000_0000;
    let slow = Slow::default();
    let lookup: *const Slow = &raw const slow;
    // SAFETY: it lives longer than the registration.
    let registration = unsafe { register(start..start + 16, lookup) }.unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(CodeFrame::at(start), None));
        while !slow.asked.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        // SAFETY: the child takes a range back, which allocates; glibc allows that. It ends at
        // once, or by the alarm.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                libc::alarm(5);
                drop(registration);
                libc::_exit(i32::from(CodeFrame::at(start + 1).is_some()));
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
            assert_eq!(status, 0);
            drop(registration);
        }
    });
}
