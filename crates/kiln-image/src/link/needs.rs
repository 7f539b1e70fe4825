//! What relocations need: read from them in parallel, granted in order.
//!
//! A [`Scanner`] lists, for one module, which symbols need a slot or a stub; [`Grant`] hands out slots, and
//! [`place_stubs`] places stubs, one module after the other, so that their order does not depend on threads.

use kiln_artifact::{Artifact, RelocKind};
use kiln_globals::{SlotKey, Slots};

use super::plan::{MIN_ALIGN, ModulePlan, Stub};
use super::relocate::{self, Fault, Use, stub_size};
use super::resolve::{Entity, Home, NONE};
use super::{Area, Layout, LinkError};
use crate::arch::Arch;

pub(super) struct Request {
    pub(super) symbol: u32,
    pub(super) stub: bool,
}

#[derive(Default)]
pub(super) struct Scan {
    pub(super) requests: Vec<Request>,
    pub(super) errors: Vec<LinkError>,
}

/// Reads one module's relocations for what they need.
pub(super) struct Scanner<'s> {
    pub(super) arch: Arch,
    pub(super) number: usize,
    pub(super) artifact: &'s Artifact,
    /// All of them.
    pub(super) artifacts: &'s [Artifact],
    pub(super) module: &'s ModulePlan,
    pub(super) entities: &'s [Entity],
    pub(super) near: bool,
    pub(super) calls_near: bool,
}

impl Scanner<'_> {
    pub(super) fn scan(&self) -> Scan {
        let artifact = self.artifact;
        let mut scan = Scan::default();
        let mut asked = vec![[false; 2]; artifact.symbols().len()];
        let mut request = |scan: &mut Scan, symbol: u32, stub: bool| {
            if !std::mem::replace(&mut asked[symbol as usize][usize::from(stub)], true) {
                scan.requests.push(Request { symbol, stub });
            }
        };
        for reloc in artifact.text_relocs() {
            let (symbol, offset, kind) = (reloc.symbol.get(), reloc.offset.get(), reloc.kind());
            let home = self.entities[self.module.entity_of[symbol as usize] as usize].home;
            let usage =
                relocate::classify(self.arch, kind, artifact.text(), offset as usize, reloc.addend.get());
            // What is asked for: nothing, a slot, a stub.
            let wish = match (usage, home) {
                (Err(fault), _) => {
                    scan.errors.push(self.fault(fault, symbol, offset, kind));
                    continue;
                }
                (Ok(Use::Absolute), _) => {
                    let symbol = self.name(symbol);
                    scan.errors.push(LinkError::TextRelocation { module: self.number, offset, symbol });
                    continue;
                }
                (Ok(Use::Pair), _) => None,
                (Ok(Use::Direct), Home::Defined { .. } | Home::Section { .. } | Home::Address(_)) => None,
                (Ok(Use::Direct), _) => {
                    let symbol = self.name(symbol);
                    scan.errors.push(LinkError::DirectReference { module: self.number, offset, symbol });
                    continue;
                }
                (Ok(Use::AddressOrSlot), Home::Defined { .. } | Home::Section { .. }) => None,
                (Ok(Use::AddressOrSlot), _) => Some(false),
                (Ok(Use::Call), Home::Defined { module, .. }) => {
                    (!self.calls_near && module as usize != self.number).then_some(true)
                }
                (Ok(Use::Call), _) => Some(true),
                (Ok(Use::Slot { relaxable }), Home::Defined { module, symbol }) => {
                    (!self.near || !relaxable || self.is_odd(module, symbol)).then_some(false)
                }
                // The end of a section may be odd.
                (Ok(Use::Slot { relaxable }), Home::Section { .. }) => {
                    (!self.near || !relaxable || self.arch == Arch::S390x).then_some(false)
                }
                (Ok(Use::Slot { .. }), _) => Some(false),
            };
            if let Some(stub) = wish {
                request(&mut scan, symbol, stub);
            }
        }
        for reloc in artifact.read_only_relocs().iter().chain(artifact.writable_relocs()) {
            let symbol = reloc.symbol.get();
            if self.entities[self.module.entity_of[symbol as usize] as usize].home == Home::Outside {
                request(&mut scan, symbol, false);
            }
        }
        scan
    }

    /// Whether `larl` cannot make the address.
    fn is_odd(&self, module: u32, symbol: u32) -> bool {
        self.arch == Arch::S390x
            && !self.artifacts[module as usize].symbols()[symbol as usize].offset.get().is_multiple_of(2)
    }

    fn name(&self, symbol: u32) -> Box<str> {
        self.artifact.name(&self.artifact.symbols()[symbol as usize]).into()
    }

    fn fault(&self, fault: Fault, symbol: u32, offset: u64, kind: RelocKind) -> LinkError {
        fault.into_error(self.number, self.name(symbol), offset, kind)
    }
}

