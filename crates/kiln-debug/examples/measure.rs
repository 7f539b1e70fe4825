//! Measures what it costs to tell the unwinder, a debugger and perf about many functions.
//!
//! ```text
//! cargo run --release -p kiln-debug --example measure -- 100000            # the unwinder
//! gdb -q -batch -ex run --args target/release/examples/measure 20000 1     # gdb, in one batch
//! target/release/examples/measure 20000 20000 map                          # perf, one by one
//! ```
//!
//! The functions are 32 bytes each and do nothing. The second argument is the number of batches.

use std::time::{Duration, Instant};

use kiln_debug::{Code, Function, Section, gdb, perf, unwind};

const SIZE: usize = 32;

/// Rows for functions from `start` on, to be put at `at`: for each one that nothing changes.
fn rows(at: usize, start: usize, count: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(28 + count * 20);
    bytes.extend(20u32.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    // The frame is at the stack pointer (7) plus 8, the return address (16) in front of it.
    bytes.extend([1, b'z', b'R', 0, 1, 0x78, 16, 1, 0x1b, 0x0c, 7, 8, 0x90, 1, 0, 0]);
    for number in 0..count {
        let entry = bytes.len();
        bytes.extend(16u32.to_ne_bytes());
        bytes.extend((entry as u32 + 4).to_ne_bytes());
        let offset = (start + number * SIZE) as i64 - (at + entry + 8) as i64;
        bytes.extend((offset as i32).to_ne_bytes());
        bytes.extend((SIZE as u32).to_ne_bytes());
        bytes.extend([0; 4]);
    }
    bytes.extend([0; 4]);
    bytes
}

pub(crate) fn main() {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<usize>().ok());
    let total = numbers.next().unwrap_or(100_000);
    let batches = numbers.next().unwrap_or(total);
    let profiler = match std::env::args().next_back().as_deref() {
        Some("map") => Some(perf::Kind::Map),
        Some("dump") => Some(perf::Kind::Dump),
        _ => None,
    };
    let code = vec![0xc3u8; total * SIZE].leak();
    let names: Vec<String> = (0..total).map(|number| format!("function_{number}")).collect();
    let per_batch = total / batches;
    let room = 28 + per_batch * 20;
    let all_rows = vec![0u8; batches * room].leak();
    let region = code.as_ptr_range();
    let region = region.start as usize..region.end as usize;

    let mut registrations = Vec::new();
    let mut debugger = Vec::new();
    let (mut unwinder_time, mut debugger_time, mut profiler_time) =
        <(Duration, Duration, Duration)>::default();
    for (number, rows_at) in all_rows.chunks_mut(room).enumerate() {
        let start = region.start + number * per_batch * SIZE;
        let range = start..start + per_batch * SIZE;
        rows_at.copy_from_slice(&rows(rows_at.as_ptr() as usize, start, per_batch));
        let section = rows_at.as_ptr();

        let clock = Instant::now();
        let rows = unwind::Rows { section, code: range.clone(), region: region.clone() };
        // SAFETY: the rows are of this code and are never changed.
        registrations.push(unsafe { unwind::Registration::new(rows) });
        unwinder_time += clock.elapsed();

        let functions: Vec<Function<'_>> = names[number * per_batch..][..per_batch]
            .iter()
            .enumerate()
            .map(|(index, name)| Function { name, address: start + index * SIZE, size: SIZE })
            .collect();
        let described = Code {
            functions: &functions,
            ranges: &[range],
            rows: &[Section { address: section as usize, bytes: rows_at }],
            ..Code::default()
        };
        let clock = Instant::now();
        if gdb::is_watching() {
            debugger.push(gdb::Registration::new(&described));
        }
        debugger_time += clock.elapsed();
        let clock = Instant::now();
        if let Some(kind) = profiler {
            // SAFETY: the functions are in memory.
            unsafe { perf::add(kind, &described) };
        }
        profiler_time += clock.elapsed();
    }
    println!("{total} functions in {batches} batches, {:?}, {} tables", unwind::method(), unwind::tables());
    println!("register: {:?} a batch", unwinder_time / batches as u32);
    if !debugger.is_empty() {
        println!("debugger: {debugger_time:?}, {:?} a batch", debugger_time / batches as u32);
    }
    if let Some(kind) = profiler {
        println!("perf: {:?} a batch, {:?}", profiler_time / batches as u32, perf::status(kind));
    }
    for name in ["first", "second"] {
        let clock = Instant::now();
        let frames = std::hint::black_box(std::backtrace::Backtrace::force_capture());
        println!("{name} backtrace: {:?}", clock.elapsed());
        drop(frames);
    }
    let count = registrations.len() as u32;
    let clock = Instant::now();
    drop(registrations);
    println!("take back: {:?} a batch", clock.elapsed() / count);
    let clock = Instant::now();
    let count = debugger.len() as u32;
    drop(debugger);
    if count > 0 {
        println!("take back from the debugger: {:?} a batch", clock.elapsed() / count);
    }
}
