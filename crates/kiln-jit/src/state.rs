//! The parts of a [`Jit`](crate::Jit), which a link in progress shares with it: the memory, the
//! program, and what was removed but may still be in use.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::bases::Bases;
use crate::epoch::{Epoch, Epochs};
use crate::error::JitError;
use crate::hashed::NameHasher;
use crate::indirection::{Indirection, Stubs};
use crate::memory::{Block, Memory};
use crate::observers::Observers;
use crate::options::JitOptions;
use crate::program::{Program, Retired};
use crate::slots::Cell;
use crate::symbols::Symbols;
use crate::unit::UnitInfo;

/// See the module's documentation.
pub(crate) struct State {
    pub(crate) memory: Arc<Memory>,
    /// Marks the code of this `Jit` among all code in the memory.
    pub(crate) id: u64,
    pub(crate) observers: Observers,
    pub(crate) symbols: Symbols,
    pub(crate) epochs: Epochs,
    pub(crate) bases: Arc<Bases>,
    program: Mutex<Program>,
    /// Told when a link has ended.
    ended: Condvar,
    quarantine: Mutex<VecDeque<(Epoch, Garbage)>>,
}

impl State {
    pub(crate) fn new(options: JitOptions) -> Result<Self, JitError> {
        let memory = match &options.memory {
            Some(memory) => memory.clone(),
            None if Observers::want_one_mapping(&options) => Memory::shared_for_tools()?,
            None => Memory::shared()?,
        };
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let observers = Observers::new(&options, &memory);
        let hasher = NameHasher::default();
        let stubs = Stubs::new(options.unwind, observers.keep_addresses());
        let bases = Arc::new(Bases::new(&options.bases)?);
        let program = Program::new(stubs, hasher.clone(), bases.clone());
        Ok(Self {
            observers,
            memory,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            symbols: Symbols::new(hasher),
            epochs: Epochs::default(),
            bases,
            program: Mutex::new(program),
            ended: Condvar::new(),
            quarantine: Mutex::default(),
        })
    }

    /// Waits for the end of a link on another thread.
    pub(crate) fn wait(&self, mut program: MutexGuard<'_, Program>) {
        // A link needs no thread of a pool, so it ends also if this is one.
        // The link may have ended before this thread waits, so it looks again after some time.
        let wait = Duration::from_millis(1);
        program.waiting += 1;
        let (mut program, _) = self.ended.wait_timeout(program, wait).unwrap_or_else(PoisonError::into_inner);
        program.waiting -= 1;
    }

    /// Tells the threads that wait for the end of a link. If there are none, that takes no system
    /// call.
    pub(crate) fn tell_ended(&self, program: MutexGuard<'_, Program>) {
        let is_awaited = program.waiting > 0;
        drop(program);
        if is_awaited {
            self.ended.notify_all();
        }
    }

    pub(crate) fn program(&self) -> MutexGuard<'_, Program> {
        self.program.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts what was removed into quarantine, and frees what no thread can be in.
    pub(crate) fn retire(&self, retired: Retired) {
        let garbage = Garbage::new(retired, &self.memory);
        let mut quarantine = self.quarantine();
        quarantine.push_back((self.epochs.now(), garbage));
        self.free_unused(quarantine);
    }

    /// Frees removed code that no thread can be in any more. Returns whether all is freed.
    pub(crate) fn collect(&self) -> bool {
        self.free_unused(self.quarantine())
    }

    fn quarantine(&self) -> MutexGuard<'_, VecDeque<(Epoch, Garbage)>> {
        self.quarantine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn free_unused(&self, mut quarantine: MutexGuard<'_, VecDeque<(Epoch, Garbage)>>) -> bool {
        if quarantine.is_empty() {
            return true;
        }
        self.epochs.advance();
        let count = quarantine.partition_point(|(epoch, _)| self.epochs.is_past(*epoch));
        let unused: Vec<_> = quarantine.drain(..count).collect();
        let is_empty = quarantine.is_empty();
        drop(quarantine);
        unused.into_iter().for_each(|(_, garbage)| self.free(garbage));
        is_empty
    }

    /// Lets unwinder, debugger and profiler forget units, and frees memory.
    fn free(&self, garbage: Garbage) {
        let Garbage { units, blocks, records, slots, indirections } = garbage;
        for unit in &units {
            self.observers.forget(unit);
            if let Some(locals) = &unit.thread_locals {
                drop(locals.lock().unwrap_or_else(PoisonError::into_inner).take());
            }
        }
        for (block, is_code) in blocks {
            // SAFETY: the memory is out of the program, and every guard from before is gone, or the
            // `Jit` is dropped. Whoever calls compiled code holds one of them.
            unsafe {
                if is_code && self.observers.keep_addresses() {
                    self.memory.keep(block);
                } else {
                    self.memory.free(block);
                }
            }
        }
        // SAFETY: as above.
        slots.into_iter().for_each(|slot| unsafe { slot.free(&self.memory) });
        // SAFETY: as above.
        records.into_iter().for_each(|block| unsafe { self.memory.free_looked_at(block) });
        if !indirections.is_empty() {
            let stubs = &mut self.program().stubs;
            // SAFETY: as above.
            indirections.into_iter().for_each(|indirection| unsafe { stubs.give(indirection, &self.memory) });
        }
        units.iter().for_each(|unit| unit.is_freed.store(true, Ordering::Release));
    }

    /// Tells debuggers about all code that they do not know. Returns the number of units that were
    /// told.
    pub(crate) fn tell_debugger(&self) -> usize {
        let program = self.program();
        let units: Vec<_> = program.units.values().cloned().collect();
        // A stub belongs to no unit, so it is asked for while it is there.
        let stubs: Vec<_> = units.iter().map(|unit| program.stubs_of(unit)).collect();
        drop(program);
        self.observers.catch_up(&units, &stubs)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let quarantine = std::mem::take(&mut *self.quarantine());
        quarantine.into_iter().for_each(|(_, garbage)| self.free(garbage));
        // Addresses were given out to be used only while the `Jit` lives.
        let all = self.program().drain();
        self.free(Garbage::new(all, &self.memory));
    }
}

/// Memory that is freed when no thread can use it.
struct Garbage {
    units: Vec<Arc<UnitInfo>>,
    /// Whether each is code.
    blocks: Vec<(Block, bool)>,
    /// Data that lookups read.
    records: Vec<Block>,
    slots: Vec<Cell>,
    indirections: Vec<Indirection>,
}

impl Garbage {
    /// Takes the code out of the index of addresses, and counts all memory as retired.
    fn new(retired: Retired, memory: &Memory) -> Self {
        let Retired { units, slots, indirections } = retired;
        // Nobody enters code of the program through a base any more.
        indirections.iter().for_each(Indirection::retire);
        // First of all: what is found by an address is all there, with its unwind rows.
        for unit in &units {
            unit.blocks.hide(memory);
            unit.counters.iter().for_each(|counters| counters.hide(memory));
        }
        let counters = units.iter().filter_map(|unit| unit.counters.as_deref());
        let records = counters.map(|counters| memory.retire(counters.data_block())).collect();
        let blocks = units.iter().flat_map(|unit| {
            let (code, others) = unit.blocks.code_and_others();
            let entries = unit.counters.iter().map(|counters| (counters.code_block(), true));
            [(code, true)].into_iter().chain(others.map(|block| (block, false))).chain(entries)
        });
        Self {
            blocks: blocks.map(|(block, is_code)| (memory.retire(block), is_code)).collect(),
            records,
            units,
            slots: slots.into_iter().map(|slot| slot.retire(memory)).collect(),
            indirections,
        }
    }
}
