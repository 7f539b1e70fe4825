//! The steps from artifacts to the bytes of an image, in order.

use std::collections::HashSet;
use std::ops::Range;

use kiln_artifact::Artifact;
use kiln_globals::{GlobalTable, KeyRef, SlotKey};
use object::write::elf::Writer;

use super::base::base;
use super::bases::Bases;
use super::build_id::build_id_note;
use super::debug::Debug;
use super::describe::{announce_checksums, describe, seal};
use super::dynamic::DynamicSection;
use super::dynamic_symbols::{DynamicSymbols, ExportList, is_exported};
use super::headers::{write_file_headers, write_section_headers};
use super::layout::{FileLayout, TableSizes};
use super::levels::Versions;
use super::options::{ImageOptions, MAX_TEXT_ALIGN};
use super::patches::{TextPatches, write_patches};
use super::property::property_note;
use super::relocations::{Relocations, write_relocations};
use super::section::{Extra, sections};
use super::symbols::FullSymbols;
use super::tables::{write_dynamic_tables, write_full_symbols, write_property, write_rest};
use crate::base::{Base, SLOTS_SYMBOL};
use crate::link::{Area, Fixups, LinkError, Output, Plan, default_arch, plan_for};
use crate::note::{NoteBuilder, SignerRecord};

/// Links `artifacts`, in this order, into the bytes of an ELF shared object for their target. The
/// external slots of the image are the slots of `table`, then the slots that the modules need in
/// addition.
///
/// # Errors
///
/// A `LinkError` says why the modules cannot be linked. It has the numbers of modules; with their
/// names, print [`LinkError::with_names`].
pub fn write_image(
    artifacts: &[Artifact],
    table: &GlobalTable,
    options: &ImageOptions,
) -> Result<Vec<u8>, Vec<LinkError>> {
    write_image_files(artifacts, table, options).map(|files| files.image)
}

/// The files of an image.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ImageFiles {
    /// The image.
    pub image: Vec<u8>,
    /// The file with its symbols and debug information, if the options ask for such a file.
    pub debug: Option<Vec<u8>>,
}

/// Links `artifacts` into an image that is a layer on `bases`: it uses their functions and data,
/// fills slots of globals with what is bound there, and replaces functions of theirs that are
/// replaceable. The bases are not a part of it, but must be loaded before it: see `Image::bind_on`.
/// Among them are the bases of each base, in front of it.
///
/// # Errors
///
/// As for [`write_image`]; and a `LinkError` if the modules do not fit to the bases.
pub fn write_layer(
    artifacts: &[Artifact],
    table: &GlobalTable,
    bases: &[&dyn Base],
    options: &ImageOptions,
) -> Result<ImageFiles, Vec<LinkError>> {
    #[cfg(feature = "tracing")]
    let _span = tracing::debug_span!("link").entered();
    let bases = Bases::find(artifacts, bases)?;
    let arch = default_arch(artifacts, options.triple.as_deref())?;
    let names: Vec<&str> = options.module_names.iter().map(|name| &**name).collect();
    let external = |key: KeyRef<'_>| bases.external(key);
    let plan = plan_for(arch, artifacts, &names, &options.module_numbers, table, &external)?;
    let triple = match (artifacts.first(), &options.triple) {
        (Some(artifact), _) => artifact.triple().into(),
        (None, Some(triple)) => triple.clone(),
        (None, None) => format!("{}-unknown-linux-gnu", plan.arch().name()).into(),
    };
    check(&plan, options)?;
    write(&plan, &triple, table, &bases, options).map_err(|error| vec![error])
}

/// Does the same as [`write_image`], and also returns the file with the debug information, if that
/// is not in the image.
///
/// # Errors
///
/// As for [`write_image`].
pub fn write_image_files(
    artifacts: &[Artifact],
    table: &GlobalTable,
    options: &ImageOptions,
) -> Result<ImageFiles, Vec<LinkError>> {
    write_layer(artifacts, table, &[], options)
}

/// Refuses options that do not fit the program.
fn check(plan: &Plan<'_>, options: &ImageOptions) -> Result<(), Vec<LinkError>> {
    let ImageOptions { soname, needed, exports, text_align, .. } = options;
    if let Some(soname) = soname.as_deref().filter(|name| name.contains('\0')) {
        return Err(vec![LinkError::Soname { name: soname.into() }]);
    }
    if let Some(name) = needed.iter().find(|name| name.is_empty() || name.contains('\0')) {
        return Err(vec![LinkError::Needed { name: name.clone() }]);
    }
    if *text_align != 0 && !(text_align.is_power_of_two() && *text_align <= MAX_TEXT_ALIGN) {
        return Err(vec![LinkError::TextAlign { align: *text_align, limit: MAX_TEXT_ALIGN }]);
    }
    let Some(exports) = exports else { return Ok(()) };
    let exported = plan.definitions().filter(|definition| is_exported(definition.linkage));
    let exported: HashSet<&str> = exported.map(|definition| definition.name).chain([SLOTS_SYMBOL]).collect();
    let missing = exports.iter().filter(|name| !exported.contains(&***name));
    let missing: Vec<_> = missing.map(|name| LinkError::NoExport { name: name.clone() }).collect();
    if missing.is_empty() { Ok(()) } else { Err(missing) }
}

