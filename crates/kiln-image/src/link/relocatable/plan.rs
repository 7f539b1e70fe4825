//! [`ObjectPlan`]: an object that is laid out, its symbols, and the pointers in its data.

use kiln_artifact::record::{Linkage, Reloc, SectionKind, SymbolKind};
use kiln_artifact::{Artifact, GlobalAccess, RelocKind};
use kiln_globals::{GlobalTable, THREAD_LOCAL_SECTION};

use super::super::assign::{Slot, SlotContent};
use super::super::definitions::Definitions;
use super::super::error::LinkError;
use super::super::layout::Area;
use super::super::plan::{CodePurpose, Input, Plan, Purpose, check_targets, run_phases};
use super::super::reach::Near;
use super::super::resolve::{Resolution, ResolvedId};
use super::super::threads::{self, is_small};
use super::super::users::Users;
use super::decide::Decider;
use super::relocs::{DataReloc, RelocTarget};
use super::scan::{self, ModuleScan};
use crate::arch::Arch;

/// An object that is laid out.
pub(crate) struct ObjectPlan<'a> {
    pub(super) plan: Plan<'a>,
    definitions: Definitions,
    scans: Vec<ModuleScan>,
    pub(super) global_symbols: bool,
}

/// Resolves and lays out `artifacts` for an object. If there are none, it is for `default_arch`.
/// With `global_symbols` the globals are symbols of the other linker; else they have slots.
///
/// # Errors
///
/// As for [`plan()`](super::plan()), and for what an object cannot hold.
pub(crate) fn plan_object<'a>(
    default_arch: Arch,
    artifacts: &'a [Artifact],
    table: &GlobalTable,
    global_symbols: bool,
) -> Result<ObjectPlan<'a>, Vec<LinkError>> {
    let arch = check_targets(artifacts, default_arch)?;
    let directs = artifacts.iter().enumerate().filter(|(_, it)| it.global_access() == GlobalAccess::Direct);
    let mut errors: Vec<_> = directs.map(|(module, _)| LinkError::DirectObject { module }).collect();
    let uses_thread_locals = |artifact: &Artifact| {
        let mut runs = artifact.named_data().iter();
        runs.any(|run| artifact.section_name(run) == THREAD_LOCAL_SECTION)
            || artifact.read_only_relocs().iter().any(|reloc| reloc.kind() == RelocKind::ThreadLocal)
    };
    let thread_local = artifacts.iter().enumerate().filter(|(_, artifact)| uses_thread_locals(artifact));
    errors.extend(thread_local.map(|(module, _)| LinkError::ThreadLocalInObject { module }));
    if !errors.is_empty() {
        return Err(errors);
    }
    let definitions = Definitions::new(artifacts);
    let input = Input { artifacts, names: &[], definitions: &definitions };
    let parallel = !is_small(artifacts);
    let purpose = Purpose {
        parallel,
        has_global_slots: !global_symbols,
        has_unwind_index: false,
        code: CodePurpose::None,
    };
    let mut scans = Vec::new();
    let plan = run_phases(arch, input, table, &|_| None, purpose, |program, errors| {
        let decider = Decider { arch, artifacts, symbols: program.symbols, global_symbols };
        scans = scan::scan(&decider, parallel, errors);
        (
            scans.iter_mut().map(|scan| std::mem::take(&mut scan.needs)).collect(),
            Near { calls: true, data: true },
        )
    })?;
    let object = ObjectPlan { plan, definitions, scans, global_symbols };
    let errors = object.check();
    if errors.is_empty() { Ok(object) } else { Err(errors) }
}

