//! Counts the relocations of each module's code, before anything is placed.

use kiln_artifact::record::Reloc;
use kiln_artifact::{Artifact, RelocKind};

use super::super::error::LinkError;
use super::super::resolve::{Resolution, ResolvedId};
use super::super::scan::{Need, NeedKind};
use super::super::threads;
use super::super::users::function_at;
use super::decide::{Aim, Decider};

/// The facts about a module that follow from its relocations.
#[derive(Default)]
pub(super) struct ModuleScan {
    /// The slots that it needs.
    pub(super) needs: Vec<Need>,
    /// The symbols that relocations of its code name, without repetitions.
    pub(super) used: Vec<ResolvedId>,
    /// The number of relocations of its code.
    pub(super) text_count: usize,
    /// The offsets in its code that other relocations name, sorted: those of high parts of pairs.
    pub(super) labels: Vec<u64>,
}

/// Scans all modules.
pub(super) fn scan(decider: &Decider<'_>, parallel: bool, errors: &mut Vec<LinkError>) -> Vec<ModuleScan> {
    #[cfg(feature = "tracing")]
    let _span = tracing::debug_span!("scan").entered();
    let scans = threads::map(parallel, decider.artifacts.len(), |number| module(decider, number));
    let scans = scans.into_iter().map(|(scan, found)| {
        errors.extend(found);
        scan
    });
    scans.collect()
}

fn module(decider: &Decider<'_>, number: usize) -> (ModuleScan, Vec<LinkError>) {
    let artifact = &decider.artifacts[number];
    let (mut scan, mut errors) = (ModuleScan::default(), Vec::new());
    let relocs = artifact.text_relocs();
    if relocs.is_empty() {
        return (scan, errors);
    }
    let mut used = vec![false; artifact.symbols().len()];
    let mut needed = used.clone();
    // Only one error per symbol is reported, because the message has the symbol's name.
    let mut reported = used.clone();
    let is_first = |seen: &mut [bool], symbol: usize| !std::mem::replace(&mut seen[symbol], true);
    for reloc in relocs {
        let symbol = reloc.symbol.get() as usize;
        let decision = match decider.decide(number, reloc) {
            Ok(Some(decision)) => decision,
            // A low part of a pair remains if its high part does.
            Ok(None) => continue,
            Err(error) => {
                if is_first(&mut reported, symbol) {
                    let name = artifact.name(&artifact.symbols()[symbol]).into();
                    let (offset, kind) = (reloc.offset.get(), reloc.kind());
                    let function = function_at(artifact, offset);
                    errors.push(error.into_error(number, function, name, offset, kind));
                }
                continue;
            }
        };
        match decision.aim {
            Aim::Symbol(id) if is_first(&mut used, symbol) => scan.used.push(id),
            Aim::Slot(id) if is_first(&mut needed, symbol) => {
                let kind = match decider.symbols.resolution(id) {
                    // A global has a slot anyway.
                    Resolution::Undefined => None,
                    Resolution::Replaceable(_) => Some(NeedKind::AddressSlot),
                    _ => Some(NeedKind::Slot),
                };
                scan.needs.extend(kind.map(|kind| Need { symbol: symbol as u32, kind }));
            }
            _ => {}
        }
        if !decision.is_patched(decider.artifacts, reloc.kind()) {
            scan.text_count += 1;
            if matches!(reloc.kind(), RelocKind::RvGotHi20 | RelocKind::RvPcrelHi20) {
                scan.labels.push(reloc.offset.get());
            }
        }
    }
    scan.labels.sort_unstable();
    if !scan.labels.is_empty() {
        let lows = relocs.iter().filter(|reloc| reloc.kind() == RelocKind::RvPcrelLo12I);
        let highs = lows.filter_map(|low| high_of(artifact, low));
        scan.text_count += highs.filter(|high| scan.labels.binary_search(high).is_ok()).count();
    }
    (scan, errors)
}

/// Returns the offset in the code of the high part that a low part belongs to. The symbol and the
/// addend of its relocation name that, in the same module.
pub(super) fn high_of(artifact: &Artifact, low: &Reloc) -> Option<u64> {
    let symbol = &artifact.symbols()[low.symbol.get() as usize];
    symbol.offset.get().checked_add_signed(low.addend.get())
}
