//! Phase `resolve`: finds the definition of each name.
//!
//! Every local symbol, every visible name and every key of a global becomes one [`ResolvedSymbol`].
//! Its [`Resolution`] is the source of its address. Names are hashed here, and in
//! [`Definitions`], and in no later phase: afterwards symbols are indices.
//!
//! *Weak definitions.* `Linkage::Preemptible` is Cranelift's name for a definition that ELF calls
//! weak (`STB_WEAK`): a strong definition of the name in a module overrides it, and so does a
//! definition outside the link. The first of several weak definitions is used.
//!
//! *Replaceable functions.* The last of several definitions is in force, so a program in which a
//! function was replaced is the link of its modules in order. Either all definitions of a name are
//! replaceable or none: else one of them would promise what another cannot keep. A replaceable
//! function has a slot, through which every call goes and whose content is the address of the code
//! in force, and a stub that jumps through the slot. The address of the function is that of the
//! stub, wherever it is taken; so addresses that were taken before the function is replaced remain
//! valid, and are equal to those that are taken later.
//!
//! Invariant: resolved symbols are numbered in order of module and symbol. Code looks names up in
//! the hash maps but never iterates over these, so their order has no effect on the result.

use std::collections::HashMap;

use foldhash::fast::RandomState as FastHash;
use kiln_artifact::record::{Linkage, SymbolKind, SymbolRecord};
use kiln_artifact::{Artifact, Table};
use kiln_globals::{GlobalTable, KeyRef, SlotKey};

use super::definitions::{Definitions, Place, SymbolNumbers, is_shared_definition};
use super::error::LinkError;
use super::lists::{PerModule, PerSymbol};
use super::sections::{Bound, NamedSections};
use crate::base::SLOTS_SYMBOL;

/// The definition that a symbol or a global already has outside this link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExternalDefinition {
    /// The symbol's absolute address.
    Address(u64),
    /// The address of an existing slot, which holds the symbol's address or will hold it before the
    /// code runs. The slot can be that of a replaceable function for which this link has a new
    /// definition: then the new definition is called through it too. The caller stores the address
    /// of the new code.
    Slot(u64),
    /// A replaceable function, whose slot and stub exist. This link may use it, and may have a new
    /// definition of it, as with [`Slot`](Self::Slot).
    Replaceable {
        /// The address of the slot.
        slot: u64,
        /// The address of the stub, which is the function's address for everyone but callers.
        stub: u64,
    },
    /// A symbol of an image that the program is linked on. Code reaches it through a slot, as it
    /// does something of the host: the slot at this address, or an external slot of this link. If
    /// it is a replaceable function, this link may have new code for it, which is reached in no
    /// other way: see [`Plan::replacements`](super::Plan::replacements).
    Base {
        /// The address of a slot that holds its address, if there is one.
        slot: Option<u64>,
    },
}

/// The source of a symbol's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolution {
    /// Symbol `symbol` of module `module` defines it.
    Defined { module: u32, symbol: u32 },
    /// The symbol is a bound of the named section with this number.
    SectionBound { section: u32, bound: Bound },
    /// The symbol's absolute address was known before the link.
    KnownAddress(u64),
    /// The address of a slot that holds the symbol's address was known before the link.
    KnownSlot(u64),
    /// The symbol has no definition. Code reaches it through an external slot of this link.
    Undefined,
    /// The symbol is the replaceable function with this number.
    Replaceable(u32),
}

/// A replaceable function.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplaceableFunction {
    pub(super) id: ResolvedId,
    /// The module and the number of the definition in force, if this link has it.
    pub(super) definition: Option<(u32, u32)>,
    /// The address of the slot, if it was known before the link. Otherwise this link has a
    /// definition.
    pub(super) known_slot: Option<u64>,
    /// The address of the stub, if it was known before the link. Otherwise this link has a
    /// definition.
    pub(super) known_stub: Option<u64>,
}

/// The number of a resolved symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResolvedId(u32);

