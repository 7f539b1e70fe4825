//! Phase `scan`: finds the slots and stubs that each module needs, from its relocations.
//!
//! Modules are scanned in parallel. A scan depends on the results of `resolve` and `reach`; slots,
//! stubs and addresses do not exist yet.

use kiln_artifact::record::Reloc;
use kiln_artifact::{Artifact, RelocKind};
use kiln_globals::THREAD_LOCAL_SECTION;

use super::direct::{self, Aim};
use super::error::LinkError;
use super::lists::PerModule;
use super::meaning::{is_called, is_own};
use super::reach::Near;
use super::relocate::{self, PatchError, Use};
use super::resolve::{Resolution, SymbolTable};
use super::sections::is_thread_local;
use super::threads;
use super::users::function_at;
use crate::arch::Arch;
use crate::patch_list::PATCH_LEN;

/// The means of reaching a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NeedKind {
    /// A GOT slot, which holds the address.
    Slot,
    /// A stub (PLT entry), which jumps to the address.
    Stub,
    /// A slot that holds the address of a replaceable function, which is that of its stub.
    AddressSlot,
    /// The value of an external slot, which need not be in memory.
    Value,
}

/// A slot or a stub that a module needs for one of its symbols.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    /// The number of the symbol in the module.
    pub(super) symbol: u32,
    pub(super) kind: NeedKind,
}

/// Returns the slots and stubs that each module needs, without duplicates: first for its code, then
/// for its data, in order of relocations.
pub(super) fn scan(
    arch: Arch,
    artifacts: &[Artifact],
    symbols: &SymbolTable,
    near: Near,
    parallel: bool,
    errors: &mut Vec<LinkError>,
) -> PerModule<Vec<Need>> {
    #[cfg(feature = "tracing")]
    let _span = tracing::debug_span!("scan").entered();
    let has_thread_locals = artifacts.iter().any(|artifact| {
        artifact.named_data().iter().any(|run| artifact.section_name(run) == THREAD_LOCAL_SECTION)
    });
    let scanner = |number| Scanner { arch, artifacts, symbols, near, number, has_thread_locals };
    // To look at few relocations takes less time than to start a thread.
    let parallel = parallel && threads::are_many(artifacts.iter().map(reloc_count));
    let scans = threads::map(parallel, artifacts.len(), |number| scanner(number).scan());
    let needs = scans.into_iter().map(|(needs, found)| {
        errors.extend(found);
        needs
    });
    needs.collect()
}

/// Returns the number of relocations of a module.
fn reloc_count(artifact: &Artifact) -> usize {
    let relocs = [artifact.text_relocs(), artifact.read_only_relocs(), artifact.writable_relocs()];
    relocs.map(<[_]>::len).iter().sum()
}

/// Reads the relocations of one module.
struct Scanner<'s> {
    arch: Arch,
    artifacts: &'s [Artifact],
    symbols: &'s SymbolTable,
    near: Near,
    number: usize,
    /// Whether a module has thread-local data.
    has_thread_locals: bool,
}

