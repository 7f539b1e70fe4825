//! One module: compiled functions and data in, artifact out.
//!
//! Functions are laid out in order of definition by Cranelift's text section builder, which resolves calls between them
//! and places veneers where a call does not reach. What it cannot resolve becomes a relocation against the module's
//! symbol table, whose numbers are those of the IR module; routines of the C library are appended.

use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{LibCall, Signature};
use cranelift_codegen::isa::TargetIsa;
use indexmap::IndexMap;
use kiln_artifact::record::{self, NONE, SectionKind, Str};
use kiln_artifact::{Artifact, Contents};
use kiln_ir::{Code, DataObject, Function, Init, Linkage, MAX_ALIGN, Module, SymbolKind};
use zerocopy::little_endian::U32;

use crate::error::CompileErrorKind;
use crate::function::{Compiled, FunctionReloc, Target};
use crate::{PRODUCER, reloc};

/// The artifact of `module`, whose functions were compiled to `functions`.
///
/// # Errors
///
/// The number of the function at fault, and what is wrong with it.
pub(crate) fn assemble(
    module: &Module,
    isa: &dyn TargetIsa,
    functions: &[Compiled],
) -> Result<Artifact, (usize, CompileErrorKind)> {
    let mut assembly = Assembly {
        module,
        contents: Contents::default(),
        signatures: IndexMap::new(),
        libcalls: IndexMap::new(),
        extents: vec![Extent::default(); module.symbols.len()],
    };
    assembly.text(isa, functions)?;
    assembly.data(isa.symbol_alignment() as u32).map_err(|kind| (0, kind))?;
    assembly.symbols();
    assembly.summary(isa);
    Ok(assembly.contents.finish())
}

/// The most code or data of a kind that a module may have, in bytes: what a reference with 32 bits can span.
const MAX_SIZE: u32 = 1 << 31;

/// The data of one named section.
#[derive(Default)]
struct Run<'a> {
    bytes: Vec<u8>,
    align: u32,
    /// Each datum, and where in the bytes it starts.
    data: Vec<(&'a DataObject, u64)>,
}

/// Where a defined symbol lies.
#[derive(Clone, Copy, Default)]
struct Extent {
    place: u8,
    offset: u64,
    size: u64,
}

struct Assembly<'a> {
    module: &'a Module,
    contents: Contents,
    signatures: IndexMap<&'a Signature, Str>,
    libcalls: IndexMap<LibCall, ()>,
    extents: Vec<Extent>,
}