impl ResolvedId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A symbol after resolution. Visible symbols of several modules with the same name become one
/// resolved symbol.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResolvedSymbol {
    pub(super) resolution: Resolution,
    /// The number of the module that defines the symbol, or else of the first module that uses it.
    /// Its symbol record has the name.
    pub(super) module: u32,
    /// The number of that symbol record in the module.
    pub(super) symbol: u32,
}

/// All resolved symbols, and the mapping from the symbols of modules to them.
pub(super) struct SymbolTable {
    symbols: PerSymbol<ResolvedSymbol>,
    /// The resolved symbol of each symbol of each module, in order of modules.
    ids: PerSymbol<ResolvedId>,
    /// The end of each module's part of `ids`.
    ends: PerModule<u32>,
    replaceable: Vec<ReplaceableFunction>,
    /// The functions of bases that this link has new code for, with the module and the number of
    /// the definition in force, in order of their resolved symbols.
    replacements: Vec<(ResolvedId, Place)>,
}

impl SymbolTable {
    /// Returns the functions of bases that this link has new code for, and the places of the
    /// definitions in force.
    pub(super) fn replacements(&self) -> &[(ResolvedId, Place)] {
        &self.replacements
    }

    /// Returns the replaceable functions, in order of their resolved symbols.
    pub(super) fn replaceable(&self) -> &[ReplaceableFunction] {
        &self.replaceable
    }

    /// Returns the module and the number of the definition of a resolved symbol, if a module
    /// defines it.
    pub(super) fn definition(&self, id: ResolvedId) -> Option<(u32, u32)> {
        match self.resolution(id) {
            Resolution::Defined { module, symbol } => Some((module, symbol)),
            Resolution::Replaceable(number) => self.replaceable[number as usize].definition,
            _ => None,
        }
    }

    /// Returns the number of resolved symbols.
    pub(super) fn len(&self) -> usize {
        self.symbols.len()
    }

    /// Returns all resolved symbols, in order of their numbers.
    pub(super) fn symbols(&self) -> &[ResolvedSymbol] {
        &self.symbols
    }

    /// Returns the resolved symbol of each symbol of a module.
    pub(super) fn of_module(&self, module: usize) -> &[ResolvedId] {
        let start = module.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.ids[start as usize..self.ends[module] as usize]
    }

    /// Returns the source of the address of a resolved symbol.
    pub(super) fn resolution(&self, id: ResolvedId) -> Resolution {
        self.symbols[id.index()].resolution
    }

    /// Returns the name or key of a resolved symbol.
    pub(super) fn name<'a>(&self, artifacts: &'a [Artifact], id: ResolvedId) -> &'a str {
        let (artifact, symbol) = self.record(artifacts, id);
        artifact.name(symbol)
    }

    /// Returns the key of the external slot of a resolved symbol that is not a global.
    pub(super) fn slot_key(&self, artifacts: &[Artifact], id: ResolvedId) -> SlotKey {
        let (artifact, symbol) = self.record(artifacts, id);
        slot_key(artifact, symbol).to_key()
    }

    fn record<'a>(&self, artifacts: &'a [Artifact], id: ResolvedId) -> (&'a Artifact, &'a SymbolRecord) {
        let ResolvedSymbol { module, symbol, .. } = self.symbols[id.index()];
        let artifact = &artifacts[module as usize];
        (artifact, &artifact.symbols()[symbol as usize])
    }
}

/// Returns the key of the slot of a symbol that is not a global. A symbol and a routine of one name
/// have different keys, so no two slots of a program have the same key.
fn slot_key<'a>(artifact: &'a Artifact, symbol: &SymbolRecord) -> KeyRef<'a> {
    let name = artifact.name(symbol);
    if symbol.libcall == 0 { KeyRef::Symbol(name) } else { KeyRef::Routine(name) }
}

/// A global that has an external slot.
pub(super) struct GlobalSlot {
    pub(super) key: SlotKey,
    /// The symbol that code reaches through the slot. `None` if no module uses the global, or if it
    /// has a definition outside the link.
    pub(super) symbol: Option<ResolvedId>,
}

