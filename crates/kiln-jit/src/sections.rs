//! Named sections across links, so that a running program and its image agree on their bounds.
//!
//! An image has one section per name, with the data of all modules. In memory each unit has its own
//! blocks, so the bounds of a section (`__start_NAME`, `__stop_NAME`) are known only if one unit
//! has all of it. Once code uses the bounds, nothing may be added to the section.

use std::collections::{HashMap, HashSet};

use kiln_artifact::Artifact;
use kiln_artifact::record::{Linkage, SectionKind, SymbolKind};
use kiln_image::link::{Addresses, Area, Bound, MAX_SECTIONS, Plan, section_bound};

use crate::batch::{Batch, Reference, reference};
use crate::unit::UnitId;

/// The data that one unit has in a section.
struct Piece {
    unit: UnitId,
    /// The number of the first module that has data in it, among all that were linked.
    module: usize,
    /// The addresses of its first byte and of its end. `None` while the unit is being linked.
    bounds: Option<(u64, u64)>,
}

/// A section with data of at least one unit.
struct Section {
    writable: bool,
    pieces: Vec<Piece>,
    /// The number of units that use the bounds.
    users: usize,
}

/// A section of a unit that is in memory.
pub(crate) struct SectionBounds<'a> {
    name: &'a str,
    /// The addresses of its first byte and of its end.
    bounds: (u64, u64),
    writable: bool,
    /// Whether the unit itself uses the bounds.
    is_used: bool,
}

impl<'a> SectionBounds<'a> {
    /// Returns the sections of a unit, with its areas at `addresses`.
    pub(crate) fn all(plan: &Plan<'a>, addresses: &Addresses) -> Vec<Self> {
        let sections = plan.sections().map(|section| {
            let start = addresses[section.area] + section.offset;
            Self {
                name: section.name,
                bounds: (start, start + section.size),
                writable: section.area == Area::Data,
                is_used: section.bounds_used,
            }
        });
        sections.collect()
    }
}

/// The sections of all units.
#[derive(Default)]
pub(crate) struct Sections(HashMap<Box<str>, Section>);

/// A section of a batch that contradicts earlier units.
pub(crate) struct SectionConflict {
    pub(crate) section: Box<str>,
    /// The position of the module in the batch.
    pub(crate) module: usize,
    pub(crate) reason: Conflict,
}

/// The reason of a [`SectionConflict`]. `bound` is the name of a bound, and `earlier` the number of
/// a module that was linked before.
pub(crate) enum Conflict {
    DefinedLate { bound: Box<str> },
    Kinds { earlier: usize },
    Grows,
    InPieces { bound: Box<str> },
    Function { bound: Box<str>, earlier: usize },
    Redefinition { bound: Box<str>, earlier: usize },
}

/// The reason why a batch is refused for its sections.
pub(crate) enum SectionFault {
    Conflict(SectionConflict),
    /// The number of sections would be this one.
    TooMany(usize),
}

/// A bound of a section of earlier units.
pub(crate) enum KnownBound {
    /// Its address.
    Address(u64),
    /// It is not known before another link has ended.
    Pending,
}

impl Section {
    /// Returns the only piece.
    fn whole(&self) -> Option<&Piece> {
        if let [piece] = &*self.pieces { Some(piece) } else { None }
    }
}

impl Sections {
    /// Refuses a batch whose sections or bounds contradict earlier units. `is_defined` says whether
    /// a symbol is defined under a name, and `is_slot` whether code uses the host's symbol of that
    /// name.
    pub(crate) fn check(
        &self,
        batch: &Batch<'_>,
        is_defined: &dyn Fn(&str) -> bool,
        is_slot: &dyn Fn(&str) -> bool,
    ) -> Result<(), SectionFault> {
        let fault = |section: &str, module, reason| {
            SectionFault::Conflict(SectionConflict { section: section.into(), module, reason })
        };
        // Refuse data in sections that cannot take it, or in sections whose bounds are slots.
        let mut present = HashSet::new();
        for (module, artifact) in batch.artifacts.iter().enumerate() {
            for run in artifact.named_data() {
                let name = artifact.section_name(run);
                if !present.insert(name) {
                    continue;
                }
                for bound in ["__start_", "__stop_"].map(|prefix| format!("{prefix}{name}")) {
                    if section_bound(&bound).is_some() && is_slot(&bound) {
                        return Err(fault(name, module, Conflict::DefinedLate { bound: bound.into() }));
                    }
                }
                let Some(before) = self.0.get(name) else { continue };
                if before.writable != (run.section() == SectionKind::Writable) {
                    let earlier = before.pieces[0].module;
                    return Err(fault(name, module, Conflict::Kinds { earlier }));
                }
                if before.users > 0 {
                    return Err(fault(name, module, Conflict::Grows));
                }
            }
        }
        let count = self.0.len() + present.iter().filter(|&&name| !self.0.contains_key(name)).count();
        if count > MAX_SECTIONS {
            return Err(SectionFault::TooMany(count));
        }
        if self.0.is_empty() {
            return Ok(());
        }
        for (module, artifact) in batch.artifacts.iter().enumerate() {
            self.check_bounds(batch, module, artifact, is_defined).map_err(SectionFault::Conflict)?;
        }
        Ok(())
    }

