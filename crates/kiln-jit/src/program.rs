//! The one owner of all that is alive: units, names, slots and sections.
//!
//! A link takes three steps here, each short. [`Program::claim`] decides what every symbol of a
//! batch refers to, and records the uses, so that nothing the batch refers to can be removed while
//! it is copied and relocated. [`Program::commit`] publishes its definitions, and
//! [`Program::abandon`] takes a claim back. No code of a client runs in here.
//!
//! A batch that needs a definition which another thread is linking waits before it claims anything.
//! So a thread with claims never waits, and there is no deadlock.

use std::cell::LazyCell;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState as FastHash;
use kiln_artifact::record::{Linkage, SymbolKind, SymbolRecord};
use kiln_artifact::{Artifact, signatures_agree};
use kiln_image::link::{ExternalDefinition, LinkError, MAX_SECTIONS};
use kiln_image::{Arch, BaseSymbolKind, FunctionText, missing_features};
use smallvec::SmallVec;

use crate::bases::{Bases, InBase};
use crate::batch::{Batch, Reference, SlotKind, Winner, is_strong, reference, slot_kind};
use crate::error::{InUseError, JitError, ModuleName, UseOf};
use crate::hashed::NameHasher;
use crate::indirection::{Indirection, Stubs};
use crate::large::LargeUnit;
use crate::memory::Memory;
use crate::names::{Definition, Name, Names, entered_names};
use crate::sections::{Conflict, KnownBound, SectionBounds, SectionConflict, SectionFault, Sections};
use crate::slots::{Cell, Slots};
use crate::symbol::Symbol;
use crate::symbols::Symbols;
use crate::unit::{Role, UnitId, UnitInfo, Uses};
use crate::users::{first_data, user_of};

/// Whether a batch may define replaceable functions again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Add,
    Replace,
}

/// A slot whose value is needed: its kind, its name, and the type that the code expects.
pub(crate) type WantedSlot<'a> = (SlotKind, &'a str, Option<&'a str>);

/// Things by the kind and the name that a batch knows them by.
pub(crate) type Keyed<'a, T> = HashMap<(SlotKind, &'a str), T, FastHash>;

/// Slots and stubs of new replaceable functions, by name.
type NewNames<'a> = HashMap<&'a str, Box<Indirection>, FastHash>;

/// The outcome of an attempt to claim.
pub(crate) enum Attempt<'a> {
    Claimed(Claim<'a>),
    /// These slots need values.
    Unresolved(Vec<WantedSlot<'a>>),
    /// Another thread is linking something that the batch refers to.
    Wait,
}

/// The promises to a batch while it is linked.
pub(crate) struct Claim<'a> {
    pub(crate) unit: UnitId,
    pub(crate) first_module: usize,
    /// The definitions outside that the batch refers to, by kind and name.
    pub(crate) outside: Keyed<'a, ExternalDefinition>,
    pub(crate) uses: Uses,
    /// The artifacts of a large unit.
    pub(crate) artifacts: Option<Arc<[Artifact]>>,
}

/// The definitions outside that a batch refers to, before it is claimed.
#[derive(Default)]
struct References<'a> {
    /// The references found so far; for slots, the position in `slots`.
    seen: Keyed<'a, usize>,
    names: Vec<&'a str>,
    /// Bounds of sections: the name, the section and the address.
    bounds: Vec<(&'a str, &'a str, u64)>,
    /// Thread-local data of bases.
    thread_locals: Vec<(&'a str, InBase)>,
    /// A slot that is used with several types expects none.
    slots: Vec<WantedSlot<'a>>,
    must_wait: bool,
}

/// The outcome of an attempt to remove.
pub(crate) enum Removal {
    Done(Retired),
    /// Another thread is linking something that uses the units, or replaces them.
    Wait,
}

/// The uses of units by others.
struct Found {
    /// Those of units that are in memory.
    uses: Vec<(UseOf, UnitId)>,
    /// Whether a unit that is being linked uses them, or defines something instead of them.
    pending: bool,
}

/// Things that no longer belong to the program, and are freed when no thread can use them.
#[derive(Default)]
pub(crate) struct Retired {
    pub(crate) units: Vec<Arc<UnitInfo>>,
    pub(crate) slots: Vec<Cell>,
    pub(crate) indirections: Vec<Indirection>,
}

impl Retired {
    pub(crate) fn is_empty(&self) -> bool {
        self.units.is_empty() && self.slots.is_empty() && self.indirections.is_empty()
    }
}

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Program {
    /// The units that are in memory, in order of linking.
    pub(crate) units: BTreeMap<UnitId, Arc<UnitInfo>>,
    names: Names,
    /// The images that the program is linked on.
    bases: Arc<Bases>,
    pub(crate) slots: Slots,
    sections: Sections,
    pub(crate) stubs: Stubs,
    /// The target triple of all modules.
    triple: Option<Box<str>>,
    /// The CPU features that some earlier module needed: the host has them.
    features: Vec<Box<str>>,
    /// The number of batches that are being linked.
    claims: usize,
    /// The number of threads that wait for the end of a link.
    pub(crate) waiting: usize,
    /// How often a key was bound again of which there is no slot.
    pub(crate) rebinds: u64,
    next_unit: UnitId,
    next_module: usize,
}