/// The result of the phase.
pub(super) struct Resolved<'a> {
    pub(super) symbols: SymbolTable,
    pub(super) sections: NamedSections<'a>,
    /// Whether no name has more than one definition in this link.
    pub(super) are_unique: bool,
    /// The globals that have a slot, in order of slots: first those of the table, then others in
    /// order of their first use.
    pub(super) global_slots: Vec<GlobalSlot>,
}

/// Resolves all symbols. `external` returns the definitions outside the link, and is called once
/// for each global, each undefined symbol, each weak definition and each replaceable function.
pub(super) fn resolve<'a>(
    artifacts: &'a [Artifact],
    definitions: &Definitions,
    table: &GlobalTable,
    external: &dyn Fn(KeyRef<'_>) -> Option<ExternalDefinition>,
    errors: &mut Vec<LinkError>,
) -> Resolved<'a> {
    #[cfg(feature = "tracing")]
    let _span = tracing::debug_span!("resolve").entered();
    let mut sections = NamedSections::collect(artifacts, errors);

    // Inside the link: symbols with one name become one resolved symbol.
    let mut resolver = Resolver::new(artifacts, definitions, table, external);
    let mut ends = PerModule::with_capacity(artifacts.len());
    for module in 0..artifacts.len() {
        resolver.add_module(module, errors);
        ends.push(resolver.ids.len() as u32);
    }
    errors.extend(resolver.conflicts());
    let Resolver { mut symbols, ids, open, mut global_slots, has_zero, .. } = resolver;
    // A global that a module defines needs no value from the host.
    let is_host = |slot: &GlobalSlot| {
        slot.symbol.is_none_or(|id| symbols[id.index()].resolution == Resolution::Undefined)
    };
    global_slots.retain(is_host);

    // Symbols without a strong definition: definitions outside the link, and bounds of sections.
    let (replaceable, replacements) =
        resolve_outside(artifacts, external, &mut sections, &open, &mut symbols);
    let zeros = if has_zero { &*open } else { &[] };
    for &id in zeros {
        let ResolvedSymbol { resolution, module, symbol } = symbols[id.index()];
        let artifact = &artifacts[module as usize];
        let name = artifact.name(&artifact.symbols()[symbol as usize]);
        if resolution == Resolution::Undefined && name.contains('\0') {
            errors.push(LinkError::NameWithZero { module: module as usize, name: name.into() });
        }
    }
    let are_unique = definitions.are_unique();
    let symbols = SymbolTable { symbols, ids, ends, replaceable, replacements };
    Resolved { symbols, sections, are_unique, global_slots }
}

/// The state of the resolver: the symbols, names and keys found so far.
struct Resolver<'a, 'e> {
    artifacts: &'a [Artifact],
    table: &'e GlobalTable,
    external: &'e dyn Fn(KeyRef<'_>) -> Option<ExternalDefinition>,
    symbols: PerSymbol<ResolvedSymbol>,
    ids: PerSymbol<ResolvedId>,
    /// Whether a name or another string contains a zero byte.
    has_zero: bool,
    /// The resolved symbols that may have a definition outside the link, in order.
    open: Vec<ResolvedId>,
    /// The resolved symbols of definitions, if no name is defined twice.
    unique: Option<UniqueDefinitions<'e>>,
    /// The other names.
    names: HashMap<&'a str, ResolvedId, FastHash>,
    /// The routines that the code generator calls. They are kept apart from `names`, because they
    /// mean routines of the C library even if a module defines something else under the same name.
    libcalls: HashMap<&'a str, ResolvedId, FastHash>,
    globals: HashMap<&'a str, ResolvedId, FastHash>,
    global_slots: Vec<GlobalSlot>,
    has_defined_globals: bool,
}

/// The resolved symbols of definitions whose names differ. To resolve a definition then takes no
/// hashing.
struct UniqueDefinitions<'e> {
    definitions: &'e Definitions,
    numbers: SymbolNumbers,
    /// The resolved symbol of each of these symbols, once it or a use of it was seen.
    ids: PerSymbol<Option<ResolvedId>>,
}

impl<'e> UniqueDefinitions<'e> {
    fn new(artifacts: &[Artifact], definitions: &'e Definitions) -> Self {
        let numbers = SymbolNumbers::new(artifacts);
        let ids = PerSymbol::from_elem(None, numbers.len());
        Self { definitions, numbers, ids }
    }

