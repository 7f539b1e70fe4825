//! Phase `place`: computes the offsets of code, stubs and data in their areas, each once.
//!
//! In every area, the pieces of modules are in order of modules. Named sections come after all data
//! that is in no named section. Shared stubs are after all code; a module's own stubs are right
//! after its code.

use std::ops::Range;

use kiln_artifact::Artifact;
use kiln_artifact::record::SectionKind;

use super::assign::Assignment;
use super::error::LinkError;
use super::layout::{Area, Layout, MAX_SIZE, MIN_ALIGN};
use super::lists::PerModule;
use super::relocate::stub_size;
use super::sections::{NamedSection, SectionPiece, UnplacedSection};
use super::users::largest;
use crate::arch::Arch;

/// The places of a module's code, stubs and data outside named sections. Offsets are from the start
/// of the area, in bytes.
pub(super) struct PlacedModule {
    /// The range of its code, including its own stubs if it has some.
    pub(super) text: Range<u64>,
    /// The area of its read-only data.
    pub(super) read_only_area: Area,
    pub(super) read_only: u64,
    pub(super) writable: u64,
    pub(super) zeroed: u64,
}

/// The place of a run of named data of one module.
struct PlacedRun {
    section: SectionKind,
    /// The run's offset in that section of the artifact, in bytes.
    start: u64,
    area: Area,
    /// Offset in the area, in bytes.
    offset: u64,
}

/// A named section with its place.
pub(super) struct PlacedSection<'a> {
    pub(super) info: NamedSection<'a>,
    /// The pieces, and their offsets in the area, in bytes.
    pub(super) pieces: Vec<(SectionPiece, u64)>,
}

/// The places of everything but slots and unwind information.
pub(super) struct Placement<'a> {
    /// Sizes and alignments of areas. The areas of slots and unwind information are still empty.
    pub(super) layout: Layout,
    /// Sizes and alignments of areas without their named sections.
    pub(super) unnamed: Layout,
    pub(super) modules: PerModule<PlacedModule>,
    /// The runs of named data of each module, in order of section and start.
    runs: PerModule<Vec<PlacedRun>>,
    /// The offset of each stub in the code area, in bytes.
    pub(super) stubs: Vec<u64>,
    pub(super) sections: Vec<PlacedSection<'a>>,
}

impl Placement<'_> {
    /// Returns the area, and the offset in it, where the byte at `offset` of `section` of module
    /// `module` is placed. `None` if `section` is `SectionKind::Undefined`, the section of imports.
    pub(super) fn locate(&self, module: usize, section: SectionKind, offset: u64) -> Option<(Area, u64)> {
        let runs = &self.runs[module];
        let next = runs.partition_point(|run| (run.section, run.start) <= (section, offset));
        if let Some(run) = next.checked_sub(1).map(|index| &runs[index])
            && run.section == section
        {
            return Some((run.area, run.offset + (offset - run.start)));
        }
        let module = &self.modules[module];
        match section {
            SectionKind::Undefined => None,
            SectionKind::Text => Some((Area::Text, module.text.start + offset)),
            SectionKind::ReadOnly => Some((module.read_only_area, module.read_only + offset)),
            SectionKind::Writable => Some((Area::Data, module.writable + offset)),
            SectionKind::Zeroed => Some((Area::Bss, module.zeroed + offset)),
        }
    }
}

/// Places code, stubs and data.
pub(super) fn place<'a>(
    arch: Arch,
    artifacts: &[Artifact],
    assignment: &Assignment,
    sections: Vec<UnplacedSection<'a>>,
    errors: &mut Vec<LinkError>,
) -> Placement<'a> {
    let mut layout = Layout::default();
    let stub = stub_size(arch);

    // Code, data outside named sections, and stubs.
    let mut stubs = vec![0; assignment.stubs().len()];
    let mut modules = PerModule::with_capacity(artifacts.len());
    for (number, artifact) in artifacts.iter().enumerate() {
        modules.push(place_module(number, artifact, &mut layout, errors));
        let own_stubs = assignment.stubs_of_module(number);
        if !own_stubs.is_empty() {
            let text = &mut layout[Area::Text];
            stubs[own_stubs].iter_mut().for_each(|offset| *offset = text.push(stub, stub));
            modules[number].text.end = text.size;
        }
    }
    let text = &mut layout[Area::Text];
    stubs[assignment.shared_stubs()].iter_mut().for_each(|offset| *offset = text.push(stub, stub));

    // Named sections.
    let unnamed = layout.clone();
    let sections: Vec<PlacedSection<'a>> = sections
        .into_iter()
        .filter_map(|section| {
            let placed = place_section(artifacts, section, &mut layout);
            placed.map_err(|error| errors.push(error)).ok()
        })
        .collect();
    let runs = placed_runs(artifacts, &sections);
    Placement { layout, unnamed, modules, runs, stubs, sections }
}