impl Program {
    /// Makes a program without units, on images. `hasher` is that of its names.
    pub(crate) fn new(stubs: Stubs, hasher: NameHasher, bases: Arc<Bases>) -> Self {
        Self { stubs, bases, names: Names::new(hasher), ..Self::default() }
    }

    /// Decides what the batch refers to, and claims its definitions. `values` are the values of
    /// slots that were wanted before.
    ///
    /// It refuses batches that an image of all modules would refuse. Beyond that, it refuses only
    /// symbols that an image could resolve in another way than the running code did.
    pub(crate) fn claim<'a>(
        &mut self,
        batch: &Batch<'a>,
        mode: Mode,
        values: &Keyed<'a, usize>,
        memory: &Memory,
    ) -> Result<Attempt<'a>, JitError> {
        self.names.list(batch.shared_names());
        if let Err(error) = self.check(batch, mode) {
            // A link in progress that is in the way may fail.
            return if self.is_pending(batch) { Ok(Attempt::Wait) } else { Err(error) };
        }
        let references = self.references(batch);
        if references.must_wait {
            return Ok(Attempt::Wait);
        }
        let unserved = |&&(kind, name, expected): &&WantedSlot<'_>| {
            !values.contains_key(&(kind, name)) && !self.slots.serves(kind, name, expected)
        };
        let wanted: Vec<WantedSlot<'a>> = references.slots.iter().filter(unserved).copied().collect();
        if !wanted.is_empty() {
            return Ok(Attempt::Unresolved(wanted));
        }
        // Everything that can fail comes first: memory for new slots.
        let mut new_slots = Keyed::default();
        let mut new_names = NewNames::default();
        let result = self.allocate(batch, &references, values, memory, &mut new_slots, &mut new_names);
        if let Err(error) = result {
            // SAFETY: nobody knows them.
            new_slots.into_values().for_each(|cell: Cell| unsafe { cell.free(memory) });
            // SAFETY: as above.
            new_names
                .into_values()
                .for_each(|new: Box<Indirection>| unsafe { self.stubs.give(*new, memory) });
            return Err(error);
        }
        Ok(Attempt::Claimed(self.record(batch, references, new_slots, new_names)))
    }

    /// Refuses batches that can be refused before any work is done: code for other machines,
    /// redefinitions, and imports and overridden definitions whose type differs from that of the
    /// definition.
    fn check(&self, batch: &Batch<'_>, mode: Mode) -> Result<(), JitError> {
        for (name, winner) in batch.listed().filter(|_| mode == Mode::Add && !batch.in_bases.is_empty()) {
            let Some(&in_base) = batch.in_bases.get(name) else { continue };
            if winner.linkage == Linkage::Replaceable && self.names.get(name).is_none() {
                let (module, base) = (batch.module(winner.module), self.bases.name(in_base).into());
                return Err(JitError::BaseNotReplaced { name: name.into(), module, base });
            }
        }
        let is_new = self.names.is_empty() && self.slots.is_empty(SlotKind::Symbol);
        for (module, artifact) in batch.artifacts.iter().enumerate() {
            // Most often, all modules are for the machine of the first.
            let is_known = match module.checked_sub(1) {
                None => self.is_known_machine(artifact),
                Some(before) => artifact.is_same_machine(&batch.artifacts[before]),
            };
            if !is_known {
                self.check_machine(batch, module, artifact)?;
            }
            if is_new {
                continue;
            }
            for symbol in artifact.symbols().iter().filter(|symbol| reference(symbol) == Reference::Shared) {
                self.check_symbol(batch, mode, module, symbol)?;
            }
        }
        let is_defined = |name: &str| self.names.get(name).is_some();
        let is_slot = |name: &str| self.slots.get(SlotKind::Symbol, name).is_some();
        self.sections.check(batch, &is_defined, &is_slot).map_err(|fault| match fault {
            SectionFault::Conflict(conflict) => self.section_error(batch, conflict),
            SectionFault::TooMany(count) => JitError::TooManySections { count, limit: MAX_SECTIONS },
        })
    }

    /// Names the modules of a conflict of sections, and who uses what.
    fn section_error(&self, batch: &Batch<'_>, conflict: SectionConflict) -> JitError {
        let SectionConflict { section, module, reason } = conflict;
        let name = batch.module(module);
        let artifact = &batch.artifacts[module];
        let data = || first_data(artifact, &section).into();
        match reason {
            Conflict::DefinedLate { bound } => {
                let user = self.user_of_slot(SlotKind::Symbol, &bound);
                JitError::DefinedLate { name: bound, module: name, user }
            }
            Conflict::Kinds { earlier } => {
                let (data, earlier) = (data(), self.module(earlier));
                JitError::SectionConflict { section, module: name, data, earlier }
            }
            Conflict::Grows => {
                let uses = |unit: &&Arc<UnitInfo>| unit.uses().sections.contains(&section);
                let user = self.units.values().find(uses).map(|unit| unit.use_of_section(&section));
                let user = user.unwrap_or_else(|| unknown_use(&section));
                let data = data();
                JitError::SectionGrows { section, module: name, data, user }
            }
            Conflict::InPieces { bound } => {
                let user = user_of(artifact, &bound, &|_| true).unwrap_or_default().into();
                JitError::SectionInPieces { section, name: bound, module: name, user }
            }
            Conflict::Function { bound, earlier } => {
                let user = user_of(artifact, &bound, &|_| true).unwrap_or_default().into();
                JitError::KindConflict { name: bound, module: name, user, earlier: self.module(earlier) }
            }
            Conflict::Redefinition { bound, earlier } => {
                JitError::Redefinition { name: bound, module: name, earlier: self.module(earlier) }
            }
        }
    }

    /// Returns a module that was linked as errors name it.
    fn module(&self, number: usize) -> ModuleName {
        let mut units = self.units.values();
        let unit = units
            .find(|unit| (unit.first_module..unit.first_module + unit.artifacts.len()).contains(&number));
        unit.map_or(ModuleName { number, name: "".into() }, |unit| unit.module(number - unit.first_module))
    }

    /// Returns the first use of a slot.
    fn user_of_slot(&self, kind: SlotKind, name: &str) -> UseOf {
        let uses =
            |unit: &&Arc<UnitInfo>| unit.uses().slots.iter().any(|(of, key)| *of == kind && **key == *name);
        let unit = self.units.values().find(uses);
        unit.map_or_else(|| unknown_use(name), |unit| unit.use_of(name))
    }

    /// Returns the first function or data object that holds a copy of a slot's value.
    pub(crate) fn user_of_copy(&self, kind: SlotKind, name: &str) -> UseOf {
        let copies =
            |unit: &&Arc<UnitInfo>| unit.uses().copies.iter().any(|(of, key)| *of == kind && **key == *name);
        let unit = self.units.values().find(copies);
        unit.map_or_else(|| unknown_use(name), |unit| unit.use_of_copy(kind, name))
    }

    /// Returns the first function that calls the function in a slot with another type than `given`,
    /// and that type.
    pub(crate) fn other_type(&self, kind: SlotKind, name: &str, given: &str) -> Option<(UseOf, Box<str>)> {
        self.slots.get(kind, name)?;
        let uses =
            |unit: &&Arc<UnitInfo>| unit.uses().slots.iter().any(|(of, key)| *of == kind && **key == *name);
        self.units.values().filter(uses).find_map(|unit| {
            let expected = unit.artifacts.iter().find_map(|artifact| {
                let is_meant = |symbol: &&SymbolRecord| {
                    slot_kind(symbol) == Some(kind) && !symbol.is_defined() && artifact.name(symbol) == name
                };
                let symbol = artifact.symbols().iter().find(is_meant)?;
                let expected = artifact.signature(symbol.signature()?)?;
                (!signatures_agree(expected, given)).then_some(expected)
            })?;
            Some((unit.use_of(name), expected.into()))
        })
    }

    fn check_symbol(
        &self,
        batch: &Batch<'_>,
        mode: Mode,
        module: usize,
        symbol: &SymbolRecord,
    ) -> Result<(), JitError> {
        let name = batch.artifacts[module].name(symbol);
        let is_late = symbol.is_defined() && !batch.in_bases.contains_key(name);
        if is_late && self.slots.get(SlotKind::Symbol, name).is_some() {
            let (module, user) = (batch.module(module), self.user_of_slot(SlotKind::Symbol, name));
            return Err(JitError::DefinedLate { name: name.into(), module, user });
        }
        let Some(known) = self.names.get(name) else { return Ok(()) };
        let before = known.current();
        if symbol.linkage() == Linkage::Replaceable && known.is_replaceable() {
            if mode == Mode::Replace {
                return self.check_use(batch, module, symbol, before);
            }
            let (module, earlier) = (batch.module(module), self.module(before.module));
            return Err(JitError::NotReplaced { name: name.into(), module, earlier });
        }
        match symbol.linkage() {
            // Code that uses a preemptible definition uses the earlier definition instead.
            Linkage::Preemptible | Linkage::Import if !known.is_replaceable() || !symbol.is_defined() => {
                self.check_use(batch, module, symbol, before)
            }
            Linkage::Local => Ok(()),
            _ => {
                let (module, earlier) = (batch.module(module), self.module(before.module));
                Err(JitError::Redefinition { name: name.into(), module, earlier })
            }
        }
    }

    /// Refuses an import or an overridden definition whose kind or type differs from that of
    /// `before`.
    fn check_use(
        &self,
        batch: &Batch<'_>,
        module: usize,
        symbol: &SymbolRecord,
        before: &Definition,
    ) -> Result<(), JitError> {
        let artifact = &batch.artifacts[module];
        let (text, earlier) = (artifact.name(symbol), || self.module(before.module));
        let (name, module) = (|| text.into(), || batch.module(module));
        let user = || user_of(artifact, text, &|other| other.linkage() != Linkage::Local);
        let user = || user().unwrap_or_default().into();
        match (symbol.kind(), before.kind()) {
            (SymbolKind::Function, SymbolKind::Function) => {}
            (SymbolKind::Function, _) => {
                let (name, module, user, earlier) = (name(), module(), user(), earlier());
                return Err(JitError::KindConflict { name, module, user, earlier });
            }
            (_, SymbolKind::Function) if symbol.is_defined() => {
                let (name, module, earlier) = (name(), module(), earlier());
                return Err(JitError::DataConflict { name, module, earlier });
            }
            _ => return Ok(()),
        }
        let imported = symbol.signature().and_then(|index| artifact.signature(index));
        if let (Some(imported), Some(defined)) = (imported, before.signature())
            && !signatures_agree(imported, defined)
        {
            return Err(JitError::SignatureConflict {
                name: name(),
                module: module(),
                user: user(),
                earlier: earlier(),
                imported: imported.into(),
                defined: defined.into(),
            });
        }
        Ok(())
    }

    /// Whether a module is for the same target as an earlier one and needs the same CPU features.
    fn is_known_machine(&self, artifact: &Artifact) -> bool {
        let features = self.features.iter().map(|feature| &**feature);
        self.triple.as_deref().is_some_and(|triple| artifact.is_for(triple, features))
    }

    /// Refuses a module that this machine cannot run, or that no image can hold with the others.
    fn check_machine(&self, batch: &Batch<'_>, module: usize, artifact: &Artifact) -> Result<(), JitError> {
        let triple = artifact.triple();
        let module = || batch.module(module);
        if !Arch::is_host(triple) {
            return Err(JitError::OtherTarget { module: module(), triple: triple.into() });
        }
        if let Some(expected) = self.triple.as_deref().filter(|&expected| expected != triple) {
            let (triple, expected) = (triple.into(), expected.into());
            let earlier = self.module(self.units.values().next().map_or(0, |unit| unit.first_module));
            return Err(JitError::TargetMismatch { module: module(), earlier, triple, expected });
        }
        match missing_features(artifact.features()).next() {
            Some(feature) => Err(JitError::MissingFeature { module: module(), feature: feature.into() }),
            None => Ok(()),
        }
    }

    /// Whether another link is about to define a name of the batch.
    fn is_pending(&self, batch: &Batch<'_>) -> bool {
        let mut names = batch.shared_names().filter_map(|name| self.names.get(name));
        names.any(|known| known.definitions().iter().any(|definition| definition.symbol.is_none()))
    }

    /// Returns what the batch refers to outside itself.
    fn references<'a>(&self, batch: &Batch<'a>) -> References<'a> {
        // Another link may be about to use the bounds of a section, which then cannot grow.
        let must_wait = self.sections.is_pending(batch);
        let mut found = References { must_wait, ..References::default() };
        for artifact in batch.artifacts {
            let used = LazyCell::new(|| used_symbols(artifact));
            for (number, symbol) in artifact.symbols().iter().enumerate() {
                let is_used = || used[number];
                match reference(symbol) {
                    Reference::Local => {}
                    // An image has a slot for every global of its modules.
                    Reference::Slot(kind) if kind == SlotKind::Global || is_used() => {
                        found.slot(kind, artifact, symbol);
                    }
                    Reference::Slot(_) => {}
                    // A strong definition in the batch comes before all others.
                    Reference::Shared if symbol.is_defined() && is_strong(symbol.linkage()) => {}
                    Reference::Shared if batch.defines_strongly(artifact.name(symbol)) => {}
                    Reference::Shared => self.reference(batch, artifact, symbol, &is_used, &mut found),
                }
            }
        }
        found
    }

    /// Finds what a symbol refers to that modules share, and of which the batch has at most a weak
    /// definition.
    fn reference<'a>(
        &self,
        batch: &Batch<'a>,
        artifact: &'a Artifact,
        symbol: &SymbolRecord,
        is_used: &dyn Fn() -> bool,
        found: &mut References<'a>,
    ) {
        let name = artifact.name(symbol);
        if let Some(&in_base) = batch.in_bases.get(name) {
            match in_base.kind {
                BaseSymbolKind::ThreadLocal => found.thread_local(name, in_base),
                _ if is_used() => found.slot(SlotKind::Symbol, artifact, symbol),
                _ => {}
            }
        } else if let Some(known) = self.names.get(name) {
            // Before the first definition is published, its address and its slot are not filled.
            found.must_wait |= known.published().is_none();
            let own = symbol.linkage() == Linkage::Replaceable;
            if !own && found.is_new(SlotKind::Symbol, name) {
                found.names.push(name);
            }
        } else if !batch.defines(name) {
            match self.sections.bound(name) {
                Some((section, KnownBound::Address(address))) if !batch.has_section(section) => {
                    found.bound(name, section, address);
                }
                Some((section, KnownBound::Pending)) if !batch.has_section(section) => {
                    found.must_wait = true;
                }
                _ if batch.bounds(name) => {}
                _ if is_used() => found.slot(SlotKind::Symbol, artifact, symbol),
                // The code that used it was optimized away. An image has no slot for it either.
                _ => {}
            }
        }
    }

    /// Allocates memory for the slots and stubs that do not exist yet.
    fn allocate<'a>(
        &mut self,
        batch: &Batch<'a>,
        references: &References<'a>,
        values: &Keyed<'a, usize>,
        memory: &Memory,
        new_slots: &mut Keyed<'a, Cell>,
        new_names: &mut NewNames<'a>,
    ) -> Result<(), JitError> {
        for &(kind, name, _) in &references.slots {
            if let Some(&value) = values.get(&(kind, name))
                && self.slots.get(kind, name).is_none()
            {
                new_slots.insert((kind, name), Cell::allocate(memory, value as u64)?);
            }
        }
        for (name, winner) in batch.listed() {
            if winner.linkage == Linkage::Replaceable && self.names.get(name).is_none() {
                let new = match batch.in_bases.get(name) {
                    Some(&in_base) => self.override_function(batch, in_base, name, winner)?,
                    None => self.stubs.take(memory)?,
                };
                new_names.insert(name, Box::new(new));
            }
        }
        Ok(())
    }

    /// Prepares to replace a function of a base.
    fn override_function(
        &self,
        batch: &Batch<'_>,
        in_base: InBase,
        name: &str,
        winner: Winner,
    ) -> Result<Indirection, JitError> {
        let artifact = &batch.artifacts[winner.module];
        let signature = artifact.symbols()[winner.symbol].signature();
        let signature = signature.and_then(|index| artifact.signature(index)).unwrap_or_default();
        let found = self.bases.override_function(in_base, name, signature);
        found.map(Indirection::of_base).ok_or_else(|| {
            let (name, base) = (name.into(), self.bases.name(in_base).into());
            let (module, kind) = (winner.module, in_base.kind);
            batch.link_error(vec![LinkError::DefinedInBase { name, module, base, kind }])
        })
    }

    /// Records the uses and definitions of a batch.
    fn record<'a>(
        &mut self,
        batch: &Batch<'a>,
        references: References<'a>,
        mut new_slots: Keyed<'a, Cell>,
        mut new_names: NewNames<'a>,
    ) -> Claim<'a> {
        let (unit, first_module) = (self.next_unit, self.next_module);
        self.next_unit += 1;
        self.next_module += batch.artifacts.len();
        self.claims += 1;
        if let (None, Some(artifact)) = (&self.triple, batch.artifacts.first()) {
            self.triple = Some(artifact.triple().into());
            self.features = artifact.features().map(Into::into).collect();
        }
        let References { names, bounds, slots, thread_locals, .. } = references;
        let (mut outside, mut uses) = (Keyed::default(), Uses::default());
        for name in names {
            uses.names.push(self.names.add_user(name));
            outside.extend(self.external(name).map(|definition| ((SlotKind::Symbol, name), definition)));
        }
        for (name, section, address) in bounds {
            if !uses.sections.iter().any(|known| **known == *section) {
                self.sections.add_user(section);
                uses.sections.push(section.into());
            }
            outside.insert((SlotKind::Symbol, name), ExternalDefinition::Address(address));
        }
        for (kind, name, expected) in slots {
            let cell = || new_slots.remove(&(kind, name)).expect("the claim allocated it");
            let (address, key) = self.slots.add_user(kind, name, expected, cell);
            uses.slots.push((kind, key));
            let definition = match kind == SlotKind::Symbol && batch.in_bases.contains_key(name) {
                true => ExternalDefinition::Base { slot: Some(address) },
                false => ExternalDefinition::Slot(address),
            };
            outside.insert((kind, name), definition);
        }
        for (name, in_base) in thread_locals {
            let address = self.bases.thread_local(in_base, name).map(ExternalDefinition::Address);
            outside.extend(address.map(|address| ((SlotKind::Symbol, name), address)));
        }
        let artifacts = batch.is_large().then(|| {
            let large = Arc::new(LargeUnit::new(unit, first_module, batch));
            let artifacts = large.artifacts.clone();
            self.names.add_large(large);
            artifacts
        });
        for (name, winner) in batch.listed() {
            let artifact = &batch.artifacts[winner.module];
            let definition = Definition::new(unit, first_module + winner.module, artifact, winner.symbol);
            self.names.define(name, definition, || new_names.remove(name));
            // The slot of a replaceable function is not in the unit, and code inside reads it too.
            if winner.linkage == Linkage::Replaceable {
                if batch.in_bases.contains_key(name) {
                    let unused = ExternalDefinition::Base { slot: None };
                    outside.entry((SlotKind::Symbol, name)).or_insert(unused);
                }
                outside.extend(self.external(name).map(|found| ((SlotKind::Symbol, name), found)));
            }
        }
        self.sections.claim(batch, unit, first_module);
        Claim { unit, first_module, outside, uses, artifacts }
    }

    /// Returns the names of the replaceable functions that a unit defines, and the addresses of
    /// their stubs.
    pub(crate) fn stubs_of(&self, unit: &UnitInfo) -> Vec<(Arc<str>, u64)> {
        let names = self.names.listed_of(unit.id, &unit.artifacts);
        let known = names.filter_map(|name| self.names.get(name));
        known
            .filter_map(|known| {
                let own = known.indirection.as_ref().filter(|indirection| !indirection.is_of_base());
                Some((known.name().shared().clone(), own?.address()))
            })
            .collect()
    }

    /// Returns how code reaches a name of earlier units.
    fn external(&self, name: &str) -> Option<ExternalDefinition> {
        let known = self.names.get(name)?;
        match &known.indirection {
            Some(indirection) => indirection.external(),
            None => known.published().map(|symbol| ExternalDefinition::Address(symbol.address)),
        }
    }

    /// Takes back what [`Program::claim`] recorded. Returns what nobody uses any more.
    pub(crate) fn abandon(&mut self, batch: &Batch<'_>, claim: Claim<'_>) -> Retired {
        self.claims -= 1;
        if self.next_module == claim.first_module + batch.artifacts.len() {
            self.next_module = claim.first_module;
        }
        let mut retired = Retired::default();
        self.forget(claim.unit, batch.artifacts, &claim.uses, &mut retired);
        retired
    }

    /// Removes the uses and definitions of a unit, and adds what nobody uses any more to `retired`.
    /// Returns the strong definitions of a large unit that had an entry.
    fn forget(
        &mut self,
        unit: UnitId,
        artifacts: &[Artifact],
        uses: &Uses,
        retired: &mut Retired,
    ) -> Vec<Arc<str>> {
        for name in &uses.names {
            if let Some(known) = self.names.get_mut(name) {
                known.users -= 1;
            }
        }
        for (kind, name) in &uses.copies {
            self.slots.remove_copy(*kind, name);
        }
        for (kind, name) in &uses.slots {
            retired.slots.extend(self.slots.remove_user(*kind, name));
        }
        for section in &uses.sections {
            self.sections.remove_user(section);
        }
        let listed = self.names.remove_large(unit);
        let is_large = listed.is_some();
        let listed = listed.unwrap_or_default();
        let names = listed.iter().map(|name| &**name).chain(entered_names(artifacts, is_large));
        names.for_each(|name| retired.indirections.extend(self.names.undefine(name, unit)));
        self.sections.remove(artifacts, unit);
        if self.units.is_empty() && self.claims == 0 {
            self.triple = None;
        }
        listed
    }

    /// Publishes a unit whose code is in memory. Returns the units that have no function left that
    /// was not replaced.
    pub(crate) fn commit(
        &mut self,
        batch: &Batch<'_>,
        claim: Claim<'_>,
        unit: &Arc<UnitInfo>,
        sections: &[SectionBounds<'_>],
        map: &Symbols,
    ) -> Vec<UnitId> {
        let Claim { unit: id, mut uses, .. } = claim;
        self.claims -= 1;
        uses.sections.extend(self.sections.commit(sections, id));
        unit.set_uses(uses);
        let mut replaced = Vec::new();
        let mut current: SmallVec<[(u64, Arc<Symbol>); 1]> = SmallVec::new();
        for (name, winner) in batch.listed() {
            let counted = unit.counters.as_ref().and_then(|all| all.entry_of(winner.module, winner.symbol));
            let address = counted.or_else(|| unit.address(winner.module, winner.symbol)).unwrap_or_default();
            let artifact = &unit.artifacts[winner.module];
            let Some(known) = self.names.get_mut(name) else { continue };
            let (name, hash) = (known.name().shared().clone(), known.name().hash());
            let stub = known.indirection.as_ref().map(|indirection| indirection.address());
            let Some(definition) = known.definition_of(id) else { continue };
            let symbol = Symbol::new(id, artifact, winner.symbol, address);
            let mut symbol = symbol.with_name(name);
            if let Some(stub) = stub {
                symbol.address = stub;
            }
            let symbol = Arc::new(symbol);
            definition.symbol = Some(symbol.clone());
            // If another link of a later definition was faster, this unit is replaced already.
            let is_current = known.published().is_some_and(|symbol| symbol.unit == id);
            let others = known.definitions().iter().map(|definition| definition.unit);
            replaced.extend(others.filter(|&other| (other == id) != is_current));
            if is_current {
                current.push((hash, symbol));
            }
        }
        // Callers come first, and all slots change one right after the other.
        for (_, symbol) in current.iter().filter(|(_, symbol)| symbol.linkage() == Linkage::Replaceable) {
            if let Some(indirection) =
                self.names.get(symbol.name()).and_then(|known| known.indirection.as_ref())
            {
                indirection.store(symbol.definition);
            }
        }
        current.into_iter().for_each(|(hash, symbol)| show(hash, symbol, map));
        if let Some(large) = self.names.publish_large(unit) {
            map.insert_large(large);
            if let Some(smallest) = self.names.smallest_large() {
                self.enter(&smallest, map);
            }
        }
        self.units.insert(id, unit.clone());
        replaced.sort_unstable();
        replaced.dedup();
        replaced.retain(|unit| self.is_replaced(*unit));
        replaced
    }

    /// Makes entries of all definitions of a large unit, which then is like any other.
    fn enter(&mut self, large: &LargeUnit, map: &Symbols) {
        self.names.list(large.names());
        for known in large.names().filter_map(|name| self.names.get(name)) {
            publish(known, map);
        }
        self.names.remove_large(large.id());
        map.remove_large(large.id());
    }

    /// Whether every function of a unit was replaced by a later definition.
    fn is_replaced(&self, unit: UnitId) -> bool {
        let stays = |info: &&Arc<UnitInfo>| info.role != Role::StandIn;
        let Some(info) = self.units.get(&unit).filter(stays) else { return false };
        let mut functions = 0;
        for artifact in info.artifacts.iter() {
            // What is private is reached only by the functions that are replaced.
            let visible = |symbol: &&SymbolRecord| symbol.is_defined() && symbol.linkage() != Linkage::Local;
            for symbol in artifact.symbols().iter().filter(visible) {
                if symbol.kind() != SymbolKind::Function {
                    // Others may use its data by name.
                    if reference(symbol) == Reference::Shared {
                        return false;
                    }
                    continue;
                }
                let known = self.names.get(artifact.name(symbol));
                let published = known.filter(|known| known.is_replaceable()).and_then(Name::published);
                let in_force = |symbol: &Arc<Symbol>| symbol.unit == unit;
                if symbol.linkage() != Linkage::Replaceable || published.is_none_or(in_force) {
                    return false;
                }
                functions += 1;
            }
        }
        functions > 0
    }

    /// Returns the uses of units of `removed` by others.
    fn uses_of(&self, removed: &HashSet<UnitId>) -> Found {
        let is_removed = |unit: UnitId| removed.contains(&unit);
        let mut found = Found { uses: Vec::new(), pending: false };
        // Names that would be gone, or mean something else, and how many of their users are known.
        let mut broken: HashMap<&str, usize> = HashMap::new();
        let mut sections: HashMap<&str, usize> = HashMap::new();
        for unit in removed.iter().filter_map(|id| self.units.get(id)) {
            for name in self.names.listed_of(unit.id, &unit.artifacts) {
                let Some(known) = self.names.get(name).filter(|known| known.users > 0) else { continue };
                let after = known.published_without(&is_removed).map(|after| after.unit);
                let same = after.is_some() && after == known.published().map(|symbol| symbol.unit);
                if same || (after.is_some() && known.is_replaceable()) {
                    continue;
                }
                if after.is_none() && known.is_defined_without(&is_removed) {
                    // Its users will call a definition that is being linked.
                    found.pending = true;
                } else {
                    broken.insert(name, 0);
                }
            }
            for artifact in unit.artifacts.iter() {
                for run in artifact.named_data() {
                    let name = artifact.section_name(run);
                    if self.sections.users(name) > 0 {
                        sections.insert(name, 0);
                    }
                }
            }
        }
        if broken.is_empty() && sections.is_empty() {
            return found;
        }
        for unit in self.units.values() {
            for name in unit.uses().names.iter() {
                let Some(count) = broken.get_mut(&**name) else { continue };
                *count += 1;
                if !is_removed(unit.id) {
                    found.uses.push((unit.use_of(name), unit.id));
                }
            }
            for section in unit.uses().sections.iter() {
                let Some(count) = sections.get_mut(&**section) else { continue };
                *count += 1;
                if !is_removed(unit.id) {
                    found.uses.push((unit.use_of_section(section), unit.id));
                }
            }
        }
        // The other users are being linked.
        let users = |name: &str| self.names.get(name).map_or(0, |known| known.users);
        found.pending |= broken.iter().any(|(name, count)| *count < users(name))
            || sections.iter().any(|(name, count)| *count < self.sections.users(name));
        found
    }

    /// Takes units out of the program: names, slots and sections no longer know them. If `users`,
    /// the units that use them go too, and those that use these, and so on.
    ///
    /// # Errors
    ///
    /// [`InUseError`] if others use the units; then nothing was removed.
    pub(crate) fn remove(
        &mut self,
        units: &[UnitId],
        users: bool,
        map: &Symbols,
    ) -> Result<Removal, InUseError> {
        let mut removed: HashSet<UnitId> =
            units.iter().copied().filter(|id| self.units.contains_key(id)).collect();
        loop {
            let Found { uses, pending } = self.uses_of(&removed);
            if uses.is_empty() && pending {
                return Ok(Removal::Wait);
            }
            if uses.is_empty() {
                break;
            }
            if !users {
                return Err(InUseError { uses: uses.into_iter().map(|(used, _)| used).collect() });
            }
            removed.extend(uses.into_iter().map(|(_, unit)| unit));
        }
        let mut removed: Vec<UnitId> = removed.into_iter().collect();
        removed.sort_unstable();
        let mut retired = Retired::default();
        let mut listed = Vec::new();
        for id in removed {
            let Some(info) = self.units.remove(&id) else { continue };
            let is_large = self.names.is_large(id);
            listed.push((is_large, self.forget(id, &info.artifacts, info.uses(), &mut retired)));
            if is_large {
                map.remove_large(id);
            }
            retired.units.push(info);
        }
        for (unit, (is_large, listed)) in retired.units.iter().zip(&listed) {
            let listed = listed.iter().map(|name| &**name);
            for name in listed.chain(entered_names(&unit.artifacts, *is_large)) {
                match self.names.get(name) {
                    Some(known) => {
                        let is_current = map.unit_of(name) == Some(unit.id);
                        if is_current || known.is_replaceable() {
                            publish(known, map);
                        }
                    }
                    None => map.remove(name),
                }
            }
        }
        Ok(Removal::Done(retired))
    }

    /// Whether a unit defines `name` for others.
    pub(crate) fn defines(&self, name: &str) -> bool {
        self.names.is_defined(name)
    }

    /// Takes everything out.
    pub(crate) fn drain(&mut self) -> Retired {
        // The newest first: unwinders find the last registration first.
        let units = std::mem::take(&mut self.units).into_values().rev();
        Retired {
            units: units.collect(),
            slots: self.slots.drain().collect(),
            indirections: self.names.drain().collect(),
        }
    }

    /// Returns the number of slots for things of the host.
    pub(crate) fn slot_count(&self) -> usize {
        self.slots.len()
    }
}