impl Assembly<'_> {
    fn text(&mut self, isa: &dyn TargetIsa, functions: &[Compiled]) -> Result<(), (usize, CompileErrorKind)> {
        // Which label of the text section builder a symbol has, if calls to it may be resolved here.
        let mut labels = vec![None; self.module.symbols.len()];
        for (label, function) in self.module.functions.iter().enumerate() {
            if self.module.symbol(function.symbol).linkage != Linkage::Preemptible {
                labels[function.symbol.index()] = Some(label);
            }
        }
        let mut builder = isa.text_section_builder(functions.len());
        let control = &mut ControlPlane::default();
        let text_align = isa.function_alignment().minimum.max(isa.symbol_alignment() as u32).max(16);
        let mut align = text_align;
        for (index, (definition, compiled)) in self.module.functions.iter().zip(functions).enumerate() {
            let fail = |kind| (index, kind);
            if compiled.align > MAX_ALIGN {
                return Err(fail(CompileErrorKind::Alignment(compiled.align)));
            }
            align = align.max(compiled.align);
            let start = builder.append(true, &compiled.code, compiled.align, control);
            let start = u32::try_from(start).ok().filter(|start| {
                start.checked_add(compiled.code.len() as u32).is_some_and(|end| end <= MAX_SIZE)
            });
            let start = start.ok_or(fail(CompileErrorKind::TooLarge("code")))?;
            for reloc in &compiled.relocs {
                let offset = u64::from(start) + u64::from(reloc.offset);
                let (symbol, addend) = match reloc.target {
                    Target::Symbol(symbol) => {
                        if let Some(label) = labels[symbol as usize]
                            && let Some(call) = reloc.call
                            && builder.resolve_reloc(offset, call, reloc.addend, label)
                        {
                            self.contents.resolved_calls.push(resolved(reloc, start, symbol, compiled));
                            continue;
                        }
                        (symbol, reloc.addend)
                    }
                    Target::LibCall(call) => (self.libcall(call), reloc.addend),
                    Target::Here(here) => (definition.symbol.as_u32(), i64::from(here) + reloc.addend),
                };
                self.contents.text_relocs.push(record::Reloc {
                    offset: offset.into(),
                    addend: addend.into(),
                    symbol: symbol.into(),
                    kind: reloc.kind as u8,
                    reserved: [0; 3],
                });
            }
            self.tables(definition, start, compiled);
            self.extents[definition.symbol.index()] = Extent {
                place: SectionKind::Text as u8,
                offset: start.into(),
                size: compiled.code.len() as u64,
            };
        }
        self.contents.text = builder.finish(control);
        self.contents.summary.text_align = align.into();
        Ok(())
    }

    fn libcall(&mut self, call: LibCall) -> u32 {
        let index = self.libcalls.insert_full(call, ()).0;
        (self.module.symbols.len() + index) as u32
    }

    fn tables(&mut self, definition: &Function, start: u32, compiled: &Compiled) {
        let contents = &mut self.contents;
        let references_start = contents.references.len() as u32;
        let (references, base) = match &definition.code {
            Code::Ir(body) => (body.references(), body.base_srcloc().bits()),
            Code::Machine(_) => (&[][..], NONE),
        };
        contents.references.extend(references.iter().map(|symbol| U32::new(symbol.as_u32())));
        if contents.cie.is_empty() {
            contents.cie.clone_from(&compiled.unwind.cie);
        }
        contents.functions.push(record::FunctionRecord {
            symbol: definition.symbol.as_u32().into(),
            start: start.into(),
            len: (compiled.code.len() as u32).into(),
            references_start: references_start.into(),
            references_len: (references.len() as u32).into(),
            align: compiled.align.into(),
            base_location: base.into(),
            traps_start: (contents.traps.len() as u32).into(),
            source_ranges_start: (contents.source_ranges.len() as u32).into(),
            call_sites_start: (contents.call_sites.len() as u32).into(),
            handlers_start: (contents.handlers.len() as u32).into(),
            unwind_start: (contents.unwind.len() as u32).into(),
            unwind_len: (compiled.unwind.rows.len() as u32).into(),
        });
        contents.unwind.extend_from_slice(&compiled.unwind.rows);
        contents.traps.extend_from_slice(&compiled.traps);
        contents.source_ranges.extend_from_slice(&compiled.source_ranges);
        contents.call_sites.extend_from_slice(&compiled.call_sites);
        contents.handlers.extend(compiled.handlers.iter().map(|handler| record::Handler {
            value: handler.value.into(),
            target: handler.target.map_or(0, |target| start + target).into(),
            kind: handler.kind as u8,
            reserved: [0; 3],
        }));
        let mut entries_start = contents.stack_map_entries.len() as u32;
        contents.stack_maps.extend(compiled.stack_maps.iter().map(|map| {
            let record = record::StackMap {
                return_offset: (start + map.return_offset).into(),
                span: map.span.into(),
                entries_start: entries_start.into(),
                entries_len: map.entries.into(),
            };
            entries_start += map.entries;
            record
        }));
        contents.stack_map_entries.extend(
            compiled
                .stack_map_entries
                .iter()
                .map(|&(offset, size)| record::StackMapEntry { offset: offset.into(), size: size.into() }),
        );
        contents.patchable_calls.extend(
            compiled
                .patchable_calls
                .iter()
                .map(|&(end, len)| record::PatchableCall { end: (start + end).into(), len: len.into() }),
        );
        if contents.nops.is_empty() {
            contents.nops.clone_from(&compiled.nop);
        }
    }

    fn data(&mut self, symbol_align: u32) -> Result<(), CompileErrorKind> {
        let mut zeroed_size = 0u64;
        let [mut read_only_align, mut writable_align, mut zeroed_align] = [1u32; 3];
        let mut runs: IndexMap<(bool, &str), Run<'_>> = IndexMap::new();
        for data in &self.module.data {
            let contents = &mut self.contents;
            let align = data.align.max(symbol_align);
            if let Some(name) = &data.section {
                let run = runs.entry((data.writable, name)).or_default();
                run.align = run.align.max(align);
                // An empty datum takes no room: whoever walks over a section finds exactly what was put there.
                let offset = append(&mut run.bytes, data, align, data.init.len())?;
                run.data.push((data, offset));
                continue;
            }
            let (place, offset) = match (data.writable, &data.init) {
                (true, Init::Zeros(len)) if data.addresses.is_empty() => {
                    zeroed_align = zeroed_align.max(align);
                    let offset = zeroed_size.next_multiple_of(u64::from(align));
                    // An empty datum has an address of its own here too.
                    let end = offset.checked_add((*len).max(1)).filter(|&end| end <= u64::from(MAX_SIZE));
                    zeroed_size = end.ok_or(CompileErrorKind::TooLarge("zeroed data"))?;
                    (SectionKind::Zeroed, offset)
                }
                (true, _) => {
                    writable_align = writable_align.max(align);
                    let offset = append(&mut contents.writable, data, align, data.init.len().max(1))?;
                    contents.writable_relocs.extend(addresses(data, offset));
                    (SectionKind::Writable, offset)
                }
                (false, _) => {
                    read_only_align = read_only_align.max(align);
                    let offset = append(&mut contents.read_only, data, align, data.init.len().max(1))?;
                    contents.read_only_relocs.extend(addresses(data, offset));
                    (SectionKind::ReadOnly, offset)
                }
            };
            self.extents[data.symbol.index()] = Extent { place: place as u8, offset, size: data.init.len() };
        }
        for writable in [false, true] {
            self.named_data(writable, &runs)?;
        }
        let summary = &mut self.contents.summary;
        summary.zeroed_size = zeroed_size.into();
        summary.read_only_align = read_only_align.into();
        summary.writable_align = writable_align.into();
        summary.zeroed_align = zeroed_align.into();
        Ok(())
    }

    /// Appends what is for named sections to the read-only or the writable data.
    fn named_data(
        &mut self,
        writable: bool,
        runs: &IndexMap<(bool, &str), Run<'_>>,
    ) -> Result<(), CompileErrorKind> {
        let mut first = true;
        for ((_, name), run) in runs.iter().filter(|((of, _), _)| *of == writable) {
            let name = self.contents.string(name);
            let contents = &mut self.contents;
            let (place, bytes, relocs) = match writable {
                true => (SectionKind::Writable, &mut contents.writable, &mut contents.writable_relocs),
                false => (SectionKind::ReadOnly, &mut contents.read_only, &mut contents.read_only_relocs),
            };
            // Runs are apart, so that what has no size and stands at the end of one is not at the start of the next.
            let gap = usize::from(!std::mem::take(&mut first));
            let start = (bytes.len() + gap).next_multiple_of(run.align.max(1) as usize);
            let end = start.checked_add(run.bytes.len()).filter(|&end| end <= MAX_SIZE as usize);
            bytes.resize(end.ok_or(CompileErrorKind::TooLarge("data"))?, 0);
            bytes[start..].copy_from_slice(&run.bytes);
            for &(data, offset) in &run.data {
                let offset = start as u64 + offset;
                relocs.extend(addresses(data, offset));
                let size = data.init.len();
                self.extents[data.symbol.index()] = Extent { place: place as u8, offset, size };
            }
            contents.named_data.push(record::NamedData {
                name,
                start: (start as u64).into(),
                len: (run.bytes.len() as u64).into(),
                align: run.align.into(),
                section: place as u8,
                reserved: [0; 3],
            });
        }
        Ok(())
    }

    fn symbols(&mut self) {
        let module = self.module;
        for (symbol, extent) in module.symbols.iter().zip(std::mem::take(&mut self.extents)) {
            let signature = symbol.signature.as_ref().map_or(NONE, |signature| self.signature(signature));
            let kind = match symbol.kind {
                SymbolKind::Function => record::SymbolKind::Function,
                SymbolKind::Data => record::SymbolKind::Data,
                SymbolKind::Global => record::SymbolKind::Global,
            };
            let linkage = match symbol.linkage {
                Linkage::Import => record::Linkage::Import,
                Linkage::Local => record::Linkage::Local,
                Linkage::Hidden => record::Linkage::Hidden,
                Linkage::Export => record::Linkage::Export,
                Linkage::Preemptible => record::Linkage::Preemptible,
            };
            let name = self.contents.string(&symbol.name);
            self.contents.symbols.push(record::SymbolRecord {
                name,
                offset: extent.offset.into(),
                size: extent.size.into(),
                signature: signature.into(),
                kind: kind as u8,
                linkage: linkage as u8,
                section: extent.place,
                libcall: 0,
            });
        }
        for call in std::mem::take(&mut self.libcalls).into_keys() {
            let name = self.contents.string(reloc::libcall_name(call));
            self.contents.symbols.push(record::SymbolRecord {
                name,
                offset: 0.into(),
                size: 0.into(),
                signature: NONE.into(),
                kind: record::SymbolKind::Function as u8,
                linkage: record::Linkage::Import as u8,
                section: SectionKind::Undefined as u8,
                libcall: 1,
            });
        }
        self.contents.signatures = self.signatures.values().copied().collect();
    }

    fn summary(&mut self, isa: &dyn TargetIsa) {
        let triple = self.contents.string(&isa.triple().to_string());
        let producer = self.contents.string(PRODUCER);
        self.contents.summary.triple = triple;
        self.contents.summary.producer = producer;
        let mut features: Vec<_> = isa
            .isa_flags()
            .into_iter()
            .filter(|flag| flag.name.starts_with("has_") && flag.as_bool() == Some(true))
            .map(|flag| flag.name)
            .collect();
        features.sort_unstable();
        self.contents.features = features.into_iter().map(|name| self.contents.string(name)).collect();
    }
}

