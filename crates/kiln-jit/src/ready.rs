//! A link from its claim to its publication, and what it gives back if it does not get there.
//!
//! [`Pending`] has what was claimed, and puts it into memory. Then it is [`Ready`], and to publish
//! it takes the lock once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_artifact::RelocKind;
use kiln_artifact::record::Linkage;
use kiln_globals::KeyRef;
use kiln_image::link::{
    self, ExternalDefinition, Fixups, Layout, LinkError, PatchSource, Plan, PointerSource,
};
use kiln_image::{ThreadLocalData, ThreadLocals};

use crate::batch::{Batch, SlotKind};
use crate::blocks::Blocks;
use crate::counters::{self, CountedEntries, Counters};
use crate::error::JitError;
use crate::observed::Observed;
use crate::program::{Claim, Removal};
use crate::sections::SectionBounds;
use crate::state::State;
use crate::unit::{Identity, Role, Unit, UnitInfo, UnitMemory};

/// A link that is not published yet. If it is dropped, all that it took is given back.
pub(crate) struct Pending<'j, 'a> {
    state: &'j State,
    batch: Batch<'a>,
    pub(crate) role: Role,
    pub(crate) counted_entries: Option<CountedEntries>,
    /// `None` when it is published.
    claim: Option<Claim<'a>>,
    /// The memory, until there is a unit that owns it.
    blocks: Option<Blocks>,
    counters: Option<Box<Counters>>,
    /// As the memory.
    thread_locals: Option<ThreadLocals>,
    /// The unit, when it is in memory.
    unit: Option<Arc<UnitInfo>>,
    sections: Vec<SectionBounds<'a>>,
}

impl<'j, 'a> Pending<'j, 'a> {
    pub(crate) fn new(state: &'j State, batch: Batch<'a>, claim: Claim<'a>) -> Self {
        Self {
            state,
            batch,
            role: Role::Program,
            counted_entries: None,
            claim: Some(claim),
            blocks: None,
            counters: None,
            thread_locals: None,
            unit: None,
            sections: Vec::new(),
        }
    }

    /// Links what was claimed, into memory.
    pub(crate) fn prepare(&mut self) -> Result<(), JitError> {
        let plan = self.plan()?;
        let observed = self.emit(&plan)?;
        let (Some(claim), Some(blocks)) = (&self.claim, self.blocks.take()) else {
            unreachable!("a link has a claim and, once it is emitted, blocks");
        };
        self.sections = SectionBounds::all(&plan, &blocks.addresses);
        let identity = Identity {
            id: claim.unit,
            role: self.role,
            first_module: claim.first_module,
            names: self.batch.module_names(),
        };
        let artifacts = claim.artifacts.clone().unwrap_or_else(|| plan.artifacts().into());
        let (counters, thread_locals) = (self.counters.take(), self.thread_locals.take());
        let memory = UnitMemory { blocks, counters, observed, thread_locals };
        self.unit = Some(Arc::new(UnitInfo::new(identity, artifacts, &plan, memory)));
        Ok(())
    }

    /// Publishes what is in memory.
    pub(crate) fn publish(&mut self) -> Unit {
        let state = self.state;
        let (Some(claim), Some(unit)) = (self.claim.take(), self.unit.take()) else {
            unreachable!("a link is published once, when it is in memory");
        };
        let mut program = state.program();
        let replaced = program.commit(&self.batch, claim, &unit, &self.sections, &state.symbols);
        let retired = match &*replaced {
            [] => None,
            // Data of a replaced unit may be in use; then it stays until it is removed.
            replaced => program.remove(replaced, false, &state.symbols).ok(),
        };
        state.tell_ended(program);
        if let Some(Removal::Done(retired)) = retired {
            state.retire(retired);
        }
        if state.observers.is_behind() {
            state.tell_debugger();
        }
        Unit(unit)
    }

