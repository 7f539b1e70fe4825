//! The check of a note's tables and texts.
//!
//! Many records could refer to the same long text. So the keys of all slots together must not be
//! longer than the strings of the note, and neither must all other texts together. Reading and
//! copying all texts then takes time and memory proportional to the note. The keys are checked only
//! when they are copied, because opening an image with thousands of slots does not need them.
//! Whether a text is UTF-8 is checked when it is read.

use super::format::{
    BaseRecord, ExportRecord, ImportRecord, LevelRecord, MAX_BASES, MAX_LEVELS, ReplaceableRecord,
    ReplacementRecord, SignerRecord, SlotRecord, SumRecord, SymbolicRecord, Text, VersionRecord,
};
use super::view::Note;

impl Note<'_> {
    /// Checks that all tables are in the note, and all texts except the keys of slots in its
    /// strings. The error says what is wrong.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let head = self.head;
        let whole = self.table::<Text>(head.producers).is_some()
            && self.table::<Text>(head.features).is_some()
            && self.table::<Text>(head.signatures).is_some()
            && self.table::<SlotRecord>(head.slots).is_some()
            && head.exports.len.get().is_multiple_of(size_of::<ExportRecord>() as u64)
            && head.signers.len.get().is_multiple_of(size_of::<SignerRecord>() as u64)
            && self.table::<SymbolicRecord>(head.symbolic).is_some()
            && self.table::<ReplaceableRecord>(head.replaceable).is_some()
            && self.table::<SumRecord>(head.sums).is_some()
            && self.table::<LevelRecord>(head.levels).is_some()
            && self.table::<Text>(head.level_features).is_some()
            && self.table::<VersionRecord>(head.versions).is_some()
            && self.table::<BaseRecord>(head.bases).is_some()
            && self.table::<ImportRecord>(head.imports).is_some()
            && self.table::<ReplacementRecord>(head.replacements).is_some()
            && self.table::<u8>(head.strings).is_some();
        if !whole {
            return Err("note table outside the note");
        }
        if self.bases().len() > MAX_BASES {
            return Err("more bases than an image can have");
        }
        let texts = [self.producers(), self.features(), self.signatures()].into_iter().flatten().copied();
        let texts = texts.chain([head.kiln_version, head.triple]);
        let texts = texts.chain(self.bases().iter().map(|base| base.name));
        let texts = texts.chain(self.replacements().iter().map(|replacement| replacement.name));
        let texts = texts.chain(self.levels().iter().map(|level| level.name));
        let texts = texts.chain(self.level_features().iter().copied());
        self.check_texts(texts.chain(self.sums().iter().map(|sum| sum.name)))?;
        self.check_levels()
    }

    /// Checks that levels have features of their table, and versions levels. The error says what is
    /// wrong.
    fn check_levels(&self) -> Result<(), &'static str> {
        let features = self.level_features().len() as u64;
        let fits = |level: &LevelRecord| {
            u64::from(level.first_feature.get()) + u64::from(level.features.get()) <= features
        };
        let levels = self.levels();
        // Each is asked for its features.
        if levels.len() > MAX_LEVELS || !levels.iter().all(fits) {
            return Err("levels of a processor that are malformed");
        }
        let order = |version: &VersionRecord| (version.level.get(), version.slot.get());
        let known = |version: &VersionRecord| (1..levels.len()).contains(&(version.level.get() as usize));
        let versions = self.versions();
        let right = versions.iter().all(known) && versions.is_sorted_by(|a, b| order(a) < order(b));
        if right { Ok(()) } else { Err("bodies of functions out of order, or for no level") }
    }

    /// Checks the keys of slots. The error says what is wrong.
    pub(crate) fn check_keys(&self) -> Result<(), &'static str> {
        self.check_texts(self.slots().iter().map(|slot| slot.key))
    }

    fn check_texts(&self, texts: impl Iterator<Item = Text>) -> Result<(), &'static str> {
        // There are fewer than 2^32 texts, so the sums do not overflow.
        let (mut total, mut end) = (0, 0);
        texts.for_each(|text| {
            let (start, len) = (u64::from(text.start.get()), u64::from(text.len.get()));
            total += len;
            end = end.max(start + len);
        });
        let strings = self.head.strings.len.get();
        match (end <= strings, total <= strings) {
            (true, true) => Ok(()),
            (false, _) => Err("text outside the strings of the note"),
            (true, false) => Err("texts in the note that share bytes"),
        }
    }
}
