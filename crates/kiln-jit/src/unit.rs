//! Units: what was linked at once, and is removed at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use kiln_artifact::Artifact;
use kiln_artifact::record::{Linkage, SectionKind, SymbolKind, SymbolRecord};
use kiln_globals::SlotKey;
use kiln_image::ThreadLocals;
use kiln_image::dwarf::Code;
use kiln_image::link::{Addresses, Plan, section_bound};
use smallvec::SmallVec;

use crate::batch::{SlotKind, slot_kind};
use crate::blocks::{Blocks, OwnedBlocks};
use crate::counters::Counters;
use crate::error::{ModuleName, UseOf};
use crate::observed::Observed;
use crate::users::{ModuleNames, copy_user_of, user_of};

/// The number of a unit. Numbers are in order of linking and are never used again.
pub(crate) type UnitId = u64;

/// A handle of modules that were linked at once, and that are removed at once.
///
/// It is cheap to clone. Dropping it removes nothing: see [`Jit::remove`](crate::Jit::remove). The
/// addresses that it returns are valid until the unit is removed, or its [`Jit`](crate::Jit) is
/// dropped; a [`Guard`](crate::Guard) delays the end.
#[derive(Clone, Debug)]
pub struct Unit(pub(crate) Arc<UnitInfo>);

impl PartialEq for Unit {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Unit {}

/// The part that a unit plays in the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// It is the program's code, in memory and in images.
    #[default]
    Program,
    /// It is code of the program that a better version replaces. It is in no image, and goes when
    /// all its functions are replaced, as code of the program does.
    Tier,
    /// It makes code when it is called, and is in no image. It stays in memory when its functions
    /// are replaced, because a thread may be waiting in it that knows of no replacement.
    StandIn,
}

/// A function or data object of a unit, in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defined<'u> {
    /// The position of its module in the unit.
    pub module: usize,
    /// The number of its symbol in the module.
    pub symbol: usize,
    /// Its name; empty if it is anonymous.
    pub name: &'u str,
    /// Whether it is a function or data.
    pub kind: SymbolKind,
    /// The address of its first byte.
    pub address: *const u8,
    /// Its size in bytes.
    pub size: usize,
}

/// A unit that is in memory.
#[derive(Debug)]
pub(crate) struct UnitInfo {
    pub(crate) id: UnitId,
    pub(crate) role: Role,
    /// The number of the unit's first module among all modules that were ever linked.
    pub(crate) first_module: usize,
    pub(crate) artifacts: Arc<[Artifact]>,
    pub(crate) names: ModuleNames,
    places: SmallVec<[Place; 1]>,
    pub(crate) blocks: OwnedBlocks,
    /// The entries that count calls.
    pub(crate) counters: Option<Box<Counters>>,
    /// Whether its memory was freed.
    pub(crate) is_freed: AtomicBool,
    /// Taken out when the unit is freed.
    pub(crate) observed: Mutex<Option<Observed>>,
    /// Taken out when the unit is freed, too.
    pub(crate) thread_locals: Option<Box<Mutex<Option<ThreadLocals>>>>,
    /// Set when it is published, unless it uses nothing.
    uses: OnceLock<Box<Uses>>,
}

/// The parts of a unit that are known before it is linked.
pub(crate) struct Identity {
    pub(crate) id: UnitId,
    pub(crate) role: Role,
    pub(crate) first_module: usize,
    pub(crate) names: ModuleNames,
}

/// The memory that a unit owns.
pub(crate) struct UnitMemory {
    pub(crate) blocks: Blocks,
    pub(crate) counters: Option<Box<Counters>>,
    pub(crate) observed: Observed,
    pub(crate) thread_locals: Option<ThreadLocals>,
}

/// The definitions of others that a unit uses. Each name and key is listed once.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    /// Definitions in other units, by name.
    pub(crate) names: Vec<Arc<str>>,
    pub(crate) slots: Vec<(SlotKind, Arc<str>)>,
    /// Slots whose values are copied into its data.
    pub(crate) copies: Vec<(SlotKind, Arc<str>)>,
    /// Sections whose bounds it uses.
    pub(crate) sections: Vec<Box<str>>,
}

impl Uses {
    const NONE: Self =
        Self { names: Vec::new(), slots: Vec::new(), copies: Vec::new(), sections: Vec::new() };

