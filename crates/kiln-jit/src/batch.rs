//! The definitions of the modules of one link, collected before anything is locked.

use std::collections::HashSet;

use foldhash::fast::RandomState as FastHash;
use indexmap::IndexMap;
use kiln_artifact::Artifact;
use kiln_artifact::record::{Linkage, SymbolKind, SymbolRecord};
use kiln_globals::{KeyRef, SlotKey};
use kiln_image::link::section_bound;

/// Modules that are linked together.
pub(crate) struct Batch<'a> {
    pub(crate) artifacts: &'a [Artifact],
    /// The definitions that other modules can see, in order of first definition.
    definitions: IndexMap<&'a str, Winner, FastHash>,
    /// The names of the sections that the batch has data in.
    sections: HashSet<&'a str>,
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

impl<'a> Batch<'a> {
    pub(crate) fn new(artifacts: &'a [Artifact]) -> Self {
        let mut definitions: IndexMap<&str, Winner, FastHash> = IndexMap::default();
        let mut sections = HashSet::new();
        for (module, artifact) in artifacts.iter().enumerate() {
            for (number, symbol) in artifact.symbols().iter().enumerate() {
                if !symbol.is_defined() || reference(symbol) != Reference::Shared {
                    continue;
                }
                let winner = Winner { module, symbol: number, linkage: symbol.linkage() };
                let known = definitions.entry(artifact.name(symbol)).or_insert(winner);
                // Of several strong definitions, which the linker refuses, any will do.
                if symbol.linkage() != Linkage::Preemptible {
                    *known = winner;
                }
            }
            sections.extend(artifact.named_data().iter().map(|run| artifact.section_name(run)));
        }
        Self { artifacts, definitions, sections }
    }

    /// Whether a module of the batch defines `name` for others.
    pub(crate) fn defines(&self, name: &str) -> bool {
        self.definitions.contains_key(name)
    }

    /// Whether a module of the batch has a strong definition of `name`.
    pub(crate) fn defines_strongly(&self, name: &str) -> bool {
        let strong = |winner: &Winner| matches!(winner.linkage, Linkage::Export | Linkage::Hidden);
        self.definitions.get(name).is_some_and(strong)
    }

    /// Returns the definitions to which names resolve in the batch.
    pub(crate) fn definitions(&self) -> impl Iterator<Item = (&'a str, Winner)> {
        self.definitions.iter().map(|(name, winner)| (*name, *winner))
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
