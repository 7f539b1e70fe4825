//! Named sections over batches: what keeps a running program and its image of one mind.
//!
//! An image has one section of a name, of all modules. Here each batch lies in memory of its own, so the bounds of a section
//! (`__start_NAME`, `__stop_NAME`) are known only if one batch has all of it, and once code uses them nothing may be added.

use std::collections::{HashMap, HashSet};

use kiln_artifact::Artifact;
use kiln_artifact::record::{Linkage, SectionKind, SymbolKind, SymbolRecord};
use kiln_globals::SlotKey;
use kiln_image::link::{Addresses, Area, Bound, NamedSection, section_bound};

use crate::JitError;

/// A section that linked batches have.
struct Section {
    writable: bool,
    /// First address, and the one behind the last, if one batch has it all.
    bounds: Option<(u64, u64)>,
    /// Whether code uses the bounds.
    used: bool,
}

/// The sections of all batches.
#[derive(Default)]
pub(crate) struct Sections(HashMap<Box<str>, Section>);

impl Sections {
    /// What can be refused before a batch is linked. `is_defined` and `is_slot` tell what was linked before under a name.
    pub(crate) fn check(
        &self,
        artifacts: &[Artifact],
        is_defined: &dyn Fn(&str) -> bool,
        is_slot: &dyn Fn(&SlotKey) -> bool,
    ) -> Result<(), JitError> {
        let mut present = HashSet::new();
        for (module, artifact) in artifacts.iter().enumerate() {
            for run in artifact.named_data() {
                let name = artifact.section_name(run);
                if !present.insert(name) {
                    continue;
                }
                for bound in ["__start_", "__stop_"].map(|prefix| format!("{prefix}{name}")) {
                    if section_bound(&bound).is_some() && is_slot(&SlotKey::Symbol(bound.as_str().into())) {
                        return Err(JitError::DefinedLate { name: bound.into(), module });
                    }
                }
                let Some(before) = self.0.get(name) else { continue };
                if before.writable != (run.section() == SectionKind::Writable) {
                    return Err(JitError::SectionConflict { section: name.into(), module });
                }
                if before.used {
                    return Err(JitError::SectionGrows { section: name.into(), module });
                }
            }
        }
        if self.0.is_empty() {
            return Ok(());
        }
        for (module, artifact) in artifacts.iter().enumerate() {
            for symbol in artifact.symbols() {
                let name = artifact.name(symbol);
                let Some((_, section)) = section_bound(name) else { continue };
                let Some(before) = self.0.get(section) else { continue };
                match symbol.linkage() {
                    Linkage::Local => {}
                    Linkage::Import if !is_import(symbol) => {}
                    Linkage::Import => {
                        let whole = before.bounds.is_some() && !present.contains(section);
                        if !whole && !is_defined(name) && !defines(artifacts, name) {
                            return Err(JitError::SectionInPieces { section: section.into(), module });
                        }
                        if whole && symbol.kind() == SymbolKind::Function && !is_defined(name) {
                            return Err(JitError::KindConflict { name: name.into(), module });
                        }
                    }
                    Linkage::Hidden | Linkage::Export | Linkage::Preemptible if !is_defined(name) => {
                        return Err(JitError::Redefinition { name: name.into(), module });
                    }
                    // The definition that was there before the section.
                    Linkage::Hidden | Linkage::Export | Linkage::Preemptible => {}
                }
            }
        }
        Ok(())
    }

    /// The address that `symbol` stands for, if it is a bound of a section that was linked before.
    pub(crate) fn bound(&self, symbol: &str) -> Option<u64> {
        let (bound, name) = section_bound(symbol)?;
        let (start, stop) = self.0.get(name)?.bounds?;
        Some(if bound == Bound::Start { start } else { stop })
    }

    /// Notes which bounds a batch that is now linked uses of sections that were there before. `is_defined` tells whether
    /// something else has a name.
    pub(crate) fn note_uses(&mut self, artifacts: &[Artifact], is_defined: &dyn Fn(&str) -> bool) {
        if self.0.is_empty() {
            return;
        }
        for artifact in artifacts {
            for symbol in artifact.symbols().iter().filter(|symbol| is_import(symbol)) {
                let name = artifact.name(symbol);
                if let Some((_, section)) = section_bound(name)
                    && let Some(section) = self.0.get_mut(section)
                    && !is_defined(name)
                {
                    section.used = true;
                }
            }
        }
    }

    /// Notes the sections of a batch.
    pub(crate) fn add<'a>(
        &mut self,
        sections: impl Iterator<Item = NamedSection<'a>>,
        addresses: &Addresses,
    ) {
        for section in sections {
            let start = addresses[section.area] + section.offset;
            let here = Section {
                writable: section.area == Area::Data,
                bounds: Some((start, start + section.size)),
                used: section.bounds_used,
            };
            self.0.entry(section.name.into()).and_modify(|before| before.bounds = None).or_insert(here);
        }
    }
}

/// Whether another module may define this.
fn is_import(symbol: &SymbolRecord) -> bool {
    symbol.linkage() == Linkage::Import && symbol.kind() != SymbolKind::Global && symbol.libcall == 0
}

fn defines(artifacts: &[Artifact], name: &str) -> bool {
    artifacts.iter().any(|artifact| {
        let mut visible = artifact.symbols().iter().filter(|symbol| symbol.linkage() != Linkage::Local);
        visible.any(|symbol| symbol.is_defined() && artifact.name(symbol) == name)
    })
}
