//! Children of `fork`, which run code of their parent, make their own, and see nothing of what
//! the parent does later.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;

/// Machine code of a function that returns `value`.
fn code(value: u16) -> Vec<u8> {
    if cfg!(target_arch = "x86_64") {
        let [low, high] = value.to_le_bytes();
        vec![0xb8, low, high, 0, 0, 0xc3]
    } else if cfg!(target_arch = "aarch64") {
        let words = [0x5280_0000 | u32::from(value) << 5, 0xd65f_03c0];
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    } else if cfg!(target_arch = "riscv64") {
        let words = [0x0000_0513 | u32::from(value) << 20, 0x0000_8067];
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    } else {
        panic!("no machine code for this test")
    }
}

/// Publishes a function that returns `value`, in a block of `len` bytes.
pub(super) fn publish(memory: &Memory, value: u16, len: u64) -> Block {
    let block = memory.allocate_code(len, 16, |offset| offset == 0).unwrap();
    let code = code(value);
    // SAFETY: it is in use and not published.
    unsafe { block.bytes()[..code.len()].copy_from_slice(&code) };
    memory.publish(&[block]).unwrap();
    block
}

pub(super) fn call(block: Block) -> u16 {
    // SAFETY: `publish` put a function of this type there.
    unsafe { std::mem::transmute::<*mut u8, extern "C" fn() -> u32>(block.address)() as u16 }
}

/// A child process.
pub(super) struct Child(libc::pid_t);

/// Makes a child that runs `body`, which must not panic and must return `true`.
pub(super) fn child(body: impl FnOnce() -> bool) -> Child {
    // SAFETY: the child runs code that needs none of the other threads.
    let id = unsafe { libc::fork() };
    assert!(id >= 0, "fork");
    if id == 0 {
        // If the parent's test fails, nobody goes on with the child.
        // SAFETY: a limit of this process's time.
        unsafe { libc::alarm(60) };
        // SAFETY: as above: it ends with the thread that made it.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        let good = catch_unwind(AssertUnwindSafe(body)).unwrap_or(false);
        // SAFETY: ends the child without running what the parent registered.
        unsafe { libc::_exit(i32::from(!good)) };
    }
    Child(id)
}

impl Child {
    pub(super) fn wait(self) {
        let mut status = 0;
        // SAFETY: it is a child of ours.
        let id = unsafe { libc::waitpid(self.0, &raw mut status, 0) };
        assert_eq!((id, status), (self.0, 0), "the child failed");
    }
}

/// Two pipes by which a parent tells a child to go on, and hears that it has come to a point.
struct Steps {
    to_child: (PipeReader, PipeWriter),
    to_parent: (PipeReader, PipeWriter),
}

impl Steps {
    fn new() -> Self {
        Self { to_child: std::io::pipe().unwrap(), to_parent: std::io::pipe().unwrap() }
    }

    fn go_on(&self) {
        (&self.to_child.1).write_all(&[1]).unwrap();
    }

    fn await_child(&self) {
        (&self.to_parent.0).read_exact(&mut [0]).unwrap();
    }

    /// In the child: says that it has come to a point, and waits.
    fn stop(&self) {
        (&self.to_parent.1).write_all(&[1]).unwrap();
        (&self.to_child.0).read_exact(&mut [0]).unwrap();
    }
}

#[test]
fn a_child_makes_code_of_its_own() {
    alone("fork::a_child_makes_code_of_its_own", || {
        for mapping in [Mapping::Dual, Mapping::Protect] {
            let memory = memory(mapping);
            let old = publish(&memory, 1, 16);
            let constant = memory.allocate(Region::ReadOnly, 8, 8).unwrap();
            let slot = memory.allocate(Region::Data, 8, 8).unwrap();
            // SAFETY: it is in use and not published.
            unsafe { constant.bytes().fill(5) };
            memory.publish(&[constant]).unwrap();
            let steps = Steps::new();
            let one = child(|| {
                // Twice the memory of the parent, so that pages that the parent never used are
                // used.
                let new: Vec<_> = (2..40).map(|value| publish(&memory, value, 5000)).collect();
                // SAFETY: it is data of this process now.
                unsafe { slot.bytes().fill(9) };
                steps.stop();
                // The parent has published other code at the same addresses.
                let good = new.iter().zip(2..).all(|(&block, value)| call(block) == value);
                // SAFETY: it was published.
                let same = unsafe { constant.address.read() } == 5;
                free(&memory, new);
                good && same && call(old) == 1 && (4..=16).contains(&mappings(&memory))
            });
            steps.await_child();
            let new: Vec<_> = (102..140).map(|value| publish(&memory, value, 5000)).collect();
            assert!(new.iter().zip(102..).all(|(&block, value)| call(block) == value));
            assert_eq!(call(old), 1);
            // SAFETY: it is in use.
            assert!(all(unsafe { slot.bytes() }, 0));
            steps.go_on();
            one.wait();
        }
    });
}

