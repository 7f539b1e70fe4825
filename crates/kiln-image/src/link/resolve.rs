//! Phase `resolve`: from names to definitions.
//!
//! Every local symbol, every visible name and every key of a global becomes one [`ResolvedSymbol`],
//! whose [`Resolution`] says where its address comes from. Names are hashed here and in no later
//! phase: afterwards everything is an index.
//!
//! Invariant: resolved symbols are numbered in order of module and symbol. The hash maps are only
//! looked up, never iterated, so their order cannot reach the result.
//!
//! *Weak.* `Linkage::Preemptible` is Cranelift's name for what ELF calls a weak definition
//! (`STB_WEAK`): any other definition of the name overrides it, be it a strong one of a module or
//! one outside the link. Of several weak definitions the first one is used.

use std::collections::HashMap;

use foldhash::fast::RandomState as FastHash;
use kiln_artifact::Artifact;
use kiln_artifact::record::{Linkage, SymbolKind, SymbolRecord};
use kiln_globals::{GlobalTable, SlotKey};

use super::error::LinkError;
use super::sections::{Bound, NamedSections};

/// The definition that a symbol or a global already has outside this link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExternalDefinition {
    /// The symbol's absolute address.
    Address(u64),
    /// The address of an existing slot, which holds the symbol's address or will hold it before the
    /// code runs.
    Slot(u64),
}

/// Where the address of a symbol comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolution {
    /// Symbol `symbol` of module `module` defines it.
    Defined { module: u32, symbol: u32 },
    /// It is a bound of the named section with this number.
    SectionBound { section: u32, bound: Bound },
    /// Its absolute address was known before the link.
    KnownAddress(u64),
    /// The address of a slot that holds its address was known before the link.
    KnownSlot(u64),
    /// Nothing defines it. Code reaches it through an external slot of this link.
    Undefined,
}

impl From<ExternalDefinition> for Resolution {
    fn from(definition: ExternalDefinition) -> Self {
        match definition {
            ExternalDefinition::Address(address) => Self::KnownAddress(address),
            ExternalDefinition::Slot(address) => Self::KnownSlot(address),
        }
    }
}

/// The number of a resolved symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ResolvedId(u32);

impl ResolvedId {
    pub(super) fn at(index: usize) -> Self {
        Self(index as u32)
    }

    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A symbol after resolution: one for all modules that mean the same thing by it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResolvedSymbol {
    pub(super) resolution: Resolution,
    /// The module of a symbol record that has its name: its definition or its first use.
    pub(super) module: u32,
    /// The number of that symbol record.
    pub(super) symbol: u32,
}

/// All resolved symbols, and which of them each symbol of each module is.
pub(super) struct SymbolTable {
    symbols: Vec<ResolvedSymbol>,
    by_module: Vec<Vec<ResolvedId>>,
}

impl SymbolTable {
    /// The number of resolved symbols.
    pub(super) fn len(&self) -> usize {
        self.symbols.len()
    }

    /// All resolved symbols, in order of their numbers.
    pub(super) fn symbols(&self) -> &[ResolvedSymbol] {
        &self.symbols
    }

    /// The resolved symbols of a module's symbols, in order of these.
    pub(super) fn of_module(&self, module: usize) -> &[ResolvedId] {
        &self.by_module[module]
    }

    /// Where the address of a resolved symbol comes from.
    pub(super) fn resolution(&self, id: ResolvedId) -> Resolution {
        self.symbols[id.index()].resolution
    }

    /// The name or key of a resolved symbol.
    pub(super) fn name<'a>(&self, artifacts: &'a [Artifact], id: ResolvedId) -> &'a str {
        let ResolvedSymbol { module, symbol, .. } = self.symbols[id.index()];
        let artifact = &artifacts[module as usize];
        artifact.name(&artifact.symbols()[symbol as usize])
    }
}

/// A global that has an external slot.
pub(super) struct GlobalSlot {
    pub(super) key: SlotKey,
    /// The symbol that is reached through the slot. `None` if no module uses the global, or if its
    /// definition outside the link is used instead.
    pub(super) symbol: Option<ResolvedId>,
}

/// The result of the phase.
pub(super) struct Resolved<'a> {
    pub(super) symbols: SymbolTable,
    pub(super) sections: NamedSections<'a>,
    /// The globals that have a slot, in order of slots: those of the table, then others by first
    /// use.
    pub(super) global_slots: Vec<GlobalSlot>,
}

/// Resolves all symbols. `external` tells the definitions outside the link, and is called once for
/// each global, each undefined symbol and each weak definition.
pub(super) fn resolve<'a>(
    artifacts: &'a [Artifact],
    table: &GlobalTable,
    external: &dyn Fn(&SlotKey) -> Option<ExternalDefinition>,
    errors: &mut Vec<LinkError>,
) -> Resolved<'a> {
    let mut sections = NamedSections::collect(artifacts, errors);

    // Inside the link: symbols of one name become one resolved symbol.
    let mut resolver = Resolver::new(artifacts, table, external);
    let mut by_module = Vec::with_capacity(artifacts.len());
    for (module, artifact) in artifacts.iter().enumerate() {
        let symbols = artifact.symbols().iter().enumerate();
        let resolved = symbols.map(|(number, symbol)| resolver.add(module, number, symbol, errors));
        by_module.push(resolved.collect());
    }
    let Resolver { mut symbols, global_slots, .. } = resolver;

    // Outside the link, and bounds of sections: for symbols without a strong definition.
    resolve_outside(artifacts, external, &mut sections, &mut symbols);
    Resolved { symbols: SymbolTable { symbols, by_module }, sections, global_slots }
}

