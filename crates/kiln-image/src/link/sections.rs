//! Named sections: data that asks for a section of its own, from all modules, side by side.
//!
//! A section is a range of the area that its data belongs in anyway, behind all data without a section: [`Area::Data`] if the
//! program writes it, else [`Area::Relro`] if some of it holds addresses, else [`Area::Rodata`]. So whoever maps areas need not
//! know of sections. Inside a section, modules follow in their order, each module's data in order of definition, with no
//! other gaps than alignment asks for; data that is walked over as an array is one.
//!
//! As with other linkers, `__start_NAME` and `__stop_NAME` are the bounds of a section whose name is an identifier of C. They are
//! definitions that give way to any other of the name, and are seen by the linked modules only.

use std::collections::HashMap;

use foldhash::fast::RandomState as FastHash;
use kiln_artifact::Artifact;
use kiln_artifact::record::SectionKind;

use super::plan::{MAX_ALIGN, MAX_SIZE, MIN_ALIGN, ModulePlan};
use super::{Area, Layout, LinkError};

/// More sections than this need another form of ELF tables.
const MAX_SECTIONS: usize = 0xfe00;

/// Names of sections that images have, or that mean something to loaders, debuggers and linkers.
const RESERVED: [&str; 32] = [
    ".bss",
    ".ctors",
    ".data",
    ".data.rel.ro",
    ".dtors",
    ".dynamic",
    ".dynstr",
    ".dynsym",
    ".eh_frame",
    ".eh_frame_hdr",
    ".fini",
    ".fini_array",
    ".gcc_except_table",
    ".got",
    ".got.plt",
    ".hash",
    ".init",
    ".init_array",
    ".interp",
    ".kiln.slots",
    ".plt",
    ".plt.got",
    ".plt.sec",
    ".preinit_array",
    ".relr.dyn",
    ".rodata",
    ".shstrtab",
    ".strtab",
    ".symtab",
    ".tbss",
    ".tdata",
    ".text",
];
/// Beginnings of such names.
const RESERVED_PREFIXES: [&str; 12] = [
    ".ctors.",
    ".debug_",
    ".dtors.",
    ".fini_array.",
    ".gnu.",
    ".gnu_",
    ".init_array.",
    ".kiln.",
    ".note",
    ".rel.",
    ".rela",
    ".symtab_",
];

/// Whether data must not ask for this section: images have it, or it means something to those who read them.
pub(crate) fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// An end of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bound {
    /// Its first byte, `__start_NAME`.
    Start,
    /// The byte behind its last, `__stop_NAME`.
    Stop,
}

/// The section, and which end of it, that a symbol called `symbol` stands for, unless something else has this name.
pub fn section_bound(symbol: &str) -> Option<(Bound, &str)> {
    let (bound, name) = match symbol.strip_prefix("__start_") {
        Some(name) => (Bound::Start, name),
        None => (Bound::Stop, symbol.strip_prefix("__stop_")?),
    };
    let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let first = name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
    (letters && first).then_some((bound, name))
}

/// A named section of a linked program: the data of all modules that asks for it, modules in their order, each module's data in
/// order of definition, with no other gaps than alignment asks for. It is writable or read-only, never some of both, and its
/// name is none that means something to loaders, debuggers or linkers (`.text`, `.init_array`, `.note.x`).
///
/// Imports called `__start_NAME` and `__stop_NAME` are its bounds if the name is an identifier of C, unless something else has
/// their name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedSection<'a> {
    /// The name.
    pub name: &'a str,
    /// The number of the first module that has data in it.
    pub module: usize,
    /// The area it is a part of.
    pub area: Area,
    /// Offset in the area, in bytes.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
    /// Alignment in bytes, a power of two.
    pub align: u64,
    /// Whether a module of the link uses `__start_NAME` or `__stop_NAME` of it.
    pub bounds_used: bool,
}

/// One module's part of a section.
pub(crate) struct Part {
    pub(crate) module: u32,
    /// Its number among the module's runs of named data.
    pub(crate) run: u32,
    /// Offset in the area.
    pub(crate) offset: u64,
}

pub(crate) struct Section<'a> {
    pub(crate) info: NamedSection<'a>,
    pub(crate) parts: Vec<Part>,
}

/// All named sections, in order of the first module that has data in them.
#[derive(Default)]
pub(crate) struct Sections<'a> {
    pub(crate) list: Vec<Section<'a>>,
    numbers: HashMap<&'a str, u32, FastHash>,
}