impl<'a> References<'a> {
    /// Adds a slot.
    fn slot(&mut self, kind: SlotKind, artifact: &'a Artifact, symbol: &SymbolRecord) {
        let name = artifact.name(symbol);
        let expected = symbol.signature().and_then(|index| artifact.signature(index));
        if self.is_new(kind, name) {
            self.seen.insert((kind, name), self.slots.len());
            self.slots.push((kind, name, expected));
            return;
        }
        let position = self.seen[&(kind, name)];
        let known = &mut self.slots[position].2;
        let conflict = |a: &str| expected.is_some_and(|b| !signatures_agree(a, b));
        if known.is_some_and(conflict) {
            *known = None;
        }
    }

    /// Adds a bound of a section.
    fn bound(&mut self, name: &'a str, section: &'a str, address: u64) {
        if self.is_new(SlotKind::Symbol, name) {
            self.bounds.push((name, section, address));
        }
    }

    /// Adds thread-local data of a base.
    fn thread_local(&mut self, name: &'a str, in_base: InBase) {
        if self.is_new(SlotKind::Symbol, name) {
            self.thread_locals.push((name, in_base));
        }
    }

    /// Whether this reference is found for the first time.
    fn is_new(&mut self, kind: SlotKind, name: &'a str) -> bool {
        match self.seen.entry((kind, name)) {
            Entry::Occupied(_) => false,
            Entry::Vacant(entry) => {
                entry.insert(0);
                true
            }
        }
    }
}

