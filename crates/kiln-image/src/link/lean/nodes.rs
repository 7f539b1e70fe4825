//! The nodes of a program: functions and data objects, and what they refer to.

use kiln_artifact::record::{
    FunctionRecord, Handler, HandlerKind, Linkage, Reloc, ResolvedCall, SectionKind, SymbolRecord,
};
use kiln_artifact::{Artifact, RelocKind};
use kiln_globals::GlobalTable;

use super::super::definitions::Definitions;
use super::super::error::LinkError;
use super::super::meaning::{is_called, is_own};
use super::super::plan::check_targets;
use super::super::relocate::{self, Use};
use super::super::resolve::{Resolution, ResolvedId, SymbolTable, resolve};
use super::super::threads::is_small;
use super::super::types::check_types;
use super::super::unwind_size::has_veneers;
use crate::arch::Arch;

/// The number of a node.
pub(super) type NodeId = u32;

/// Marks a symbol that is no node's.
const NONE: u32 = u32::MAX;

/// A piece of a data section.
#[derive(Clone, Copy, Debug)]
pub(super) struct DataObject {
    pub(super) section: SectionKind,
    pub(super) start: u64,
    pub(super) end: u64,
    /// The number of the run of named data that it is.
    pub(super) run: Option<u32>,
}

/// A data relocation, with the section that it is in.
type DataReloc<'a> = (SectionKind, &'a Reloc);

/// The nodes of one module: its functions, then its data objects.
pub(super) struct ModuleNodes<'a> {
    pub(super) artifact: &'a Artifact,
    pub(super) first: NodeId,
    /// The data objects, in order of section and offset.
    pub(super) objects: Vec<DataObject>,
    /// The relocations of data, in order of section and offset.
    pub(super) data_relocs: Vec<DataReloc<'a>>,
    /// The node of each symbol that the module defines.
    of_symbol: Vec<NodeId>,
    /// The symbols of each node, in order of nodes.
    symbols: Vec<(NodeId, u32)>,
    /// Whether the module is kept as it is.
    pub(super) is_whole: bool,
}

