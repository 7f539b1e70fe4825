//! Tests of memory as a whole. `tests/faults.rs` has a system that refuses, `tests/fork.rs`
//! children, `tests/limits.rs` processes that may not do everything, and `tests/provider.rs` a
//! module of cranelift-jit.

mod faults;
mod fork;
mod limits;
mod provider;

use std::sync::Arc;

use super::boundary::BOUNDARY;
use super::system::System;
use super::*;
use crate::error::JitError;

/// A memory with small regions.
fn memory(mapping: Mapping) -> Arc<Memory> {
    Memory::reserve(MemoryOptions { mapping, ..MemoryOptions::with_size(8 << 20) }).unwrap()
}

/// Returns whether all bytes are `value`: also fast without optimization.
fn all(bytes: &[u8], value: u8) -> bool {
    bytes.first() == Some(&value) && bytes[1..] == bytes[..bytes.len() - 1]
}

/// Returns whether bytes that were just taken are zero, as those of writable data are.
fn is_fresh(region: Region, bytes: &[u8]) -> bool {
    region != Region::Data || all(bytes, 0)
}

/// Runs a test in a process of its own, because it changes the process or makes children, which
/// keep memory from being used again. `name` is the test's path in this module.
fn alone(name: &str, body: impl FnOnce()) {
    const VARIABLE: &str = "KILN_TEST_ALONE";
    if std::env::var_os(VARIABLE).is_some() {
        // Whoever waits for a child that has crashed would wait forever.
        // SAFETY: a limit of this process's time.
        unsafe { libc::alarm(100) };
        return body();
    }
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("memory::tests::{name}"), "--test-threads=1"]).env(VARIABLE, "1");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let text = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// Frees blocks that nobody uses.
fn free(memory: &Memory, blocks: impl IntoIterator<Item = Block>) {
    // SAFETY: the tests use no block after they have freed it.
    blocks.into_iter().for_each(|block| unsafe { memory.free(block) });
}

#[test]
fn no_function_begins_at_a_multiple_of_four_gigabytes() {
    let options = MemoryOptions { code: 2040 << 20, ..MemoryOptions::with_size(1 << 20) };
    // All at once, so that they are side by side and together span many multiples.
    let all: Vec<_> = (0..8).map(|_| Memory::reserve(options.clone()).unwrap()).collect();
    for memory in &all {
        let first = memory.core.views.address(Region::Code, 0) as u64;
        // Put the next block right at a boundary, if there is one. This is bookkeeping alone:
        // nothing takes these pages from the system.
        let until = (first.next_multiple_of(BOUNDARY) - first) as usize;
        if until > 0 && until < 2000 << 20 {
            memory.core.lock(Region::Code).ranges.take(until, 8).unwrap();
        }
        let block = memory.allocate_code(4096, 16, |offset| offset == 0).unwrap();
        assert!(!block.address().is_multiple_of(BOUNDARY));
        // A boundary inside a function does no harm.
        if until < 2000 << 20 {
            free(memory, [block]);
            let block = memory.allocate_code(4096, 16, |_| false).unwrap();
            assert!(block.address().is_multiple_of(BOUNDARY));
        }
    }
}

#[test]
fn code_is_written_at_one_address_and_runs_at_another() {
    for mapping in [Mapping::Dual, Mapping::Protect] {
        let memory = memory(mapping);
        let block = memory.allocate_code(16, 16, |offset| offset == 0).unwrap();
        let constant = memory.allocate(Region::ReadOnly, 8, 8).unwrap();
        assert_eq!(mapping == Mapping::Dual, block.address != block.writable);
        // SAFETY: both are fresh.
        unsafe { block.bytes().fill(0xcc) };
        // SAFETY: as above.
        unsafe { constant.bytes().copy_from_slice(&7_u64.to_ne_bytes()) };
        memory.publish(&[block, constant]).unwrap();
        // SAFETY: it was published.
        let seen = unsafe { std::slice::from_raw_parts(block.address, 16) };
        assert_eq!(seen, [0xcc; 16]);
        // SAFETY: it was published.
        assert_eq!(unsafe { constant.address.cast::<u64>().read() }, 7);
    }
}

