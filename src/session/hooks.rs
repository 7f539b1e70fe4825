//! The functions of the host that stand-ins and first tiers call, and the way from the number that
//! such code knows back to the session.
//!
//! Code knows a number and no address, so nothing that it says can be dangling: a number that is
//! gone is not found. Numbers are in a table of the process, and are never in code that is kept.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use kiln_globals::SlotKey;

/// The name under which stand-ins import [`compile_now`].
pub(super) const COMPILE_NOW: &str = "kiln_compile_now";

/// Something that compiled code calls.
pub(super) trait Hook: Send + Sync {
    /// Does the work, and returns the address that the caller goes on at, if it needs one.
    fn call(&self) -> usize;
}

/// The hooks of all sessions.
static HOOKS: RwLock<Option<HashMap<u64, Arc<dyn Hook>>>> = RwLock::new(None);
static NEXT: AtomicU64 = AtomicU64::new(0);

/// The numbers of one session's hooks, which are gone when it is dropped.
#[derive(Default)]
pub(super) struct Hooks(Mutex<Vec<u64>>);

impl Hooks {
    /// Returns a new number, which belongs to this session.
    pub(super) fn number(&self) -> u64 {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(number);
        number
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

/// Calls the hook with this number.
extern "C-unwind" fn compile_now(number: u64) -> usize {
    let hooks = HOOKS.read().unwrap_or_else(PoisonError::into_inner);
    let hook = hooks.as_ref().and_then(|hooks| hooks.get(&number)).cloned();
    // The hook compiles, and may run code of the client.
    drop(hooks);
    let hook = hook.expect("code is called only while its session lives");
    hook.call()
}

/// Returns the address of a function of this file.
pub(super) fn resolve(key: &SlotKey) -> Option<usize> {
    match key {
        SlotKey::Symbol(name) if **name == *COMPILE_NOW => Some(compile_now as *const () as usize),
        _ => None,
    }
}
