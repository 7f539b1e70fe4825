//! From artifacts to the bytes of an image: the order of things, and the note.

use std::collections::{BTreeSet, HashMap};

use foldhash::fast::RandomState as FastHash;
use kiln_artifact::Artifact;
use kiln_artifact::record::{Linkage, SymbolKind, SymbolRecord};
use kiln_globals::{GlobalTable, SlotKey};
use rayon::prelude::*;
use zerocopy::little_endian::{I64, U32, U64};

use super::dynamic::{DynamicSymbols, SLOTS_SYMBOL};
use super::file::File;
use super::relocations::RelaCounts;
use crate::arch::Arch;
use crate::link::{Addresses, Area, Fixups, LinkError, Output, Plan, PointerSource, plan_for};
use crate::note::{Builder, NONE, SlotRecord, Span, SumRecord, SymbolicRecord, checksum, checksum_parallel};

/// How an image is written.
#[derive(Clone, Debug, Default)]
pub struct ImageOptions {
    /// The name by which other shared objects refer to the image, `DT_SONAME`.
    pub soname: Option<Box<str>>,
    /// The target of an image without modules; the host's if `None`. Otherwise the modules say it.
    pub triple: Option<Box<str>>,
}

/// Links `artifacts`, in this order, into the bytes of an ELF shared object for their target. External slots are those
/// of `table`, then those that the modules need besides.
///
/// # Errors
///
/// Every reason why the modules cannot be linked.
pub fn write_image(
    artifacts: &[Artifact],
    table: &GlobalTable,
    options: &ImageOptions,
) -> Result<Vec<u8>, Vec<LinkError>> {
    let arch = match &options.triple {
        Some(triple) if artifacts.is_empty() => {
            let unsupported = || vec![LinkError::UnsupportedTarget { triple: triple.clone() }];
            Arch::from_triple(triple).ok_or_else(unsupported)?
        }
        _ => Arch::host().unwrap_or(Arch::X86_64),
    };
    let plan = plan_for(arch, artifacts, table, &|_| None)?;
    let triple = match (artifacts.first(), &options.triple) {
        (Some(artifact), _) => artifact.triple().into(),
        (None, Some(triple)) => triple.clone(),
        (None, None) => format!("{}-unknown-linux-gnu", plan.arch().name()).into(),
    };
    check_names(&plan, options)?;
    write(&plan, &triple, options).map_err(|error| vec![error])
}

