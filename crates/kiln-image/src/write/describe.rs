//! The content of the note: what the image is for, its slots and signatures, and the checksums of
//! what is loaded.

use std::collections::{BTreeSet, HashMap};

use foldhash::fast::RandomState as FastHash;
use kiln_artifact::Artifact;
use kiln_globals::SlotKey;
use rayon::prelude::*;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{I64, U32, U64};

use super::bases::Bases;
use super::dynamic_symbols::DynamicSymbols;
use super::layout::FileLayout;
use super::levels::Versions;
use super::relocations::Relocations;
use super::section::FileSection;
use crate::link::{Area, Fixups, Plan, PointerSource, SlotDetails};
use crate::note::{
    ExportRecord, NONE, NoteBuilder, OBJECT_OF_GLOBAL, ReplaceableRecord, SLOT_OF_GLOBAL, SLOT_OF_ROUTINE,
    SLOT_OF_SYMBOL, SlotRecord, Span, SumRecord, SymbolicRecord, checksum, checksum_parallel,
};
use crate::read::DynamicContents;

/// Makes the note of an image, without the fields that depend on the layout. The slots of
/// replaceable functions are still offsets in the slot array. `details` describes the plan's slots.
pub(super) fn describe(
    plan: &Plan<'_>,
    triple: &str,
    symbols: &DynamicSymbols<'_, '_>,
    details: &[SlotDetails<'_>],
    relocations: &Relocations,
    levels: &Versions<'_>,
    bases: &Bases<'_, '_>,
) -> NoteBuilder {
    let mut note = NoteBuilder::default();
    let mut signatures = Signatures::default();
    note.head.kiln_version = note.text(env!("CARGO_PKG_VERSION"));
    note.head.triple = note.text(triple);
    let mut producers: Vec<&str> = Vec::new();
    let mut last = "";
    for artifact in plan.artifacts() {
        let producer = artifact.producer();
        if producer != last && !producers.contains(&producer) {
            producers.push(producer);
        }
        last = producer;
    }
    // Code for higher levels is only called where they are.
    let base = levels.base(plan.artifacts());
    let features: BTreeSet<&str> = base.iter().flat_map(Artifact::features).collect();
    note.producers = producers.into_iter().map(|producer| note.text(producer)).collect();
    note.features = features.into_iter().map(|feature| note.text(feature)).collect();
    let users = plan.slot_users();
    for ((key, detail), user) in plan.slots().keys().iter().zip(details).zip(users) {
        let kind = U32::new(match key {
            SlotKey::Global(_) => SLOT_OF_GLOBAL,
            SlotKey::Symbol(_) => SLOT_OF_SYMBOL,
            SlotKey::Routine(_) => SLOT_OF_ROUTINE,
        });
        let signature = signatures.index(&mut note, detail.signature);
        let key = note.text(key.text());
        let user = U32::new(user.and_then(|user| u32::try_from(user).ok()).unwrap_or(NONE));
        note.slots.push(SlotRecord { key, kind, signature, user });
    }
    for (export, symbol) in symbols.exports.iter().zip(symbols.first_export()..) {
        let signature = match export.is_global {
            true => U32::new(OBJECT_OF_GLOBAL),
            false => signatures.index(&mut note, export.signature),
        };
        note.exports.push(ExportRecord { signature, hash: U32::new(export.hash) });
        if let Some(offset) = export.slot.filter(|_| levels.may_replace(export.name)) {
            let (symbol, slot) = (U32::new(symbol), U64::new(offset));
            note.replaceable.push(ReplaceableRecord { symbol, slot, ..ReplaceableRecord::default() });
        }
    }
    note.head.relative_count = U64::new(relocations.relative as u64);
    bases.describe(plan, &mut note, |note, signature| signatures.index(note, signature));
    note.symbolic = vec![SymbolicRecord::default(); relocations.symbolic];
    levels.describe(&mut note);
    note
}

/// The signatures in the note, each once, in order of first use.
#[derive(Default)]
struct Signatures<'a> {
    known: HashMap<&'a str, u32, FastHash>,
    /// The indices of long texts by their places in memory: symbols share such texts, so each is
    /// hashed only once.
    places: HashMap<(usize, usize), u32, FastHash>,
}

