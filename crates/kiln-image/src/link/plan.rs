//! The plan: who gets a slot, who gets a stub, and where everything lies, before a byte is copied.
//!
//! Slots are requested in the order in which modules, and relocations in them, ask for them, so the order of slots does
//! not depend on threads. External slots come first, internal ones after them.

use std::ops::Range;

use kiln_artifact::record::{Linkage, SectionKind, SymbolKind};
use kiln_artifact::{Artifact, signatures_agree};
use kiln_globals::{GlobalTable, SlotKey, Slots};
use rayon::prelude::*;

use super::needs::{Grant, Scan, Scanner, place_stubs};
use super::relocate::stub_size;
use super::resolve::{Entity, Home, NONE, resolve};
use super::sections::{NamedSection, Run, Sections};
use super::unwind::{self, EhPlan};
use super::{Area, Extent, ExternalDefinition, Layout, LinkError};
use crate::arch::Arch;

/// The largest program that is linked, in bytes: pc-relative unwind pointers reach this far.
pub(super) const MAX_SIZE: u64 = 1 << 31;
/// The largest alignment, in bytes: no loader promises more than a page.
pub(super) const MAX_ALIGN: u64 = 4096;
/// Smallest alignment of a module's part of an area; s390x needs 2, and 8 keeps pointers whole.
pub(super) const MIN_ALIGN: u64 = 8;
const SLOT: u64 = 8;

/// How far the linker trusts direct references to go; smaller in tests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    pub(crate) data: u64,
    pub(crate) call: u64,
}

/// One module's part of the plan.
pub(crate) struct ModulePlan {
    pub(crate) entity_of: Vec<u32>,
    pub(crate) text: u64,
    pub(crate) read_only_area: Area,
    pub(crate) read_only: u64,
    pub(crate) writable: u64,
    pub(crate) zeroed: u64,
    /// Its runs of named data, read-only ones first, by ascending start.
    pub(crate) runs: Vec<Run>,
    /// Stub of each symbol, if the module has its own stubs; else empty.
    pub(crate) stub_of: Vec<u32>,
    /// Its own stubs, which follow its code.
    pub(crate) stubs: Range<u32>,
    pub(crate) eh: EhPlan,
}

impl ModulePlan {
    /// The area and offset of something that the module defines; `None` if undefined.
    pub(crate) fn locate(&self, place: SectionKind, offset: u64) -> Option<(Area, u64)> {
        let behind = self.runs.partition_point(|run| (run.place, run.start) <= (place, offset));
        if let Some(run) = behind.checked_sub(1).map(|index| self.runs[index])
            && run.place == place
        {
            return Some((run.area, run.offset + (offset - run.start)));
        }
        match place {
            SectionKind::Undefined => None,
            SectionKind::Text => Some((Area::Text, self.text + offset)),
            SectionKind::ReadOnly => Some((self.read_only_area, self.read_only + offset)),
            SectionKind::Writable => Some((Area::Data, self.writable + offset)),
            SectionKind::Zeroed => Some((Area::Bss, self.zeroed + offset)),
        }
    }
}

/// A stub: where it lies in the code, and for whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stub {
    pub(crate) entity: u32,
    pub(crate) offset: u64,
}

/// A linked program whose bytes are not yet made: resolved and laid out.
pub struct Plan<'a> {
    pub(crate) artifacts: &'a [Artifact],
    pub(crate) arch: Arch,
    pub(crate) entities: Vec<Entity>,
    pub(crate) modules: Vec<ModulePlan>,
    pub(crate) stubs: Vec<Stub>,
    /// Stubs from this number on belong to no module; they follow all code.
    pub(crate) shared_stubs: u32,
    pub(crate) internal_slots: Vec<u32>,
    pub(crate) eh: unwind::Frame,
    pub(crate) sections: Sections<'a>,
    slots: Slots,
    layout: Layout,
    /// The layout without named sections, of areas that may have some.
    unnamed: Layout,
}

impl std::fmt::Debug for Plan<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan")
            .field("layout", &self.layout)
            .field("slots", &self.slots)
            .finish_non_exhaustive()
    }
}

/// Something that a module defines under a visible name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition<'a> {
    /// The name.
    pub name: &'a str,
    /// Function or data.
    pub kind: SymbolKind,
    /// `Export`, `Preemptible` or `Hidden`.
    pub linkage: Linkage,
    /// A function's type, as `kiln_artifact::Signature` prints it.
    pub signature: Option<&'a str>,
    /// Number of the module that defines it.
    pub module: usize,
    /// Where it lies.
    pub area: Area,
    /// Offset in the area, in bytes.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
}

