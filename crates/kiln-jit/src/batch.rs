//! The definitions of the modules of one link, collected before anything is locked.

use std::collections::HashSet;
use std::sync::Arc;

use kiln_artifact::Artifact;
use kiln_artifact::record::{Linkage, SymbolKind, SymbolRecord};
use kiln_globals::{KeyRef, SlotKey};
use kiln_image::link::{Definitions, LinkError, Place, section_bound};
use smallvec::SmallVec;

use crate::bases::{Bases, InBases};
use crate::error::{JitError, ModuleName, UseOf};
use crate::users::{ModuleNames, user_of};

/// The number of definitions from which on a unit keeps its own table of them. To enter as many
/// into the program's table, one after the other, takes longer than the rest of the link.
const LARGE: usize = 256;

/// Modules that are linked together.
pub(crate) struct Batch<'a> {
    pub(crate) artifacts: &'a [Artifact],
    /// The names of the modules, for errors; empty if they are not known.
    pub(crate) names: &'a [&'a str],
    /// The definitions that other modules can see.
    pub(crate) definitions: Arc<Definitions>,
    /// See [`listed`](Self::listed).
    listed: SmallVec<[(&'a str, Winner); 1]>,
    /// The names of the sections that the batch has data in.
    sections: HashSet<&'a str>,
    /// The names that images have that the program is linked on.
    pub(crate) in_bases: InBases<'a>,
}

/// The definition of a name to which the batch itself resolves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Winner {
    /// The position of its module in the batch.
    pub(crate) module: usize,
    /// The number of its symbol in the module.
    pub(crate) symbol: usize,
    pub(crate) linkage: Linkage,
}

/// A kind of slot. Each kind has its own names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SlotKind {
    /// The slot of a run-time object, named by its key.
    Global,
    /// The slot of a function or data object of the host.
    Symbol,
    /// The slot of a routine that the code generator calls.
    Routine,
}

impl SlotKind {
    pub(crate) fn of_ref(key: KeyRef<'_>) -> Self {
        match key {
            KeyRef::Global(_) => Self::Global,
            KeyRef::Symbol(_) => Self::Symbol,
            KeyRef::Routine(_) => Self::Routine,
        }
    }

    pub(crate) fn of(key: &SlotKey) -> Self {
        match key {
            SlotKey::Global(_) => Self::Global,
            SlotKey::Symbol(_) => Self::Symbol,
            SlotKey::Routine(_) => Self::Routine,
        }
    }

    pub(crate) fn key(self, name: &str) -> SlotKey {
        match self {
            Self::Global => SlotKey::Global(name.into()),
            Self::Symbol => SlotKey::Symbol(name.into()),
            Self::Routine => SlotKey::Routine(name.into()),
        }
    }
}

/// The way in which a symbol refers to something outside its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reference {
    /// It does not: the symbol is local.
    Local,
    /// It can only be a slot.
    Slot(SlotKind),
    /// It is a name that modules share.
    Shared,
}

/// Whether a definition with this linkage is the only one of its name.
pub(crate) fn is_strong(linkage: Linkage) -> bool {
    matches!(linkage, Linkage::Export | Linkage::Hidden)
}

