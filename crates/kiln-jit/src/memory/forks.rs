//! Which children of `fork` may still share memory with this process.
//!
//! A child of `fork` shares the file that our code is in, until it takes memory itself: then it
//! makes a copy (`Views::copy_for_child`). So memory that was in use at a fork must not be written
//! again here while a child may run or read it. To know how long that is, each fork has a *watch*:
//! a file in memory of its own that only children map, writable. The system refuses to seal such a
//! file against writing while it is mapped writable anywhere. A child loses the mapping when it
//! ends, when it executes another program, and when it made its copy; its own children inherit it.
//! (The end of a pipe would be simpler, but a child that closes all files looks as if it had
//! ended.)
//!
//! Forks are numbered from 1. Forks that make the copy of a process without libc's `fork` are not
//! seen; what they may do is in the documentation of [`Memory`](super::Memory).

use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create};
use rustix::io::{Errno, close};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The number of forks whose child shares memory with this process.
static FORKS: AtomicU32 = AtomicU32::new(0);
/// The number of watches whose children may still share memory.
static WATCHES: AtomicUsize = AtomicUsize::new(0);
/// The watches of this process, and those that it is watched by.
static STATE: Mutex<State> =
    Mutex::new(State { watches: Vec::new(), to_unmap: None, inherited: Vec::new(), shared_memories: 0 });

/// The state of watching, which is also a guard of the lock while it is locked.
pub(super) struct State {
    watches: Vec<Watch>,
    /// The mapping of the newest watch, while a fork is being made.
    to_unmap: Option<Mapping>,
    /// Mappings by which an ancestor sees that this process shares its memory.
    inherited: Vec<Mapping>,
    /// The number of memories that are shared with an ancestor.
    shared_memories: usize,
}

/// The address of a mapped page.
#[derive(Clone, Copy)]
struct Mapping(usize);

/// A file that only children map.
struct Watch {
    /// The file; `None` if none could be made, and the children are taken to live forever.
    file: Option<WatchFile>,
    /// The forks that it is for.
    forks: RangeInclusive<u32>,
}

/// A file by number, and what tells it from others: a process may close all its files.
#[derive(Clone, Copy)]
struct WatchFile {
    number: RawFd,
    identity: (u64, u64),
}

/// Each watch is an open file, so there are few; then later forks share the newest.
const MOST_WATCHES: usize = 16;

/// Returns the number of forks so far. Constant while a region is locked.
pub(super) fn count() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// Returns whether children may share memory with this process. It does not become true while a
/// region is locked.
pub(super) fn is_watching() -> bool {
    WATCHES.load(Ordering::Relaxed) > 0
}

/// Returns the forks whose children may still share memory with this process.
pub(super) fn live() -> Vec<RangeInclusive<u32>> {
    let mut state = lock();
    state.watches.retain(|watch| watch.has_children());
    WATCHES.store(state.watches.len(), Ordering::Relaxed);
    state.watches.iter().map(|watch| watch.forks.clone()).collect()
}

/// Says that this process no longer shares a memory with an ancestor.
pub(super) fn one_is_private() {
    let mut state = lock();
    state.shared_memories -= 1;
    if state.shared_memories == 0 {
        state.inherited.drain(..).for_each(Mapping::unmap);
    }
}

pub(super) fn lock() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Prepares a fork after which a child will share memory that is ours.
    pub(super) fn before_fork(&mut self) {
        let number = FORKS.fetch_add(1, Ordering::Relaxed) + 1;
        self.watches.retain(|watch| watch.has_children());
        self.inherited.reserve(1);
        self.to_unmap = self.watch(number);
        WATCHES.store(self.watches.len(), Ordering::Relaxed);
    }

    /// Makes a watch for fork `number`, and maps it.
    fn watch(&mut self, number: u32) -> Option<Mapping> {
        let few = self.watches.len() < MOST_WATCHES;
        if let Some(file) = few.then(WatchFile::new).and_then(Result::ok) {
            self.watches.push(Watch { file: Some(file), forks: number..=number });
            return file.map().ok();
        }
        // An older watch does as well; it only waits for more children.
        if let Some(watch) = self.watches.iter_mut().rev().find(|watch| watch.file.is_some())
            && let Some(mapping) = watch.file.and_then(|file| file.map().ok())
        {
            watch.forks = *watch.forks.start()..=number;
            return Some(mapping);
        }
        self.watches.push(Watch { file: None, forks: number..=number });
        None
    }

    /// Ends a fork in the parent.
    pub(super) fn in_parent(&mut self) {
        if let Some(mapping) = self.to_unmap.take() {
            mapping.unmap();
        }
    }

    /// Ends a fork in the child, which shares this number of memories with ancestors. The watches
    /// are those of the parent.
    pub(super) fn in_child(&mut self, shared_memories: usize) {
        self.inherited.extend(self.to_unmap.take());
        self.shared_memories = shared_memories;
        for watch in self.watches.drain(..) {
            if let Some(file) = watch.file {
                file.close();
            }
        }
        WATCHES.store(0, Ordering::Relaxed);
    }
}

impl Watch {
    /// Returns whether a child may still have the file mapped, and closes the file if not.
    fn has_children(&self) -> bool {
        let Some(file) = self.file else { return true };
        let Some(open) = file.borrow() else { return true };
        if fcntl_add_seals(open, SealFlags::WRITE).is_err() {
            return true;
        }
        file.close();
        false
    }
}

impl WatchFile {
    fn new() -> Result<Self, Errno> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = match memfd_create("kiln-fork", flags | MemfdFlags::NOEXEC_SEAL) {
            Err(Errno::INVAL) => memfd_create("kiln-fork", flags),
            result => result,
        }?;
        ftruncate(&file, rustix::param::page_size() as u64)?;
        let status = fstat(&file)?;
        Ok(Self { identity: (status.st_dev, status.st_ino), number: file.into_raw_fd() })
    }

    /// Returns the file, unless its number is that of another file now.
    fn borrow(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: the number is not -1. If it is no open file, or another one, the next line finds
        // out, and nothing else is done with it.
        let file = unsafe { BorrowedFd::borrow_raw(self.number) };
        let status = fstat(file).ok()?;
        ((status.st_dev, status.st_ino) == self.identity).then_some(file)
    }

    fn close(self) {
        if let Some(number) = self.borrow().map(|file| file.as_raw_fd()) {
            // SAFETY: it is our file, and nobody uses it after this.
            unsafe { close(number) };
        }
    }

    fn map(&self) -> Result<Mapping, Errno> {
        let file = self.borrow().ok_or(Errno::BADF)?;
        let (len, access) = (rustix::param::page_size(), ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: a new mapping at an address that the kernel chooses touches nothing that exists.
        let address = unsafe { mmap(ptr::null_mut(), len, access, MapFlags::SHARED, file, 0) }?;
        Ok(Mapping(address as usize))
    }
}

impl Mapping {
    fn unmap(self) {
        // SAFETY: the page was mapped by `WatchFile::map`, and is not read or written.
        let _ = unsafe { munmap(ptr::without_provenance_mut(self.0), rustix::param::page_size()) };
    }
}
