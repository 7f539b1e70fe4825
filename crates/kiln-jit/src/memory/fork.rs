//! Keeps memories consistent across `fork`.
//!
//! Before a fork all locks are taken, so that the child finds no lock that a thread holds which it
//! does not have, and no half of a change. In the child each memory whose file is shared with the
//! parent is marked, and is copied when the child first takes some of it.

use std::cell::UnsafeCell;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::io::Errno;

use super::core::{Core, RegionState};
use super::error::Region;
use super::forks;
use super::system::Refused;

/// The addresses of all memories of this process.
static ALL: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());

/// The locks that are held while a fork is made.
static HELD: Held = Held(UnsafeCell::new(None));

struct Held(UnsafeCell<Option<Locks>>);

// SAFETY: only the thread that has locked `ALL` uses the content.
unsafe impl Sync for Held {}

/// The locks, in the order in which they are taken.
struct Locks {
    all: MutexGuard<'static, BTreeSet<usize>>,
    regions: Vec<MutexGuard<'static, RegionState>>,
    forks: MutexGuard<'static, forks::State>,
}

/// Registers a memory.
///
/// # Safety
///
/// Its address does not change until it is [removed](remove).
pub(super) unsafe fn add(core: &Core) -> Result<(), Refused> {
    static REGISTERED: OnceLock<i32> = OnceLock::new();
    // SAFETY: the three functions keep the rules for code that runs around a fork.
    let register = || unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
    let error = *REGISTERED.get_or_init(register);
    if error != 0 {
        let source = Errno::from_raw_os_error(error).into();
        return Err(Refused { call: "pthread_atfork", purpose: "to be told of children", source });
    }
    lock().insert(std::ptr::from_ref(core).expose_provenance());
    Ok(())
}

/// Removes a memory that is about to be dropped.
pub(super) fn remove(core: &Core) {
    lock().remove(&(std::ptr::from_ref(core).expose_provenance()));
    core.leave_ancestor();
}

fn lock() -> MutexGuard<'static, BTreeSet<usize>> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the memories.
fn cores(all: &BTreeSet<usize>) -> impl Iterator<Item = &'static Core> {
    // SAFETY: a memory is in the set only while it exists, and the set is locked. Nobody keeps the
    // reference longer than the lock.
    all.iter().map(|&address| unsafe { &*std::ptr::with_exposed_provenance::<Core>(address) })
}

extern "C" fn before() {
    let all = lock();
    // The order is that of `Core::lock_shared`.
    let regions: Vec<_> = cores(&all).flat_map(|core| Region::ALL.map(|region| core.lock(region))).collect();
    let mut forks = forks::lock();
    let shares = regions.chunks_exact(3).zip(cores(&all));
    if shares.into_iter().any(|(regions, core)| core.will_share(regions)) {
        forks.before_fork();
    }
    // SAFETY: this thread has locked `ALL`.
    unsafe { *HELD.0.get() = Some(Locks { all, regions, forks }) };
}

extern "C" fn in_parent() {
    // SAFETY: this thread locked `ALL` in `before`.
    if let Some(mut locks) = unsafe { (*HELD.0.get()).take() } {
        locks.forks.in_parent();
        locks.release();
    }
}

extern "C" fn in_child() {
    // SAFETY: this is the copy of the thread that locked `ALL` in `before`.
    let Some(mut locks) = (unsafe { (*HELD.0.get()).take() }) else { return };
    let mut shared = 0;
    let mut open = Vec::new();
    for (core, regions) in cores(&locks.all).zip(locks.regions.chunks_exact(3)) {
        shared += usize::from(core.in_child());
        if regions.iter().any(|region| region.has_open_pages()) {
            open.push(core);
        }
    }
    locks.forks.in_child(shared);
    locks.release();
    // What is not finished yet is written where it will run, so it cannot wait for its copy.
    open.into_iter().for_each(Core::copy_open_pages);
}

impl Locks {
    /// Releases all locks; the first one last, so that no memory is dropped meanwhile.
    fn release(self) {
        let Self { all, regions, forks } = self;
        drop(forks);
        drop(regions);
        drop(all);
    }
}
