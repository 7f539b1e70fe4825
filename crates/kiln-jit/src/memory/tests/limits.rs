//! Processes that may not do everything: limits of memory, and code that must not be writable.

use rustix::process::{Resource, Rlimit, setrlimit};

use super::fork::{call, child, publish};
use super::*;

/// Forbids memory of this process to become executable; `false` if the kernel cannot.
fn forbid_new_code() -> bool {
    const PR_SET_MDWE: libc::c_int = 65;
    const PR_MDWE_REFUSE_EXEC_GAIN: libc::c_ulong = 1;
    // SAFETY: it changes nothing that exists.
    unsafe { libc::prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0_u64, 0_u64, 0_u64) == 0 }
}

#[test]
fn code_that_was_never_writable_where_it_runs() {
    use cranelift_jit::{JITMemoryKind, JITMemoryProvider};
    alone("limits::code_that_was_never_writable_where_it_runs", || {
        if !forbid_new_code() {
            return eprintln!("skipped: PR_SET_MDWE needs Linux 6.3");
        }
        let memory = memory(Mapping::Auto);
        let block = publish(&memory, 7, 16);
        assert_eq!(call(block), 7);
        child(|| call(block) == 7 && call(publish(&memory, 8, 9000)) == 8).wait();
        free(&memory, [block]);
        let error =
            Memory::reserve(MemoryOptions { mapping: Mapping::Protect, ..MemoryOptions::with_size(1 << 20) });
        let error = error.unwrap_err().to_string();
        assert!(error.contains("mprotect(PROT_EXEC)") && error.contains("PR_SET_MDWE"), "{error}");
        // A module of cranelift-jit writes where it runs, and hears at once that this is not
        // possible.
        let mut provider = MemoryProvider::new(memory.clone());
        for _ in 0..2 {
            let error = provider.allocate(16, 16, JITMemoryKind::Executable).unwrap_err().to_string();
            assert!(error.contains("mprotect(PROT_EXEC)"), "{error}");
        }
        // Others can still use the memory.
        let blocks: Vec<_> = (0..50).map(|value| publish(&memory, value, 5000)).collect();
        assert!(blocks.iter().zip(0..).all(|(&block, value)| call(block) == value));
    });
}

#[test]
fn no_mapping_is_writable_and_executable() {
    for mapping in [Mapping::Dual, Mapping::Protect] {
        let memory = memory(mapping);
        let open = memory.allocate(Region::Code, 100, 16).unwrap();
        let block = publish(&memory, 7, 16);
        let lines = lines(&memory);
        let permissions: Vec<_> = lines.iter().map(|line| line.split(' ').nth(1).unwrap()).collect();
        assert!(permissions.iter().any(|flags| flags.starts_with("r-x")), "{permissions:?}");
        assert!(!permissions.iter().any(|flags| flags.starts_with("rwx")), "{permissions:?}");
        assert_eq!(call(block), 7);
        free(&memory, [open, block]);
    }
}

#[test]
fn a_limit_of_address_space_makes_the_default_smaller() {
    alone("limits::a_limit_of_address_space_makes_the_default_smaller", || {
        let size = MemoryOptions::default().code;
        let limit = Some(1 << 30);
        setrlimit(Resource::As, Rlimit { current: limit, maximum: limit }).unwrap();
        let small = MemoryOptions::default();
        assert_eq!(small.code + small.read_only + small.data, 1 << 27);
        assert!(small.code <= size);
        // A thousand users share one memory.
        let shared: Vec<_> = (0..1000).map(|_| Memory::shared().unwrap()).collect();
        assert_eq!(call(publish(&shared[999], 3, 16)), 3);
        let own: Vec<_> =
            (0..200).map(|_| Memory::reserve(MemoryOptions::with_size(1 << 20)).unwrap()).collect();
        assert_eq!(call(publish(&own[199], 4, 16)), 4);
        let error = Memory::reserve(MemoryOptions::with_size(2 << 30)).unwrap_err().to_string();
        assert!(error.contains("mmap") && error.contains("ulimit -v"), "{error}");
    });
}

#[test]
fn a_thousand_memories() {
    let all: Vec<_> =
        (0..1000).map(|_| Memory::reserve(MemoryOptions::with_size(1 << 20)).unwrap()).collect();
    for (memory, value) in all.iter().zip(0..) {
        assert_eq!(call(publish(memory, value, 16)), value);
    }
}

#[test]
fn data_is_taken_from_the_system_in_steps() {
    alone("limits::data_is_taken_from_the_system_in_steps", || {
        let limit = Some(100 << 20);
        setrlimit(Resource::Data, Rlimit { current: limit, maximum: limit }).unwrap();
        let memory = Memory::reserve(MemoryOptions::with_size(1 << 30)).unwrap();
        let first = memory.allocate(Region::Data, 1000, 8).unwrap();
        let error = memory.allocate(Region::Data, 200 << 20, 8).unwrap_err().to_string();
        assert!(error.contains("mprotect(PROT_WRITE)") && error.contains("ulimit -d"), "{error}");
        let second = memory.allocate(Region::Data, 10 << 20, 8).unwrap();
        assert!((4..=16).contains(&mappings(&memory)));
        free(&memory, [first, second]);
        assert_eq!(memory.usage().data.used, 0);
    });
}

#[test]
fn huge_pages_are_asked_for() {
    if !std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
        return eprintln!("skipped: the kernel has no huge pages");
    }
    for mapping in [Mapping::Dual, Mapping::Protect] {
        let options = MemoryOptions { mapping, huge_pages: true, ..MemoryOptions::with_size(16 << 20) };
        let memory = Memory::reserve(options).unwrap();
        let block = publish(&memory, 7, 16);
        let data = memory.allocate(Region::Data, 3 << 20, 16).unwrap();
        for region in Region::ALL {
            let views = &memory.core.views;
            for view in [views.address(region, 0), views.writable(region, 0)] {
                assert!((view as usize).is_multiple_of(2 << 20));
            }
        }
        let all = std::fs::read_to_string("/proc/self/smaps").unwrap();
        for line in lines(&memory) {
            let (_, rest) = all.split_once(&line).unwrap();
            let flags = rest.lines().find(|line| line.starts_with("VmFlags:")).unwrap();
            assert!(flags.split(' ').any(|flag| flag == "hg"), "{mapping:?} {line}: {flags}");
        }
        assert_eq!(call(block), 7);
        assert!((4..=16).contains(&mappings(&memory)));
        free(&memory, [block, data]);
    }
}
