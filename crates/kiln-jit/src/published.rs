//! The symbols, slots and named sections of earlier batches. Later batches use them and must not
//! contradict them.

use std::collections::HashMap;

use indexmap::IndexMap;
use kiln_artifact::record::{Linkage, SymbolKind, SymbolRecord};
use kiln_artifact::{Artifact, signatures_agree};
use kiln_globals::SlotKey;
use kiln_image::link::{Addresses, Area, ExternalDefinition, Plan};
use kiln_image::{Arch, missing_features};

use crate::error::JitError;
use crate::sections::PublishedSections;

/// A definition that later batches can use.
pub(crate) struct PublishedSymbol {
    pub(crate) address: u64,
    pub(crate) kind: SymbolKind,
    /// Whether only code of the program sees it: the host and images do not.
    pub(crate) hidden: bool,
    pub(crate) signature: Option<Box<str>>,
    /// The number of the module that defines it, among all that were linked.
    pub(crate) module: usize,
}

/// Symbols, slots and named sections of all batches so far.
#[derive(Default)]
pub(crate) struct Published {
    pub(crate) symbols: IndexMap<Box<str>, PublishedSymbol>,
    /// The addresses of the slots.
    pub(crate) slots: HashMap<SlotKey, u64>,
    sections: PublishedSections,
    /// The number of modules that were linked.
    modules: usize,
    /// The target triple of those modules.
    triple: Option<Box<str>>,
}

impl Published {
    /// Returns the definition or slot that earlier batches have for `key`.
    pub(crate) fn lookup(&self, key: &SlotKey) -> Option<ExternalDefinition> {
        if let SlotKey::Symbol(name) = key {
            let symbol = self.symbols.get(name).map(|symbol| symbol.address);
            if let Some(address) = symbol.or_else(|| self.sections.bound(name)) {
                return Some(ExternalDefinition::Address(address));
            }
        }
        self.slots.get(key).copied().map(ExternalDefinition::Slot)
    }

    /// Adds what a batch defines, once its code is in memory.
    pub(crate) fn add(&mut self, artifacts: &[Artifact], plan: &Plan<'_>, addresses: &Addresses) {
        for (number, key) in plan.slots().keys().iter().enumerate() {
            self.slots.insert(key.clone(), addresses[Area::Slots] + 8 * number as u64);
        }
        for definition in plan.definitions() {
            let stub = definition.indirection.and_then(|indirection| indirection.stub);
            let symbol = PublishedSymbol {
                address: match stub {
                    Some(stub) => addresses[Area::Text] + stub,
                    None => addresses[definition.area] + definition.offset,
                },
                kind: definition.kind,
                hidden: definition.linkage == Linkage::Hidden,
                signature: definition.signature.map(Into::into),
                module: self.modules + definition.module,
            };
            // A preemptible definition does not replace the one that was published before it.
            self.symbols.entry(definition.name.into()).or_insert(symbol);
        }
        let symbols = &self.symbols;
        self.sections.note_uses(artifacts, &|name| symbols.contains_key(name));
        self.sections.add(plan.sections(), addresses, self.modules);
        if let (None, Some(artifact)) = (&self.triple, artifacts.first()) {
            self.triple = Some(artifact.triple().into());
        }
        self.modules += artifacts.len();
    }

    /// Refuses batches that can be refused before any work is done: code for other machines,
    /// redefinitions, and imports and overridden definitions whose type differs from that of the
    /// published definition.
    ///
    /// It refuses modules that an image of all modules would refuse. Beyond that, it refuses only
    /// symbols that an image could resolve in another way than the running code did.
    pub(crate) fn check(&self, artifacts: &[Artifact]) -> Result<(), JitError> {
        for (module, artifact) in artifacts.iter().enumerate() {
            self.check_machine(module, artifact)?;
            for symbol in artifact.symbols().iter().filter(|symbol| is_shared(symbol)) {
                self.check_symbol(module, artifact, symbol)?;
            }
        }
        let is_defined = |name: &str| self.symbols.contains_key(name);
        self.sections.check(artifacts, &is_defined, &|key| self.slots.contains_key(key))
    }

    fn check_symbol(
        &self,
        module: usize,
        artifact: &Artifact,
        symbol: &SymbolRecord,
    ) -> Result<(), JitError> {
        let name = artifact.name(symbol);
        if symbol.is_defined() && self.slots.contains_key(&SlotKey::Symbol(name.into())) {
            return Err(JitError::DefinedLate { name: name.into(), module });
        }
        let Some(before) = self.symbols.get(name) else { return Ok(()) };
        match symbol.linkage() {
            Linkage::Export | Linkage::Hidden | Linkage::Replaceable => {
                Err(JitError::Redefinition { name: name.into(), module, earlier: before.module })
            }
            Linkage::Local => Ok(()),
            // Code that uses a preemptible definition uses the published definition instead.
            Linkage::Preemptible | Linkage::Import => check_use(module, artifact, symbol, before),
        }
    }

    /// Refuses a module that this machine cannot run, or that no image can hold with the others.
    fn check_machine(&self, module: usize, artifact: &Artifact) -> Result<(), JitError> {
        let triple = artifact.triple();
        if !Arch::is_host(triple) {
            return Err(JitError::OtherTarget { module, triple: triple.into() });
        }
        if let Some(expected) = self.triple.as_deref().filter(|&expected| expected != triple) {
            let (triple, expected) = (triple.into(), expected.into());
            return Err(JitError::TargetMismatch { module, triple, expected });
        }
        match missing_features(artifact.features()).next() {
            Some(feature) => Err(JitError::MissingFeature { module, feature: feature.into() }),
            None => Ok(()),
        }
    }
}

/// Whether modules share this symbol by name: it is not a global, not local, and not a C library
/// routine that the compiler itself calls.
fn is_shared(symbol: &SymbolRecord) -> bool {
    symbol.kind() != SymbolKind::Global && symbol.linkage() != Linkage::Local && symbol.libcall == 0
}

/// Refuses an import or an overridden definition whose kind or type differs from that of `before`,
/// which was published earlier.
fn check_use(
    module: usize,
    artifact: &Artifact,
    symbol: &SymbolRecord,
    before: &PublishedSymbol,
) -> Result<(), JitError> {
    let (name, earlier) = (artifact.name(symbol), before.module);
    match (symbol.kind(), before.kind) {
        (SymbolKind::Function, SymbolKind::Function) => {}
        (SymbolKind::Function, _) => {
            return Err(JitError::KindConflict { name: name.into(), module, earlier });
        }
        (_, SymbolKind::Function) if symbol.is_defined() => {
            return Err(JitError::DataConflict { name: name.into(), module, earlier });
        }
        _ => return Ok(()),
    }
    let imported = symbol.signature().and_then(|index| artifact.signature(index));
    if let (Some(imported), Some(defined)) = (imported, before.signature.as_deref())
        && !signatures_agree(imported, defined)
    {
        let (imported, defined) = (imported.into(), defined.into());
        return Err(JitError::SignatureConflict { name: name.into(), module, earlier, imported, defined });
    }
    Ok(())
}
