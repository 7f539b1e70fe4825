//! The programs that are run in tools.

use std::ops::Range;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use kiln_debug::{Code, Function, gdb, perf};

use super::{measure, plain_cranelift, unwinder, unwinders};

pub(super) fn run(name: &str) {
    match name {
        "plain" => plain_cranelift::main(),
        "measure" => measure::main(),
        "parts" => parts(),
        "list" => list(),
        "map" => map(),
        "broken" => broken(),
        "child" => child(),
        "sampler" => unwinder::sampler(),
        "lookups" => unwinders::lookups(),
        other => panic!("there is no program {other}"),
    }
}

/// Code of 16 bytes each, which nobody runs.
static CODE: [u8; 64] = [0x90; 64];

fn place(number: usize) -> Range<usize> {
    let start = CODE.as_ptr() as usize + 16 * number;
    start..start + 16
}

/// Calls `action` with a description of functions of these names.
fn with_functions(names: &[&str], action: impl FnOnce(&Code<'_>)) {
    let ranges: Vec<Range<usize>> = (0..names.len()).map(place).collect();
    let functions = names.iter().zip(&ranges);
    let functions: Vec<Function<'_>> =
        functions.map(|(name, range)| Function { name, address: range.start, size: range.len() }).collect();
    action(&Code { functions: &functions, ranges: &ranges, ..Code::default() });
}

/// A place for a breakpoint.
#[inline(never)]
fn stop(registration: &gdb::Registration) {
    std::hint::black_box(registration);
}

/// Publishes two functions, and takes one back.
fn parts() {
    with_functions(&["first_function", "second_function"], |code| {
        let mut registration = gdb::Registration::new(code);
        stop(&registration);
        registration.forget(&place(0));
        stop(&registration);
    });
}

/// An entry of the debugger's list, and the list, as another JIT declares them.
#[repr(C)]
struct Entry {
    next: AtomicPtr<Entry>,
    previous: AtomicPtr<Entry>,
    file: *const u8,
    len: u64,
}

#[repr(C)]
struct Descriptor {
    version: u32,
    action: AtomicU32,
    relevant: AtomicPtr<Entry>,
    first: AtomicPtr<Entry>,
}

unsafe extern "C" {
    static __jit_debug_descriptor: Descriptor;
}

/// Returns the lengths of the files in the list; the links must be right in both directions.
fn files() -> Vec<u64> {
    let mut files = Vec::new();
    // SAFETY: the list is as the interface says, and nobody changes it meanwhile.
    unsafe {
        assert_eq!(__jit_debug_descriptor.version, 1);
        assert_eq!(__jit_debug_descriptor.action.load(Ordering::Relaxed), 0);
        let mut at = __jit_debug_descriptor.first.load(Ordering::Acquire);
        let mut before = std::ptr::null_mut();
        while let Some(entry) = at.as_ref() {
            assert_eq!(entry.previous.load(Ordering::Acquire), before);
            if !entry.file.is_null() {
                assert_eq!(std::slice::from_raw_parts(entry.file, 4), b"\x7fELF");
            }
            files.push(entry.len);
            before = at;
            at = entry.next.load(Ordering::Acquire);
        }
    }
    files
}

/// Another JIT of this process has an entry in the list, between two of ours.
fn list() {
    let mut ours = Vec::new();
    with_functions(&["first"], |code| ours.push(gdb::Registration::new(code)));
    let other =
        Entry { next: AtomicPtr::default(), previous: AtomicPtr::default(), file: std::ptr::null(), len: 7 };
    // SAFETY: as the interface says; no other thread is there.
    unsafe {
        let first = __jit_debug_descriptor.first.load(Ordering::Acquire);
        other.next.store(first, Ordering::Release);
        let entry = std::ptr::from_ref(&other).cast_mut();
        first.as_ref().expect("ours is in the list").previous.store(entry, Ordering::Release);
        __jit_debug_descriptor.first.store(entry, Ordering::Release);
    }
    with_functions(&["first", "second"], |code| ours.push(gdb::Registration::new(code)));
    let all = files();
    assert_eq!((all.len(), all[1]), (3, 7));
    drop(ours.pop());
    assert_eq!(files().len(), 2);
    drop(ours);
    assert_eq!(files(), [7]);
    // Four threads at once.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                (0..500).for_each(|_| with_functions(&["f"], |code| drop(gdb::Registration::new(code))))
            });
        }
    });
    assert_eq!(files(), [7]);
    println!("the list is right");
}

