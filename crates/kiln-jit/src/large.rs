//! Units that define many names at once, and keep their own table of them.
//!
//! The program has one entry for each name that is used by another unit or defined by several. A
//! large unit would add thousands that nobody asks about, so it keeps the table that its link made,
//! and [`Names`](crate::names::Names) makes the entry of such a name when it is needed. Only strong
//! definitions are in the table: they are the only ones of their names.
//!
//! Every lookup asks all tables, so their number is limited: see [`MAX_LARGE`].

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use kiln_artifact::Artifact;
use kiln_artifact::record::{Linkage, SymbolRecord};
use kiln_image::link::{Definitions, Place, SymbolNumbers};

use crate::batch::{Batch, is_strong};
use crate::symbol::Symbol;
use crate::unit::{UnitId, UnitInfo};

/// The largest number of units that keep tables. When there are more, the definitions of the
/// smallest are entered one by one.
pub(crate) const MAX_LARGE: usize = 8;

/// The strong definitions of a large unit.
pub(crate) struct LargeUnit {
    id: UnitId,
    first_module: usize,
    pub(crate) artifacts: Arc<[Artifact]>,
    definitions: Arc<Definitions>,
    /// Set when it is published.
    info: OnceLock<Arc<UnitInfo>>,
    /// Made at the first lookup of a symbol.
    known: ArcSwapOption<KnownSymbols>,
}

/// The symbols that were looked up before. To make one takes longer than to find it. No thread
/// waits for another one that makes it: the last wins, and all are equal.
struct KnownSymbols {
    numbers: SymbolNumbers,
    symbols: Box<[ArcSwapOption<Symbol>]>,
}

impl KnownSymbols {
    fn new(artifacts: &[Artifact]) -> Self {
        let numbers = SymbolNumbers::new(artifacts);
        let symbols = (0..numbers.len()).map(|_| ArcSwapOption::empty()).collect();
        Self { numbers, symbols }
    }

    fn get(&self, place: Place) -> &ArcSwapOption<Symbol> {
        &self.symbols[self.numbers.of(place)]
    }
}

impl LargeUnit {
    /// Makes the table of a unit that is being linked, whose modules are numbered from
    /// `first_module`.
    pub(crate) fn new(id: UnitId, first_module: usize, batch: &Batch<'_>) -> Self {
        let definitions = batch.definitions.clone();
        Self {
            id,
            first_module,
            artifacts: batch.artifacts.into(),
            definitions,
            info: OnceLock::new(),
            known: ArcSwapOption::empty(),
        }
    }

    pub(crate) fn id(&self) -> UnitId {
        self.id
    }

    /// Returns the number of its definitions.
    pub(crate) fn len(&self) -> usize {
        self.definitions.len()
    }

    /// Makes the definitions known to lookups.
    pub(crate) fn publish(&self, info: Arc<UnitInfo>) {
        // It is published once.
        let _ = self.info.set(info);
    }

    pub(crate) fn is_published(&self) -> bool {
        self.info.get().is_some()
    }

    /// Returns the number of a module among all that were linked.
    pub(crate) fn module(&self, place: Place) -> usize {
        self.first_module + place.0 as usize
    }

    fn record(&self, (module, symbol): Place) -> (&Artifact, &SymbolRecord) {
        let artifact = &self.artifacts[module as usize];
        (artifact, &artifact.symbols()[symbol as usize])
    }

    /// Returns the artifact of a definition.
    pub(crate) fn artifact(&self, place: Place) -> &Artifact {
        self.record(place).0
    }

    /// Returns the strong definition of `name`.
    pub(crate) fn find(&self, name: &str) -> Option<Place> {
        let place = self.definitions.find(&self.artifacts, name)?;
        is_strong(self.record(place).1.linkage()).then_some(place)
    }

    /// Returns the names of all strong definitions.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let records = self.definitions.places(&self.artifacts).map(|place| self.record(place));
        let strong = records.filter(|(_, record)| is_strong(record.linkage()));
        strong.map(|(artifact, record)| artifact.name(record))
    }

    /// Returns the symbol of a definition, if the unit is published.
    pub(crate) fn symbol(&self, place: Place) -> Option<Symbol> {
        let address = self.address(place)?;
        Some(Symbol::new(self.id, self.artifact(place), place.1 as usize, address))
    }

    fn address(&self, (module, symbol): Place) -> Option<u64> {
        self.info.get()?.address(module as usize, symbol as usize)
    }

    fn is_exported(&self, place: Place) -> bool {
        self.record(place).1.linkage() == Linkage::Export
    }

    /// Returns the definition that is exported as `name`.
    pub(crate) fn exported(&self, name: &str) -> Option<Arc<Symbol>> {
        let place = self.find(name).filter(|&place| self.is_exported(place))?;
        let mut known = self.known.load();
        if known.is_none() {
            self.known.store(Some(Arc::new(KnownSymbols::new(&self.artifacts))));
            known = self.known.load();
        }
        let known = known.as_ref()?.get(place);
        if let Some(symbol) = known.load_full() {
            return Some(symbol);
        }
        let symbol = Arc::new(self.symbol(place)?);
        known.store(Some(symbol.clone()));
        Some(symbol)
    }

    /// Returns the address of the definition that is exported as `name`.
    pub(crate) fn exported_address(&self, name: &str) -> Option<u64> {
        self.address(self.find(name).filter(|&place| self.is_exported(place))?)
    }

    /// Calls `each` for every definition that is exported.
    pub(crate) fn for_each_exported(&self, mut each: impl FnMut(&str, &Symbol)) {
        for place in self.definitions.places(&self.artifacts).filter(|&place| self.is_exported(place)) {
            if let Some(symbol) = self.symbol(place) {
                let (artifact, record) = self.record(place);
                each(artifact.name(record), &symbol);
            }
        }
    }
}