/// Texts with fewer bytes than this are hashed for every symbol.
const LONG: usize = 256;

impl<'a> Signatures<'a> {
    /// Returns the index of a signature in the note, and adds the signature if it is new.
    fn index(&mut self, note: &mut NoteBuilder, signature: Option<&'a str>) -> U32 {
        let Some(signature) = signature else { return U32::new(NONE) };
        let place = (signature.as_ptr() as usize, signature.len());
        if signature.len() >= LONG
            && let Some(&known) = self.places.get(&place)
        {
            return U32::new(known);
        }
        let index = *self.known.entry(signature).or_insert_with(|| {
            let text = note.text(signature);
            note.signatures.push(text);
            note.signatures.len() as u32 - 1
        });
        if signature.len() >= LONG {
            self.places.insert(place, index);
        }
        U32::new(index)
    }
}

/// Adds an empty record for each checksum, so that the note has its final length. The records are
/// in the order of [`FileLayout::checksummed_parts`].
pub(super) fn announce_checksums(note: &mut NoteBuilder, sections: &[FileSection<'_>]) {
    for name in sections.iter().filter(|section| section.has_checksum()).map(|section| section.name) {
        let name = note.text(name);
        note.sums.push(SumRecord { name, ..SumRecord::default() });
    }
}

/// Completes the note and writes it. Everything else must be in `buffer`, since the note holds its
/// checksums.
pub(super) fn seal(
    plan: &Plan<'_>,
    layout: &FileLayout<'_>,
    symbols: &DynamicSymbols<'_, '_>,
    fixups: &Fixups,
    mut note: NoteBuilder,
    buffer: &mut [u8],
) {
    for (record, pointer) in note.symbolic.iter_mut().zip(&fixups.symbolic) {
        let PointerSource::Slot(slot) = pointer.source else { continue };
        record.address = U64::new(layout.offset(pointer.area) as u64 + pointer.offset);
        record.addend = I64::new(pointer.addend);
        record.slot = U32::new(slot);
    }
    for record in &mut note.replaceable {
        record.slot = U64::new(layout.offset(Area::Slots) as u64 + record.slot.get());
    }
    for record in &mut note.versions {
        record.slot = U64::new(layout.offset(Area::Slots) as u64 + record.slot.get());
        record.code = U64::new(layout.offset(Area::Text) as u64 + record.code.get());
    }
    for record in &mut note.replacements {
        record.code = U64::new(layout.offset(Area::Text) as u64 + record.code.get());
    }
    let area = |area: Area| Span::new(layout.offset(area) as u64, plan.layout()[area].size);
    let head = &mut note.head;
    head.internal_slots = U64::new(plan.internal_slot_count() as u64);
    head.first_export = U32::new(symbols.first_export());
    head.gnu_hash_len = U64::new(layout.gnu_hash.len() as u64);
    head.slot_array = area(Area::Slots);
    head.eh_frame = area(Area::EhFrame);
    head.code_tables = area(Area::CodeTables);
    head.text = area(Area::Text);
    head.patches = Span::of(&layout.patches);
    head.globals = U32::new(plan.global_access().code().into());
    let parts = layout.checksummed_parts();
    assert_eq!(parts.len(), note.sums.len(), "every part has its checksum");
    let sums = parts.par_iter().zip(&note.sums).map(|(part, record)| {
        let sum = checksum_parallel(&buffer[part.clone()]);
        SumRecord { range: Span::of(part), sum, ..*record }
    });
    note.sums = sums.collect();
    let tables = DynamicContents {
        endian: plan.arch().endian(),
        base: layout.base,
        gnu_hash: &buffer[layout.gnu_hash.clone()],
        dynsym: &buffer[layout.dynsym.clone()],
        dynstr: &buffer[layout.dynstr.clone()],
        rela: &buffer[layout.rela.clone()],
        relr: &buffer[layout.relr.clone()],
    };
    note.head.table_sums = tables.sums();
    note.head.exports_sum = checksum(note.exports.as_bytes());
    let bytes = note.finish(plan.arch());
    buffer[layout.note.clone()].copy_from_slice(&bytes);
}
