//! Assembles the artifact of one module from its compiled functions and its data.
//!
//! Functions are laid out in order of definition by Cranelift's text section builder, which
//! resolves calls between them and places veneers where a call does not reach. A relocation that it
//! cannot resolve stays in the artifact, and refers to the module's symbol table. There, symbols
//! have the same numbers as in the IR module, and routines of the C library come after them. On
//! aarch64, a module whose code may be larger than a call reaches is laid out by [`islands`]
//! instead.
//!
//! This step is the pre-link: when many modules are linked, the linker copies each one as a block,
//! and patches only the few relocations that refer to other modules, to data or to slots.

use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::LibCall;
use cranelift_codegen::isa::TargetIsa;
use indexmap::IndexSet;
use kiln_artifact::record::{
    FunctionRecord, Handler, NONE, PatchableCall, Reloc, ResolvedCall, SectionKind, StackMap, StackMapEntry,
};
use kiln_artifact::{Artifact, Contents, GlobalAccess, RelocKind};
use kiln_ir::{Code, Function, Linkage, MAX_ALIGN, Module};
use zerocopy::little_endian::U32;

use crate::compiled::{CompiledFunction, FunctionReloc, RelocTarget};
use crate::error::{AssembleError, CompileErrorKind, MAX_ARTIFACT, MAX_CODE, too_much_code};
use crate::islands::{AARCH64_CALL_REACH, IslandLayout};
use crate::producer::PRODUCER;
use crate::symbols::SymbolRange;
use crate::{data, debug, islands, symbols, thread_locals, unwind};

/// The statement of artifacts about their target: its triple, the CPU features that code may use,
/// and how code reaches globals. To gather it takes as long as assembling a small function.
#[derive(Clone, Debug)]
pub struct TargetNames {
    triple: Box<str>,
    features: Box<[&'static str]>,
    globals: GlobalAccess,
}

impl TargetNames {
    /// Gathers the names of the target of `isa`.
    pub fn new(isa: &dyn TargetIsa) -> Self {
        let flags = isa.isa_flags().into_iter();
        // Landing pads are not needed to run the code, but the linker asks whether all of it has
        // them.
        let counts = |name: &str| name.starts_with("has_") || name == "use_bti";
        let enabled = flags.filter(|flag| counts(flag.name) && flag.as_bool() == Some(true));
        let mut features: Vec<_> = enabled.map(|flag| flag.name).collect();
        features.sort_unstable();
        let globals = if isa.flags().is_pic() { GlobalAccess::Slots } else { GlobalAccess::Direct };
        Self { triple: isa.triple().to_string().into(), features: features.into(), globals }
    }
}

/// Makes the artifact of `module`, whose functions were compiled to `functions`. `names` are those
/// of the target of `isa`.
pub(crate) fn assemble(
    module: &Module,
    isa: &dyn TargetIsa,
    names: &TargetNames,
    functions: &[CompiledFunction],
) -> Result<Artifact, AssembleError> {
    // Few modules are this large; all others are left to Cranelift's builder.
    let reach = (isa.name() == "aarch64").then_some(AARCH64_CALL_REACH);
    let reach = reach.filter(|&reach| islands::size_bound(functions) >= reach.into());
    assemble_within(module, isa, names, functions, reach)
}

/// Does the same as [`assemble`]. If `reach` is given, the code may be larger than that, and is
/// laid out with islands of veneers.
fn assemble_within(
    module: &Module,
    isa: &dyn TargetIsa,
    names: &TargetNames,
    functions: &[CompiledFunction],
    reach: Option<u32>,
) -> Result<Artifact, AssembleError> {
    let ranges = vec![SymbolRange::default(); module.symbols.len()];
    let mut assembly = Assembly {
        module,
        contents: Contents::default(),
        libcalls: IndexSet::new(),
        thread_locals: IndexSet::new(),
        offsets: Vec::new(),
        ranges,
    };
    // For each symbol, the index of its function if calls to it may be resolved.
    let mut labels = vec![None; module.symbols.len()];
    for (label, function) in module.functions.iter().enumerate() {
        let linkage = module.symbol(function.symbol).linkage;
        if !matches!(linkage, Linkage::Preemptible | Linkage::Replaceable) {
            labels[function.symbol.index()] = Some(label);
        }
    }
    let mut align = isa.function_alignment().minimum.max(isa.symbol_alignment() as u32).max(16);
    for (index, function) in functions.iter().enumerate() {
        if function.align > MAX_ALIGN {
            return Err(AssembleError::Function(index, CompileErrorKind::Alignment(function.align)));
        }
        align = align.max(function.align);
    }
    match reach {
        Some(reach) => assembly.text_with_islands(functions, &labels, reach)?,
        None => assembly.text(isa, functions, &labels)?,
    }
    assembly.contents.summary.text_align = align.into();
    if !assembly.contents.unwind.is_empty() {
        assembly.contents.cie = unwind::cie(isa).to_vec();
    }
    let Assembly { mut contents, libcalls, thread_locals, offsets, mut ranges, .. } = assembly;
    let symbol_align = isa.symbol_alignment() as u32;
    let words = data::lay_out(module, symbol_align, &thread_locals, &mut contents, &mut ranges)?;
    symbols::write(module, &ranges, &libcalls, &mut contents);
    if let Some(words) = words {
        thread_locals::finish(words, &offsets, &mut contents);
    }
    debug::write_lines(&module.lines, &mut contents);
    write_target(names, &mut contents);
    let size = contents.artifact_len() as u64;
    if size > MAX_ARTIFACT.into() {
        let what = "the module's code, data and tables together".into();
        let kind = CompileErrorKind::TooLarge { what, size, limit: MAX_ARTIFACT.into() };
        return Err(AssembleError::Data { line: 0, kind });
    }
    Ok(contents.finish())
}

/// The state while functions are laid out.
struct Assembly<'a> {
    module: &'a Module,
    contents: Contents,
    libcalls: IndexSet<LibCall>,
    /// The thread-local symbols that the code refers to.
    thread_locals: IndexSet<u32>,
    /// Offsets in the code at which 8 bytes are the distance of the words of a thread-local symbol
    /// from the first such words, and the distance.
    offsets: Vec<(u64, u64)>,
    /// The place of each symbol that was laid out so far.
    ranges: Vec<SymbolRange>,
}