fn check_names(plan: &Plan<'_>, options: &ImageOptions) -> Result<(), Vec<LinkError>> {
    // Neither defined nor imported: the name is the image's own.
    let uses = plan.artifacts().iter().enumerate().filter(|(_, artifact)| {
        let reserved = |symbol: &&SymbolRecord| artifact.name(symbol) == SLOTS_SYMBOL;
        let visible =
            |symbol: &SymbolRecord| symbol.linkage() != Linkage::Local && symbol.kind() != SymbolKind::Global;
        artifact.symbols().iter().find(reserved).is_some_and(visible)
    });
    let mut errors: Vec<LinkError> =
        uses.map(|(module, _)| LinkError::ReservedName { module, name: SLOTS_SYMBOL.into() }).collect();
    if let Some(soname) = options.soname.as_deref().filter(|name| name.contains('\0')) {
        errors.push(LinkError::Soname { name: soname.into() });
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn write(plan: &Plan<'_>, triple: &str, options: &ImageOptions) -> Result<Vec<u8>, LinkError> {
    let symbols = DynamicSymbols::new(plan);
    let counts = RelaCounts::of(plan);
    let details = plan.slot_details();
    let needs_libc = details.iter().any(|detail| detail.libcall);
    let mut note = Builder::default();
    let mut signatures = Signatures::default();
    describe(&mut note, plan, triple);
    for (key, detail) in plan.slots().keys().iter().zip(&details) {
        let kind = U32::new(u32::from(matches!(key, SlotKey::Symbol(_))));
        let signature = signatures.index(&mut note, detail.signature);
        let key = note.text(key.text());
        note.slots.push(SlotRecord { key, kind, signature });
    }
    for export in &symbols.exports {
        let signature = signatures.index(&mut note, export.signature);
        note.export_signatures.push(signature);
    }
    note.symbolic = vec![SymbolicRecord::default(); counts.symbolic];

    let mut buffer = Vec::new();
    let file = File::write(plan, &symbols, &counts, &mut note, options, needs_libc, &mut buffer)?;
    let fixups = emit(plan, &file, &mut buffer)?;
    file.write_relocations(plan, &symbols, &fixups, &mut buffer);
    seal(plan, &file, &symbols, &fixups, note, &mut buffer);
    debug_assert!(crate::read::verify_bytes(&buffer).is_ok(), "what was written can be read");
    Ok(buffer)
}

/// Each signature once, in order of first use.
#[derive(Default)]
struct Signatures<'a> {
    known: HashMap<&'a str, u32, FastHash>,
}

impl<'a> Signatures<'a> {
    fn index(&mut self, note: &mut Builder, signature: Option<&'a str>) -> U32 {
        let Some(signature) = signature else { return U32::new(NONE) };
        U32::new(*self.known.entry(signature).or_insert_with(|| {
            let text = note.text(signature);
            note.signatures.push(text);
            note.signatures.len() as u32 - 1
        }))
    }
}

fn describe(note: &mut Builder, plan: &Plan<'_>, triple: &str) {
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
    let features: BTreeSet<&str> = plan.artifacts().iter().flat_map(Artifact::features).collect();
    note.producers = producers.into_iter().map(|producer| note.text(producer)).collect();
    note.features = features.into_iter().map(|feature| note.text(feature)).collect();
}

/// Copies and relocates code and data into the file.
fn emit(plan: &Plan<'_>, file: &File, buffer: &mut [u8]) -> Result<Fixups, LinkError> {
    let mut rest = buffer;
    let mut at = 0;
    let mut cut = |area: Area| {
        let size = plan.layout()[area].size as usize;
        if size == 0 {
            return Default::default();
        }
        let start = file.addresses[area] as usize;
        let (_, tail) = std::mem::take(&mut rest).split_at_mut(start - at);
        let (bytes, tail) = tail.split_at_mut(size);
        (rest, at) = (tail, start + size);
        bytes
    };
    // In order of the file.
    let rodata: &mut [u8] = cut(Area::Rodata);
    let eh_frame_hdr = cut(Area::EhFrameHdr);
    let eh_frame = cut(Area::EhFrame);
    let text = cut(Area::Text);
    let relro = cut(Area::Relro);
    let data = cut(Area::Data);
    plan.emit(&file.addresses, Output { text, eh_frame, eh_frame_hdr, rodata, relro, data })
}

/// Writes the note, which holds the checksums of everything else.
fn seal(
    plan: &Plan<'_>,
    file: &File,
    symbols: &DynamicSymbols<'_, '_>,
    fixups: &Fixups,
    mut note: Builder,
    buffer: &mut [u8],
) {
    let addresses: &Addresses = &file.addresses;
    for (record, pointer) in note.symbolic.iter_mut().zip(&fixups.symbolic) {
        let PointerSource::Slot(slot) = pointer.source else { continue };
        record.place = U64::new(addresses[pointer.area] + pointer.offset);
        record.addend = I64::new(pointer.addend);
        record.slot = U32::new(slot);
    }
    let area = |area: Area| Span::new(addresses[area], plan.layout()[area].size);
    let head = &mut note.head;
    head.file_len = U64::new(buffer.len() as u64);
    head.internal_slots = U64::new(plan.internal_slot_count() as u64);
    head.relative_count = U64::new((fixups.pointers.len() + fixups.internal_slots.len()) as u64);
    head.first_export = U32::new(symbols.first_export());
    head.gnu_hash = file.gnu_hash;
    head.dynsym = file.dynsym;
    head.dynstr = file.dynstr;
    head.rela = file.rela;
    head.slot_array = area(Area::Slots);
    head.eh_frame = area(Area::EhFrame);
    head.text = area(Area::Text);
    head.headers_sum = checksum(&buffer[..file.note.start]);
    let sums: Vec<SumRecord> = file
        .parts
        .par_iter()
        .zip(&note.sums)
        .map(|(part, record)| {
            let range = Span::new(part.start as u64, part.len() as u64);
            SumRecord { range, sum: checksum_parallel(&buffer[part.clone()]), ..*record }
        })
        .collect();
    note.sums = sums;
    let bytes = note.finish(plan.arch());
    buffer[file.note.clone()].copy_from_slice(&bytes);
}
