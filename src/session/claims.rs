//! Claims of definitions, so that no two threads compile the same one.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use kiln_ir::{Linkage, Module};

/// The names that threads are compiling.
#[derive(Default)]
pub(super) struct Claims {
    taken: Mutex<Taken>,
    /// Told when names are free again.
    freed: Condvar,
}

/// The names that are claimed.
#[derive(Default)]
struct Taken {
    names: HashSet<Box<str>>,
    /// The number of threads that wait. If there are none, giving a claim up takes no system call.
    waiting: usize,
}

/// A claim, which is given up when it is dropped.
pub(super) struct Claim<'c> {
    claims: &'c Claims,
    names: Vec<Box<str>>,
}

/// The outcome of an attempt to claim.
pub(super) enum Claimed<'c> {
    Own(Claim<'c>),
    /// Another thread has this name.
    Other(Box<str>),
}

/// Returns the names that modules define for others, so that only one definition can be in force.
pub(super) fn definitions(modules: &[Module]) -> impl Iterator<Item = &str> {
    let symbols = modules.iter().flat_map(|module| &module.symbols);
    // Preemptible definitions may be many, and replaceable ones follow each other.
    let single = symbols.filter(|symbol| matches!(symbol.linkage, Linkage::Export | Linkage::Hidden));
    single.map(|symbol| &*symbol.name)
}

impl Claims {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims all definitions of `modules`, or none.
    pub(super) fn claim(&self, modules: &[Module]) -> Claimed<'_> {
        let claimed = &mut self.lock().names;
        if let Some(other) = definitions(modules).find(|name| claimed.contains(*name)) {
            return Claimed::Other(other.into());
        }
        let names: Vec<Box<str>> = definitions(modules).map(Into::into).collect();
        claimed.extend(names.iter().cloned());
        Claimed::Own(Claim { claims: self, names })
    }

    /// Waits until other threads have given the names of `modules` up. A thread of a pool must not
    /// do that: what it waits for may need it.
    pub(super) fn wait(&self, modules: &[Module]) {
        let is_taken = |taken: &mut Taken| definitions(modules).any(|name| taken.names.contains(name));
        let mut taken = self.lock();
        taken.waiting += 1;
        let mut taken = self.freed.wait_while(taken, is_taken).unwrap_or_else(PoisonError::into_inner);
        taken.waiting -= 1;
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut taken = self.claims.lock();
        for name in &self.names {
            taken.names.remove(name);
        }
        let is_awaited = taken.waiting > 0;
        drop(taken);
        if is_awaited {
            self.claims.freed.notify_all();
        }
    }
}