/// Names and keys met so far.
struct Resolver<'a, 'e> {
    artifacts: &'a [Artifact],
    table: &'e GlobalTable,
    external: &'e dyn Fn(&SlotKey) -> Option<ExternalDefinition>,
    symbols: Vec<ResolvedSymbol>,
    names: HashMap<&'a str, ResolvedId, FastHash>,
    /// Routines that the code generator calls are the C library's, whatever modules define under
    /// such a name; so they have names of their own.
    libcalls: HashMap<&'a str, ResolvedId, FastHash>,
    globals: HashMap<&'a str, ResolvedId, FastHash>,
    global_slots: Vec<GlobalSlot>,
}

impl<'a, 'e> Resolver<'a, 'e> {
    fn new(
        artifacts: &'a [Artifact],
        table: &'e GlobalTable,
        external: &'e dyn Fn(&SlotKey) -> Option<ExternalDefinition>,
    ) -> Self {
        let count = artifacts.iter().map(|artifact| artifact.symbols().len()).sum();
        let slots = table.keys().map(|key| GlobalSlot { key: SlotKey::Global(key.into()), symbol: None });
        Self {
            artifacts,
            table,
            external,
            symbols: Vec::new(),
            names: HashMap::with_capacity_and_hasher(count, FastHash::default()),
            libcalls: HashMap::default(),
            globals: HashMap::default(),
            global_slots: slots.collect(),
        }
    }

    /// The resolved symbol of symbol `number` of module `module`.
    fn add(
        &mut self,
        module: usize,
        number: usize,
        symbol: &SymbolRecord,
        errors: &mut Vec<LinkError>,
    ) -> ResolvedId {
        let artifact = &self.artifacts[module];
        let (module, number) = (module as u32, number as u32);
        let resolution = if symbol.is_defined() {
            Resolution::Defined { module, symbol: number }
        } else {
            Resolution::Undefined
        };
        let resolved = ResolvedSymbol { resolution, module, symbol: number };
        if symbol.linkage() == Linkage::Local {
            self.symbols.push(resolved);
            return ResolvedId(self.symbols.len() as u32 - 1);
        }
        let name = artifact.name(symbol);
        if symbol.kind() == SymbolKind::Global {
            self.add_global(name, resolved)
        } else {
            self.add_name(name, symbol, resolved, errors)
        }
    }

    fn add_global(&mut self, key: &'a str, mut resolved: ResolvedSymbol) -> ResolvedId {
        let next = ResolvedId(self.symbols.len() as u32);
        let id = *self.globals.entry(key).or_insert(next);
        if id != next {
            return id;
        }
        let slot_key = SlotKey::Global(key.into());
        resolved.resolution = (self.external)(&slot_key).map_or(Resolution::Undefined, Resolution::from);
        self.symbols.push(resolved);
        if resolved.resolution == Resolution::Undefined {
            match self.table.get(key) {
                Some(global) => self.global_slots[global.index()].symbol = Some(id),
                None => self.global_slots.push(GlobalSlot { key: slot_key, symbol: Some(id) }),
            }
        }
        id
    }

    fn add_name(
        &mut self,
        name: &'a str,
        symbol: &SymbolRecord,
        resolved: ResolvedSymbol,
        errors: &mut Vec<LinkError>,
    ) -> ResolvedId {
        let module = resolved.module as usize;
        if name.contains('\0') {
            errors.push(LinkError::NameWithZero { module, name: name.into() });
        }
        let next = ResolvedId(self.symbols.len() as u32);
        let names = if symbol.libcall == 0 { &mut self.names } else { &mut self.libcalls };
        let id = *names.entry(name).or_insert(next);
        if id == next {
            self.symbols.push(resolved);
            return id;
        }
        // The name was met before: a strong definition overrides a use and a weak definition, a
        // weak one overrides only a use.
        if !symbol.is_defined() {
            return id;
        }
        let before = &mut self.symbols[id.index()];
        if let Resolution::Defined { module: first, symbol: first_symbol } = before.resolution {
            let is_weak = |symbol: &SymbolRecord| symbol.linkage() == Linkage::Preemptible;
            if is_weak(symbol) {
                return id;
            }
            let first = first as usize;
            if !is_weak(&self.artifacts[first].symbols()[first_symbol as usize]) {
                errors.push(LinkError::DuplicateDefinition { name: name.into(), first, second: module });
                return id;
            }
        }
        *before = resolved;
        id
    }
}

/// Gives symbols that are undefined or weak their definition outside the link; then undefined ones
/// the bound of a named section. Globals have theirs already.
fn resolve_outside(
    artifacts: &[Artifact],
    external: &dyn Fn(&SlotKey) -> Option<ExternalDefinition>,
    sections: &mut NamedSections<'_>,
    symbols: &mut [ResolvedSymbol],
) {
    for resolved in symbols {
        let artifact = &artifacts[resolved.module as usize];
        let symbol = &artifact.symbols()[resolved.symbol as usize];
        if symbol.kind() == SymbolKind::Global {
            continue;
        }
        let is_libcall = symbol.libcall != 0;
        if resolved.resolution == Resolution::Undefined || symbol.linkage() == Linkage::Preemptible {
            match external(&SlotKey::Symbol(artifact.name(symbol).into())) {
                // Again: what a client defines under the name of a libcall is not that libcall.
                Some(ExternalDefinition::Address(_)) if is_libcall => {}
                Some(definition) => resolved.resolution = definition.into(),
                None => {}
            }
        }
        if resolved.resolution == Resolution::Undefined
            && !is_libcall
            && let Some((section, bound)) = sections.use_bound(artifact.name(symbol))
        {
            resolved.resolution = Resolution::SectionBound { section, bound };
        }
    }
}