/// Places the code of a module, and its data outside named sections.
fn place_module(
    number: usize,
    artifact: &Artifact,
    layout: &mut Layout,
    errors: &mut Vec<LinkError>,
) -> PlacedModule {
    let summary = artifact.summary();
    let [read_only, writable] =
        [SectionKind::ReadOnly, SectionKind::Writable].map(|section| artifact.unnamed_len(section));
    // Read-only data that holds addresses is written by the loader.
    let relocated = artifact.read_only_relocs().iter().any(|reloc| reloc.offset.get() < read_only);
    let read_only_area = if relocated { Area::Relro } else { Area::Rodata };
    let mut push = |section: SectionKind, area: Area, size: u64, align: u32| {
        let what = || {
            let (part, kind) = if area == Area::Text { ("code", "function") } else { ("data", "object") };
            let name = area.name();
            match largest(artifact, section) {
                Some((largest, size)) if !largest.is_empty() => {
                    format!("`{name}` with its {part} (the largest {kind} is `{largest}`, {size} bytes)")
                }
                _ => format!("`{name}` with its {part}"),
            }
        };
        let placed = push_piece(layout, area, size, u64::from(align).max(MIN_ALIGN), number, &what);
        placed.unwrap_or_else(|error| {
            errors.push(error);
            0 // not used: there is no plan if there are errors
        })
    };
    let code = artifact.text().len() as u64;
    let text = push(SectionKind::Text, Area::Text, code, summary.text_align.get());
    PlacedModule {
        text: text..text + code,
        read_only_area,
        read_only: push(SectionKind::ReadOnly, read_only_area, read_only, summary.read_only_align.get()),
        writable: push(SectionKind::Writable, Area::Data, writable, summary.writable_align.get()),
        zeroed: push(SectionKind::Zeroed, Area::Bss, summary.zeroed_size.get(), summary.zeroed_align.get()),
    }
}

/// Places a named section at the end of its area.
fn place_section<'a>(
    artifacts: &[Artifact],
    section: UnplacedSection<'a>,
    layout: &mut Layout,
) -> Result<PlacedSection<'a>, LinkError> {
    let UnplacedSection { name, module, area, bounds_used, pieces } = section;
    let run_of = |piece: &SectionPiece| &artifacts[piece.module as usize].named_data()[piece.run as usize];
    let align = pieces.iter().map(|piece| u64::from(run_of(piece).align.get())).fold(MIN_ALIGN, u64::max);
    let what = || format!("section `{name}`");
    let start = layout[area].push(0, align);
    let placed = pieces.into_iter().map(|piece| {
        let run = run_of(&piece);
        let offset =
            push_piece(layout, area, run.len.get(), run.align.get().into(), piece.module as usize, &what)?;
        Ok((piece, offset))
    });
    let pieces = placed.collect::<Result<_, _>>()?;
    let size = layout[area].size - start;
    let info = NamedSection { name, module, area, offset: start, size, align, bounds_used };
    Ok(PlacedSection { info, pieces })
}

/// Appends a piece of `module` to an area and returns its offset. An empty piece does not change
/// the offsets of later pieces. `what` describes what would be too large with this piece, for
/// errors.
fn push_piece(
    layout: &mut Layout,
    area: Area,
    size: u64,
    align: u64,
    module: usize,
    what: &dyn Fn() -> String,
) -> Result<u64, LinkError> {
    let extent = &mut layout[area];
    let total = extent.size.saturating_add(size);
    if total >= MAX_SIZE {
        let what = what().into();
        return Err(LinkError::TooLarge { module: Some(module), what, size: total, limit: MAX_SIZE });
    }
    Ok(if size == 0 { extent.size } else { extent.push(size, align) })
}

/// Returns the places of each module's runs of named data, in order of runs.
fn placed_runs(artifacts: &[Artifact], sections: &[PlacedSection<'_>]) -> PerModule<Vec<PlacedRun>> {
    let mut pieces: Vec<(SectionPiece, Area, u64)> = Vec::new();
    for section in sections {
        pieces.extend(section.pieces.iter().map(|&(piece, offset)| (piece, section.info.area, offset)));
    }
    pieces.sort_unstable_by_key(|(piece, ..)| (piece.module, piece.run));
    let mut pieces = pieces.into_iter().peekable();
    let mut runs = PerModule::with_capacity(artifacts.len());
    for (number, artifact) in artifacts.iter().enumerate() {
        let mut own = Vec::with_capacity(artifact.named_data().len());
        while let Some((piece, area, offset)) = pieces.next_if(|(piece, ..)| piece.module as usize == number)
        {
            let run = &artifact.named_data()[piece.run as usize];
            own.push(PlacedRun { section: run.section(), start: run.start.get(), area, offset });
        }
        runs.push(own);
    }
    runs
}
