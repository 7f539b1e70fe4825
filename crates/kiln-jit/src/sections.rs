//! Named sections across batches, so that a running program and its image agree on their bounds.
//!
//! An image has one section per name, with the data of all modules. In memory each batch has its
//! own blocks, so the bounds of a section (`__start_NAME`, `__stop_NAME`) are known only if one
//! batch has all of it. Once code uses the bounds, nothing may be added to the section.

use std::collections::{HashMap, HashSet};

use kiln_artifact::Artifact;
use kiln_artifact::record::{Linkage, SectionKind, SymbolKind, SymbolRecord};
use kiln_globals::SlotKey;
use kiln_image::link::{Addresses, Area, Bound, MAX_SECTIONS, NamedSection, section_bound};

use crate::error::JitError;

/// A section with data of published batches.
struct PublishedSection {
    /// The number of the first module that has data in it, among all that were linked.
    module: usize,
    writable: bool,
    /// The addresses of its first byte and of its end, if one batch has all its data.
    bounds: Option<(u64, u64)>,
    /// Whether code uses the bounds.
    used: bool,
}

/// The sections of all published batches.
#[derive(Default)]
pub(crate) struct PublishedSections(HashMap<Box<str>, PublishedSection>);

impl PublishedSections {
    /// Refuses a batch whose sections or bounds contradict published batches, before it is linked.
    /// `is_defined` says whether a symbol was published under a name, and `is_slot` whether there
    /// is a slot for a key.
    pub(crate) fn check(
        &self,
        artifacts: &[Artifact],
        is_defined: &dyn Fn(&str) -> bool,
        is_slot: &dyn Fn(&SlotKey) -> bool,
    ) -> Result<(), JitError> {
        // Refuse data in published sections that cannot take it, or in sections whose bounds are
        // slots.
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
                    let earlier = before.module;
                    return Err(JitError::SectionConflict { section: name.into(), module, earlier });
                }
                if before.used {
                    return Err(JitError::SectionGrows { section: name.into(), module });
                }
            }
        }
        let count = self.0.len() + present.iter().filter(|&&name| !self.0.contains_key(name)).count();
        if count > MAX_SECTIONS {
            return Err(JitError::TooManySections { count, limit: MAX_SECTIONS });
        }
        // Refuse symbols that contradict a bound of a published section.
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
                            let earlier = before.module;
                            return Err(JitError::KindConflict { name: name.into(), module, earlier });
                        }
                    }
                    _ if !is_defined(name) => {
                        let earlier = before.module;
                        return Err(JitError::Redefinition { name: name.into(), module, earlier });
                    }
                    // The name was defined before the section was published.
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Returns the address of `symbol`, if it is a bound of a section that one batch has published
    /// whole.
    pub(crate) fn bound(&self, symbol: &str) -> Option<u64> {
        let (bound, name) = section_bound(symbol)?;
        let (start, stop) = self.0.get(name)?.bounds?;
        Some(if bound == Bound::Start { start } else { stop })
    }

    /// Records the published sections whose bounds a batch uses. `is_defined` says whether a symbol
    /// was published under a name.
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

    /// Adds the sections of a batch, whose modules are numbered from `first`.
    pub(crate) fn add<'a>(
        &mut self,
        sections: impl Iterator<Item = NamedSection<'a>>,
        addresses: &Addresses,
        first: usize,
    ) {
        for section in sections {
            let start = addresses[section.area] + section.offset;
            let published = PublishedSection {
                module: first + section.module,
                writable: section.area == Area::Data,
                bounds: Some((start, start + section.size)),
                used: section.bounds_used,
            };
            self.0.entry(section.name.into()).and_modify(|before| before.bounds = None).or_insert(published);
        }
    }
}

/// Whether the symbol may refer to a definition in another module.
fn is_import(symbol: &SymbolRecord) -> bool {
    symbol.linkage() == Linkage::Import && symbol.kind() != SymbolKind::Global && symbol.libcall == 0
}

/// Whether one of the modules defines `name` for others.
fn defines(artifacts: &[Artifact], name: &str) -> bool {
    artifacts.iter().any(|artifact| {
        let mut visible = artifact.symbols().iter().filter(|symbol| symbol.linkage() != Linkage::Local);
        visible.any(|symbol| symbol.is_defined() && artifact.name(symbol) == name)
    })
}