impl<'a> ModuleNodes<'a> {
    pub(super) fn functions(&self) -> &'a [FunctionRecord] {
        self.artifact.functions()
    }

    /// Returns the number of nodes.
    pub(super) fn len(&self) -> usize {
        self.functions().len() + self.objects.len()
    }

    /// Returns the node of a symbol, if the module defines it.
    pub(super) fn node_of(&self, symbol: u32) -> Option<NodeId> {
        Some(self.of_symbol[symbol as usize]).filter(|node| *node != NONE)
    }

    /// Returns the number of a function by its node; `None` for data.
    pub(super) fn function(&self, node: NodeId) -> Option<usize> {
        Some((node - self.first) as usize).filter(|number| *number < self.functions().len())
    }

    /// Returns the symbols that are a node, or in it, with their numbers.
    pub(super) fn symbols_of(&self, node: NodeId) -> impl Iterator<Item = (u32, &'a SymbolRecord)> {
        let from = self.symbols.partition_point(|(own, _)| *own < node);
        let to = self.symbols.partition_point(|(own, _)| *own <= node);
        let records = self.artifact.symbols();
        self.symbols[from..to].iter().map(|(_, symbol)| (*symbol, &records[*symbol as usize]))
    }

    /// Returns a data object by its node.
    pub(super) fn object(&self, node: NodeId) -> &DataObject {
        &self.objects[(node - self.first) as usize - self.functions().len()]
    }

    /// Returns the offset of a node in its section.
    pub(super) fn start(&self, node: NodeId) -> u64 {
        match self.function(node) {
            Some(number) => self.functions()[number].start.get().into(),
            None => self.object(node).start,
        }
    }

    /// Returns the relocations of a data object.
    pub(super) fn relocs_of(&self, object: &DataObject) -> &[DataReloc<'a>] {
        let at = |offset| {
            self.data_relocs
                .partition_point(|(section, reloc)| (*section, reloc.offset.get()) < (object.section, offset))
        };
        &self.data_relocs[at(object.start)..at(object.end)]
    }

    fn new(artifact: &'a Artifact, first: NodeId) -> Self {
        let objects = data_objects(artifact);
        let functions = artifact.functions();
        let mut of_symbol = Vec::with_capacity(artifact.symbols().len());
        for symbol in artifact.symbols() {
            let offset = symbol.offset.get();
            of_symbol.push(match symbol.section() {
                SectionKind::Undefined => NONE,
                SectionKind::Text => {
                    let after =
                        functions.partition_point(|function| u64::from(function.start.get()) <= offset);
                    after.checked_sub(1).map_or(NONE, |number| first + number as u32)
                }
                section => {
                    let before = |object: &DataObject| (object.section, object.start) <= (section, offset);
                    let after = objects.partition_point(before);
                    after.checked_sub(1).map_or(NONE, |n| first + (functions.len() + n) as u32)
                }
            });
        }
        let sections = [
            (SectionKind::ReadOnly, artifact.read_only_relocs()),
            (SectionKind::Writable, artifact.writable_relocs()),
        ];
        let data = sections.iter().flat_map(|(section, list)| list.iter().map(|reloc| (*section, reloc)));
        let mut data_relocs: Vec<_> = data.collect();
        data_relocs.sort_by_key(|(section, reloc)| (*section, reloc.offset.get()));
        let mut symbols: Vec<_> = (0..).zip(&of_symbol).map(|(symbol, node)| (*node, symbol)).collect();
        symbols.retain(|(node, _)| *node != NONE);
        symbols.sort_unstable();
        let mut module = Self { artifact, first, objects, data_relocs, of_symbol, symbols, is_whole: false };
        module.is_whole = has_veneers(artifact) || !module.is_covered();
        module
    }

    /// Whether the module can be taken apart: all that refers, and all that is referred to, is in a
    /// node, and each function is as a compiler makes it. Artifacts may come from anywhere.
    fn is_covered(&self) -> bool {
        let artifact = self.artifact;
        let inside = |record: &FunctionRecord, from: u64, to: u64| {
            let start = u64::from(record.start.get());
            (start..=start + u64::from(record.len.get())).contains(&from)
                && to <= start + u64::from(record.len.get())
        };
        let functions = artifact.functions();
        let in_function = |from: u64, to: u64| {
            let after = functions.partition_point(|function| u64::from(function.start.get()) <= from);
            after.checked_sub(1).is_some_and(|number| inside(&functions[number], from, to))
        };
        let is_whole_function = |(number, record): (usize, &FunctionRecord)| {
            let (start, len) = (record.start.get(), record.len.get());
            let patchable = returns(artifact.patchable_calls(), start, len, |call| call.end.get());
            let is_target = |target: u32| inside(record, target.into(), target.into());
            self.node_of(record.symbol.get()) == Some(self.first + number as u32)
                && artifact.symbols()[record.symbol.get() as usize].section() == SectionKind::Text
                && start.is_multiple_of(record.align.get())
                && patchable.iter().all(|call| call.end.get() - call.len.get() >= start)
                && (artifact.handlers_of(number).iter())
                    .all(|handler| is_context(handler) || is_target(handler.target.get()))
        };
        let relocs = artifact.text_relocs().iter().map(|reloc| (reloc.offset.get(), reloc.kind().width()));
        let calls = artifact.resolved_calls().iter();
        let calls = calls.map(|call| (u64::from(call.offset.get()), call.kind().width()));
        let code = artifact.symbols().iter().filter(|symbol| symbol.section() == SectionKind::Text);
        let code = code.map(|symbol| (symbol.offset.get(), symbol.size.get() as usize));
        let pointers = self.objects.iter().map(|object| {
            let relocs = self.relocs_of(object);
            let whole = relocs.iter().filter(|(_, reloc)| reloc.offset.get() + 8 <= object.end);
            whole.count()
        });
        functions.iter().enumerate().all(is_whole_function)
            && relocs.chain(calls).chain(code).all(|(from, len)| in_function(from, from + len as u64))
            && pointers.sum::<usize>() == self.data_relocs.len()
            && (artifact.symbols().iter().zip(&self.of_symbol))
                .all(|(symbol, node)| !symbol.is_defined() || *node != NONE)
    }
}

