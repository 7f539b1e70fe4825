//! Named sections: each gathers the data that all modules place in a section of that name.
//!
//! A named section is a range of an area: of [`Area::Data`] if the program writes the section, else
//! of [`Area::Relro`] if some of its data holds addresses, else of [`Area::Rodata`]. It comes after
//! all data of the area that is in no named section. So code that maps areas into memory need not
//! know about sections.
//!
//! Inside a section the data is in order of module, and each module's data in order of definition.
//! The only gaps are for alignment, so records of one size can be read as an array.
//!
//! As in other linkers, `__start_NAME` and `__stop_NAME` are the bounds of a section whose name is
//! a C identifier. Any other definition of such a name overrides the bound. Only modules of the
//! link can refer to bounds.
//!
//! This file finds the sections. That is a part of the phase `resolve`, because bounds are
//! definitions. The phase `place` places the sections.

use std::collections::HashMap;

use foldhash::fast::RandomState as FastHash;
use kiln_artifact::Artifact;
use kiln_artifact::record::SectionKind;
use kiln_globals::{THREAD_LOCAL_SECTION, is_reserved_section};

use super::error::LinkError;
use super::layout::Area;

/// The largest number of named sections. ELF files with more sections need extended tables.
pub const MAX_SECTIONS: usize = 0xfe00;

/// An end of a named section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bound {
    /// The address of the first byte, `__start_NAME`.
    Start,
    /// The address after the last byte, `__stop_NAME`.
    Stop,
}

/// Returns which bound of which section `symbol` names (`__start_NAME` or `__stop_NAME`), or `None`
/// if it is not such a name. A definition of the same name overrides the bound.
pub fn section_bound(symbol: &str) -> Option<(Bound, &str)> {
    let (bound, name) = match symbol.strip_prefix("__start_") {
        Some(name) => (Bound::Start, name),
        None => (Bound::Stop, symbol.strip_prefix("__stop_")?),
    };
    let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let first = name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
    (letters && first).then_some((bound, name))
}

/// A named section of a linked program: data of all modules, in order of module, and each module's
/// data in order of definition. The only gaps are for alignment. A section is either writable or
/// read-only. Names that have a meaning to loaders, debuggers and linkers (`.text`, `.init_array`,
/// `.note.x`) are not for named sections.
///
/// Imports called `__start_NAME` and `__stop_NAME` are its bounds if `NAME` is a C identifier,
/// unless they have another definition.
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
    /// Whether a module of the link uses the section's `__start_NAME` or `__stop_NAME`.
    pub bounds_used: bool,
}

/// A run of named data of one module.
#[derive(Clone, Copy)]
pub(super) struct SectionPiece {
    pub(super) module: u32,
    /// The number of the run in the module.
    pub(super) run: u32,
}

/// A named section before it has a place.
pub(super) struct UnplacedSection<'a> {
    pub(super) name: &'a str,
    /// The number of the first module that has data in it.
    pub(super) module: usize,
    /// The area it will be a part of.
    pub(super) area: Area,
    /// Whether a module of the link uses one of its bounds.
    pub(super) bounds_used: bool,
    pub(super) pieces: Vec<SectionPiece>,
}

/// Whether a place in the read-only data of a module is in thread-local data.
pub(super) fn is_thread_local(artifact: &Artifact, section: SectionKind, offset: u64) -> bool {
    section == SectionKind::ReadOnly
        && artifact
            .named_data_at(section, offset)
            .is_some_and(|run| artifact.section_name(&artifact.named_data()[run]) == THREAD_LOCAL_SECTION)
}

/// All named sections, in order of the first module that has data in them.
#[derive(Default)]
pub(super) struct NamedSections<'a> {
    pub(super) list: Vec<UnplacedSection<'a>>,
    numbers: HashMap<&'a str, u32, FastHash>,
}

impl<'a> NamedSections<'a> {
    /// Finds the sections that modules have data in.
    pub(super) fn collect(artifacts: &'a [Artifact], errors: &mut Vec<LinkError>) -> Self {
        let mut sections = Self::default();
        for (module, artifact) in artifacts.iter().enumerate() {
            let runs = artifact.named_data();
            if runs.is_empty() {
                continue;
            }
            // Read-only data that holds addresses is written by the loader.
            let mut relocated = vec![false; runs.len()];
            for reloc in artifact.read_only_relocs() {
                if let Some(run) = artifact.named_data_at(SectionKind::ReadOnly, reloc.offset.get()) {
                    relocated[run] = true;
                }
            }
            for (index, (run, relocated)) in runs.iter().zip(relocated).enumerate() {
                let name = artifact.section_name(run);
                let area = match run.section() {
                    // Dynamic linkers look for it in data that they write.
                    SectionKind::ReadOnly if name == THREAD_LOCAL_SECTION => Area::Relro,
                    SectionKind::Writable => Area::Data,
                    _ if relocated => Area::Relro,
                    _ => Area::Rodata,
                };
                let piece = SectionPiece { module: module as u32, run: index as u32 };
                if let Err(error) = sections.add(name, area, piece) {
                    errors.push(error);
                }
            }
        }
        let (count, limit) = (sections.list.len(), MAX_SECTIONS);
        if count > limit {
            errors.push(LinkError::TooManySections { count, limit });
        }
        sections
    }

    /// Adds a run to the section called `name`. `area` is the area that the run needs by itself;
    /// other runs of the section can change it.
    fn add(&mut self, name: &'a str, area: Area, piece: SectionPiece) -> Result<(), LinkError> {
        let module = piece.module as usize;
        let is_thread_local = name == THREAD_LOCAL_SECTION && area == Area::Relro;
        if is_reserved_section(name) && !is_thread_local {
            return Err(LinkError::ReservedSection { module, section: name.into() });
        }
        let next = self.list.len() as u32;
        let number = *self.numbers.entry(name).or_insert(next);
        if number == next {
            let pieces = vec![piece];
            self.list.push(UnplacedSection { name, module, area, bounds_used: false, pieces });
            return Ok(());
        }
        let section = &mut self.list[number as usize];
        if (section.area == Area::Data) != (area == Area::Data) {
            let (first, second) = (section.module, module);
            return Err(LinkError::SectionConflict { section: name.into(), first, second });
        }
        if area == Area::Relro {
            section.area = Area::Relro;
        }
        section.pieces.push(piece);
        Ok(())
    }

    /// Returns the section, and the bound of it, that the undefined symbol `symbol` names, and
    /// records that the bound is used.
    pub(super) fn use_bound(&mut self, symbol: &str) -> Option<(u32, Bound)> {
        if self.list.is_empty() {
            return None;
        }
        let (bound, name) = section_bound(symbol)?;
        let number = *self.numbers.get(name)?;
        self.list[number as usize].bounds_used = true;
        Some((number, bound))
    }
}