#[test]
fn memory_that_a_child_may_run_is_not_used_again() {
    alone("fork::memory_that_a_child_may_run_is_not_used_again", || {
        let memory = memory(Mapping::Dual);
        let old = publish(&memory, 1, 16);
        let steps = Steps::new();
        let one = child(|| {
            // A daemon closes everything that it does not know; the pipes are needed here.
            close_all_but(&steps);
            steps.stop();
            call(old) == 1
        });
        steps.await_child();
        free(&memory, [old]);
        assert_eq!(memory.usage().code.retired, 16);
        let new = publish(&memory, 2, 16);
        assert_ne!(old.address, new.address);
        // What was taken after the fork is used again at once, where the pages are new.
        let page = publish(&memory, 3, 9000);
        let used = memory.usage().code;
        free(&memory, [page]);
        assert!(memory.usage().code.free >= used.free + 4096);
        steps.go_on();
        one.wait();
        let usage = memory.usage().code;
        assert_eq!((usage.used, usage.retired), (16, 0));
        assert_eq!(publish(&memory, 4, 16).address, old.address);
    });
}

#[test]
fn a_parent_that_closes_all_files_is_careful() {
    alone("fork::a_parent_that_closes_all_files_is_careful", || {
        let memory = memory(Mapping::Dual);
        let old = publish(&memory, 1, 16);
        let steps = Steps::new();
        let one = child(|| {
            steps.stop();
            call(old) == 1
        });
        steps.await_child();
        close_all_but(&steps);
        // The numbers are those of other files now, which must not be sealed or closed.
        let others: Vec<_> = (0..8).map(|_| std::io::pipe().unwrap()).collect();
        free(&memory, [old]);
        for round in 2..200 {
            let new = publish(&memory, round, 5000);
            assert_ne!(new.address, old.address);
            free(&memory, [new]);
        }
        steps.go_on();
        one.wait();
        // Nobody knows whether the child has ended.
        assert!(memory.usage().code.retired >= 16);
        for (mut reader, mut writer) in others {
            writer.write_all(&[1]).unwrap();
            reader.read_exact(&mut [0]).unwrap();
        }
    });
}

/// Closes all files but the standard ones and the pipes.
fn close_all_but(steps: &Steps) {
    use std::os::fd::AsRawFd;
    let (to_child, to_parent) = (&steps.to_child, &steps.to_parent);
    let keep =
        [to_child.0.as_raw_fd(), to_child.1.as_raw_fd(), to_parent.0.as_raw_fd(), to_parent.1.as_raw_fd()];
    for number in (3..1000).filter(|number| !keep.contains(number)) {
        // SAFETY: this process uses none of them.
        unsafe { libc::close(number) };
    }
}

#[test]
fn a_child_with_a_copy_no_longer_keeps_memory() {
    alone("fork::a_child_with_a_copy_no_longer_keeps_memory", || {
        let memory = memory(Mapping::Dual);
        let old = publish(&memory, 1, 16);
        let steps = Steps::new();
        let grandchild = Steps::new();
        let one = child(|| {
            let inner = child(|| {
                grandchild.stop();
                call(old) == 1 && call(publish(&memory, 7, 16)) == 7
            });
            let own = publish(&memory, 2, 16);
            steps.stop();
            grandchild.go_on();
            inner.wait();
            steps.stop();
            call(old) == 1 && call(own) == 2
        });
        steps.await_child();
        grandchild.await_child();
        free(&memory, [old]);
        // The child has a copy, but its child may still run the code.
        assert_eq!(memory.usage().code.retired, 16);
        steps.go_on();
        steps.await_child();
        assert_eq!(memory.usage().code.retired, 0);
        assert_eq!(publish(&memory, 3, 16).address, old.address);
        steps.go_on();
        one.wait();
    });
}

#[test]
fn another_program_does_not_keep_memory() {
    alone("fork::another_program_does_not_keep_memory", || {
        let memory = memory(Mapping::Dual);
        let old = publish(&memory, 1, 16);
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = std::process::Command::new("cat");
        command.stdin(reader).stdout(std::process::Stdio::null());
        // SAFETY: the function does nothing. With it, the standard library uses `fork`.
        unsafe { std::os::unix::process::CommandExt::pre_exec(&mut command, || Ok(())) };
        let mut program = command.spawn().unwrap();
        free(&memory, [old]);
        assert_eq!(memory.usage().code.retired, 0);
        drop(writer);
        program.wait().unwrap();
    });
}

