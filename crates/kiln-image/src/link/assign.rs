//! Phase `assign`: numbers GOT slots and stubs, in order of modules.
//!
//! Slots and stubs are numbered in one pass over all modules, in order, so numbers do not depend on
//! threads. The slot array begins with the external slots, which the client or the loader fills:
//! first the slots of globals, then the slots of undefined symbols in order of first use. Internal
//! slots follow; they hold addresses that the linker knows. The first of them are the slots of
//! replaceable functions. Those hold the addresses of code, and the linker's caller may change them
//! at any time; no other slot has the same content.
//!
//! If all modules reach globals directly and no code reads an external slot, the external slots are
//! not in memory. They remain the ordered list of what the client gives values for.
//!
//! Usually a symbol has one stub, which all modules share. If direct calls do not reach all code,
//! each module has its own stubs, right after its code. A replaceable function always has a stub
//! that all modules share, whose address is that of the function.

use std::ops::Range;

use kiln_artifact::{Artifact, GlobalAccess};
use kiln_globals::Slots;

use super::layout::{Extent, SLOT_SIZE};
use super::lists::PerSymbol;
use super::resolve::{GlobalSlot, Resolution, ResolvedId, SymbolTable};
use super::scan::{Need, NeedKind};
use crate::arch::Arch;

/// A slot, identified by its number among the external or among the internal slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    External(u32),
    Internal(u32),
}

/// The content of an internal slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SlotContent {
    /// The address of a resolved symbol.
    Address(ResolvedId),
    /// The address of the code of the replaceable function with this number.
    Code(u32),
}

/// The stubs that belong to one module.
struct ModuleStubs {
    numbers: Range<u32>,
    /// The stub of each symbol of the module.
    by_symbol: Vec<Option<u32>>,
}

/// The mapping from symbols to stubs.
enum StubMap {
    /// All modules share stubs: the stub of each resolved symbol.
    Shared(PerSymbol<Option<u32>>),
    /// Each module has stubs of its own. The first stubs are those of replaceable functions.
    PerModule(Vec<ModuleStubs>),
}

/// All slots and stubs.
pub(super) struct Assignment {
    external: Slots,
    /// The number of external slots that are in memory: all or none.
    stored: usize,
    internal: Vec<SlotContent>,
    /// The slot of each resolved symbol. For a replaceable function it is the slot with the address
    /// of its stub.
    slot_of: PerSymbol<Option<Slot>>,
    /// The symbols that stubs jump to, in order of stubs.
    stubs: Vec<ResolvedId>,
    stub_map: StubMap,
    /// For each replaceable function the slot with the address of its code, and its stub, if they
    /// are this link's own.
    replaceable: Vec<(Option<Slot>, Option<u32>)>,
    /// The number of stubs of replaceable functions, which are the first.
    replaceable_stubs: u32,
}

impl Assignment {
    /// Returns the external slots.
    pub(super) fn external(&self) -> &Slots {
        &self.external
    }

    /// Returns the contents of the internal slots, in order.
    pub(super) fn internal(&self) -> &[SlotContent] {
        &self.internal
    }

    /// Returns the slot with the address of the code, and the stub, of a replaceable function, if
    /// they are this link's own.
    pub(super) fn replaceable(&self, number: u32) -> (Option<Slot>, Option<u32>) {
        self.replaceable[number as usize]
    }

    /// Returns the slot of a resolved symbol. For a replaceable function it is the slot with the
    /// address of its stub.
    pub(super) fn slot(&self, id: ResolvedId) -> Option<Slot> {
        self.slot_of[id.index()]
    }

    /// Returns the number of external slots that are in memory: all or none.
    pub(super) fn stored(&self) -> usize {
        self.stored
    }

    /// Returns the offset of a slot in the slot array, in bytes, if it is in memory.
    pub(super) fn stored_offset(&self, slot: Slot) -> Option<u64> {
        let is_stored = self.stored > 0 || matches!(slot, Slot::Internal(_));
        is_stored.then(|| self.slot_offset(slot))
    }

