//! The levels of the processor that an image has code for, and the bodies of its functions.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState as FastHash;
use kiln_artifact::Artifact;
use zerocopy::little_endian::{U32, U64};

use crate::link::{Area, LevelTable, Plan};
use crate::note::{LevelRecord, NoteBuilder, VersionRecord};

/// The bodies of functions in a planned program.
pub(super) struct Versions<'o> {
    table: Option<&'o LevelTable>,
    /// Names of functions that have a slot though the client may not replace them.
    fixed: HashSet<&'o str, FastHash>,
    /// Offsets of slots and of code in their areas, in order of levels and slots.
    records: Vec<VersionRecord>,
}

impl<'o> Versions<'o> {
    /// Finds the slots and the code of all bodies.
    pub(super) fn of(plan: &Plan<'_>, table: Option<&'o LevelTable>) -> Self {
        let mut this = Self { table, fixed: HashSet::default(), records: Vec::new() };
        let Some(table) = table else { return this };
        let mut slots: HashMap<&str, u64, FastHash> = HashMap::default();
        let mut code: HashMap<&str, u64, FastHash> = HashMap::default();
        for definition in plan.definitions() {
            if let Some(slot) = definition.indirection.and_then(|indirection| indirection.slot) {
                slots.insert(definition.name, slot);
            } else if definition.area == Area::Text {
                code.insert(definition.name, definition.offset);
            }
        }
        for function in &table.functions {
            if !function.is_replaceable {
                this.fixed.insert(&function.entry);
            }
            let Some(&slot) = slots.get(&*function.entry) else { continue };
            for (level, body) in (1..).zip(&function.bodies) {
                let Some(&code) = body.as_ref().and_then(|body| code.get(&**body)) else { continue };
                let (slot, code, level) = (U64::new(slot), U64::new(code), U32::new(level));
                this.records.push(VersionRecord { slot, code, level, ..VersionRecord::default() });
            }
        }
        this.records.sort_unstable_by_key(|record| (record.level.get(), record.slot.get()));
        this
    }

    /// Returns the artifacts whose code runs on every processor that the image is for.
    pub(super) fn base<'a>(&self, artifacts: &'a [Artifact]) -> &'a [Artifact] {
        let base = self.table.map_or(artifacts.len(), |table| table.base);
        artifacts.get(..base).unwrap_or(artifacts)
    }

    /// Whether the client may replace a function that has a slot.
    pub(super) fn may_replace(&self, name: &str) -> bool {
        !self.fixed.contains(name)
    }

    /// Adds the levels and the bodies to a note.
    pub(super) fn describe(&self, note: &mut NoteBuilder) {
        for level in self.table.iter().flat_map(|table| &table.levels) {
            let first_feature = U32::new(note.level_features.len() as u32);
            let features: Vec<_> = level.features.iter().map(|feature| note.text(feature)).collect();
            let (name, features_len) = (note.text(&level.name), U32::new(features.len() as u32));
            note.level_features.extend(features);
            note.levels.push(LevelRecord { name, first_feature, features: features_len });
        }
        note.versions.clone_from(&self.records);
    }
}