impl Scanner<'_> {
    fn scan(&self) -> (Vec<Need>, Vec<LinkError>) {
        let artifact = &self.artifacts[self.number];
        let resolved = self.symbols.of_module(self.number);
        let (mut needs, mut errors) = (Vec::new(), Vec::new());
        let data = artifact.read_only_relocs().iter().chain(artifact.writable_relocs());
        if artifact.text_relocs().is_empty() && data.clone().next().is_none() {
            return (needs, errors);
        }
        let mut seen = vec![[false; 4]; artifact.symbols().len()];
        // Only one error per symbol is reported, because the message has the symbol's name.
        let mut reported = vec![false; artifact.symbols().len()];
        let mut add = |symbol: u32, kind: NeedKind| {
            if !std::mem::replace(&mut seen[symbol as usize][kind as usize], true) {
                needs.push(Need { symbol, kind });
            }
        };
        let mut addresses = Vec::new();
        for reloc in artifact.text_relocs() {
            let (symbol, offset, kind) = (reloc.symbol.get(), reloc.offset.get(), reloc.kind());
            if direct::is_address(artifact, reloc) {
                addresses.push((offset, symbol));
                let module = (artifact, self.number);
                if direct::aim(self.arch, self.near.data, self.symbols, module, reloc) == Aim::Value {
                    add(symbol, NeedKind::Value);
                }
                continue;
            }
            let resolution = match is_own(artifact, reloc) {
                true => Resolution::Defined { module: self.number as u32, symbol },
                false => self.symbols.resolution(resolved[symbol as usize]),
            };
            let called = is_called(artifact, reloc);
            let usage =
                relocate::classify(self.arch, kind, artifact.text(), offset as usize, reloc.addend.get());
            match usage.and_then(|usage| self.need(usage, resolution, called)) {
                Ok(Some(kind)) => add(symbol, kind),
                Ok(None) => {}
                Err(_) if std::mem::replace(&mut reported[symbol as usize], true) => {}
                Err(error) => {
                    let symbol = artifact.name(&artifact.symbols()[symbol as usize]).into();
                    let function = function_at(artifact, offset);
                    errors.push(error.into_error(self.number, function, symbol, offset, kind));
                }
            }
        }
        self.check_thread_locals(&mut errors);
        // A pointer to an undefined symbol is filled from the symbol's slot.
        for reloc in data.filter(|reloc| reloc.kind() != RelocKind::ThreadLocal) {
            let symbol = reloc.symbol.get();
            if self.symbols.resolution(resolved[symbol as usize]) == Resolution::Undefined {
                add(symbol, NeedKind::Value);
            }
        }
        // Each is patched by itself.
        addresses.sort_unstable();
        for pair in addresses.windows(2).filter(|pair| pair[1].0 - pair[0].0 < PATCH_LEN) {
            let (offset, symbol) = pair[1];
            let symbol = artifact.name(&artifact.symbols()[symbol as usize]).into();
            let function = function_at(artifact, offset);
            let error = PatchError::Instruction;
            errors.push(error.into_error(self.number, function, symbol, offset, RelocKind::Abs64));
        }
        (needs, errors)
    }

    /// Checks that thread-local data is used as such, and nothing else is.
    fn check_thread_locals(&self, errors: &mut Vec<LinkError>) {
        let (artifact, module) = (&self.artifacts[self.number], self.number);
        let resolved = self.symbols.of_module(module);
        let name = |reloc: &Reloc| artifact.name(&artifact.symbols()[reloc.symbol.get() as usize]).into();
        let data = artifact.read_only_relocs().iter().chain(artifact.writable_relocs());
        let text = if self.has_thread_locals { artifact.text_relocs() } else { &[] };
        for reloc in data.chain(text) {
            let wanted = reloc.kind() == RelocKind::ThreadLocal;
            if !(wanted || self.has_thread_locals) {
                continue;
            }
            let resolution = match is_own(artifact, reloc) {
                true => Resolution::Defined { module: module as u32, symbol: reloc.symbol.get() },
                false => self.symbols.resolution(resolved[reloc.symbol.get() as usize]),
            };
            let found = match resolution {
                Resolution::Defined { module, symbol } => {
                    let definer = &self.artifacts[module as usize];
                    let record = &definer.symbols()[symbol as usize];
                    is_thread_local(definer, record.section(), record.offset.get())
                }
                // Whoever gave the address knows.
                Resolution::KnownAddress(_) => wanted,
                _ => false,
            };
            if found != wanted {
                let defined = resolution != Resolution::Undefined;
                errors.push(match wanted {
                    true => LinkError::NotThreadLocal { module, name: name(reloc), defined },
                    false => LinkError::ThreadLocal { module, name: name(reloc) },
                });
            }
        }
    }

    /// Returns what a relocation of code needs for its symbol.
    fn need(&self, usage: Use, resolution: Resolution, called: bool) -> Result<Option<NeedKind>, PatchError> {
        use Resolution::{Defined, KnownAddress, Replaceable, SectionBound};
        if let Replaceable(number) = resolution {
            // Every replaceable function has a slot, and one whose stub is not known has a stub.
            let has_stub = self.symbols.replaceable()[number as usize].known_stub.is_none();
            return Ok(match usage {
                Use::Pair | Use::Direct => None,
                Use::Call => (!(has_stub && self.near.calls)).then_some(NeedKind::Stub),
                Use::Slot { .. } if called => None,
                Use::AddressOrSlot => (!has_stub).then_some(NeedKind::AddressSlot),
                Use::Slot { relaxable } => {
                    (!(has_stub && self.near.data && relaxable)).then_some(NeedKind::AddressSlot)
                }
            });
        }
        Ok(match (usage, resolution) {
            (Use::Pair, _) => None,
            (Use::Direct, Defined { .. } | SectionBound { .. } | KnownAddress(_)) => None,
            (Use::Direct, _) => return Err(PatchError::Unreachable),
            (Use::AddressOrSlot, Defined { .. } | SectionBound { .. }) => None,
            (Use::AddressOrSlot, _) => Some(NeedKind::Slot),
            // Calls inside a module always reach.
            (Use::Call, Defined { module: definer, .. }) => {
                (!self.near.calls && definer as usize != self.number).then_some(NeedKind::Stub)
            }
            (Use::Call, _) => Some(NeedKind::Stub),
            (Use::Slot { relaxable }, Defined { module, symbol }) => {
                let relaxed = self.near.data && relaxable && !self.is_odd(module, symbol);
                (!relaxed).then_some(NeedKind::Slot)
            }
            (Use::Slot { relaxable }, SectionBound { .. }) => {
                // The end of a section can be odd.
                let relaxed = self.near.data && relaxable && self.arch != Arch::S390x;
                (!relaxed).then_some(NeedKind::Slot)
            }
            (Use::Slot { .. }, _) => Some(NeedKind::Slot),
        })
    }

    /// Whether the symbol's address is odd, so that `larl` of s390x cannot compute it.
    fn is_odd(&self, module: u32, symbol: u32) -> bool {
        self.arch == Arch::S390x
            && !self.artifacts[module as usize].symbols()[symbol as usize].offset.get().is_multiple_of(2)
    }
}