    /// Returns the offset of a slot that is in memory in the slot array, in bytes.
    pub(super) fn slot_offset(&self, slot: Slot) -> u64 {
        let position = match slot {
            Slot::External(number) => u64::from(number),
            Slot::Internal(number) => self.stored as u64 + u64::from(number),
        };
        position * SLOT_SIZE
    }

    /// Returns the size and alignment of the slot array.
    pub(super) fn slot_array(&self) -> Extent {
        Extent { size: (self.stored + self.internal.len()) as u64 * SLOT_SIZE, align: SLOT_SIZE }
    }

    /// Returns the symbols that stubs jump to, in order of stubs.
    pub(super) fn stubs(&self) -> &[ResolvedId] {
        &self.stubs
    }

    /// Returns the numbers of the stubs that belong to one module.
    pub(super) fn stubs_of_module(&self, module: usize) -> Range<usize> {
        match &self.stub_map {
            StubMap::Shared(_) => 0..0,
            StubMap::PerModule(modules) => {
                let Range { start, end } = modules[module].numbers;
                start as usize..end as usize
            }
        }
    }

    /// Returns the numbers of the stubs that all modules share.
    pub(super) fn shared_stubs(&self) -> Range<usize> {
        match &self.stub_map {
            StubMap::Shared(_) => 0..self.stubs.len(),
            StubMap::PerModule(_) => 0..self.replaceable_stubs as usize,
        }
    }

    /// Returns the number of stubs of replaceable functions, which are the first.
    pub(super) fn replaceable_stubs(&self) -> usize {
        self.replaceable_stubs as usize
    }

    /// Whether modules have stubs of their own.
    pub(super) fn has_own_stubs(&self) -> bool {
        matches!(self.stub_map, StubMap::PerModule(_))
    }

    /// Returns the number of the shared stub of a resolved symbol, if modules have none of their
    /// own.
    pub(super) fn shared_stub(&self, id: ResolvedId) -> Option<u32> {
        match &self.stub_map {
            StubMap::Shared(by_id) => by_id[id.index()],
            StubMap::PerModule(_) => None,
        }
    }

    /// Returns the stub of each symbol of a module, if the module has stubs of its own.
    pub(super) fn own_stubs(&self, module: usize) -> Option<&[Option<u32>]> {
        match &self.stub_map {
            StubMap::Shared(_) => None,
            StubMap::PerModule(modules) => Some(&modules[module].by_symbol),
        }
    }
}

/// Numbers the slots and stubs that all modules need.
pub(super) fn assign(
    arch: Arch,
    artifacts: &[Artifact],
    symbols: &SymbolTable,
    global_slots: Vec<GlobalSlot>,
    needs: &[Vec<Need>],
    share_stubs: bool,
) -> Assignment {
    let mut assigner = Assigner {
        arch,
        artifacts,
        symbols,
        external: Slots::default(),
        loads_external: false,
        internal: Vec::new(),
        slot_of: PerSymbol::from_elem(None, symbols.len()),
        stubs: Vec::new(),
    };
    let mut stub_of = PerSymbol::from_elem(None, symbols.len());
    let replaceable = symbols.replaceable().iter().enumerate();
    let replaceable = replaceable.map(|(number, function)| {
        let slot = function.known_slot.is_none().then(|| {
            assigner.internal.push(SlotContent::Code(number as u32));
            Slot::Internal(assigner.internal.len() as u32 - 1)
        });
        let stub = function.known_stub.is_none().then(|| {
            assigner.stubs.push(function.id);
            assigner.stubs.len() as u32 - 1
        });
        stub_of[function.id.index()] = stub;
        (slot, stub)
    });
    let replaceable: Vec<_> = replaceable.collect();
    let replaceable_stubs = assigner.stubs.len() as u32;
    // Slot i is global i of the table.
    for GlobalSlot { key, symbol } in global_slots {
        let slot = Slot::External(assigner.external.push(key) as u32);
        if let Some(id) = symbol {
            assigner.slot_of[id.index()] = Some(slot);
        }
    }
    let mut modules = Vec::new();
    for (module, needs) in needs.iter().enumerate() {
        // Earlier stubs belong to other modules.
        let first = if share_stubs { 0 } else { assigner.stubs.len() as u32 };
        assigner.add_module(symbols.of_module(module), needs, first, &mut stub_of);
        if !share_stubs {
            let numbers = first..assigner.stubs.len() as u32;
            let own = |id: &ResolvedId| stub_of[id.index()].filter(|number| numbers.contains(number));
            let by_symbol = symbols.of_module(module).iter().map(own).collect();
            modules.push(ModuleStubs { numbers, by_symbol });
        }
    }
    let Assigner { external, internal, slot_of, stubs, loads_external, .. } = assigner;
    // Slots that nobody reads need no memory: their values are patched into code and data.
    let has_slots = artifacts.is_empty()
        || artifacts.iter().any(|artifact| artifact.global_access() == GlobalAccess::Slots);
    let stored = if has_slots || loads_external { external.len() } else { 0 };
    let stub_map = if share_stubs { StubMap::Shared(stub_of) } else { StubMap::PerModule(modules) };
    Assignment { external, stored, internal, slot_of, stubs, stub_map, replaceable, replaceable_stubs }
}