fn write(
    plan: &Plan<'_>,
    triple: &str,
    table: &GlobalTable,
    bases: &Bases<'_, '_>,
    options: &ImageOptions,
) -> Result<ImageFiles, LinkError> {
    let list = ExportList::of(options);
    let patches = TextPatches::of(plan)?;
    let symbols = DynamicSymbols::of(plan, &patches, &list);
    let base = base(plan, options)?;
    // An image that is made for an address and mapped elsewhere is moved: by a table as short as
    // can be.
    let relocations = Relocations::of(plan, &patches, options.pack_relocations || base != 0);
    let details = plan.slot_details();
    let needs_libc = plan.slots().keys().iter().any(|key| matches!(key, SlotKey::Routine(_)));
    let dynamic = DynamicSection::new(&symbols, &relocations, options, needs_libc)?;
    let property = property_note(plan.arch(), plan.artifacts());
    let versions = Versions::of(plan, options.levels.as_ref());
    let mut note = describe(plan, triple, &symbols, &details, &relocations, &versions, bases);
    note.signers = vec![SignerRecord::default(); options.signers.into()];

    let mut buffer = Vec::new();
    let full = FullSymbols::of(plan, &list)?;
    let parts = Parts {
        base,
        symbols: &symbols,
        relocations: &relocations,
        patches: &patches,
        dynamic: &dynamic,
        full: &full,
        property: &property,
        options,
        artifacts: &embedded(plan, table, options),
    };
    let (layout, debug) = write_frame(plan, &parts, &mut note, &mut buffer)?;
    let fixups = emit(plan, &layout, &mut buffer)?;
    write_pointers(plan, &layout, &symbols, &fixups, relocations.is_packing, &mut buffer);
    seal(plan, &layout, &symbols, &fixups, note, &mut buffer);
    let build_id = build_id_note(plan.arch(), &buffer[layout.note.clone()], debug.contents());
    buffer[layout.build_id.clone()].copy_from_slice(&build_id);
    let file = debug.finish(plan, &layout, &full, options, &build_id, &mut buffer)?;
    let read_again = || crate::read::verify_bytes(&buffer).map_err(|error| error.to_string());
    debug_assert_eq!(read_again(), Ok(()), "what was written can be read");
    Ok(ImageFiles { image: buffer, debug: file })
}

/// Returns the section of artifacts, if the options ask for it.
#[cfg(feature = "artifacts")]
fn embedded(plan: &Plan<'_>, table: &GlobalTable, options: &ImageOptions) -> Vec<u8> {
    let ImageOptions { module_names, module_numbers, .. } = options;
    match options.embed_artifacts {
        true => crate::embedded::section(plan.artifacts(), table, module_names, module_numbers),
        false => Vec::new(),
    }
}

/// Returns no section: the feature is off.
#[cfg(not(feature = "artifacts"))]
fn embedded(_: &Plan<'_>, _: &GlobalTable, _: &ImageOptions) -> Vec<u8> {
    Vec::new()
}

/// Writes the relocations, the list of patches, and the pointers whose relocations are packed:
/// those are relative to what is in the file. In an image that is made for an address, the file has
/// all pointers at the image itself.
fn write_pointers(
    plan: &Plan<'_>,
    layout: &FileLayout<'_>,
    symbols: &DynamicSymbols<'_, '_>,
    fixups: &Fixups,
    pack: bool,
    buffer: &mut [u8],
) {
    let Range { start, end } = layout.rela;
    let addresses = &layout.addresses;
    let (list, text) = write_patches(&fixups.text, addresses, layout.base);
    buffer[layout.patches.clone()].copy_from_slice(&list);
    let table = &mut buffer[start..end];
    let stored = write_relocations(plan, layout, symbols, fixups, &text, pack, table);
    let block = layout.address(&layout.thread_local.0);
    let offsets = fixups.thread_locals.iter().map(|pointer| {
        let (offset, _) = plan.arch().thread_local_offset(pointer.target - block);
        (addresses[pointer.area] + pointer.offset + 8, offset)
    });
    for (address, target) in stored.into_iter().chain(offsets) {
        let offset = (address - layout.base) as usize;
        buffer[offset..offset + 8].copy_from_slice(&plan.arch().u64_bytes(target));
    }
}