impl Assembly<'_> {
    /// Lays out all functions, and resolves calls between them where the callee's definition is
    /// final and is within range.
    fn text(
        &mut self,
        isa: &dyn TargetIsa,
        functions: &[CompiledFunction],
        labels: &[Option<usize>],
    ) -> Result<(), AssembleError> {
        if let ([definition], [compiled]) = (&*self.module.functions, functions)
            && !compiled.relocs.iter().any(|reloc| is_resolvable(reloc, labels))
        {
            return self.only(definition, compiled);
        }
        let mut builder = isa.text_section_builder(functions.len());
        let control = &mut ControlPlane::default();
        // Above the limit, the builder could not patch calls.
        let mut bound = 0;
        for (index, (definition, compiled)) in self.module.functions.iter().zip(functions).enumerate() {
            let len = compiled.code.len();
            bound += u64::from(compiled.align) + len as u64;
            if bound > u64::from(MAX_CODE) {
                return Err(AssembleError::Function(index, too_much_code(bound)));
            }
            let start = builder.append(true, &compiled.code, compiled.align, control) as u32;
            for reloc in &compiled.relocs {
                let offset = u64::from(start) + u64::from(reloc.offset);
                if let RelocTarget::Symbol(symbol) = reloc.target
                    && let Some(label) = labels[symbol as usize]
                    && let Some(call) = reloc.call
                    && builder.resolve_reloc(offset, call, reloc.addend, label)
                {
                    self.contents.resolved_calls.push(resolved_call(reloc, start, symbol, compiled));
                } else {
                    self.text_reloc(definition, reloc, offset);
                }
            }
            self.define(definition, start, compiled);
        }
        self.contents.text = builder.finish(control);
        Ok(())
    }

    /// Does the same as [`text`](Self::text) for the only function of a module, which does not call
    /// itself: nothing is to be laid out, and to make a builder takes longer than the rest.
    fn only(&mut self, definition: &Function, compiled: &CompiledFunction) -> Result<(), AssembleError> {
        let bound = u64::from(compiled.align) + compiled.code.len() as u64;
        if bound > u64::from(MAX_CODE) {
            return Err(AssembleError::Function(0, too_much_code(bound)));
        }
        for reloc in &compiled.relocs {
            self.text_reloc(definition, reloc, reloc.offset.into());
        }
        self.define(definition, 0, compiled);
        self.contents.text = compiled.code.to_vec();
        Ok(())
    }

    /// Does the same as [`text`](Self::text), for code that may be larger than calls reach.
    fn text_with_islands(
        &mut self,
        functions: &[CompiledFunction],
        labels: &[Option<usize>],
        reach: u32,
    ) -> Result<(), AssembleError> {
        let layout = IslandLayout::new(functions, labels, reach)
            .map_err(|(index, kind)| AssembleError::Function(index, kind))?;
        let mut text = Vec::new();
        for (index, (definition, compiled)) in self.module.functions.iter().zip(functions).enumerate() {
            let start = layout.starts[index];
            text.resize(start as usize, 0);
            text.extend_from_slice(&compiled.code);
            for reloc in &compiled.relocs {
                let offset = start + reloc.offset;
                if let Some(target) = layout.call(index, reloc, labels) {
                    islands::patch_call(&mut text, offset, target);
                    let symbol = self.symbol(definition, reloc.target);
                    self.contents.resolved_calls.push(resolved_call(reloc, start, symbol, compiled));
                } else {
                    self.text_reloc(definition, reloc, offset.into());
                }
            }
            self.define(definition, start, compiled);
            let Some(island) = layout.island_after(index) else { continue };
            text.resize(island.start as usize, 0);
            for &target in &island.targets {
                for (at, kind) in islands::VENEER_RELOCS {
                    let reloc = FunctionReloc { offset: at, kind, call: None, target, addend: 0, flags: 0 };
                    self.text_reloc(definition, &reloc, text.len() as u64 + u64::from(at));
                }
                text.extend(islands::VENEER.iter().flat_map(|word| word.to_le_bytes()));
            }
        }
        self.contents.text = text;
        Ok(())
    }

    /// Adds the function that begins at `start`: its record, tables and place.
    fn define(&mut self, definition: &Function, start: u32, compiled: &CompiledFunction) {
        self.tables(definition, start, compiled);
        self.ranges[definition.symbol.index()] = SymbolRange {
            section: SectionKind::Text as u8,
            offset: start.into(),
            size: compiled.code.len() as u64,
        };
    }

    /// Returns the number of the symbol that a relocation of `definition` is against.
    fn symbol(&mut self, definition: &Function, target: RelocTarget) -> u32 {
        match target {
            RelocTarget::Symbol(symbol) => symbol,
            RelocTarget::LibCall(call) => {
                (self.module.symbols.len() + self.libcalls.insert_full(call).0) as u32
            }
            RelocTarget::Here(_) => definition.symbol.as_u32(),
            // The number is known when all symbols are.
            RelocTarget::ThreadLocal(_) | RelocTarget::ThreadLocals => NONE,
        }
    }

    /// Adds a relocation of `definition` for the linker.
    fn text_reloc(&mut self, definition: &Function, reloc: &FunctionReloc, offset: u64) {
        let mut words = 0;
        if let RelocTarget::ThreadLocal(symbol) = reloc.target {
            words = thread_locals::LEN * self.thread_locals.insert_full(symbol).0 as u64;
            if reloc.kind == RelocKind::ThreadLocal {
                self.offsets.push((offset, words));
                return;
            }
        }
        let symbol = self.symbol(definition, reloc.target);
        let (addend, own) = match reloc.target {
            // The symbol of a low part only names the place of the high part.
            RelocTarget::Here(here) if reloc.kind == RelocKind::RvPcrelLo12I => {
                (i64::from(here) + reloc.addend, 0)
            }
            RelocTarget::Here(here) => (i64::from(here) + reloc.addend, Reloc::OWN),
            RelocTarget::Symbol(_) | RelocTarget::LibCall(_) => (reloc.addend, 0),
            RelocTarget::ThreadLocal(_) | RelocTarget::ThreadLocals => {
                (reloc.addend + words as i64, Reloc::OWN)
            }
        };
        self.contents.text_relocs.push(Reloc {
            offset: offset.into(),
            addend: addend.into(),
            symbol: symbol.into(),
            kind: reloc.kind as u8,
            flags: reloc.flags | own,
            reserved: [0; 2],
        });
    }

    /// Adds the function's record and its part of every table. `start` is its offset in the code.
    fn tables(&mut self, definition: &Function, start: u32, compiled: &CompiledFunction) {
        let contents = &mut self.contents;
        let (references, base) = match &definition.code {
            Code::Ir(body) => (body.references(), body.base_srcloc().bits()),
            Code::Machine(_) => (&[][..], NONE),
        };
        // The record comes first, because its parts start where the tables end now.
        contents.functions.push(FunctionRecord {
            symbol: definition.symbol.as_u32().into(),
            start: start.into(),
            len: (compiled.code.len() as u32).into(),
            references_start: (contents.references.len() as u32).into(),
            references_len: (references.len() as u32).into(),
            align: compiled.align.into(),
            base_location: base.into(),
            traps_start: (contents.traps.len() as u32).into(),
            source_ranges_start: (contents.source_ranges.len() as u32).into(),
            call_sites_start: (contents.call_sites.len() as u32).into(),
            handlers_start: (contents.handlers.len() as u32).into(),
            unwind_start: (contents.unwind.len() as u32).into(),
            unwind_len: (compiled.unwind.len() as u32).into(),
        });
        contents.references.extend(references.iter().map(|symbol| U32::new(symbol.as_u32())));
        // Tables without offsets in the code are copied.
        contents.unwind.extend_from_slice(&compiled.unwind);
        contents.traps.extend_from_slice(&compiled.traps);
        contents.source_ranges.extend_from_slice(&compiled.source_ranges);
        contents.call_sites.extend_from_slice(&compiled.call_sites);
        debug::write_labels(definition, &compiled.labels, contents);
        // In the others, offsets become relative to the module's code.
        contents.handlers.extend(compiled.handlers.iter().map(|handler| Handler {
            value: handler.value.into(),
            target: handler.target.map_or(0, |target| start + target).into(),
            kind: handler.kind as u8,
            reserved: [0; 3],
        }));
        let mut entries_start = contents.stack_map_entries.len() as u32;
        contents.stack_maps.extend(compiled.stack_maps.iter().map(|map| {
            let record = StackMap {
                return_offset: (start + map.return_offset).into(),
                span: map.span.into(),
                entries_start: entries_start.into(),
                entries_len: map.entries.into(),
            };
            entries_start += map.entries;
            record
        }));
        let entries = compiled.stack_map_entries.iter();
        contents.stack_map_entries.extend(
            entries.map(|&(offset, size)| StackMapEntry { offset: offset.into(), size: size.into() }),
        );
        let calls = compiled.patchable_calls.iter();
        contents
            .patchable_calls
            .extend(calls.map(|&(end, len)| PatchableCall { end: (start + end).into(), len: len.into() }));
        // All functions of a target have the same no-op, if they have it.
        if contents.nops.is_empty() {
            contents.nops.clone_from(&compiled.nop);
        }
    }
}