impl Fault {
    pub(crate) fn into_error(
        self,
        module: usize,
        symbol: Box<str>,
        offset: u64,
        kind: RelocKind,
    ) -> LinkError {
        match self {
            Self::Foreign => LinkError::ForeignRelocation { module, offset, kind },
            Self::Instruction => LinkError::Instruction { module, offset, kind, symbol },
            Self::OutOfRange { distance, limit } => {
                LinkError::OutOfRange { module, offset, symbol, distance, limit }
            }
            Self::Misaligned => LinkError::Misaligned { module, offset, symbol },
            Self::Unreachable => LinkError::DirectReference { module, offset, symbol },
        }
    }
}

/// Hands out slots.
pub(super) struct Grant<'g> {
    pub(super) arch: Arch,
    pub(super) artifacts: &'g [Artifact],
    pub(super) entities: &'g mut [Entity],
    pub(super) slots: Slots,
    pub(super) internal: Vec<u32>,
}

impl Grant<'_> {
    pub(super) fn slot(&mut self, number: u32) {
        let entity = &mut self.entities[number as usize];
        if entity.slot != NONE {
            return;
        }
        match entity.home {
            Home::KnownSlot(_) => {}
            Home::Outside => {
                let artifact = &self.artifacts[entity.module as usize];
                let name = artifact.name(&artifact.symbols()[entity.symbol as usize]);
                entity.slot = self.slots.push(SlotKey::Symbol(name.into())) as u32;
            }
            Home::Defined { .. } | Home::Section { .. } | Home::Address(_) => {
                entity.slot = 0; // numbered when all external slots are
                self.internal.push(number);
            }
        }
    }

    pub(super) fn slot_for_stub(&mut self, number: u32) {
        // On aarch64 a stub to a definition computes the address: it reaches 4 GiB.
        let computed =
            self.arch == Arch::Aarch64 && matches!(self.entities[number as usize].home, Home::Defined { .. });
        if !computed {
            self.slot(number);
        }
    }
}

/// Numbers and places the stubs: after all code, or where calls do not reach that far, after each module's.
pub(super) fn place_stubs(
    arch: Arch,
    artifacts: &[Artifact],
    calls_near: bool,
    wanted: &[(usize, u32)],
    modules: &mut [ModulePlan],
    entities: &mut [Entity],
    layout: &mut Layout,
) -> (Vec<Stub>, u32) {
    let size = stub_size(arch);
    let mut stubs = Vec::with_capacity(wanted.len());
    if calls_near {
        for &(module, symbol) in wanted {
            let entity = modules[module].entity_of[symbol as usize];
            entities[entity as usize].stub = stubs.len() as u32;
            stubs.push(Stub { entity, offset: layout[Area::Text].push(size, size) });
        }
        return (stubs, 0);
    }
    layout[Area::Text].size = 0;
    let mut wanted = wanted.iter().peekable();
    for (number, (module, artifact)) in modules.iter_mut().zip(artifacts).enumerate() {
        let text = &mut layout[Area::Text];
        let align = u64::from(artifact.summary().text_align.get()).max(MIN_ALIGN);
        module.text = text.push(artifact.text().len() as u64, align);
        module.stub_of = vec![NONE; artifact.symbols().len()];
        let first = stubs.len() as u32;
        while let Some(&(_, symbol)) = wanted.next_if(|(module, _)| *module == number) {
            let entity = module.entity_of[symbol as usize];
            // Two symbols of a module may be one entity.
            let stub = match stubs[first as usize..].iter().position(|stub: &Stub| stub.entity == entity) {
                Some(position) => first + position as u32,
                None => {
                    stubs.push(Stub { entity, offset: text.push(size, size) });
                    stubs.len() as u32 - 1
                }
            };
            module.stub_of[symbol as usize] = stub;
        }
        module.stubs = first..stubs.len() as u32;
    }
    let shared = stubs.len() as u32;
    (stubs, shared)
}
