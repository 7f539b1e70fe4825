//! Links artifacts into memory, one unit after another, from any number of threads.
//!
//! A unit is claimed (see `program`), planned with the symbols of earlier units as known addresses,
//! placed in fresh memory, relocated, and only then published. So an error leaves the published
//! symbols unchanged, and gives all memory back.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::thread::Builder;

use kiln_artifact::record::SymbolKind;
use kiln_artifact::{Artifact, Table};
use kiln_globals::{Resolve, Signature, SlotKey};
use kiln_image::link;
use kiln_image::{FunctionRef, Loaded, ThreadLocals, WithThreadLocals};

use crate::bases::OnBases;
use crate::batch::{Batch, SlotKind};
use crate::counters::CountedEntries;
use crate::epoch::Guard;
use crate::error::{InUseError, JitError, RebindError};
use crate::memory::{Located, Memory};
use crate::options::JitOptions;
use crate::program::{Attempt, Claim, Keyed, Mode, Removal};
use crate::ready::{Pending, Ready};
use crate::state::State;
use crate::symbol::Symbol;
use crate::unit::{Role, Unit};

/// Executable memory, and the program that is linked into it.
///
/// Any number of threads may use it at once. Looking up a name takes no lock. Linking takes short
/// locks for bookkeeping, but none while code is copied and relocated or while a resolver runs.
pub struct Jit {
    state: State,
}

impl std::fmt::Debug for Jit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let program = self.state.program();
        f.debug_struct("Jit")
            .field("units", &program.units.len())
            .field("slots", &program.slot_count())
            .finish_non_exhaustive()
    }
}

impl Jit {
    /// Makes a JIT without code.
    ///
    /// # Errors
    ///
    /// [`JitError::Memory`] if the system refuses address space.
    pub fn new(options: JitOptions) -> Result<Self, JitError> {
        Ok(Self { state: State::new(options)? })
    }

    /// Links `artifacts` with each other and with what was linked before, and publishes them as one
    /// unit. Each global and each symbol without a definition gets a slot, whose value `resolver`
    /// returns; it is told the type with which the code calls a function. Slots are shared by all
    /// units.
    ///
    /// If another thread is linking a definition that the artifacts refer to, this waits for it.
    ///
    /// # Errors
    ///
    /// [`JitError`]; then nothing is published and no memory is used.
    pub fn link(&self, artifacts: &[Artifact], resolver: &dyn Resolve) -> Result<Unit, JitError> {
        self.link_with(LinkOptions::default(), artifacts, resolver)
    }

    /// Links `artifacts` as [`link`](Self::link) does, and lets them define replaceable functions
    /// again. All callers of such a function call the new one from their next call on. Calls that
    /// are running go on in the old one. Each function changes at once for all callers; several
    /// functions change one after the other.
    ///
    /// A unit is removed when all its functions are replaced and no other unit uses its data.
    ///
    /// # Errors
    ///
    /// [`JitError`]; then nothing is replaced.
    pub fn replace(&self, artifacts: &[Artifact], resolver: &dyn Resolve) -> Result<Unit, JitError> {
        self.link_with(LinkOptions { replace: true, ..LinkOptions::default() }, artifacts, resolver)
    }

    /// Links `artifacts` as [`link`](Self::link) or [`replace`](Self::replace) does, with options.
    ///
    /// # Errors
    ///
    /// [`JitError`]; then nothing is published.
    pub fn link_with(
        &self,
        options: LinkOptions<'_>,
        artifacts: &[Artifact],
        resolver: &dyn Resolve,
    ) -> Result<Unit, JitError> {
        if link::is_small(artifacts) {
            return self.link_on_this_thread(options, artifacts, resolver);
        }
        // The system takes as long to provide the pages as this thread to resolve the symbols.
        std::thread::scope(|scope| {
            let ahead = || {
                let (code, read_only) = likely_sizes(artifacts);
                self.state.memory.take_pages_ahead(code, read_only);
            };
            // If there is no other thread, the pages are taken when they are needed.
            let _ = Builder::new().name("kiln-pages".into()).spawn_scoped(scope, ahead);
            self.link_on_this_thread(options, artifacts, resolver)
        })
    }

    fn link_on_this_thread(
        &self,
        options: LinkOptions<'_>,
        artifacts: &[Artifact],
        resolver: &dyn Resolve,
    ) -> Result<Unit, JitError> {
        let mut pending = self.pending(options, artifacts, resolver)?;
        pending.prepare()?;
        Ok(pending.publish())
    }

