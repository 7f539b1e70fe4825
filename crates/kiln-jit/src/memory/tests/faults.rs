//! A system that refuses calls.

use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;

use super::*;

/// Returns a system that refuses every call that `refuse` chooses by its name.
fn system(refuse: impl Fn(&str) -> Option<Errno> + Send + Sync + 'static) -> System {
    System { refuse: Some(Box::new(refuse)) }
}

fn options(mapping: Mapping) -> MemoryOptions {
    MemoryOptions { mapping, ..MemoryOptions::with_size(32 << 20) }
}

/// Prints an error and its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(Some(error), |error| error.source());
    sources.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[test]
fn without_a_second_mapping_permissions_change() {
    for call in ["memfd_create", "ftruncate", "mmap(PROT_EXEC)", "mmap(PROT_WRITE)", "madvise(MADV_DONTFORK)"]
    {
        let refuse = move |name: &str| (name == call).then_some(Errno::ACCESS);
        let memory = Memory::with_system(system(refuse), options(Mapping::Auto)).unwrap();
        assert!(memory.core.views.whole_pages(Region::Code), "{call}");
        let block = memory.allocate(Region::Code, 16, 16).unwrap();
        assert_eq!(block.address, block.writable);
        memory.publish(&[block]).unwrap();
        let error = Memory::with_system(system(refuse), options(Mapping::Dual)).unwrap_err();
        assert!(matches!(&error, MemoryError::Refused(refused) if refused.call == call), "{error}");
    }
}

#[test]
fn without_executable_memory_the_error_has_both_reasons() {
    let refuse = |name: &str| match name {
        "memfd_create" => Some(Errno::PERM),
        "mprotect(PROT_EXEC)" => Some(Errno::ACCESS),
        _ => None,
    };
    let error = Memory::with_system(system(refuse), options(Mapping::Auto)).unwrap_err();
    assert_eq!(
        chain(&error),
        "no executable memory: the system refuses memfd_create, to make memory that can be mapped twice \
         (likely cause: the sysctl vm.memfd_noexec or a filter of system calls): Operation not permitted (os \
         error 1); without a second mapping, the system refuses mprotect(PROT_EXEC), to make code executable \
         (likely cause: PR_SET_MDWE, SELinux, a filter of system calls, or files in memory may not be \
         executed): Permission denied (os error 13)"
    );
    let error = Memory::with_system(system(refuse), options(Mapping::Protect)).unwrap_err();
    assert!(chain(&error).ends_with("Permission denied (os error 13)"), "{}", chain(&error));
}

#[test]
fn pages_that_were_taken_ahead_are_not_taken_again() {
    let (code, constants) = (300_000, 500_000);
    // Whether all works, the system refuses to give pages ahead, or the sizes are wrong.
    for (refused, ahead, after) in
        [(false, [code, constants], 0), (true, [code, constants], 2), (false, [9, 9], 2)]
    {
        let (calls, refuses) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(refused.into())));
        let refuse = {
            let (calls, refuses) = (calls.clone(), refuses.clone());
            move |name: &str| {
                let is_meant = name == "madvise(MADV_POPULATE_WRITE)";
                calls.fetch_add(is_meant.into(), Ordering::Relaxed);
                (is_meant && refuses.load(Ordering::Relaxed) > 0).then_some(Errno::NOMEM)
            }
        };
        let memory = Memory::with_system(system(refuse), options(Mapping::Dual)).unwrap();
        memory.take_pages_ahead(ahead[0], ahead[1]);
        assert_eq!(memory.usage().code.used + memory.usage().read_only.used, 0);
        calls.store(0, Ordering::Relaxed);
        refuses.store(0, Ordering::Relaxed);
        let blocks = [(Region::Code, code), (Region::ReadOnly, constants)]
            .map(|(region, size)| memory.allocate(region, size, 16).unwrap());
        assert_eq!(calls.load(Ordering::Relaxed), after, "{refused} {ahead:?}");
        free(&memory, blocks);
    }
    // More than there is, and a memory that is mapped once.
    for mapping in [Mapping::Dual, Mapping::Protect] {
        let memory = Memory::reserve(options(mapping)).unwrap();
        memory.take_pages_ahead(u64::MAX, 1 << 40);
        memory.take_pages_ahead(1 << 20, 1 << 20);
        free(&memory, [memory.allocate(Region::Code, 1 << 20, 16).unwrap()]);
    }
}

/// Uses a memory, and gives everything back after an error. Returns the first error.
fn use_everything(memory: &Memory) -> Result<(), JitError> {
    let mut blocks = Vec::new();
    let result = (0..12).try_for_each(|round| {
        for region in Region::ALL {
            let block = memory.allocate(region, 40 << (2 * (round % 6)), 16)?;
            blocks.push(block);
            // SAFETY: it is in use and not published.
            let bytes = unsafe { block.bytes() };
            assert!(is_fresh(region, bytes), "{region}");
            bytes.fill(0xff);
        }
        memory.publish(&blocks[blocks.len() - 3..])?;
        if round % 3 == 2 {
            let large = memory.allocate(Region::ALL[round as usize / 3 % 3], 5 << 18, 16)?;
            blocks.push(large);
            // SAFETY: as above.
            unsafe { large.bytes().fill(0xff) };
            free(memory, [large]);
            blocks.pop();
            free(memory, [blocks.swap_remove(2), blocks.swap_remove(0)]);
        }
        Ok(())
    });
    free(memory, blocks);
    for region in Region::ALL {
        let usage = memory.core.usage(region);
        assert_eq!((usage.used, usage.retired), (0, 0));
    }
    result
}

#[test]
fn any_call_may_be_refused() {
    for mapping in [Mapping::Dual, Mapping::Protect, Mapping::Auto] {
        for errno in [Errno::NOMEM, Errno::ACCESS] {
            let mut errors = 0;
            for n in 0.. {
                // Each call is counted once, also after it was refused.
                let calls = Arc::new(AtomicUsize::new(0));
                let counter = calls.clone();
                let refuse = move |_: &str| (counter.fetch_add(1, Ordering::Relaxed) == n).then_some(errno);
                let memory = match Memory::with_system(system(refuse), options(mapping)) {
                    Ok(memory) => memory,
                    Err(error) => {
                        errors += 1;
                        assert!(matches!(error, MemoryError::Refused(_)), "{error}");
                        continue;
                    }
                };
                if let Err(error) = use_everything(&memory) {
                    errors += 1;
                    assert!(matches!(error, JitError::Memory(MemoryError::Refused(_))), "{error}");
                    // One call was refused, and nothing is left of that.
                    use_everything(&memory).unwrap();
                }
                if calls.load(Ordering::Relaxed) <= n {
                    assert!(n > 20 && errors > 3, "{mapping:?}: {n} calls, {errors} errors");
                    break;
                }
            }
        }
    }
}