#[test]
fn writable_memory_that_is_used_again_is_zero() {
    for mapping in [Mapping::Dual, Mapping::Protect] {
        let memory = memory(mapping);
        for region in Region::ALL {
            for round in 0..20 {
                let len = 100 + 3000 * round;
                let blocks: Vec<_> = (0..4).map(|_| memory.allocate(region, len, 16).unwrap()).collect();
                for &block in &blocks {
                    // SAFETY: it is in use and not published.
                    let bytes = unsafe { block.bytes() };
                    assert!(is_fresh(region, bytes), "{region} {round}");
                    bytes.fill(0xff);
                }
                memory.publish(&blocks).unwrap();
                free(&memory, blocks);
            }
            let usage = memory.core.usage(region);
            assert_eq!((usage.used, usage.free), (0, usage.reserved));
        }
    }
}

#[test]
fn the_number_of_mappings_is_a_constant() {
    for mapping in [Mapping::Dual, Mapping::Protect] {
        let memory = memory(mapping);
        let mut live = Vec::new();
        for round in 0..2000 {
            let region = Region::ALL[round % 3];
            let unit = if mapping == Mapping::Protect { 100 } else { 1000 };
            match memory.allocate(region, 8 + (round * 7919 % unit) as u64, 8) {
                Ok(block) => {
                    memory.publish(&[block]).unwrap();
                    live.push(block);
                }
                Err(_) => free(&memory, live.drain(..)),
            }
            if round % 3 == 0 {
                free(&memory, [live.swap_remove(round * 31 % live.len())]);
            }
        }
        let count = mappings(&memory);
        assert!((4..=16).contains(&count), "{mapping:?}: {count}");
    }
}

/// Returns how many mappings of the process are those of `memory`.
fn mappings(memory: &Memory) -> usize {
    lines(memory).len()
}

/// Returns the lines that the system prints for the mappings of `memory`.
fn lines(memory: &Memory) -> Vec<String> {
    let views = &memory.core.views;
    let run = views.address(Region::Code, 0) as usize;
    let end = views.address(Region::Data, views.size(Region::Data)) as usize;
    let write = views.writable(Region::Code, 0) as usize;
    let write_end = write + (views.address(Region::Data, 0) as usize - run);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let is_ours = |line: &&str| {
        let start = usize::from_str_radix(line.split_once('-').unwrap().0, 16).unwrap();
        (run..end).contains(&start) || (write..write_end).contains(&start)
    };
    maps.lines().filter(is_ours).map(str::to_owned).collect()
}

#[test]
fn running_out_names_the_region_and_the_option() {
    let memory = Memory::reserve(MemoryOptions { code: 4096, ..MemoryOptions::with_size(1 << 20) }).unwrap();
    let first = memory.allocate(Region::Code, 4000, 16).unwrap();
    let error = memory.allocate(Region::Code, 200, 16).unwrap_err().to_string();
    assert_eq!(
        error,
        "no room for 200 bytes of code: 96 of 4096 bytes are free, 96 of them in one piece; \
         `MemoryOptions::code` sets the size"
    );
    let error = memory.allocate(Region::Data, u64::MAX, 16).unwrap_err().to_string();
    assert!(error.contains("of writable data") && error.contains("MemoryOptions::data"), "{error}");
    free(&memory, [first]);
    memory.allocate(Region::Code, 4096, 16).unwrap();
}

#[test]
fn what_is_retired_is_counted_until_it_is_free() {
    let memory = memory(Mapping::Auto);
    let [first, rest] = [8, 16].map(|len| memory.allocate(Region::Data, len, 8).unwrap());
    let first = memory.retire(first);
    let usage = memory.usage().data;
    assert_eq!((usage.used, usage.retired, usage.free), (16, 8, usage.reserved - 24));
    free(&memory, [rest, memory.retire(first)]);
    let usage = memory.usage().data;
    assert_eq!((usage.used, usage.retired, usage.free), (0, 0, usage.reserved));
}

#[test]
fn options_out_of_range_are_refused() {
    let options = MemoryOptions { code: usize::MAX, ..MemoryOptions::default() };
    assert!(matches!(Memory::reserve(options), Err(MemoryError::TooLarge { .. })));
    let options = MemoryOptions::with_size(MemoryOptions::LIMIT + (1 << 20));
    assert!(matches!(Memory::reserve(options), Err(MemoryError::TooLarge { .. })));
    Memory::reserve(MemoryOptions::with_size(0)).unwrap();
}

