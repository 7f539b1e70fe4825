//! The images that an image is a layer on: what it uses of them, and how its note says so.

use kiln_artifact::Artifact;
use kiln_globals::{KeyRef, SlotKey};
use zerocopy::little_endian::{U32, U64};

use crate::base::{Base, BaseSymbol, BaseSymbolKind};
use crate::link::{ExternalDefinition, LinkError, OfBases, Plan};
use crate::note::{
    BaseRecord, IMPORT_OF_DATA, IMPORT_OF_FUNCTION, IMPORT_OF_GLOBAL, ImportRecord, MAX_BASES, NoteBuilder,
    ReplacementRecord,
};

/// Returns the number of a base's slot for a global; 0 if the base has the object itself, in a
/// saved heap.
fn place_of_global(base: &dyn Base, key: &str) -> Option<u32> {
    let is_object = || base.find(key).is_some_and(|symbol| symbol.kind == BaseSymbolKind::Global);
    base.slot_of_global(key).or_else(|| is_object().then_some(0))
}

/// The bases of an image, and the names that its modules share with them.
pub(super) struct Bases<'a, 'b> {
    all: &'b [&'b dyn Base],
    symbols: OfBases<'a, 'b>,
}

impl<'a, 'b> Bases<'a, 'b> {
    /// Finds what modules use of bases.
    pub(super) fn find(artifacts: &'a [Artifact], all: &'b [&'b dyn Base]) -> Result<Self, Vec<LinkError>> {
        if all.len() > MAX_BASES {
            return Err(vec![LinkError::TooManyBases { count: all.len(), limit: MAX_BASES }]);
        }
        if let Some(number) = all.iter().position(|base| base.name().is_empty()) {
            return Err(vec![LinkError::NamelessBase { number }]);
        }
        let symbols = OfBases::find(artifacts, all)?;
        let mut thread_local: Vec<_> =
            symbols.all().filter(|(_, found)| found.symbol.kind == BaseSymbolKind::ThreadLocal).collect();
        thread_local.sort_unstable_by_key(|(name, _)| *name);
        let errors = thread_local.into_iter().map(|(name, found)| {
            let base = all[found.base].name().into();
            LinkError::ThreadLocalOfBase { name: name.into(), base }
        });
        let errors: Vec<LinkError> = errors.collect();
        if errors.is_empty() { Ok(Self { all, symbols }) } else { Err(errors) }
    }

    /// Returns the definition in a base that a key has.
    pub(super) fn external(&self, key: KeyRef<'_>) -> Option<ExternalDefinition> {
        match key {
            KeyRef::Symbol(name) => {
                let _ = self.symbols.get(name)?;
                Some(ExternalDefinition::Base { slot: None })
            }
            // They have slots of their own in every image.
            KeyRef::Global(_) | KeyRef::Routine(_) => None,
        }
    }

    /// Writes the records of bases into a note. `signature` returns the index of a type. The places
    /// of code are still offsets in the code.
    pub(super) fn describe<'s>(
        &self,
        plan: &Plan<'s>,
        note: &mut NoteBuilder,
        mut signature: impl FnMut(&mut NoteBuilder, Option<&'s str>) -> U32,
    ) where
        'b: 's,
    {
        if self.all.is_empty() {
            return;
        }
        for base in self.all {
            let name = note.text(base.name());
            note.bases.push(BaseRecord { name, id: base.id().0 });
        }
        for (slot, key) in (0..).zip(plan.slots().keys()) {
            let import = match key {
                SlotKey::Symbol(name) => self.symbols.get(name).map(|found| {
                    let BaseSymbol { kind, signature, size, .. } = found.symbol;
                    let size = if kind.is_function() { 0 } else { size };
                    let kind = if kind.is_function() { IMPORT_OF_FUNCTION } else { IMPORT_OF_DATA };
                    (found.base, kind, signature, size)
                }),
                SlotKey::Global(key) => (0..).zip(self.all).find_map(|(base, image)| {
                    Some((base, IMPORT_OF_GLOBAL, None, place_of_global(*image, key)?.into()))
                }),
                SlotKey::Routine(_) => None,
            };
            let Some((base, kind, type_, size)) = import else { continue };
            let record = ImportRecord {
                slot: U32::new(slot),
                base: U32::new(base as u32),
                kind: U32::new(kind),
                signature: signature(note, type_),
                size: U64::new(size),
            };
            note.imports.push(record);
        }
        for replacement in plan.replacements() {
            let base = self.symbols.get(replacement.name).map_or(0, |found| found.base);
            let record = ReplacementRecord {
                name: note.text(replacement.name),
                base: U32::new(base as u32),
                signature: signature(note, replacement.signature),
                code: U64::new(replacement.offset),
            };
            note.replacements.push(record);
        }
    }
}