    fn is_empty(&self) -> bool {
        let Self { names, slots, copies, sections } = self;
        names.is_empty() && slots.is_empty() && copies.is_empty() && sections.is_empty()
    }
}

/// The addresses of one module's sections.
#[derive(Debug)]
struct Place {
    text: u64,
    read_only: u64,
    writable: u64,
    zeroed: u64,
    /// The address of each run of named data.
    runs: Box<[u64]>,
}

impl Place {
    fn new(plan: &Plan<'_>, module: usize, artifact: &Artifact, addresses: &Addresses) -> Self {
        let at = |section, offset| {
            let located = plan.locate(module, section, offset);
            located.map_or(0, |(area, offset)| addresses[area] + offset)
        };
        let runs = artifact.named_data().iter().map(|run| at(run.section(), run.start.get()));
        Self {
            text: at(SectionKind::Text, 0),
            read_only: at(SectionKind::ReadOnly, 0),
            writable: at(SectionKind::Writable, 0),
            zeroed: at(SectionKind::Zeroed, 0),
            runs: runs.collect(),
        }
    }

    /// Returns the address of the byte at `offset` of a section.
    fn address(&self, artifact: &Artifact, section: SectionKind, offset: u64) -> u64 {
        match artifact.named_data_at(section, offset) {
            Some(run) => self.runs[run] + (offset - artifact.named_data()[run].start.get()),
            None => match section {
                SectionKind::Text => self.text + offset,
                SectionKind::ReadOnly => self.read_only + offset,
                SectionKind::Writable => self.writable + offset,
                SectionKind::Zeroed | SectionKind::Undefined => self.zeroed + offset,
            },
        }
    }
}

impl UnitInfo {
    pub(crate) fn new(
        identity: Identity,
        artifacts: Arc<[Artifact]>,
        plan: &Plan<'_>,
        memory: UnitMemory,
    ) -> Self {
        let Identity { id, role, first_module, names } = identity;
        let UnitMemory { blocks, counters, observed, thread_locals } = memory;
        let places = artifacts.iter().enumerate();
        let places =
            places.map(|(module, artifact)| Place::new(plan, module, artifact, &blocks.addresses)).collect();
        Self {
            id,
            role,
            first_module,
            artifacts,
            names,
            places,
            blocks: blocks.owned,
            counters,
            is_freed: AtomicBool::new(false),
            observed: Mutex::new(Some(observed)),
            thread_locals: thread_locals.map(|locals| Box::new(Mutex::new(Some(locals)))),
            uses: OnceLock::new(),
        }
    }

    /// Sets the definitions of others that the unit uses, once.
    pub(crate) fn set_uses(&self, uses: Uses) {
        if !uses.is_empty() {
            let _ = self.uses.set(Box::new(uses));
        }
    }

    /// Returns the definitions of others that the unit uses.
    pub(crate) fn uses(&self) -> &Uses {
        static NONE: Uses = Uses::NONE;
        self.uses.get().map_or(&NONE, |uses| uses)
    }

    /// Returns the modules, and where their code is, for debug information.
    pub(crate) fn code(&self) -> impl Iterator<Item = Code<'_>> {
        let modules = self.artifacts.iter().zip(&self.places);
        modules.map(|(artifact, place)| Code { artifact, address: place.text })
    }

    /// Returns the address of the byte at `offset` of a section of a module.
    pub(crate) fn section_address(&self, module: usize, section: SectionKind, offset: u64) -> u64 {
        self.places[module].address(&self.artifacts[module], section, offset)
    }

    /// Returns the address of a symbol that a module of the unit defines.
    pub(crate) fn address(&self, module: usize, symbol: usize) -> Option<u64> {
        let artifact = self.artifacts.get(module)?;
        let record = artifact.symbols().get(symbol).filter(|record| record.is_defined())?;
        Some(self.places[module].address(artifact, record.section(), record.offset.get()))
    }
}

impl UnitInfo {
    /// Returns the first use of `name` in the unit.
    pub(crate) fn use_of(&self, name: &str) -> UseOf {
        let modules = self.artifacts.iter().enumerate();
        let is_meant = |symbol: &SymbolRecord| symbol.linkage() != Linkage::Local;
        let mut users =
            modules.filter_map(|(module, artifact)| Some((module, user_of(artifact, name, &is_meant)?)));
        let (module, user) = users.next().unwrap_or_default();
        UseOf { name: name.into(), module: self.module(module), user: user.into() }
    }