    #[inline]
    pub(crate) fn plan(&self) -> Result<Plan<'a>, JitError> {
        let external = |key: KeyRef<'_>| -> Option<ExternalDefinition> {
            let claim = self.claim.as_ref()?;
            claim.outside.get(&(SlotKind::of_ref(key), key.text())).copied()
        };
        // Slots are in memory that all units share, so the plan has none for the host to fill.
        let batch = &self.batch;
        // A plan is large, and `map_err` would move it.
        match link::plan_in_memory(batch.artifacts, batch.names, &batch.definitions, &external) {
            Ok(plan) => Ok(plan),
            Err(errors) => Err(batch.link_error(errors)),
        }
    }

    /// Writes the unit into fresh memory, and tells unwinder, debugger and profiler.
    pub(crate) fn emit(&mut self, plan: &Plan<'_>) -> Result<Observed, JitError> {
        debug_assert!(plan.slots().is_empty(), "{:?} are in shared memory", plan.slots());
        let (memory, layout) = (&*self.state.memory, plan.layout());
        let batch = &self.batch;
        let blocks = self.blocks.insert(Blocks::allocate(memory, plan)?);
        // SAFETY: the blocks are fresh, disjoint and not published; the references end before
        // `publish`.
        let fixups = unsafe { plan.emit(&blocks.addresses, blocks.output(layout)) }
            .map_err(|error| batch.link_error(vec![error]))?;
        // Before a value is read, so that nobody changes it unnoticed.
        self.state.note_copies(&fixups, self.claim.as_mut());
        let first_module = self.claim.as_ref().map_or(0, |claim| claim.first_module);
        // SAFETY: as above, and the references of `emit` have ended.
        unsafe { blocks.write_header(layout, self.state.id, first_module) };
        // SAFETY: the memory is not freed before the unit's threads are forgotten.
        self.thread_locals = unsafe { register_thread_locals(blocks, plan) };
        let outside = self.claim.iter().flat_map(|claim| &claim.outside);
        let known = outside.filter_map(|((_, name), definition)| match definition {
            ExternalDefinition::Address(address) => Some((*name, *address)),
            _ => None,
        });
        check_thread_locals(plan, &fixups, known).map_err(|error| batch.link_error(vec![error]))?;
        // SAFETY: as above, and the references of `emit` have ended. The addresses of known slots
        // come from the claim: 8 bytes each, which are not freed while it is held.
        unsafe { fill_pointers(blocks, layout, &fixups) };
        blocks.publish(memory)?;
        if let Some(count) = self.counted_entries {
            let replaceable = batch.listed().filter(|(_, winner)| winner.linkage == Linkage::Replaceable);
            let functions = replaceable.map(|(_, winner)| (winner.module, winner.symbol));
            let mut functions: Vec<_> = functions
                .filter(|&(module, symbol)| counters::can_count(&batch.artifacts[module], symbol))
                .collect();
            functions.sort_unstable();
            if !functions.is_empty() {
                let counters = Counters::allocate(memory, count, functions.into(), plan, blocks)?;
                self.counters = Some(Box::new(counters));
            }
        }
        // SAFETY: the rows were just written for these addresses, end with a zero, and are freed
        // after the unit is forgotten.
        let observed = unsafe {
            let stubs = || stubs(self.claim.as_ref(), batch);
            self.state.observers.tell(plan, blocks, self.counters.as_deref(), &stubs)
        };
        // SAFETY: the blocks were just published, with the header. They are hidden before they are
        // freed.
        unsafe {
            blocks.show(memory, layout);
            self.counters.iter().for_each(|counters| counters.show(memory));
        }
        Ok(observed)
    }
}

/// Returns the names and the addresses of the stubs of what a batch defines.
fn stubs<'a>(claim: Option<&Claim<'a>>, batch: &Batch<'_>) -> Vec<(&'a str, u64)> {
    let outside = claim.into_iter().flat_map(|claim| &claim.outside);
    let stubs = outside.filter_map(|((_, name), definition)| match definition {
        ExternalDefinition::Replaceable { stub, .. } if batch.defines(name) => Some((*name, *stub)),
        _ => None,
    });
    stubs.collect()
}

impl Drop for Pending<'_, '_> {
    fn drop(&mut self) {
        let Some(claim) = self.claim.take() else { return };
        let state = self.state;
        // Before its memory is free.
        drop(self.thread_locals.take());
        let (mut blocks, mut counters) =
            (self.blocks.take().map(|blocks| blocks.owned), self.counters.take());
        // Nobody else knows the unit.
        if let Some(unit) = self.unit.take().and_then(Arc::into_inner) {
            state.observers.forget(&unit);
            (blocks, counters) = (Some(unit.blocks), unit.counters);
        }
        if let Some(counters) = counters {
            counters.hide(&state.memory);
            // SAFETY: the unit was not published, so nobody knows the memory; whoever looks an
            // address up makes it wait.
            unsafe { counters.free(&state.memory) };
        }
        if let Some(blocks) = blocks {
            blocks.hide(&state.memory);
            for block in blocks.all() {
                // SAFETY: as above.
                unsafe { state.memory.free(block) };
            }
        }
        let mut program = state.program();
        let retired = program.abandon(&self.batch, claim);
        state.tell_ended(program);
        if !retired.is_empty() {
            state.retire(retired);
        }
    }
}

/// Modules that are linked and in memory, and that nobody can find yet: see
/// [`Jit::ready`](crate::Jit::ready).
///
/// If it is dropped, it is as if the modules had not been linked.
#[must_use = "the modules are callable when they are published"]
pub struct Ready<'j, 'a>(pub(crate) Pending<'j, 'a>);

impl std::fmt::Debug for Ready<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ready").field("modules", &self.0.batch.artifacts.len()).finish_non_exhaustive()
    }
}