fn add(kind: perf::Kind, names: &[&str]) {
    // SAFETY: the functions are in `CODE`.
    with_functions(names, |code| unsafe { perf::add(kind, code) });
}

/// Writes a map and a dump, and prints what is in the map and where the code is.
fn map() {
    for kind in [perf::Kind::Map, perf::Kind::Dump] {
        add(kind, &["one", "two words\nand a line"]);
        add(kind, &["three"]);
        let status = perf::status(kind);
        assert_eq!((status.functions, status.failures, status.error), (3, 0, None));
    }
    println!("code at {:x}, process {}", place(0).start, std::process::id());
    print_map();
}

/// Prints the map of this process, and removes it.
fn print_map() {
    let path = format!("/tmp/perf-{}.map", std::process::id());
    print!("{}", std::fs::read_to_string(&path).expect("there is a map"));
    std::fs::remove_file(path).expect("the map can be removed");
}

/// Prints what is counted if nothing can be written: each way has a process of its own.
fn broken() {
    let way = std::env::args().nth(2).expect("a way");
    let path = format!("/tmp/perf-{}.map", std::process::id());
    match &*way {
        "folder" => std::fs::create_dir(&path).expect("a folder can be made"),
        "link" => std::os::unix::fs::symlink("/tmp/elsewhere", &path).expect("a link can be made"),
        "disk" | "files" => {}
        other => panic!("there is no way {other}"),
    }
    if way == "disk" {
        // The first batch fits, and a part of the second.
        limit(libc::RLIMIT_FSIZE, 30);
        // SAFETY: the signal is ignored, and the write fails instead.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    }
    if way == "files" {
        limit(libc::RLIMIT_NOFILE, 3);
    }
    add(perf::Kind::Map, &["a"]);
    add(perf::Kind::Map, &["b"]);
    let status = perf::status(perf::Kind::Map);
    let _ = std::fs::remove_dir(&path);
    let _ = std::fs::remove_file(&path);
    println!("{} written, {} failed: {}", status.functions, status.failures, status.error.expect("an error"));
}

fn limit(what: libc::__rlimit_resource_t, value: u64) {
    let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: it reads the limit.
    assert_eq!(unsafe { libc::setrlimit(what, &limit) }, 0);
}

/// Writes a map in a process and in its child, while other threads write.
fn child() {
    add(perf::Kind::Map, &["parent"]);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                add(perf::Kind::Map, &["other"]);
                with_functions(&["f"], |code| drop(gdb::Registration::new(code)));
            }
        });
        for _ in 0..50 {
            // SAFETY: the child uses locks of this crate, which it finds free, and ends.
            let child = unsafe { libc::fork() };
            if child == 0 {
                add(perf::Kind::Map, &["child"]);
                with_functions(&["f"], |code| drop(gdb::Registration::new(code)));
                let path = format!("/tmp/perf-{}.map", std::process::id());
                let map = std::fs::read_to_string(&path).unwrap_or_default();
                let _ = std::fs::remove_file(path);
                let right = map.lines().count() == 1 && map.ends_with(" child\n");
                // SAFETY: it ends the process.
                unsafe { libc::_exit(i32::from(!right)) };
            }
            let mut status = 0;
            // SAFETY: it waits for the child.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(status, 0);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let path = format!("/tmp/perf-{}.map", std::process::id());
    let map = std::fs::read_to_string(&path).expect("there is a map");
    std::fs::remove_file(path).expect("the map can be removed");
    assert!(map.lines().next().is_some_and(|line| line.ends_with(" parent")) && !map.contains("child"));
    println!("each has its own");
}