    /// Returns the resolved symbol of the definition at a place, which is `next` if it is seen for
    /// the first time.
    fn id(&mut self, place: Place, next: ResolvedId) -> ResolvedId {
        *self.ids[self.numbers.of(place)].get_or_insert(next)
    }
}

impl<'a, 'e> Resolver<'a, 'e> {
    fn new(
        artifacts: &'a [Artifact],
        definitions: &'e Definitions,
        table: &'e GlobalTable,
        external: &'e dyn Fn(KeyRef<'_>) -> Option<ExternalDefinition>,
    ) -> Self {
        let count = artifacts.iter().map(|artifact| artifact.symbols().len()).sum();
        let slots = table.keys().map(|key| GlobalSlot { key: SlotKey::Global(key.into()), symbol: None });
        Self {
            artifacts,
            table,
            external,
            symbols: PerSymbol::with_capacity(count),
            ids: PerSymbol::with_capacity(count),
            has_zero: false,
            open: Vec::new(),
            names: HashMap::default(),
            unique: definitions.are_unique().then(|| UniqueDefinitions::new(artifacts, definitions)),
            libcalls: HashMap::default(),
            globals: HashMap::default(),
            global_slots: slots.collect(),
            has_defined_globals: false,
        }
    }

    /// Adds the resolved symbol of each symbol of a module.
    fn add_module(&mut self, module: usize, errors: &mut Vec<LinkError>) {
        let artifact = &self.artifacts[module];
        let has_zero = memchr::memchr(0, artifact.table_bytes(Table::Strings)).is_some();
        self.has_zero |= has_zero;
        for (number, symbol) in artifact.symbols().iter().enumerate() {
            let next = ResolvedId(self.symbols.len() as u32);
            let (module, number) = (module as u32, number as u32);
            let resolution = Resolution::Defined { module, symbol: number };
            let definition = ResolvedSymbol { resolution, module, symbol: number };
            if symbol.linkage() == Linkage::Local {
                self.symbols.push(definition);
                self.ids.push(next);
                continue;
            }
            let is_global = symbol.kind() == SymbolKind::Global;
            let is_strong = matches!(symbol.linkage(), Linkage::Export | Linkage::Hidden);
            // Most symbols are the only definition of their name. Then nothing is compared.
            if let Some(unique) = &mut self.unique
                && is_strong
                && is_shared_definition(symbol)
                && !has_zero
                && artifact.name_bytes(symbol) != SLOTS_SYMBOL.as_bytes()
                && unique.id((module, number), next) == next
            {
                self.symbols.push(definition);
                self.ids.push(next);
                continue;
            }
            let name = artifact.name(symbol);
            let id = match (is_global, symbol.libcall) {
                (true, _) => *self.globals.entry(name).or_insert(next),
                (false, 0) => self.visible(module, number, symbol, name, next),
                (false, _) => *self.libcalls.entry(name).or_insert(next),
            };
            self.ids.push(id);
            if id == next {
                self.symbols.push(ResolvedSymbol { resolution: Resolution::Undefined, ..definition });
            }
            if is_global {
                if id == next {
                    self.resolve_global(name, id);
                }
                if symbol.is_defined() {
                    self.has_defined_globals = true;
                    errors.extend(self.define_global(id, definition, has_zero));
                }
                continue;
            }
            if id == next && !is_strong {
                self.open.push(id);
            }
            if name == SLOTS_SYMBOL {
                errors.push(LinkError::ReservedName { module: module as usize, name: name.into() });
            }
            // A hidden name is in no table of an ELF file; an import may mean one. Nor is that of a
            // private function with several bodies, which begins with a zero.
            let is_hidden = match symbol.linkage() {
                Linkage::Hidden | Linkage::Import => true,
                linkage => linkage == Linkage::Replaceable && name.starts_with('\0'),
            };
            if has_zero && !is_hidden && name.as_bytes().contains(&0) {
                errors.push(LinkError::NameWithZero { module: module as usize, name: name.into() });
            }
            if symbol.is_defined()
                && let Err(error) = self.define(id, definition)
            {
                errors.push(error);
            }
        }
    }

    /// Returns the resolved symbol of a name that modules share: `next` if the name is seen
    /// for the first time.
    fn visible(
        &mut self,
        module: u32,
        number: u32,
        symbol: &SymbolRecord,
        name: &'a str,
        next: ResolvedId,
    ) -> ResolvedId {
        if let Some(unique) = &mut self.unique {
            if symbol.is_defined() {
                return unique.id((module, number), next);
            }
            if let Some(place) = unique.definitions.find(self.artifacts, name) {
                return unique.id(place, next);
            }
        }
        *self.names.entry(name).or_insert(next)
    }

    /// Resolves a global at its first use.
    fn resolve_global(&mut self, key: &str, id: ResolvedId) {
        let external = (self.external)(KeyRef::Global(key));
        // Without a slot outside it has one of this link.
        if let Some(definition) = external.filter(|found| *found != ExternalDefinition::Base { slot: None }) {
            self.symbols[id.index()].resolution = match definition {
                ExternalDefinition::Address(address) => Resolution::KnownAddress(address),
                ExternalDefinition::Slot(slot) | ExternalDefinition::Base { slot: Some(slot) } => {
                    Resolution::KnownSlot(slot)
                }
                ExternalDefinition::Base { slot: None } => return,
                // A run-time object is not replaceable: its address is that of the stub.
                ExternalDefinition::Replaceable { stub, .. } => Resolution::KnownAddress(stub),
            };
            return;
        }
        match self.table.get(key) {
            Some(global) => self.global_slots[global.index()].symbol = Some(id),
            None => {
                let key = SlotKey::Global(key.into());
                self.global_slots.push(GlobalSlot { key, symbol: Some(id) });
            }
        }
    }

    /// Finds names that a module exports and that are also keys of globals that a module defines:
    /// an image has one table of names.
    fn conflicts(&self) -> Vec<LinkError> {
        let mut errors = Vec::new();
        if !self.has_defined_globals {
            return errors;
        }
        let mut keys: HashMap<&str, u32, FastHash> = HashMap::default();
        let symbols = |module: usize| {
            let artifact = &self.artifacts[module];
            artifact.symbols().iter().map(move |symbol| (symbol, artifact.name(symbol)))
        };
        for module in 0..self.artifacts.len() {
            let defined = symbols(module).filter(|(symbol, _)| symbol.kind() == SymbolKind::Global);
            for (_, key) in defined.filter(|(symbol, _)| symbol.is_defined()) {
                keys.insert(key, module as u32);
            }
        }
        for second in 0..self.artifacts.len() {
            let exports = symbols(second)
                .filter(|(symbol, _)| is_shared_definition(symbol) && symbol.linkage() != Linkage::Hidden);
            for (name, first) in exports.filter_map(|(_, name)| Some((name, *keys.get(name)?))) {
                let (name, first) = (name.into(), first as usize);
                errors.push(LinkError::DuplicateDefinition { name, first, second });
            }
        }
        errors
    }

    /// Resolves a global to the data that is it, in a module of a saved heap. Images export it
    /// under its key.
    fn define_global(
        &mut self,
        id: ResolvedId,
        definition: ResolvedSymbol,
        has_zero: bool,
    ) -> Option<LinkError> {
        let artifact = &self.artifacts[definition.module as usize];
        let name = artifact.name(&artifact.symbols()[definition.symbol as usize]);
        let module = definition.module as usize;
        if name == SLOTS_SYMBOL {
            return Some(LinkError::ReservedName { module, name: name.into() });
        }
        if has_zero && name.contains('\0') {
            return Some(LinkError::NameWithZero { module, name: name.into() });
        }
        self.define(id, definition).err()
    }

    /// Resolves a symbol to a definition. A strong definition overrides a weak definition; a weak
    /// definition overrides nothing. A replaceable definition replaces that of an earlier module.
    fn define(&mut self, id: ResolvedId, definition: ResolvedSymbol) -> Result<(), LinkError> {
        let record = |resolved: ResolvedSymbol| {
            let artifact = &self.artifacts[resolved.module as usize];
            (artifact, &artifact.symbols()[resolved.symbol as usize])
        };
        let before = self.symbols[id.index()];
        if before.resolution != Resolution::Undefined {
            let (artifact, symbol) = record(definition);
            let (first, second) = (before.module as usize, definition.module as usize);
            let name = || artifact.name(symbol).into();
            match (record(before).1.linkage(), symbol.linkage()) {
                (Linkage::Replaceable, Linkage::Replaceable) if first != second => {}
                (Linkage::Replaceable, Linkage::Replaceable) => {
                    return Err(LinkError::DuplicateDefinition { name: name(), first, second });
                }
                (Linkage::Replaceable, _) => {
                    let (replaceable, other) = (first, second);
                    return Err(LinkError::ReplaceableConflict { name: name(), replaceable, other });
                }
                (_, Linkage::Replaceable) => {
                    let (replaceable, other) = (second, first);
                    return Err(LinkError::ReplaceableConflict { name: name(), replaceable, other });
                }
                (_, Linkage::Preemptible) => return Ok(()),
                (Linkage::Preemptible, _) => {}
                _ => return Err(LinkError::DuplicateDefinition { name: name(), first, second }),
            }
        }
        self.symbols[id.index()] = definition;
        Ok(())
    }
}