#[test]
fn large_free_ranges_go_back_to_the_system() {
    for mapping in [Mapping::Dual, Mapping::Protect] {
        let memory =
            Memory::reserve(MemoryOptions { mapping, ..MemoryOptions::with_size(64 << 20) }).unwrap();
        for region in Region::ALL {
            let small = memory.allocate(region, 64, 8).unwrap();
            let before = resident(&memory, region);
            let large: Vec<_> = (0..3).map(|_| memory.allocate(region, 4 << 20, 8).unwrap()).collect();
            for &block in &large {
                // SAFETY: it is in use and not published.
                unsafe { block.bytes().fill(0xff) };
            }
            memory.publish(&large).unwrap();
            assert!(resident(&memory, region) > before + (11 << 20), "{mapping:?} {region}");
            free(&memory, large);
            let after = resident(&memory, region);
            assert!(after <= before + (128 << 10), "{mapping:?} {region}: {before} then {after}");
            // They can be used again.
            let again = memory.allocate(region, 12 << 20, 8).unwrap();
            // SAFETY: as above.
            assert!(is_fresh(region, unsafe { again.bytes() }));
            memory.publish(&[again]).unwrap();
            free(&memory, [again, small]);
        }
        assert!((4..=16).contains(&mappings(&memory)));
    }
}

#[test]
fn rounds_of_use_leave_nothing() {
    for mapping in [Mapping::Dual, Mapping::Protect] {
        let memory = memory(mapping);
        let mut live = std::collections::VecDeque::new();
        let mut before = Vec::new();
        for round in 0..6000_u16 {
            let constant = memory.allocate(Region::ReadOnly, 8 + u64::from(round % 50), 8).unwrap();
            let slot = memory.allocate(Region::Data, 8, 8).unwrap();
            let code = fork::publish(&memory, round, 16 + u64::from(round % 97));
            memory.publish(&[constant]).unwrap();
            assert_eq!(fork::call(code), round);
            live.push_back([constant, slot, code]);
            if live.len() > 20 {
                free(&memory, live.pop_front().unwrap());
            }
            if round % 3000 == 2999 {
                before.push(Region::ALL.map(|region| (resident(&memory, region), mappings(&memory))));
            }
        }
        assert_eq!(before[0], before[1], "{mapping:?}");
    }
}

/// Returns how many bytes of `region` are in memory, where they are written.
fn resident(memory: &Memory, region: Region) -> usize {
    let (start, page) = (memory.core.views.writable(region, 0) as usize, memory.core.page);
    let mut file = std::fs::File::open("/proc/self/pagemap").unwrap();
    let mut entries = vec![0; memory.core.views.size(region) / page * 8];
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start((start / page * 8) as u64)).unwrap();
    std::io::Read::read_exact(&mut file, &mut entries).unwrap();
    // The topmost bit says that the page is present.
    page * entries.chunks_exact(8).filter(|entry| entry[7] & 0x80 != 0).count()
}

#[test]
fn threads_share_a_memory() {
    let memory = memory(Mapping::Auto);
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let memory = &memory;
            scope.spawn(move || {
                let mut live = Vec::new();
                for round in 0..2000_usize {
                    let region = Region::ALL[round % 3];
                    let len = 8 + (round * 7919 + usize::from(thread) * 31) % 2000;
                    let block = memory.allocate(region, len as u64, 16).unwrap();
                    // SAFETY: it is in use and not published.
                    let bytes = unsafe { block.bytes() };
                    assert!(is_fresh(region, bytes));
                    bytes.fill(thread + 1);
                    memory.publish(&[block]).unwrap();
                    live.push(block);
                    if live.len() > 50 {
                        let block = live.swap_remove(round % live.len());
                        // SAFETY: it is in use, and nobody writes to it.
                        let bytes = unsafe { std::slice::from_raw_parts(block.address, block.len) };
                        assert!(all(bytes, thread + 1));
                        free(memory, [block]);
                    }
                }
                free(memory, live);
            });
        }
    });
    for region in Region::ALL {
        assert_eq!(memory.core.usage(region).used, 0);
    }
}