/// Whether an entry of an exception table has no target.
pub(super) fn is_context(handler: &Handler) -> bool {
    [HandlerKind::ContextStack, HandlerKind::ContextRegister].map(|kind| kind as u8).contains(&handler.kind)
}

/// Returns the records of a function in a table that is sorted by return addresses, or by ends: the
/// address after the last byte of a function is its own, and not that of the next one.
pub(super) fn returns<T>(records: &[T], start: u32, len: u32, place: impl Fn(&T) -> u32) -> &[T] {
    let from = records.partition_point(|record| place(record) <= start);
    let to = records.partition_point(|record| place(record) <= start + len);
    &records[from..to]
}

/// Returns the data objects of a module: named runs, and symbols that share no bytes.
fn data_objects(artifact: &Artifact) -> Vec<DataObject> {
    let mut objects = Vec::new();
    for section in [SectionKind::ReadOnly, SectionKind::Writable, SectionKind::Zeroed] {
        let unnamed = artifact.unnamed_len(section);
        let own = artifact.symbols().iter().filter(|symbol| symbol.section() == section);
        let own = own.map(|symbol| (symbol.offset.get(), symbol.offset.get() + symbol.size.get()));
        let mut ranges: Vec<(u64, u64)> =
            own.filter(|(start, end)| *end <= unnamed && *start <= unnamed).collect();
        ranges.sort_unstable();
        for (start, end) in ranges {
            match objects.last_mut() {
                Some(DataObject { section: last, start: from, end: to, .. })
                    if *last == section && (start < *to || start == *from) =>
                {
                    *to = end.max(*to);
                }
                _ => objects.push(DataObject { section, start, end, run: None }),
            }
        }
        for (number, run) in artifact.named_data().iter().enumerate() {
            if run.section() == section {
                let (start, end) = (run.start.get(), run.start.get() + run.len.get());
                objects.push(DataObject { section, start, end, run: Some(number as u32) });
            }
        }
    }
    objects
}

/// A use of a symbol by a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reference {
    /// The number of the symbol in the module that refers to it.
    pub(super) symbol: u32,
    /// The node that is meant; `None` if no module defines it.
    pub(super) node: Option<NodeId>,
    /// Whether the symbol is meant as the module's own definition, even if another one is in force.
    pub(super) is_own: bool,
    /// Whether it is only called, so that its address cannot be seen.
    pub(super) is_call: bool,
}

/// The nodes of a program.
pub(super) struct Nodes<'a> {
    pub(super) arch: Arch,
    pub(super) artifacts: &'a [Artifact],
    pub(super) modules: Vec<ModuleNodes<'a>>,
    pub(super) symbols: SymbolTable,
    pub(super) count: usize,
}

impl<'a> Nodes<'a> {
    fn new(arch: Arch, artifacts: &'a [Artifact], symbols: SymbolTable) -> Self {
        let mut count = 0;
        let mut modules = Vec::with_capacity(artifacts.len());
        for artifact in artifacts {
            let module = ModuleNodes::new(artifact, count as u32);
            count += module.len();
            modules.push(module);
        }
        Self { arch, artifacts, modules, symbols, count }
    }

    /// Finds the nodes of modules that fit together, with their definitions.
    pub(super) fn resolve(artifacts: &'a [Artifact]) -> Result<(Self, Definitions), Vec<LinkError>> {
        let arch = check_targets(artifacts, Arch::host().unwrap_or(Arch::X86_64))?;
        let definitions = Definitions::new(artifacts);
        let mut errors = Vec::new();
        let resolved = resolve(artifacts, &definitions, &GlobalTable::new(), &|_| None, &mut errors);
        errors.extend(check_types(artifacts, &resolved, !is_small(artifacts)));
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok((Self::new(arch, artifacts, resolved.symbols), definitions))
    }

    /// Returns the number of the module that a node is in.
    pub(super) fn module_of(&self, node: NodeId) -> usize {
        // Modules without nodes have the number of the next one's first.
        self.modules.partition_point(|module| module.first <= node) - 1
    }