    /// Does all work of [`link_with`](Self::link_with) but the last step: the code is in memory,
    /// and nobody can find it. [`Ready::publish`] then publishes it within a microsecond. So a
    /// program decides when a function changes, and several change as nearly at once as they can.
    ///
    /// What it defines is claimed until the result is published or dropped. A link that needs one
    /// of these definitions waits, unless an earlier one of a replaceable function is published. So
    /// the thread that has the result must not link such modules first: it would wait for ever. The
    /// unit has its place in the order of linking from now on: if a later definition of a function
    /// is published first, that one stays in force.
    ///
    /// # Errors
    ///
    /// [`JitError`]; then no memory is used.
    pub fn ready<'a>(
        &self,
        options: LinkOptions<'a>,
        artifacts: &'a [Artifact],
        resolver: &dyn Resolve,
    ) -> Result<Ready<'_, 'a>, JitError> {
        let mut pending = self.pending(options, artifacts, resolver)?;
        pending.prepare()?;
        Ok(Ready(pending))
    }

    /// Claims what artifacts define and use.
    fn pending<'a>(
        &self,
        options: LinkOptions<'a>,
        artifacts: &'a [Artifact],
        resolver: &dyn Resolve,
    ) -> Result<Pending<'_, 'a>, JitError> {
        let LinkOptions { replace, role, names, counted_entries } = options;
        let batch = Batch::new(artifacts, names).on(&self.state.bases)?;
        let mode = if replace { Mode::Replace } else { Mode::Add };
        let claim = self.claim(&batch, mode, resolver)?;
        let mut pending = Pending::new(&self.state, batch, claim);
        (pending.role, pending.counted_entries) = (role, counted_entries);
        Ok(pending)
    }

    /// Claims what a batch defines and uses. The resolver is called without a lock.
    fn claim<'a>(
        &self,
        batch: &Batch<'a>,
        mode: Mode,
        resolver: &dyn Resolve,
    ) -> Result<Claim<'a>, JitError> {
        let resolver = &WithThreadLocals(resolver);
        let resolver = &OnBases { bases: &self.state.bases, names: &batch.in_bases, next: resolver };
        let mut values = Keyed::default();
        let mut rebinds = 0;
        loop {
            let mut program = self.state.program();
            if program.rebinds != rebinds {
                // The resolver may have been asked before something was bound again.
                values.clear();
                rebinds = program.rebinds;
            }
            match program.claim(batch, mode, &values, &self.state.memory)? {
                Attempt::Claimed(claim) => return Ok(claim),
                Attempt::Unresolved(wanted) => {
                    drop(program);
                    let keys: Vec<SlotKey> = wanted.iter().map(|(kind, name, _)| kind.key(name)).collect();
                    let types = wanted.iter().map(|(_, _, expected)| *expected);
                    let found =
                        kiln_globals::addresses(keys.iter().zip(types), resolver).map_err(|error| {
                            let users = error.keys().map(|key| batch.use_of(key)).collect();
                            JitError::Unbound { error, users }
                        })?;
                    values.extend(wanted.iter().map(|&(kind, name, _)| (kind, name)).zip(found));
                }
                Attempt::Wait => self.state.wait(program),
            }
        }
    }

    /// Removes units. Their names are free at once. Their memory is freed when every [`Guard`] from
    /// before is gone, by this call or by the next that removes, replaces or
    /// [collects](Self::collect). A unit that is gone already is ignored.
    ///
    /// # Errors
    ///
    /// [`InUseError`] if units that stay use one of them; then nothing is removed.
    ///
    /// A thread that runs code of the units, or reads their data, must hold a guard from before
    /// this call: whoever calls compiled code, which is `unsafe`, promises that.
    pub fn remove(&self, units: &[Unit]) -> Result<(), InUseError> {
        self.remove_units(units, false).map(drop)
    }

    /// Removes units as [`remove`](Self::remove) does, and all units that use them, and so on.
    /// Returns how many were removed.
    pub fn remove_with_users(&self, units: &[Unit]) -> usize {
        self.remove_units(units, true).unwrap_or_default()
    }

    fn remove_units(&self, units: &[Unit], users: bool) -> Result<usize, InUseError> {
        let retired = loop {
            let mut program = self.state.program();
            // A unit of another JIT has the same number as one of ours.
            let own = units.iter().filter(|unit| {
                program.units.get(&unit.0.id).is_some_and(|known| Arc::ptr_eq(known, &unit.0))
            });
            let ids: Vec<_> = own.map(|unit| unit.0.id).collect();
            match program.remove(&ids, users, &self.state.symbols)? {
                Removal::Done(retired) => break retired,
                Removal::Wait => self.state.wait(program),
            }
        };
        let count = retired.units.len();
        self.state.retire(retired);
        Ok(count)
    }

    /// Frees removed code that no thread can be in any more. Returns whether all is freed.
    pub fn collect(&self) -> bool {
        self.state.collect()
    }

    /// Makes a guard: code that is removed from now on stays in memory until it is dropped.
    pub fn guard(&self) -> Guard<'_> {
        self.state.epochs.enter()
    }

    /// Returns the function that is exported as `name`. `None` for data, for a hidden function (as
    /// in an image), and for a function whose artifact does not record its type.
    /// [`address`](Self::address) finds data and such functions.
    ///
    /// If the function may be removed or replaced, hold a [`Guard`] from before this call until
    /// after the last call of the function.
    pub fn function(&self, name: &str) -> Option<FunctionRef<'_>> {
        let is_typed = |symbol: &Arc<Symbol>| symbol.kind() == SymbolKind::Function && symbol.has_type();
        let Some(symbol) = self.state.symbols.get(name) else { return self.state.bases.function(name) };
        let symbol = Some(symbol).filter(is_typed)?;
        let address = symbol.address as *const u8;
        // SAFETY: the address is that of published code, and its artifact records this type. It
        // stays mapped until it is removed and no guard from before is left.
        Some(unsafe { FunctionRef::shared(symbol, address) })
    }

    /// Returns the address of the function or data object that is exported as `name`. Of a
    /// replaceable function, it is the address of its stub, which stays when it is replaced.
    pub fn address(&self, name: &str) -> Option<*const u8> {
        let own = self.state.symbols.address(name).map(|address| address as *const u8);
        own.or_else(|| self.state.bases.address(name))
    }

    /// Returns the address of this thread's copy of the thread-local data `name`, or `None` if
    /// there is no thread-local data of this name. It is valid until the thread ends or the unit is
    /// removed. [`address`](Self::address) is that of the initial content.
    pub fn thread_local_address(&self, name: &str) -> Option<*mut u8> {
        ThreadLocals::address_of(self.address(name)?)
    }

    /// Returns everything that is exported, by the units or by images that they are linked on, in
    /// order of names: name, kind, address and size.
    pub fn exports(&self) -> Vec<Export> {
        let mut exports = Vec::new();
        self.state.symbols.for_each(|name, symbol| {
            let (kind, size) = (symbol.kind(), symbol.size());
            exports.push(Export { name: name.into(), kind, address: symbol.address as *const u8, size });
        });
        for (name, symbol, address) in self.state.bases.all().iter().flat_map(|image| image.exports()) {
            let kind = if symbol.kind.is_function() { SymbolKind::Function } else { SymbolKind::Data };
            exports.push(Export { name: name.into(), kind, address, size: symbol.size as usize });
        }
        // Of a function of a base that is replaced, the code that is in force comes first.
        exports.sort_by(|a, b| a.name.cmp(&b.name));
        exports.dedup_by(|a, b| a.name == b.name);
        exports
    }

    /// Returns the images that the program is linked on, each after its own bases.
    pub fn bases(&self) -> &[Arc<Loaded>] {
        self.state.bases.all()
    }

    /// Whether a unit is in memory and was not removed.
    pub fn contains(&self, unit: &Unit) -> bool {
        self.state.program().units.get(&unit.0.id).is_some_and(|known| Arc::ptr_eq(known, &unit.0))
    }

    /// Whether a unit defines `name` for other units, hidden definitions included.
    pub fn defines(&self, name: &str) -> bool {
        self.state.program().defines(name)
    }

    /// Returns the unit that has the definition of `name` which is in force, if it is exported.
    pub fn unit_of(&self, name: &str) -> Option<Unit> {
        let program = self.state.program();
        let unit = self.state.symbols.unit_of(name)?;
        program.units.get(&unit).cloned().map(Unit)
    }

    /// Returns the units that are in memory, in order of linking. Linking the artifacts of those
    /// with the role [`Role::Program`] in this order gives an image of the program.
    pub fn units(&self) -> Vec<Unit> {
        self.state.program().units.values().map(|unit| Unit(unit.clone())).collect()
    }

    /// Changes the address that a slot holds, for all code that uses it, at once. Returns whether
    /// there is such a slot: if no code uses the key yet, nothing changes. A link that has asked
    /// its resolver meanwhile asks again, so change what the resolver returns first, or keep it
    /// from returning until then.
    ///
    /// # Errors
    ///
    /// [`RebindError`] if data of the program, or code that reaches globals directly, holds a copy
    /// of the old address.
    pub fn rebind(&self, key: &SlotKey, address: usize) -> Result<bool, RebindError> {
        self.rebind_as(key, address, None)
    }

    /// Changes the address that a slot holds, as [`rebind`](Self::rebind) does, to that of a
    /// function of this type.
    ///
    /// # Errors
    ///
    /// [`RebindError`], also if code calls the function with another type.
    pub fn rebind_function(
        &self,
        key: &SlotKey,
        address: usize,
        signature: &Signature,
    ) -> Result<bool, RebindError> {
        self.rebind_as(key, address, Some(&signature.to_string()))
    }

    fn rebind_as(&self, key: &SlotKey, address: usize, given: Option<&str>) -> Result<bool, RebindError> {
        if let Some((_, base)) = self.state.bases.address_of(key).filter(|(known, _)| *known != address) {
            return Err(RebindError::Base { key: key.clone(), base: base.into() });
        }
        let mut program = self.state.program();
        if let Some(given) = given
            && let Some((user, expected)) = program.other_type(SlotKind::of(key), key.text(), given)
        {
            return Err(RebindError::OtherType { key: key.clone(), user, expected, given: given.into() });
        }
        let Some(slot) = program.slots.get(SlotKind::of(key), key.text()) else {
            program.rebinds += 1;
            return Ok(false);
        };
        if slot.copies > 0 && slot.cell.load() != address as u64 {
            let user = program.user_of_copy(SlotKind::of(key), key.text());
            return Err(RebindError::Copied { key: key.clone(), user });
        }
        slot.cell.store(address as u64);
        Ok(true)
    }

    /// Finds the instruction at an address: its function, module, source location, and what else is
    /// known about it. `None` if the address is in no function of this `Jit`, nor of an image that
    /// it is linked on. In the stub of a replaceable function, and in an entry that counts its
    /// calls, the function is found to which they lead, and
    /// [`is_stub`](kiln_image::code::Location::is_stub) says so.
    ///
    /// This allocates nothing, takes no lock, makes no system call, and is safe in a signal
    /// handler. It takes less than 100 ns; reading name, source location and trap takes about as
    /// long again. A function is found from before it can be called, and until it is removed.
    pub fn locate(&self, address: *const u8) -> Option<Located<'_>> {
        let own = self.state.memory.locate(address).filter(|found| found.owner == self.state.id);
        own.or_else(|| self.state.bases.locate(address).map(Located::in_image))
    }

    /// Finds the call that returns to an address, as [`locate`](Self::locate) finds an instruction.
    /// Return addresses are what a walk over a stack finds, in all frames but the innermost.
    pub fn locate_call(&self, return_address: *const u8) -> Option<Located<'_>> {
        let own = self.state.memory.locate_call(return_address).filter(|found| found.owner == self.state.id);
        own.or_else(|| self.state.bases.locate_call(return_address).map(Located::in_image))
    }

    /// Tells debuggers about all code that they do not know yet. A debugger that attaches to a
    /// running program is told when code is published next, so this is for a program that publishes
    /// nothing more, or with [`Debugger::None`](crate::Debugger). Returns the number of units that
    /// were told.
    pub fn tell_debugger(&self) -> usize {
        self.state.tell_debugger()
    }

    /// Returns the memory that the code is in.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.state.memory
    }
}