/// Whether the text section builder may resolve a relocation.
fn is_resolvable(reloc: &FunctionReloc, labels: &[Option<usize>]) -> bool {
    matches!(reloc.target, RelocTarget::Symbol(symbol) if labels[symbol as usize].is_some())
        && reloc.call.is_some()
}

/// Returns the record from which [`crate::Reuse`] restores the call as it was before it was
/// resolved.
fn resolved_call(
    reloc: &FunctionReloc,
    start: u32,
    symbol: u32,
    compiled: &CompiledFunction,
) -> ResolvedCall {
    let mut original = [0; 8];
    let site = &compiled.code[reloc.offset as usize..][..reloc.kind.width()];
    original[..site.len()].copy_from_slice(site);
    ResolvedCall {
        original,
        addend: reloc.addend.into(),
        offset: (start + reloc.offset).into(),
        symbol: symbol.into(),
        kind: reloc.kind as u8,
        reserved: [0; 3],
    }
}

/// Writes the target triple, the producer, the CPU features and how code reaches globals.
fn write_target(names: &TargetNames, contents: &mut Contents) {
    contents.summary.triple = contents.string(&names.triple);
    contents.summary.producer = contents.string(PRODUCER);
    contents.summary.globals = names.globals.code();
    contents.features = names.features.iter().map(|name| contents.string(name)).collect();
}