impl<'a> Assembly<'a> {
    fn signature(&mut self, signature: &'a Signature) -> u32 {
        let next = self.signatures.len();
        let index = match self.signatures.get_index_of(signature) {
            Some(index) => index,
            None => {
                let text = self.contents.string(&signature.to_string());
                self.signatures.insert(signature, text);
                next
            }
        };
        index as u32
    }
}

/// What is needed to take back that a call was resolved.
fn resolved(reloc: &FunctionReloc, start: u32, symbol: u32, compiled: &Compiled) -> record::ResolvedCall {
    let mut original = [0; 8];
    let place = &compiled.code[reloc.offset as usize..][..reloc.kind.width()];
    original[..place.len()].copy_from_slice(place);
    record::ResolvedCall {
        original,
        addend: reloc.addend.into(),
        offset: (start + reloc.offset).into(),
        symbol: symbol.into(),
        kind: reloc.kind as u8,
        reserved: [0; 3],
    }
}

/// Appends the content of `data` at its alignment, in `room` bytes, and returns its offset. Outside of named sections an
/// empty datum gets a byte, so that it has an address of its own.
fn append(section: &mut Vec<u8>, data: &DataObject, align: u32, room: u64) -> Result<u64, CompileErrorKind> {
    let offset = section.len().next_multiple_of(align as usize);
    let end = usize::try_from(room).ok().and_then(|len| offset.checked_add(len));
    let end = end.filter(|&end| end <= MAX_SIZE as usize).ok_or(CompileErrorKind::TooLarge("data"))?;
    section.resize(end, 0);
    if let Init::Bytes(bytes) = &data.init {
        section[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    Ok(offset as u64)
}

fn addresses(data: &DataObject, start: u64) -> impl Iterator<Item = record::Reloc> + '_ {
    data.addresses.iter().map(move |address| record::Reloc {
        offset: (start + address.offset).into(),
        addend: address.addend.into(),
        symbol: address.symbol.as_u32().into(),
        kind: kiln_artifact::RelocKind::Abs64 as u8,
        reserved: [0; 3],
    })
}