/// The parts that the frame of an image is made of.
struct Parts<'a, 'p, 'i> {
    base: u64,
    symbols: &'a DynamicSymbols<'p, 'i>,
    relocations: &'a Relocations,
    patches: &'a TextPatches,
    dynamic: &'a DynamicSection,
    full: &'a FullSymbols,
    property: &'a [u8],
    options: &'a ImageOptions,
    /// The section of artifacts; empty if there is none.
    artifacts: &'a [u8],
}

/// Lays out the file and writes headers and tables. Leaves room for areas, relocations and the
/// notes.
fn write_frame<'p>(
    plan: &Plan<'p>,
    parts: &Parts<'_, '_, '_>,
    note: &mut NoteBuilder,
    buffer: &mut Vec<u8>,
) -> Result<(FileLayout<'p>, Debug), LinkError> {
    let arch = plan.arch();
    let Parts { base, symbols, relocations, patches, dynamic, full, property, options, artifacts } = *parts;
    let mut debug = Debug::default();
    let mut w = Writer::new(arch.endian(), true, buffer);
    let extra = Extra {
        has_symbols: !options.strip,
        has_property: !property.is_empty(),
        has_rela: relocations.rela > 0,
        has_relr: relocations.packed.len() > 0,
        has_patches: patches.count() > 0,
        debug: Debug::names(options),
        has_link: Debug::link_len(options) > 0,
        has_artifacts: !artifacts.is_empty(),
        for_image: true,
    };
    let sections = sections(&mut w, plan, extra);
    announce_checksums(note, &sections);
    let too_long = || {
        let what = "the note".into();
        LinkError::TooLarge { module: None, what, size: u64::MAX, limit: u64::from(u32::MAX) }
    };
    let sizes = TableSizes {
        base,
        note: note.len().ok_or_else(too_long)?,
        property: property.len(),
        bloom: symbols.bloom,
        buckets: symbols.buckets,
        exports: symbols.exports.len() as u32,
        dynamic_symbols: symbols.len(),
        dynstr: dynamic.strings.len(),
        relocations: relocations.rela,
        relr: relocations.packed.len(),
        patches: patches.len(),
        // `check` has limited it.
        text_align: options.text_align as usize,
        dynamic: dynamic.len(),
        symbols: (!options.strip).then_some(full.list.len()),
        strtab: if options.strip { 0 } else { full.names.len() },
        link: Debug::link_len(options),
        artifacts: artifacts.len(),
    };
    let layout = FileLayout::reserve(&mut w, arch, plan.layout(), sections, &sizes, |addresses| {
        debug = Debug::new(plan, addresses[Area::Text], options)?;
        Ok(debug.lens(options))
    })?;

    write_file_headers(&mut w, plan, &layout)?;
    write_property(&mut w, &layout, property);
    write_dynamic_tables(&mut w, arch, &layout, symbols, relocations, dynamic)?;
    if !options.strip {
        write_full_symbols(&mut w, arch, &layout, full);
    }
    write_rest(&mut w, &layout, debug.sections(), artifacts);
    write_section_headers(&mut w, &layout, full.local_count);
    assert_eq!(w.len(), layout.len, "written as much as was reserved");
    Ok((layout, debug))
}

/// Copies and relocates code and data into the file.
fn emit(plan: &Plan<'_>, layout: &FileLayout<'_>, buffer: &mut [u8]) -> Result<Fixups, LinkError> {
    let mut rest = buffer;
    let mut done = 0;
    let mut cut = |area: Area| {
        let size = plan.layout()[area].size as usize;
        if size == 0 {
            return Default::default();
        }
        let start = layout.offset(area);
        let (_, tail) = std::mem::take(&mut rest).split_at_mut(start - done);
        let (bytes, tail) = tail.split_at_mut(size);
        (rest, done) = (tail, start + size);
        bytes
    };
    // The areas are cut off in order of the file.
    let rodata: &mut [u8] = cut(Area::Rodata);
    let eh_frame_hdr = cut(Area::EhFrameHdr);
    let eh_frame = cut(Area::EhFrame);
    let code_tables = cut(Area::CodeTables);
    let text = cut(Area::Text);
    let relro = cut(Area::Relro);
    let data = cut(Area::Data);
    plan.emit(&layout.addresses, Output { text, eh_frame, eh_frame_hdr, code_tables, rodata, relro, data })
}