    /// Returns the first function or data object of the unit that has the value of a slot.
    pub(crate) fn use_of_copy(&self, kind: SlotKind, name: &str) -> UseOf {
        let modules = self.artifacts.iter().enumerate();
        let is_meant = |symbol: &SymbolRecord| slot_kind(symbol) == Some(kind);
        let mut users =
            modules.filter_map(|(module, artifact)| Some((module, copy_user_of(artifact, name, &is_meant)?)));
        let (module, user) = users.next().unwrap_or_default();
        UseOf { name: name.into(), module: self.module(module), user: user.into() }
    }

    /// Returns the first use of a bound of `section` in the unit.
    pub(crate) fn use_of_section(&self, section: &str) -> UseOf {
        let names = self
            .artifacts
            .iter()
            .flat_map(|artifact| artifact.symbols().iter().map(move |symbol| artifact.name(symbol)));
        let mut bounds = names.filter(|name| section_bound(name).is_some_and(|(_, of)| of == section));
        self.use_of(bounds.next().unwrap_or(section))
    }

    /// Returns a module of the unit as errors name it.
    pub(crate) fn module(&self, module: usize) -> ModuleName {
        ModuleName { number: self.first_module + module, name: self.names.get(module).into() }
    }
}

impl Unit {
    /// Returns the part that the unit plays.
    pub fn role(&self) -> Role {
        self.0.role
    }

    /// Whether the unit was removed, and no guard from before is left: no thread is in its code any
    /// more, and its memory was freed.
    pub fn is_freed(&self) -> bool {
        self.0.is_freed.load(Ordering::Acquire)
    }

    /// Returns the number of modules.
    pub fn len(&self) -> usize {
        self.0.artifacts.len()
    }

    /// Whether the unit has no modules.
    pub fn is_empty(&self) -> bool {
        self.0.artifacts.is_empty()
    }

    /// Returns the name of a module; empty if it is not known, or if there is no such module.
    pub fn module_name(&self, module: usize) -> &str {
        self.0.names.get(module)
    }

    /// Returns the artifacts of the modules, in order.
    pub fn artifacts(&self) -> &[Artifact] {
        &self.0.artifacts
    }

    /// Returns the function or data object that symbol `symbol` of module `module` defines, also if
    /// it is private or anonymous. `None` if there is no such module or symbol, or if the module
    /// does not define it.
    pub fn symbol(&self, module: usize, symbol: usize) -> Option<Defined<'_>> {
        let address = self.0.address(module, symbol)?;
        let artifact = self.0.artifacts.get(module)?;
        let record = artifact.symbols().get(symbol)?;
        Some(Defined {
            module,
            symbol,
            name: artifact.name(record),
            kind: record.kind(),
            address: address as *const u8,
            size: record.size.get() as usize,
        })
    }

    /// Returns every function and data object that the unit defines, private ones included, in
    /// order of modules and symbols.
    pub fn symbols(&self) -> impl Iterator<Item = Defined<'_>> {
        let modules = self.0.artifacts.iter().enumerate();
        modules.flat_map(move |(module, artifact)| {
            (0..artifact.symbols().len()).filter_map(move |symbol| self.symbol(module, symbol))
        })
    }

    /// Returns the functions whose calls are [counted](crate::LinkOptions::counted_entries): the
    /// module, the number of the symbol, and the address of the counter, which the hook gets.
    pub fn counters(&self) -> impl Iterator<Item = (usize, usize, u64)> {
        self.0.counters.iter().flat_map(|counters| counters.records())
    }

    /// Returns the keys of the slots that the unit uses, in order of first use.
    pub fn slots(&self) -> impl Iterator<Item = SlotKey> {
        self.0.uses().slots.iter().map(|(kind, name)| kind.key(name))
    }

    /// Returns the functions of the unit, private ones included, in order of modules and symbols:
    /// what a profiler or debugger wants to know.
    pub fn functions(&self) -> impl Iterator<Item = Defined<'_>> {
        self.symbols().filter(|symbol| symbol.kind == SymbolKind::Function)
    }
}
