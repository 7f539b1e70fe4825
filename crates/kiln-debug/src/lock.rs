//! Locks that a child of `fork` does not find locked.
//!
//! A child has one thread. A lock that another thread of the parent holds at the fork is locked for
//! ever in the child, and what it protects may be half changed. So all locks of this crate are
//! taken before a fork and released after it, on both sides. If that cannot be arranged (the system
//! has no memory for it), a child of a busy parent may wait for ever, as with `malloc`.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

/// A lock for a `static`.
pub(crate) struct ForkLock<T: Send + 'static> {
    mutex: Mutex<T>,
    once: Once,
    /// The guard that is held while a fork is made.
    held: UnsafeCell<Option<MutexGuard<'static, T>>>,
}

// SAFETY: only the thread that holds `mutex` uses `held`, and the child's copy of that thread.
unsafe impl<T: Send> Sync for ForkLock<T> {}

/// A lock that is held.
pub(crate) struct ForkGuard<T: 'static>(MutexGuard<'static, T>);

impl<T> Deref for ForkGuard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for ForkGuard<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Send> ForkLock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { mutex: Mutex::new(value), once: Once::new(), held: UnsafeCell::new(None) }
    }

    /// Takes the lock. Code of a client never runs while it is held, so it is never poisoned for a
    /// reason that matters.
    pub(crate) fn lock(&'static self) -> ForkGuard<T> {
        self.once.call_once(|| register(self));
        ForkGuard(self.mutex.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A lock of any content.
trait Hold: Sync {
    fn hold(&'static self);
    fn release(&'static self);
}

impl<T: Send> Hold for ForkLock<T> {
    fn hold(&'static self) {
        let guard = self.mutex.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: this thread has the lock.
        unsafe { *self.held.get() = Some(guard) };
    }

    fn release(&'static self) {
        // SAFETY: `hold` took the lock, on this thread or on the one that it is a copy of.
        drop(unsafe { (*self.held.get()).take() });
    }
}

/// The locks that are in use, in the order in which they are taken.
static ALL: Mutex<Vec<&'static dyn Hold>> = Mutex::new(Vec::new());

/// The guard of [`ALL`] while a fork is made.
static HELD: Held = Held(UnsafeCell::new(None));

struct Held(UnsafeCell<Option<MutexGuard<'static, Vec<&'static dyn Hold>>>>);

// SAFETY: only the thread that holds `ALL` uses it, and the child's copy of that thread.
unsafe impl Sync for Held {}

fn register(lock: &'static dyn Hold) {
    static HANDLERS: Once = Once::new();
    // SAFETY: the handlers only take and release locks.
    HANDLERS.call_once(|| unsafe {
        libc::pthread_atfork(Some(before), Some(after), Some(after));
    });
    ALL.lock().unwrap_or_else(PoisonError::into_inner).push(lock);
}

extern "C" fn before() {
    let all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    all.iter().for_each(|lock| lock.hold());
    // SAFETY: this thread has the lock.
    unsafe { *HELD.0.get() = Some(all) };
}

extern "C" fn after() {
    // SAFETY: `before` took the lock, on this thread or on the one that it is a copy of.
    let Some(all) = (unsafe { (*HELD.0.get()).take() }) else { return };
    all.iter().rev().for_each(|lock| lock.release());
}