impl Ready<'_, '_> {
    /// Publishes the modules as one unit. What replaces functions is called by all callers, from
    /// their next call on: all slots change one right after the other, before anything else is
    /// done.
    pub fn publish(mut self) -> Unit {
        self.0.publish()
    }
}

impl State {
    /// Notes the slots whose values are copied into data or code.
    fn note_copies(&self, fixups: &Fixups, claim: Option<&mut Claim<'_>>) {
        let Some(claim) = claim.filter(|_| !(fixups.symbolic.is_empty() && fixups.text.is_empty())) else {
            return;
        };
        let in_data = fixups.symbolic.iter().filter_map(|pointer| match pointer.source {
            PointerSource::KnownSlot(address) => Some(address),
            PointerSource::Slot(_) => None,
        });
        let in_code = fixups.text.iter().filter_map(|patch| match patch.source {
            PatchSource::KnownSlot(address) => Some(address),
            PatchSource::Slot(_) | PatchSource::Program(_) => None,
        });
        let copied: std::collections::HashSet<u64> = in_data.chain(in_code).collect();
        let mut program = self.program();
        for ((kind, name), definition) in &claim.outside {
            if let ExternalDefinition::Slot(address) = definition
                && copied.contains(address)
            {
                let slot = program.slots.add_copy(*kind, name);
                claim.uses.copies.extend(slot.map(|name| (*kind, name)));
            }
        }
    }
}

/// Registers the thread-local data of a unit, if it has some.
///
/// # Safety
///
/// The memory is not freed before the registration is dropped.
unsafe fn register_thread_locals(blocks: &Blocks, plan: &Plan<'_>) -> Option<ThreadLocals> {
    let section = plan.thread_local_section().filter(|_| ThreadLocals::SUPPORTED)?;
    let start = (blocks.addresses[section.area] + section.offset) as *const u8;
    let size = section.size as usize;
    let data = ThreadLocalData { start, len: size, size, align: section.align as usize };
    // SAFETY: the content is written before the unit is published, so before a thread uses it, and
    // is read-only from then on. The caller promises how long it is there.
    Some(unsafe { ThreadLocals::new(data) })
}

/// Checks that all data that a plan refers to as thread-local is, and nothing else of what is
/// `known`: names and addresses of the definitions of other units.
fn check_thread_locals<'a>(
    plan: &Plan<'_>,
    fixups: &Fixups,
    known: impl Iterator<Item = (&'a str, u64)>,
) -> Result<(), LinkError> {
    for (pointer, (module, name)) in fixups.thread_locals.iter().zip(plan.thread_local_uses()) {
        if !ThreadLocals::SUPPORTED {
            return Err(LinkError::ThreadLocalInMemory { module, arch: plan.arch() });
        }
        if ThreadLocals::words_at(pointer.target).is_none() {
            return Err(LinkError::NotThreadLocal { module, name: name.into(), defined: true });
        }
    }
    if !ThreadLocals::exist() {
        return Ok(());
    }
    let known = known.filter(|(_, address)| ThreadLocals::words_at(*address).is_some());
    let known: Vec<&str> = known.map(|(name, _)| name).collect();
    for (module, artifact) in plan.artifacts().iter().enumerate().filter(|_| !known.is_empty()) {
        let data = artifact.read_only_relocs().iter().chain(artifact.writable_relocs());
        for reloc in data.chain(artifact.text_relocs()) {
            let symbol = &artifact.symbols()[reloc.symbol.get() as usize];
            let name = artifact.name(symbol);
            if reloc.kind() != RelocKind::ThreadLocal && !symbol.is_defined() && known.contains(&name) {
                return Err(LinkError::ThreadLocal { module, name: name.into() });
            }
        }
    }
    Ok(())
}

/// Applies the fixups.
///
/// # Safety
///
/// As for [`Blocks::fixup_output`]; and every [`PointerSource::KnownSlot`] of `fixups` must be the
/// address of 8 readable bytes.
unsafe fn fill_pointers(blocks: &Blocks, layout: &Layout, fixups: &Fixups) {
    if fixups.is_empty() {
        return;
    }
    // SAFETY: the caller promises what `fixup_output` requires.
    let out = unsafe { blocks.fixup_output(layout) };
    let mut value = |source| match source {
        // A plan for memory has no such slots.
        PointerSource::Slot(_) => 0,
        PointerSource::KnownSlot(address) => {
            // SAFETY: the caller promises that these 8 bytes can be read. Others may store to the
            // slot, but only as a whole.
            let slot = unsafe { AtomicU64::from_ptr(address as *mut u64) };
            slot.load(Ordering::Acquire)
        }
    };
    // `check_thread_locals` has found them.
    let mut thread_local = |address| ThreadLocals::words_at(address).unwrap_or_default();
    fixups.apply(out, &mut value, &mut thread_local);
}