/// The way in which artifacts are linked: see [`Jit::link_with`].
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkOptions<'n> {
    /// Whether they may define replaceable functions again: see [`Jit::replace`].
    pub replace: bool,
    /// The part that the unit plays in the program.
    pub role: Role,
    /// The names of the modules, in order, for errors and [`Unit::module_name`]. Empty if they are
    /// not known; then errors have numbers instead.
    pub names: &'n [&'n str],
    /// Counts the calls of each replaceable function that the artifacts define, until it is
    /// replaced: see [`Unit::counters`].
    pub counted_entries: Option<CountedEntries>,
}

/// A function or data object that is exported.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Export {
    /// The name.
    pub name: Arc<str>,
    /// Whether it is a function or data.
    pub kind: SymbolKind,
    /// The address of its first byte; for a replaceable function, that of its stub.
    pub address: *const u8,
    /// Its size in bytes; for a replaceable function, that of the code that is in force.
    pub size: usize,
}

/// Returns about the sizes of the code and of the read-only data of modules, once they are linked,
/// in bytes.
fn likely_sizes(artifacts: &[Artifact]) -> (u64, u64) {
    let code = artifacts.iter().map(|artifact| artifact.text().len().next_multiple_of(16)).sum::<usize>();
    // An entry of unwind rows has 17 bytes and its rows; a function of code tables has 16 bytes,
    // its name and its streams.
    let streams = [Table::Strings, Table::Traps, Table::CallSites, Table::SourceRanges, Table::Lines];
    let read_only = artifacts.iter().map(|artifact| {
        let streams: usize = streams.iter().map(|&table| artifact.table_bytes(table).len()).sum();
        artifact.read_only().len() + artifact.unwind().len() + 36 * artifact.functions().len() + streams
    });
    (code as u64, read_only.sum::<usize>() as u64)
}