impl<'a> Sections<'a> {
    /// Finds the sections; where they lie is not decided yet.
    pub(crate) fn collect(artifacts: &'a [Artifact], errors: &mut Vec<LinkError>) -> Self {
        let mut sections = Self::default();
        for (module, artifact) in artifacts.iter().enumerate() {
            let runs = artifact.named_data();
            if runs.is_empty() {
                continue;
            }
            let mut relocated = vec![false; runs.len()];
            for reloc in artifact.read_only_relocs() {
                if let Some(run) = artifact.named_data_at(SectionKind::ReadOnly, reloc.offset.get()) {
                    relocated[run] = true;
                }
            }
            for (index, (run, relocated)) in runs.iter().zip(relocated).enumerate() {
                let name = artifact.section_name(run);
                if is_reserved(name) {
                    errors.push(LinkError::ReservedSection { module, section: name.into() });
                    continue;
                }
                let area = match run.section() {
                    SectionKind::Writable => Area::Data,
                    _ if relocated => Area::Relro,
                    _ => Area::Rodata,
                };
                let next = sections.list.len() as u32;
                let number = *sections.numbers.entry(name).or_insert(next);
                if number == next {
                    let info =
                        NamedSection { name, module, area, offset: 0, size: 0, align: 1, bounds_used: false };
                    sections.list.push(Section { info, parts: Vec::new() });
                }
                let section = &mut sections.list[number as usize];
                match (section.info.area, area) {
                    (old, new) if (old == Area::Data) != (new == Area::Data) => {
                        let (first, second) = (section.info.module, module);
                        errors.push(LinkError::SectionConflict { section: name.into(), first, second });
                        continue;
                    }
                    (Area::Rodata, Area::Relro) => section.info.area = Area::Relro,
                    _ => {}
                }
                section.parts.push(Part { module: module as u32, run: index as u32, offset: 0 });
            }
        }
        let (count, limit) = (sections.list.len(), MAX_SECTIONS);
        if count > limit {
            errors.push(LinkError::TooManySections { count, limit });
        }
        sections
    }

    /// The section, and which end of it, that the undefined symbol `symbol` stands for.
    pub(crate) fn bound(&mut self, symbol: &str) -> Option<(u32, Bound)> {
        if self.list.is_empty() {
            return None;
        }
        let (bound, name) = section_bound(symbol)?;
        let number = *self.numbers.get(name)?;
        self.list[number as usize].info.bounds_used = true;
        Some((number, bound))
    }

    /// Places the sections behind what `layout` has, and tells the modules.
    pub(crate) fn lay_out(
        &mut self,
        artifacts: &[Artifact],
        modules: &mut [ModulePlan],
        layout: &mut Layout,
        errors: &mut Vec<LinkError>,
    ) {
        for Section { info, parts } in &mut self.list {
            let area = &mut layout[info.area];
            let align_of =
                |part: &Part| artifacts[part.module as usize].named_data()[part.run as usize].align;
            let align = parts.iter().map(|part| align_of(part).get()).max().map_or(1, u64::from);
            if align > MAX_ALIGN {
                errors.push(LinkError::TooLarge { what: "an alignment", size: align, limit: MAX_ALIGN });
                continue;
            }
            info.align = align.max(MIN_ALIGN);
            info.offset = area.push(0, info.align);
            for part in parts {
                let run = &artifacts[part.module as usize].named_data()[part.run as usize];
                if area.size.saturating_add(run.len.get()) >= MAX_SIZE {
                    let (what, size) = (info.area.name(), run.len.get());
                    errors.push(LinkError::TooLarge { what, size, limit: MAX_SIZE });
                    break;
                }
                // An empty part does not move what follows.
                let align = if run.len.get() == 0 { 1 } else { u64::from(run.align.get()) };
                part.offset = area.push(run.len.get(), align);
                modules[part.module as usize].runs[part.run as usize] = Run {
                    place: run.section(),
                    start: run.start.get(),
                    area: info.area,
                    offset: part.offset,
                };
            }
            info.size = area.size - info.offset;
        }
    }
}

/// Where a run of a module's named data went.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    pub(crate) place: SectionKind,
    /// Where it starts in its place.
    pub(crate) start: u64,
    pub(crate) area: Area,
    /// Offset in the area.
    pub(crate) offset: u64,
}