/// Resolves undefined symbols and weak definitions to definitions outside the link. Symbols that
/// are still undefined are then resolved to bounds of named sections. Globals are already resolved.
/// Returns the replaceable functions, which may have a slot outside, and the new code for functions
/// of bases.
fn resolve_outside(
    artifacts: &[Artifact],
    external: &dyn Fn(KeyRef<'_>) -> Option<ExternalDefinition>,
    sections: &mut NamedSections<'_>,
    open: &[ResolvedId],
    symbols: &mut [ResolvedSymbol],
) -> (Vec<ReplaceableFunction>, Vec<(ResolvedId, Place)>) {
    let (mut replaceable, mut replacements) = (Vec::new(), Vec::new());
    for &id in open {
        let resolved = &mut symbols[id.index()];
        let artifact = &artifacts[resolved.module as usize];
        let symbol = &artifact.symbols()[resolved.symbol as usize];
        let definition = match (resolved.resolution, symbol.linkage()) {
            (Resolution::Defined { module, symbol }, Linkage::Replaceable) => Some((module, symbol)),
            _ => None,
        };
        let is_open =
            resolved.resolution == Resolution::Undefined || symbol.linkage() == Linkage::Preemptible;
        if is_open || definition.is_some() {
            let mut add = |known_slot, known_stub| {
                replaceable.push(ReplaceableFunction { id, definition, known_slot, known_stub });
                Resolution::Replaceable(replaceable.len() as u32 - 1)
            };
            use ExternalDefinition::{Address, Base, Replaceable, Slot};
            match (external(slot_key(artifact, symbol)), definition) {
                (Some(Replaceable { slot, stub }), _) => resolved.resolution = add(Some(slot), Some(stub)),
                (Some(Slot(slot)), Some(_)) => resolved.resolution = add(Some(slot), None),
                (Some(Slot(slot)), None) => resolved.resolution = Resolution::KnownSlot(slot),
                (Some(Address(address)), None) => resolved.resolution = Resolution::KnownAddress(address),
                (Some(Base { slot }), definition) => {
                    replacements.extend(definition.map(|place| (id, place)));
                    resolved.resolution = slot.map_or(Resolution::Undefined, Resolution::KnownSlot);
                    // No bound of a section, whatever its name.
                    continue;
                }
                (Some(Address(_)) | None, Some(_)) => resolved.resolution = add(None, None),
                (None, None) => {}
            }
        }
        if resolved.resolution == Resolution::Undefined
            && symbol.libcall == 0
            && let Some((section, bound)) = sections.use_bound(artifact.name(symbol))
        {
            resolved.resolution = Resolution::SectionBound { section, bound };
        }
    }
    (replaceable, replacements)
}