/// Numbers slots and stubs in order of first need.
struct Assigner<'a> {
    arch: Arch,
    artifacts: &'a [Artifact],
    symbols: &'a SymbolTable,
    external: Slots,
    /// Whether code reads an external slot.
    loads_external: bool,
    internal: Vec<SlotContent>,
    slot_of: PerSymbol<Option<Slot>>,
    stubs: Vec<ResolvedId>,
}

impl Assigner<'_> {
    /// Numbers the slots and stubs that a module needs. The module can use stubs numbered
    /// `first_stub` or higher. `stub_of` holds the newest stub of each resolved symbol.
    fn add_module(
        &mut self,
        resolved: &[ResolvedId],
        needs: &[Need],
        first_stub: u32,
        stub_of: &mut [Option<u32>],
    ) {
        for need in needs {
            let id = resolved[need.symbol as usize];
            match need.kind {
                NeedKind::Slot | NeedKind::AddressSlot => self.add_loaded_slot(id),
                NeedKind::Value => self.add_slot(id),
                NeedKind::Stub => {
                    let stub = &mut stub_of[id.index()];
                    if stub.is_none_or(|number| number < first_stub) {
                        *stub = Some(self.stubs.len() as u32);
                        self.stubs.push(id);
                    }
                    if self.stub_has_slot(id) {
                        self.add_loaded_slot(id);
                    }
                }
            }
        }
    }

    fn add_loaded_slot(&mut self, id: ResolvedId) {
        self.loads_external |= self.symbols.resolution(id) == Resolution::Undefined;
        self.add_slot(id);
    }

    fn add_slot(&mut self, id: ResolvedId) {
        let slot = &mut self.slot_of[id.index()];
        if slot.is_some() {
            return;
        }
        match self.symbols.resolution(id) {
            Resolution::KnownSlot(_) => {}
            Resolution::Undefined => {
                let key = self.symbols.slot_key(self.artifacts, id);
                *slot = Some(Slot::External(self.external.push(key) as u32));
            }
            Resolution::Defined { .. }
            | Resolution::SectionBound { .. }
            | Resolution::KnownAddress(_)
            | Resolution::Replaceable(_) => {
                *slot = Some(Slot::Internal(self.internal.len() as u32));
                self.internal.push(SlotContent::Address(id));
            }
        }
    }

    /// Whether the stub of a symbol loads the address from [`slot_of`](Self::slot_of) the symbol.
    /// On aarch64 the stub of a symbol that a module defines computes the address instead, because
    /// `adrp` reaches 4 GiB. The stubs of a replaceable function load the address of its code.
    fn stub_has_slot(&self, id: ResolvedId) -> bool {
        match self.symbols.resolution(id) {
            Resolution::Defined { .. } => self.arch != Arch::Aarch64,
            Resolution::Replaceable(_) => false,
            _ => true,
        }
    }
}