    /// Returns the node of the definition that a visible symbol resolves to.
    pub(super) fn definition(&self, id: ResolvedId) -> Option<NodeId> {
        let (module, symbol) = self.symbols.definition(id)?;
        self.modules[module as usize].node_of(symbol)
    }

    /// Whether symbol `symbol` of a module is the definition in force of its name.
    pub(super) fn is_definition(&self, module: usize, symbol: u32) -> bool {
        let id = self.symbols.of_module(module)[symbol as usize];
        self.symbols.definition(id) == Some((module as u32, symbol))
    }

    /// Calls `visit` with everything that a node refers to.
    pub(super) fn references(&self, node: NodeId, mut visit: impl FnMut(Reference)) {
        let number = self.module_of(node);
        let module = &self.modules[number];
        let artifact = module.artifact;
        let Some(function) = module.function(node) else {
            for (_, reloc) in module.relocs_of(module.object(node)) {
                visit(self.reference_of(number, reloc));
            }
            return;
        };
        let record = &artifact.functions()[function];
        for reloc in part(artifact.text_relocs(), record, |reloc| reloc.offset.get()) {
            visit(self.reference_of(number, reloc));
        }
        for call in part(artifact.resolved_calls(), record, |call| call.offset.get().into()) {
            visit(self.call_of(number, call));
        }
    }

    /// Returns the reference of a relocation of a module, of code or data.
    pub(super) fn reference_of(&self, module: usize, reloc: &Reloc) -> Reference {
        let artifact = self.modules[module].artifact;
        match reloc.kind() {
            RelocKind::Abs64 => self.reference(module, reloc.symbol.get(), is_own(artifact, reloc), false),
            // It names the other half of a pair of instructions, in the same function.
            RelocKind::RvPcrelLo12I => self.reference(module, reloc.symbol.get(), true, true),
            _ => {
                let is_own = is_own(artifact, reloc);
                self.reference(module, reloc.symbol.get(), is_own, self.is_call(artifact, reloc))
            }
        }
    }

    /// Returns the reference of a call that is resolved in the code of a module.
    pub(super) fn call_of(&self, module: usize, call: &ResolvedCall) -> Reference {
        let (offset, addend) = (call.offset.get() as usize, call.addend.get());
        let text = self.modules[module].artifact.text();
        let usage = relocate::classify(self.arch, call.kind(), text, offset, addend);
        self.reference(module, call.symbol.get(), true, usage == Ok(Use::Call))
    }

    fn is_call(&self, artifact: &Artifact, reloc: &Reloc) -> bool {
        let (offset, addend) = (reloc.offset.get() as usize, reloc.addend.get());
        let usage = relocate::classify(self.arch, reloc.kind(), artifact.text(), offset, addend);
        is_called(artifact, reloc) || usage == Ok(Use::Call)
    }

    fn reference(&self, module: usize, symbol: u32, is_own: bool, is_call: bool) -> Reference {
        let node = match is_own {
            true => self.modules[module].node_of(symbol),
            false => {
                let id = self.symbols.of_module(module)[symbol as usize];
                match self.symbols.resolution(id) {
                    Resolution::Defined { .. } | Resolution::Replaceable(_) => self.definition(id),
                    _ => None,
                }
            }
        };
        Reference { symbol, node, is_own, is_call }
    }

    /// Whether others than modules of the program may know a symbol of a module by its name.
    pub(super) fn is_exported(&self, module: usize, number: u32, symbol: &SymbolRecord) -> bool {
        matches!(symbol.linkage(), Linkage::Export | Linkage::Preemptible | Linkage::Replaceable)
            && self.is_definition(module, number)
    }
}

/// Returns the records of a sorted table that are inside of a function.
pub(super) fn part<'r, T>(records: &'r [T], function: &FunctionRecord, place: impl Fn(&T) -> u64) -> &'r [T] {
    let (start, len) = (u64::from(function.start.get()), u64::from(function.len.get()));
    let from = records.partition_point(|record| place(record) < start);
    let to = records.partition_point(|record| place(record) < start + len);
    &records[from..to]
}