#[test]
fn many_children_that_end_in_another_order() {
    alone("fork::many_children_that_end_in_another_order", || {
        let memory = memory(Mapping::Dual);
        let mut live = std::collections::VecDeque::new();
        let mut blocks = Vec::new();
        for round in 0..60 {
            // More than there are watches.
            while live.len() > 25 {
                let (steps, child): (Steps, Child) = live.remove(round * 7919 % live.len()).unwrap();
                steps.go_on();
                child.wait();
            }
            let value = round as u16;
            blocks.push((value, publish(&memory, value, 24)));
            let steps = Steps::new();
            let known = blocks.clone();
            let one = child(|| {
                steps.stop();
                let same = known.iter().all(|&(value, block)| call(block) == value);
                let own = publish(&memory, 1000 + value, 24);
                same && call(own) == 1000 + value && known.iter().all(|&(value, block)| call(block) == value)
            });
            steps.await_child();
            live.push_back((steps, one));
            while blocks.len() > 6 {
                free(&memory, [blocks.swap_remove(round * 31 % blocks.len()).1]);
            }
            assert!(blocks.iter().all(|&(value, block)| call(block) == value));
        }
        for (steps, one) in live {
            steps.go_on();
            one.wait();
        }
        free(&memory, blocks.into_iter().map(|(_, block)| block));
        let usage = memory.usage().code;
        assert_eq!((usage.used, usage.retired), (0, 0));
    });
}

#[test]
fn threads_work_while_children_are_made() {
    alone("fork::threads_work_while_children_are_made", || {
        let memory = memory(Mapping::Dual);
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (memory, stop) = (&memory, &stop);
                scope.spawn(move || {
                    let mut round = 0;
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        round = (round + 1) % 500;
                        let block = publish(memory, 1000 * thread + round, 40);
                        assert_eq!(call(block), 1000 * thread + round);
                        free(memory, [block]);
                    }
                });
            }
            for round in 0..40 {
                let kept = publish(&memory, round, 16);
                child(|| call(kept) == round && call(publish(&memory, 7, 16)) == 7).wait();
                assert_eq!(call(kept), round);
                free(&memory, [kept]);
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        // Children of other tests may still share what this one freed, until they end.
        assert_eq!(memory.usage().code.used, 0);
    });
}

#[test]
fn what_is_not_finished_is_not_shared() {
    alone("fork::what_is_not_finished_is_not_shared", || {
        use cranelift_jit::{BranchProtection, JITMemoryKind, JITMemoryProvider};
        let memory = memory(Mapping::Dual);
        let mut provider = MemoryProvider::new(memory.clone());
        let address = provider.allocate(16, 16, JITMemoryKind::Executable).unwrap();
        let write = |value| {
            let code = code(value);
            // SAFETY: the block is not finished, and has room.
            unsafe { address.copy_from_nonoverlapping(code.as_ptr(), code.len()) };
        };
        write(1);
        // SAFETY: there is a function of this type when it is called.
        let call = || unsafe { std::mem::transmute::<*mut u8, extern "C" fn() -> u32>(address)() };
        child(|| {
            write(2);
            provider.finalize(BranchProtection::None).unwrap();
            call() == 2
        })
        .wait();
        provider.finalize(BranchProtection::None).unwrap();
        assert_eq!(call(), 1);
    });
}

#[test]
fn a_child_that_cannot_copy_has_an_error() {
    alone("fork::a_child_that_cannot_copy_has_an_error", || {
        use std::sync::atomic::{AtomicBool, Ordering};
        let refuse = Arc::new(AtomicBool::new(false));
        let flag = refuse.clone();
        let system = System {
            refuse: Some(Box::new(move |call| {
                (call == "memfd_create" && flag.load(Ordering::Relaxed)).then_some(rustix::io::Errno::MFILE)
            })),
        };
        let memory = Memory::with_system(
            system,
            MemoryOptions { mapping: Mapping::Dual, ..MemoryOptions::with_size(1 << 20) },
        )
        .unwrap();
        let old = publish(&memory, 1, 16);
        child(|| {
            refuse.store(true, Ordering::Relaxed);
            let error = memory.allocate(Region::Code, 16, 16).unwrap_err().to_string();
            let data = memory.allocate(Region::Data, 16, 16).is_ok();
            refuse.store(false, Ordering::Relaxed);
            error.contains("memfd_create") && data && call(old) == 1 && call(publish(&memory, 2, 16)) == 2
        })
        .wait();
    });
}