/// The code of one function, be it visible or local.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionRange<'a> {
    /// Number of its module.
    pub module: usize,
    /// Its name; empty for an anonymous one.
    pub name: &'a str,
    /// Who may see it.
    pub linkage: Linkage,
    /// Offset in the area [`Area::Text`], in bytes.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
}

/// What is known of an external slot besides its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotDetails<'a> {
    /// The type of the function, if it is one and all modules agree.
    pub signature: Option<&'a str>,
    /// Whether the compiler itself asked for it: a routine of the C library.
    pub libcall: bool,
}

/// How many pointers data holds, by what they point at.
#[cfg(feature = "write")]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PointerCounts {
    /// At the program itself.
    pub(crate) relative: usize,
    /// At what an external slot points at.
    pub(crate) symbolic: usize,
    /// At what an external slot of a symbol points at.
    pub(crate) symbols: usize,
}

/// Resolves and lays out `artifacts`, in this order. `table` lays out the first slots; `known` tells the homes that
/// undefined symbols and globals already have outside this link, and is asked once for each. (A global of `table` keeps
/// its slot in the array even if it is known.)
///
/// # Errors
///
/// Every error that can be found without addresses, in order of modules.
pub fn plan<'a>(
    artifacts: &'a [Artifact],
    table: &GlobalTable,
    known: &dyn Fn(&SlotKey) -> Option<ExternalDefinition>,
) -> Result<Plan<'a>, Vec<LinkError>> {
    plan_for(Arch::host().unwrap_or(Arch::X86_64), artifacts, table, known)
}

/// As [`plan`]; without modules, the program is for `default_arch`.
pub(crate) fn plan_for<'a>(
    default_arch: Arch,
    artifacts: &'a [Artifact],
    table: &GlobalTable,
    known: &dyn Fn(&SlotKey) -> Option<ExternalDefinition>,
) -> Result<Plan<'a>, Vec<LinkError>> {
    let arch = check_targets(artifacts, default_arch)?;
    let reach = Reach { data: arch.data_reach(), call: arch.call_reach() };
    plan_within(arch, artifacts, table, known, reach)
}

pub(crate) fn plan_within<'a>(
    arch: Arch,
    artifacts: &'a [Artifact],
    table: &GlobalTable,
    known: &dyn Fn(&SlotKey) -> Option<ExternalDefinition>,
    reach: Reach,
) -> Result<Plan<'a>, Vec<LinkError>> {
    let mut errors = Vec::new();
    let mut sections = Sections::collect(artifacts, &mut errors);
    let resolved = resolve(artifacts, table, known, &mut sections, &mut errors);
    let mut layout = Layout::default();
    let mut modules = lay_out_modules(artifacts, resolved.entity_of, &mut layout, &mut errors);
    let unnamed = layout.clone();
    sections.lay_out(artifacts, &mut modules, &mut layout, &mut errors);
    let mut entities = resolved.entities;

    // Slots of globals come first: slot i is global i of the table.
    let mut slots = Slots::default();
    for (key, entity) in resolved.keys {
        let number = slots.push(key) as u32;
        if let Some(entity) = entities.get_mut(entity as usize).filter(|entity| entity.home == Home::Outside)
        {
            entity.slot = number;
        }
    }

    // Room for what is not yet counted: a slot and a stub for everybody.
    let spare = entities.len() as u64 * (SLOT + stub_size(arch)) + table.len() as u64 * SLOT;
    let spare = spare + Area::ALL.len() as u64 * 0x1_0000 + 4096;
    let unwind_size: u64 = artifacts.iter().map(unwind::bound).sum();
    let near = layout.total() + unwind_size + spare < reach.data;
    let calls_near = layout[Area::Text].size + spare < reach.call;

    let scans: Vec<Scan> = artifacts
        .par_iter()
        .zip(&modules)
        .enumerate()
        .map(|(number, (artifact, module))| {
            Scanner { arch, number, artifact, artifacts, module, entities: &entities, near, calls_near }
                .scan()
        })
        .collect();

    let mut grant = Grant { arch, artifacts, entities: &mut entities, slots, internal: Vec::new() };
    let mut wanted: Vec<(usize, u32)> = Vec::new(); // module, symbol
    for (number, scan) in scans.into_iter().enumerate() {
        errors.extend(scan.errors);
        for request in scan.requests {
            let entity = modules[number].entity_of[request.symbol as usize];
            if request.stub {
                if !calls_near || grant.entities[entity as usize].stub == NONE {
                    grant.entities[entity as usize].stub = 0;
                    wanted.push((number, request.symbol));
                }
                grant.slot_for_stub(entity);
            } else {
                grant.slot(entity);
            }
        }
    }
    let Grant { slots, internal: internal_slots, .. } = grant;
    for (index, &entity) in internal_slots.iter().enumerate() {
        entities[entity as usize].slot = (slots.len() + index) as u32;
    }
    let (stubs, shared_stubs) =
        place_stubs(arch, artifacts, calls_near, &wanted, &mut modules, &mut entities, &mut layout);
    let eh = unwind::plan(arch, artifacts, &mut modules, &mut layout, &mut errors);
    layout[Area::Slots] = Extent { size: (slots.len() + internal_slots.len()) as u64 * SLOT, align: SLOT };
    if layout.total() >= MAX_SIZE {
        errors.push(LinkError::TooLarge { what: "the program", size: layout.total(), limit: MAX_SIZE });
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(Plan {
        artifacts,
        arch,
        entities,
        modules,
        stubs,
        shared_stubs,
        internal_slots,
        eh,
        sections,
        slots,
        layout,
        unnamed,
    })
}