/// Returns of each symbol of a module whether code or data refers to it.
fn used_symbols(artifact: &Artifact) -> Vec<bool> {
    let mut used = vec![false; artifact.symbols().len()];
    let relocs = [artifact.text_relocs(), artifact.read_only_relocs(), artifact.writable_relocs()];
    relocs.into_iter().flatten().for_each(|reloc| used[reloc.symbol.get() as usize] = true);
    used
}

/// Makes the definition that is in force visible to lookups, and stores it in the slot.
fn publish(known: &Name, map: &Symbols) {
    let name = known.name();
    let Some(symbol) = known.published() else {
        map.remove(name);
        return;
    };
    if let Some(indirection) = &known.indirection {
        indirection.store(symbol.definition);
    }
    show(name.hash(), symbol.clone(), map);
}

/// Makes a definition visible to lookups, unless it is hidden. `hash` is that of its name.
fn show(hash: u64, symbol: Arc<Symbol>, map: &Symbols) {
    if symbol.linkage() == Linkage::Hidden {
        map.remove(symbol.name());
    } else {
        map.insert(hash, symbol);
    }
}

/// Returns a use of which the user is being linked.
fn unknown_use(name: &str) -> UseOf {
    let module = ModuleName { number: 0, name: "".into() };
    UseOf { name: name.into(), module, user: "".into() }
}