    /// Refuses symbols that contradict a bound of a section of earlier units.
    fn check_bounds(
        &self,
        batch: &Batch<'_>,
        module: usize,
        artifact: &Artifact,
        is_defined: &dyn Fn(&str) -> bool,
    ) -> Result<(), SectionConflict> {
        for symbol in artifact.symbols().iter().filter(|symbol| reference(symbol) == Reference::Shared) {
            let name = artifact.name(symbol);
            let Some((_, section)) = section_bound(name) else { continue };
            // A name that was defined before the section had data is that definition.
            let Some(before) = self.0.get(section).filter(|_| !is_defined(name)) else { continue };
            let earlier = before.pieces[0].module;
            let bound = || name.into();
            let fault = |reason| Err(SectionConflict { section: section.into(), module, reason });
            match symbol.linkage() {
                Linkage::Local => {}
                Linkage::Import => {
                    let whole = before.whole().is_some() && !batch.has_section(section);
                    if !whole && !batch.defines(name) {
                        return fault(Conflict::InPieces { bound: bound() });
                    }
                    if whole && symbol.kind() == SymbolKind::Function {
                        return fault(Conflict::Function { bound: bound(), earlier });
                    }
                }
                _ => return fault(Conflict::Redefinition { bound: bound(), earlier }),
            }
        }
        Ok(())
    }

    /// Whether another link adds to a section that `batch` has data in.
    pub(crate) fn is_pending(&self, batch: &Batch<'_>) -> bool {
        !self.0.is_empty()
            && batch.sections().any(|name| {
                let known = self.0.get(name);
                known.is_some_and(|section| section.pieces.iter().any(|piece| piece.bounds.is_none()))
            })
    }

    /// Returns the section and the address that `symbol` names, if it is a bound of a section that
    /// one unit has whole.
    pub(crate) fn bound<'n>(&self, symbol: &'n str) -> Option<(&'n str, KnownBound)> {
        if self.0.is_empty() {
            return None;
        }
        let (bound, name) = section_bound(symbol)?;
        let known = match self.0.get(name)?.whole()?.bounds {
            Some((start, _)) if bound == Bound::Start => KnownBound::Address(start),
            Some((_, stop)) => KnownBound::Address(stop),
            None => KnownBound::Pending,
        };
        Some((name, known))
    }

    /// Adds the sections of a unit that is being linked. Its modules are numbered from `first`.
    pub(crate) fn claim(&mut self, batch: &Batch<'_>, unit: UnitId, first: usize) {
        for (module, artifact) in batch.artifacts.iter().enumerate() {
            for run in artifact.named_data() {
                let section = self.0.entry(artifact.section_name(run).into()).or_insert_with(|| Section {
                    writable: run.section() == SectionKind::Writable,
                    pieces: Vec::new(),
                    users: 0,
                });
                if section.pieces.last().is_none_or(|piece| piece.unit != unit) {
                    section.pieces.push(Piece { unit, module: first + module, bounds: None });
                }
            }
        }
    }

    /// Sets the addresses of the sections of a unit that was claimed. Returns the sections whose
    /// bounds the unit itself uses.
    pub(crate) fn commit(&mut self, sections: &[SectionBounds<'_>], unit: UnitId) -> Vec<Box<str>> {
        let mut used = Vec::new();
        for section in sections {
            let Some(known) = self.0.get_mut(section.name) else { continue };
            if let Some(piece) = known.pieces.iter_mut().find(|piece| piece.unit == unit) {
                piece.bounds = Some(section.bounds);
            }
            debug_assert_eq!(known.writable, section.writable);
            if section.is_used {
                known.users += 1;
                used.push(section.name.into());
            }
        }
        used
    }

    /// Records that a unit uses the bounds of a section.
    pub(crate) fn add_user(&mut self, section: &str) {
        if let Some(section) = self.0.get_mut(section) {
            section.users += 1;
        }
    }

    /// Removes a use of the bounds of a section.
    pub(crate) fn remove_user(&mut self, section: &str) {
        if let Some(section) = self.0.get_mut(section) {
            section.users -= 1;
        }
    }

    /// Returns the number of units that use the bounds of a section.
    pub(crate) fn users(&self, section: &str) -> usize {
        self.0.get(section).map_or(0, |section| section.users)
    }

    /// Removes the data of a unit with these modules.
    pub(crate) fn remove(&mut self, artifacts: &[Artifact], unit: UnitId) {
        for artifact in artifacts {
            for run in artifact.named_data() {
                let name = artifact.section_name(run);
                let Some(section) = self.0.get_mut(name) else { continue };
                section.pieces.retain(|piece| piece.unit != unit);
                if section.pieces.is_empty() {
                    self.0.remove(name);
                }
            }
        }
    }
}