/// The architecture that all modules were compiled for.
fn check_targets(artifacts: &[Artifact], default: Arch) -> Result<Arch, Vec<LinkError>> {
    let Some(first) = artifacts.first() else { return Ok(default) };
    let expected = first.triple();
    let arch = Arch::from_triple(expected);
    let mut errors = Vec::new();
    if arch.is_none() {
        errors.push(LinkError::UnsupportedTarget { triple: expected.into() });
    }
    for (module, artifact) in artifacts.iter().enumerate() {
        if artifact.triple() != expected {
            let triple = artifact.triple().into();
            errors.push(LinkError::TargetMismatch { module, triple, expected: expected.into() });
        }
    }
    arch.filter(|_| errors.is_empty()).ok_or(errors)
}

fn lay_out_modules(
    artifacts: &[Artifact],
    entity_of: Vec<Vec<u32>>,
    layout: &mut Layout,
    errors: &mut Vec<LinkError>,
) -> Vec<ModulePlan> {
    let mut modules = Vec::with_capacity(artifacts.len());
    for (artifact, entity_of) in artifacts.iter().zip(entity_of) {
        let summary = artifact.summary();
        let mut push = |area: Area, size: u64, align: u32| {
            let align = u64::from(align);
            if align > MAX_ALIGN {
                errors.push(LinkError::TooLarge { what: "an alignment", size: align, limit: MAX_ALIGN });
                return 0;
            }
            if layout[area].size.saturating_add(size) >= MAX_SIZE {
                errors.push(LinkError::TooLarge { what: area.name(), size, limit: MAX_SIZE });
                return 0;
            }
            // An empty part does not move what follows.
            if size == 0 { layout[area].size } else { layout[area].push(size, align.max(MIN_ALIGN)) }
        };
        let [read_only, writable] =
            [SectionKind::ReadOnly, SectionKind::Writable].map(|place| artifact.unnamed_len(place));
        let relocated = artifact.read_only_relocs().iter().any(|reloc| reloc.offset.get() < read_only);
        let read_only_area = if relocated { Area::Relro } else { Area::Rodata };
        modules.push(ModulePlan {
            entity_of,
            text: push(Area::Text, artifact.text().len() as u64, summary.text_align.get()),
            read_only_area,
            read_only: push(read_only_area, read_only, summary.read_only_align.get()),
            writable: push(Area::Data, writable, summary.writable_align.get()),
            zeroed: push(Area::Bss, summary.zeroed_size.get(), summary.zeroed_align.get()),
            runs: artifact
                .named_data()
                .iter()
                .map(|run| Run { place: run.section(), start: run.start.get(), area: Area::Data, offset: 0 })
                .collect(),
            stub_of: Vec::new(),
            stubs: 0..0,
            eh: EhPlan::default(),
        });
    }
    modules
}

