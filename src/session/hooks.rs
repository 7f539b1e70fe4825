//! The functions of the host that stand-ins and first tiers call, and the way from the number that
//! such code knows back to the session.
//!
//! A hook is found by a number: a stand-in has a number of its own in its code, and a first tier
//! gives the address of a counter. No number is used as a pointer, so a number that is gone is not
//! found, and nothing can be dangling.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use kiln_globals::SlotKey;

/// The name under which stand-ins import [`compile_now`].
pub(super) const COMPILE_NOW: &str = "kiln_compile_now";

/// The name under which first tiers import [`function_is_hot`].
pub(super) const FUNCTION_IS_HOT: &str = "kiln_function_is_hot";

/// Something that compiled code calls.
pub(super) trait Hook: Send + Sync {
    /// Does the work, and returns the address that the caller goes on at, if it needs one.
    fn call(&self) -> usize;
}

/// The hooks of all sessions.
static HOOKS: RwLock<Option<HashMap<u64, Arc<dyn Hook>>>> = RwLock::new(None);
/// The next number that is not an address: these are odd, and addresses of counters are even.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// The numbers of one session's hooks, which are gone when it is dropped.
#[derive(Default)]
pub(super) struct Hooks(Mutex<HashSet<u64>>);

impl Hooks {
    /// Returns a new number, which belongs to this session.
    pub(super) fn number(&self) -> u64 {
        let number = NEXT.fetch_add(2, Ordering::Relaxed);
        self.own(number);
        number
    }

    /// Notes that a number belongs to this session.
    pub(super) fn own(&self, number: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
    }

    /// Forgets hooks that no code calls any more. The address of a counter may have a new owner
    /// meanwhile, whose hook stays: `is_own` says whether a hook is the old one.
    pub(super) fn release(&self, numbers: &[u64], is_own: &dyn Fn(&Arc<dyn Hook>) -> bool) {
        let mut own = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut hooks = HOOKS.write().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = hooks.as_mut() else { return };
        let mut removed = Vec::new();
        for number in numbers {
            if known.get(number).is_some_and(is_own) {
                removed.extend(known.remove(number));
                own.remove(number);
            }
        }
        // As in `drop`: what the client gave is dropped without the locks.
        drop(hooks);
        drop(own);
        drop(removed);
    }
}

/// Gives a number its hook.
pub(super) fn set(number: u64, hook: Arc<dyn Hook>) {
    let mut hooks = HOOKS.write().unwrap_or_else(PoisonError::into_inner);
    hooks.get_or_insert_default().insert(number, hook);
}

impl Drop for Hooks {
    fn drop(&mut self) {
        let numbers = std::mem::take(self.0.get_mut().unwrap_or_else(PoisonError::into_inner));
        if numbers.is_empty() {
            return;
        }
        let mut hooks = HOOKS.write().unwrap_or_else(PoisonError::into_inner);
        let removed: Vec<_> = hooks
            .iter_mut()
            .flat_map(|hooks| numbers.iter().filter_map(|number| hooks.remove(number)).collect::<Vec<_>>())
            .collect();
        // A hook may hold anything of the client's, which is dropped without the lock.
        drop(hooks);
        drop(removed);
    }
}

/// Returns the hook with this number. It is called without the lock, since it may compile, and run
/// code of the client.
fn find(number: u64) -> Option<Arc<dyn Hook>> {
    let hooks = HOOKS.read().unwrap_or_else(PoisonError::into_inner);
    hooks.as_ref()?.get(&number).cloned()
}

/// Calls the hook of a stand-in.
extern "C-unwind" fn compile_now(number: u64) -> usize {
    find(number).expect("code is called only while its session lives").call()
}

/// Calls the hook of a counter.
pub(super) extern "C-unwind" fn function_is_hot(counter: u64) {
    // A module may be called before its hook is known.
    if let Some(hook) = find(counter) {
        hook.call();
    }
}

/// Returns the address of a function of this file.
pub(super) fn resolve(key: &SlotKey) -> Option<usize> {
    match key {
        SlotKey::Symbol(name) if **name == *COMPILE_NOW => Some(compile_now as *const () as usize),
        SlotKey::Symbol(name) if **name == *FUNCTION_IS_HOT => Some(function_is_hot as *const () as usize),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Answer(usize);

    impl Hook for Answer {
        fn call(&self) -> usize {
            self.0
        }
    }

    fn answer(number: u64) -> Option<usize> {
        find(number).map(|hook| hook.call())
    }

    #[test]
    fn hooks_end_with_their_session_or_when_they_are_released() {
        let hooks = Hooks::default();
        let numbers = [hooks.number(), hooks.number(), hooks.number()];
        let [old, new]: [Arc<dyn Hook>; 2] = [Arc::new(Answer(1)), Arc::new(Answer(2))];
        set(numbers[0], old.clone());
        // The number has another owner meanwhile.
        set(numbers[1], new);
        set(numbers[2], old.clone());
        hooks.release(&numbers[..2], &|hook| Arc::ptr_eq(hook, &old));
        assert_eq!(numbers.map(answer), [None, Some(2), Some(1)]);
        assert_eq!(hooks.0.lock().unwrap().len(), 2);
        drop(hooks);
        assert_eq!(numbers.map(answer), [None; 3]);
    }
}