impl<'a> ObjectPlan<'a> {
    /// Returns the layout of the areas, and what is in them.
    pub(crate) fn plan(&self) -> &Plan<'a> {
        &self.plan
    }

    /// Returns the size of the unwind rows, without an end mark: the other linker adds it.
    pub(crate) fn unwind_size(&self) -> u64 {
        self.plan.unwind.entries_size()
    }

    /// Returns the number of pointers to code in unwind rows.
    pub(crate) fn unwind_count(&self) -> usize {
        self.plan.unwind.count() as usize
    }

    /// Returns the number of pointers to code in a module's unwind rows.
    pub(crate) fn unwind_count_of(&self, module: usize) -> usize {
        self.plan.unwind.modules[module].as_ref().map_or(0, |entries| entries.count as usize)
    }

    /// Returns the number of relocations of a module's code.
    pub(crate) fn text_count_of(&self, module: usize) -> usize {
        self.scans[module].text_count
    }

    /// Returns the offsets of a module's labels in its code, in order of their numbers.
    pub(crate) fn labels_of(&self, module: usize) -> &[u64] {
        &self.scans[module].labels
    }

    /// Returns the resolved symbol of each symbol of a module.
    pub(crate) fn resolved(&self, module: usize) -> &[ResolvedId] {
        self.plan.symbols.of_module(module)
    }

    /// Returns the number of resolved symbols.
    pub(crate) fn resolved_count(&self) -> usize {
        self.plan.symbols.len()
    }

    /// Returns the symbols without definition that relocations of code name, in order of first use
    /// in each module, with repetitions.
    pub(crate) fn undefined(&self) -> impl Iterator<Item = ResolvedId> {
        let used = self.scans.iter().flat_map(|scan| &scan.used).copied();
        used.filter(|id| self.is_undefined(*id))
    }

    /// Whether no module defines a symbol. A bound of a section is defined by the other linker.
    pub(crate) fn is_undefined(&self, id: ResolvedId) -> bool {
        matches!(self.plan.symbols.resolution(id), Resolution::Undefined | Resolution::SectionBound { .. })
    }

    /// Whether a symbol is a bound of a section.
    pub(crate) fn is_bound(&self, id: ResolvedId) -> bool {
        matches!(self.plan.symbols.resolution(id), Resolution::SectionBound { .. })
    }

    /// Returns the name of a symbol, or the key of a global.
    pub(crate) fn name(&self, id: ResolvedId) -> &'a str {
        self.plan.symbols.name(self.plan.artifacts, id)
    }

    /// Returns the definition of a name that the modules share, as module and symbol.
    pub(crate) fn find(&self, name: &str) -> Option<(u32, u32)> {
        self.definitions.find(self.plan.artifacts, name)
    }

    /// Returns the first module that calls a routine of the C library, and the first function of it
    /// that does; `None` if the symbol is something else.
    pub(crate) fn routine(&self, id: ResolvedId) -> Option<(usize, Box<str>)> {
        let symbol = self.plan.symbols.symbols()[id.index()];
        let artifact = &self.plan.artifacts[symbol.module as usize];
        let number = symbol.symbol as usize;
        let is_routine = artifact.symbols()[number].libcall != 0;
        is_routine.then(|| (symbol.module as usize, Users::new(artifact).of(number)))
    }

    /// Returns the offsets of the slot and of the stub of a replaceable function, each in its area.
    pub(crate) fn indirection(&self, module: usize, symbol: usize) -> (u64, u64) {
        let id = self.plan.symbols.of_module(module)[symbol];
        let Resolution::Replaceable(number) = self.plan.symbols.resolution(id) else { return (0, 0) };
        let (slot, stub) = self.plan.assignment.replaceable(number);
        let slot = slot.map_or(0, |slot| self.plan.assignment.slot_offset(slot));
        (slot, stub.map_or(0, |stub| self.plan.placement.stubs[stub as usize]))
    }

    /// Returns the first module that uses or defines a symbol.
    pub(crate) fn module_of(&self, id: ResolvedId) -> usize {
        self.plan.symbols.symbols()[id.index()].module as usize
    }

    /// Returns the pointers in data and in the object's own slots, in order of module, and the
    /// slots last. Those of each module are in the order of its relocations.
    pub(crate) fn data_relocs(&self) -> Vec<DataReloc> {
        let artifacts = self.plan.artifacts;
        let parts = threads::map(self.plan.parallel, artifacts.len(), |number| {
            let artifact = &artifacts[number];
            let mut relocs = Vec::new();
            self.add_data(number, artifact.read_only_relocs(), SectionKind::ReadOnly, &mut relocs);
            self.add_data(number, artifact.writable_relocs(), SectionKind::Writable, &mut relocs);
            relocs
        });
        let mut relocs: Vec<DataReloc> = parts.into_iter().flatten().collect();
        let slots = self.plan.assignment.internal().iter().enumerate();
        relocs.extend(slots.filter_map(|(number, content)| {
            let offset = self.plan.assignment.slot_offset(Slot::Internal(number as u32));
            let target = match *content {
                SlotContent::Address(id) => self.own(id)?,
                SlotContent::Code(function) => {
                    let (module, symbol) = self.plan.symbols.replaceable()[function as usize].definition?;
                    self.definition(module, symbol)?
                }
            };
            Some(DataReloc { area: Area::Slots, offset, target, addend: 0 })
        }));
        relocs
    }

    fn add_data(&self, number: usize, relocs: &[Reloc], section: SectionKind, out: &mut Vec<DataReloc>) {
        let resolved = self.plan.symbols.of_module(number);
        out.extend(relocs.iter().filter_map(|reloc| {
            let id = resolved[reloc.symbol.get() as usize];
            let (area, offset) = self.plan.placement.locate(number, section, reloc.offset.get())?;
            let target = match self.plan.symbols.resolution(id) {
                Resolution::Defined { module, symbol } if !self.is_visible(module, symbol) => self.own(id)?,
                Resolution::Replaceable(_) => self.own(id)?,
                _ => RelocTarget::Symbol(id),
            };
            Some(DataReloc { area, offset, target, addend: reloc.addend.get() })
        }));
    }

    /// Whether other linkers know a definition, so that its address is theirs to tell.
    fn is_visible(&self, module: u32, symbol: u32) -> bool {
        let record = &self.plan.artifacts[module as usize].symbols()[symbol as usize];
        matches!(record.linkage(), Linkage::Export | Linkage::Preemptible)
    }

    /// Returns the place of a symbol that the object has, in which that of a replaceable function
    /// is its stub's.
    pub(super) fn own(&self, id: ResolvedId) -> Option<RelocTarget> {
        match self.plan.symbols.resolution(id) {
            Resolution::Defined { module, symbol } => self.definition(module, symbol),
            Resolution::Replaceable(number) => {
                let stub = self.plan.assignment.replaceable(number).1?;
                Some(RelocTarget::Area(Area::Text, self.plan.placement.stubs[stub as usize]))
            }
            _ => None,
        }
    }

    pub(super) fn definition(&self, module: u32, symbol: u32) -> Option<RelocTarget> {
        let record = &self.plan.artifacts[module as usize].symbols()[symbol as usize];
        let located = self.plan.placement.locate(module as usize, record.section(), record.offset.get());
        located.map(|(area, offset)| RelocTarget::Area(area, offset))
    }

    /// Finds what an object cannot hold.
    fn check(&self) -> Vec<LinkError> {
        let mut errors = Vec::new();
        let (size, limit) = (self.plan.layout()[Area::Text].size, self.plan.arch.call_reach());
        if size >= limit {
            // No other linker can put a stub into the middle of a section.
            let what = "the code of an object".into();
            errors.push(LinkError::TooLarge { module: None, what, size, limit });
        }
        for (module, artifact) in self.plan.artifacts.iter().enumerate() {
            let resolved = self.plan.symbols.of_module(module);
            for reloc in artifact.read_only_relocs().iter().chain(artifact.writable_relocs()) {
                let number = reloc.symbol.get() as usize;
                let record = &artifact.symbols()[number];
                let is_slot = record.kind() == SymbolKind::Global && !self.global_symbols;
                if is_slot && self.plan.symbols.resolution(resolved[number]) == Resolution::Undefined {
                    let global = artifact.name(record).into();
                    errors.push(LinkError::GlobalInData { module, global });
                    break;
                }
            }
        }
        errors
    }
}