impl<'a> Plan<'a> {
    /// Sizes and alignments of all areas.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Named sections, in order of the first module that has data in them. Each is a part of an area.
    pub fn sections(&self) -> impl ExactSizeIterator<Item = NamedSection<'a>> {
        self.sections.list.iter().map(|section| section.info)
    }

    /// Size and alignment of the part of `area` that is in no named section. It comes first.
    pub fn unnamed(&self, area: Area) -> Extent {
        match area {
            Area::Rodata | Area::Relro | Area::Data => self.unnamed[area],
            _ => self.layout[area],
        }
    }

    /// The external slots, in order of the slot array. Internal slots, filled by [`Fixups`](super::Fixups), follow.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Number of internal slots.
    pub fn internal_slot_count(&self) -> usize {
        self.internal_slots.len()
    }

    /// The architecture of the modules; without modules, the host's.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// The modules, in order of their numbers.
    pub fn artifacts(&self) -> &'a [Artifact] {
        self.artifacts
    }

    /// Everything defined under a visible name, hidden ones included, in order of module and symbol. Definitions that
    /// gave way to others are not among them.
    pub fn definitions(&self) -> impl Iterator<Item = Definition<'a>> {
        self.artifacts.iter().zip(&self.modules).enumerate().flat_map(move |(number, (artifact, module))| {
            artifact.symbols().iter().enumerate().filter_map(move |(index, symbol)| {
                let here = Home::Defined { module: number as u32, symbol: index as u32 };
                if symbol.linkage() == Linkage::Local
                    || self.entities[module.entity_of[index] as usize].home != here
                {
                    return None;
                }
                let (area, offset) = module.locate(symbol.section(), symbol.offset.get())?;
                Some(Definition {
                    name: artifact.name(symbol),
                    kind: symbol.kind(),
                    linkage: symbol.linkage(),
                    signature: symbol.signature().and_then(|index| artifact.signature(index)),
                    module: number,
                    area,
                    offset,
                    size: symbol.size.get(),
                })
            })
        })
    }

    /// Where something that module `module` defines lies.
    pub fn locate(&self, module: usize, place: SectionKind, offset: u64) -> Option<(Area, u64)> {
        self.modules.get(module)?.locate(place, offset)
    }

    /// How many pointers data will hold.
    #[cfg(feature = "write")]
    pub(crate) fn pointer_counts(&self) -> PointerCounts {
        let mut counts = PointerCounts::default();
        for (artifact, module) in self.artifacts.iter().zip(&self.modules) {
            for reloc in artifact.read_only_relocs().iter().chain(artifact.writable_relocs()) {
                let entity = &self.entities[module.entity_of[reloc.symbol.get() as usize] as usize];
                match entity.home {
                    Home::Defined { .. } | Home::Section { .. } | Home::Address(_) => counts.relative += 1,
                    Home::KnownSlot(_) => {}
                    Home::Outside => {
                        counts.symbolic += 1;
                        let key = self.slots.keys().get(entity.slot as usize);
                        counts.symbols += usize::from(matches!(key, Some(SlotKey::Symbol(_))));
                    }
                }
            }
        }
        counts
    }

    /// How many external slots are those of symbols.
    #[cfg(feature = "write")]
    pub(crate) fn symbol_slot_count(&self) -> usize {
        self.slots.keys().iter().filter(|key| matches!(key, SlotKey::Symbol(_))).count()
    }

    /// Whether this symbol of this module is what its name means.
    #[cfg(feature = "write")]
    pub(crate) fn is_definition(&self, module: usize, symbol: usize) -> bool {
        let here = Home::Defined { module: module as u32, symbol: symbol as u32 };
        self.entities[self.modules[module].entity_of[symbol] as usize].home == here
    }

    /// Every function, local ones included, in order of address.
    pub fn functions(&self) -> impl Iterator<Item = FunctionRange<'a>> {
        self.artifacts.iter().zip(&self.modules).enumerate().flat_map(move |(number, (artifact, module))| {
            artifact.functions().iter().map(move |function| {
                let symbol = &artifact.symbols()[function.symbol.get() as usize];
                FunctionRange {
                    module: number,
                    name: artifact.name(symbol),
                    linkage: symbol.linkage(),
                    offset: module.text + u64::from(function.start.get()),
                    size: function.len.get().into(),
                }
            })
        })
    }

    /// What the modules say about each external slot, in order.
    pub fn slot_details(&self) -> Vec<SlotDetails<'a>> {
        let mut details = vec![SlotDetails::default(); self.slots.len()];
        let mut agree = vec![true; self.slots.len()];
        for (artifact, module) in self.artifacts.iter().zip(&self.modules) {
            for (symbol, &entity) in artifact.symbols().iter().zip(&module.entity_of) {
                let slot = self.entities[entity as usize].slot as usize;
                let Some(detail) = details.get_mut(slot) else { continue };
                detail.libcall |= symbol.libcall != 0;
                let signature = symbol.signature().and_then(|index| artifact.signature(index));
                match (detail.signature, signature) {
                    (Some(old), Some(new)) => agree[slot] &= signatures_agree(old, new),
                    (None, new) => detail.signature = new,
                    (Some(_), None) => {}
                }
            }
        }
        for (detail, agree) in details.iter_mut().zip(agree) {
            detail.signature = detail.signature.filter(|_| agree);
        }
        details
    }
}