impl<'a> Batch<'a> {
    pub(crate) fn new(artifacts: &'a [Artifact], names: &'a [&'a str]) -> Self {
        let definitions = Arc::new(Definitions::new(artifacts));
        let runs = artifacts
            .iter()
            .flat_map(|artifact| artifact.named_data().iter().map(move |run| artifact.section_name(run)));
        let listed = listed(artifacts, &definitions);
        let (sections, in_bases) = (runs.collect(), InBases::default());
        Self { artifacts, names, definitions, listed, sections, in_bases }
    }

    /// Finds the names of the batch in the images that the program is linked on.
    pub(crate) fn on(mut self, bases: &Bases) -> Result<Self, JitError> {
        self.in_bases = bases.names(self.artifacts).map_err(|errors| self.link_error(errors))?;
        Ok(self)
    }

    /// Whether the unit keeps its own table of its strong definitions.
    pub(crate) fn is_large(&self) -> bool {
        is_large(&self.definitions)
    }

    /// Returns a module of the batch as errors name it.
    pub(crate) fn module(&self, module: usize) -> ModuleName {
        ModuleName { number: module, name: self.names.get(module).copied().unwrap_or_default().into() }
    }

    /// Returns the names of the modules.
    pub(crate) fn module_names(&self) -> ModuleNames {
        ModuleNames::new(self.names)
    }

    /// Returns an error of the linker with the names of the modules.
    pub(crate) fn link_error(&self, errors: Vec<LinkError>) -> JitError {
        JitError::Link { errors, names: self.names.iter().map(|&name| name.into()).collect() }
    }

    /// Returns the first function or data object of the batch that uses a slot.
    pub(crate) fn use_of(&self, key: &SlotKey) -> UseOf {
        let is_meant = |symbol: &SymbolRecord| slot_kind(symbol) == Some(SlotKind::of(key));
        let modules = self.artifacts.iter().enumerate();
        let mut users = modules
            .filter_map(|(module, artifact)| Some((module, user_of(artifact, key.text(), &is_meant)?)));
        let (module, user) = users.next().unwrap_or_default();
        UseOf { name: key.text().into(), module: self.module(module), user: user.into() }
    }

    /// Whether a module of the batch defines `name` for others.
    pub(crate) fn defines(&self, name: &str) -> bool {
        self.definitions.find(self.artifacts, name).is_some()
    }

    /// Whether a module of the batch has a strong definition of `name`.
    pub(crate) fn defines_strongly(&self, name: &str) -> bool {
        let place = self.definitions.find(self.artifacts, name);
        place.is_some_and(|place| is_strong(self.record(place).linkage()))
    }

    fn record(&self, place: Place) -> &'a SymbolRecord {
        record(self.artifacts, place)
    }

    /// Returns the definitions to which names resolve in the batch, without the strong ones of a
    /// [large](Self::is_large) batch, in order of modules.
    pub(crate) fn listed(&self) -> impl Iterator<Item = (&'a str, Winner)> {
        self.listed.iter().copied()
    }

    /// Returns the names that the batch shares with other modules: those that it defines and those
    /// that it refers to.
    pub(crate) fn shared_names(&self) -> impl Iterator<Item = &'a str> {
        self.artifacts.iter().flat_map(|artifact| {
            let shared = artifact.symbols().iter().filter(|symbol| reference(symbol) == Reference::Shared);
            shared.map(|symbol| artifact.name(symbol))
        })
    }

    /// Whether `name` is a bound of a section that the batch has data in.
    pub(crate) fn bounds(&self, name: &str) -> bool {
        section_bound(name).is_some_and(|(_, section)| self.has_section(section))
    }

    /// Returns the names of the sections that the batch has data in.
    pub(crate) fn sections(&self) -> impl Iterator<Item = &'a str> {
        self.sections.iter().copied()
    }

    /// Whether the batch has data in the section `name`.
    pub(crate) fn has_section(&self, name: &str) -> bool {
        self.sections.contains(name)
    }
}

fn record(artifacts: &[Artifact], (module, symbol): Place) -> &SymbolRecord {
    &artifacts[module as usize].symbols()[symbol as usize]
}

/// Whether a unit keeps its own table of definitions.
fn is_large(definitions: &Definitions) -> bool {
    definitions.len() >= LARGE
}

/// Returns what [`Batch::listed`] does.
fn listed<'a>(artifacts: &'a [Artifact], definitions: &Definitions) -> SmallVec<[(&'a str, Winner); 1]> {
    let is_large = is_large(definitions);
    if is_large && definitions.are_all_strong() {
        return SmallVec::new();
    }
    let winner = |place: Place| {
        let record = record(artifacts, place);
        let (module, symbol, linkage) = (place.0 as usize, place.1 as usize, record.linkage());
        let is_listed = !is_large || !is_strong(linkage);
        is_listed.then(|| (artifacts[module].name(record), Winner { module, symbol, linkage }))
    };
    definitions.places(artifacts).filter_map(winner).collect()
}

/// Returns the kind of the slot that code uses for a symbol, if no module defines it.
pub(crate) fn slot_kind(symbol: &SymbolRecord) -> Option<SlotKind> {
    match reference(symbol) {
        Reference::Local => None,
        Reference::Slot(kind) => Some(kind),
        Reference::Shared => Some(SlotKind::Symbol),
    }
}

/// Returns how a symbol refers to something outside its module.
pub(crate) fn reference(symbol: &SymbolRecord) -> Reference {
    if symbol.linkage() == Linkage::Local {
        Reference::Local
    } else if symbol.kind() == SymbolKind::Global {
        Reference::Slot(SlotKind::Global)
    } else if symbol.libcall != 0 {
        Reference::Slot(SlotKind::Routine)
    } else {
        Reference::Shared
    }
}
