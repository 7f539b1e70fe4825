//! One function: IR in, compact machine code and tables out.
//!
//! Offsets are relative to the function's first byte. Nothing here refers to Cranelift's large `CompiledCode`, so that a
//! work queue can hold thousands of results.

use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{self, ExternalName, LibCall};
use cranelift_codegen::isa::TargetIsa;
use cranelift_codegen::{CompiledCode, Context, FinalizedMachExceptionHandler, FinalizedRelocTarget};
use cranelift_codegen::{ExceptionContextLoc, MachTrap};
use kiln_artifact::RelocKind;
use kiln_artifact::record::HandlerKind;
use kiln_artifact::stream::{self, CallSite, SourceRange, Trap};
use kiln_ir::{
    Code, CodeReloc, CodeTarget, Function, Linkage, MachineCode, Module, Symbol, SymbolId, SymbolKind,
};

use crate::error::{CompileErrorKind, guard};
use crate::unwind::{self, Rows};
use crate::{reloc, s390x};

/// Per-thread working memory: reused from function to function.
pub(crate) struct Scratch {
    context: Context,
    control: ControlPlane,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self { context: Context::new(), control: ControlPlane::default() }
    }
}

/// What a relocation refers to.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// A symbol of the module, by number.
    Symbol(u32),
    /// A routine of the C library.
    LibCall(LibCall),
    /// A place in the same function.
    Here(u32),
}

pub(crate) struct FunctionReloc {
    pub(crate) offset: u32,
    pub(crate) kind: RelocKind,
    /// The kind in Cranelift's terms, for its text section builder.
    pub(crate) call: Option<Reloc>,
    pub(crate) target: Target,
    pub(crate) addend: i64,
}

pub(crate) struct FunctionHandler {
    pub(crate) kind: HandlerKind,
    pub(crate) value: u32,
    /// Offset in the function; `None` for context entries.
    pub(crate) target: Option<u32>,
}

pub(crate) struct FunctionStackMap {
    pub(crate) return_offset: u32,
    pub(crate) span: u32,
    pub(crate) entries: u32,
}

/// A compiled function.
pub(crate) struct Compiled {
    pub(crate) code: Box<[u8]>,
    pub(crate) align: u32,
    pub(crate) relocs: Vec<FunctionReloc>,
    /// Pieces of the artifact's streams, which do not change wherever the function lies.
    pub(crate) traps: Vec<u8>,
    pub(crate) source_ranges: Vec<u8>,
    pub(crate) call_sites: Vec<u8>,
    pub(crate) handlers: Vec<FunctionHandler>,
    pub(crate) stack_maps: Vec<FunctionStackMap>,
    pub(crate) stack_map_entries: Vec<(u32, u32)>,
    pub(crate) patchable_calls: Vec<(u32, u32)>,
    pub(crate) nop: Vec<u8>,
    pub(crate) unwind: Rows,
    /// Whether it was taken out of an earlier artifact.
    pub(crate) reused: bool,
}

/// Compiles one function of `module`.
pub(crate) fn compile(
    module: &Module,
    function: &Function,
    isa: &dyn TargetIsa,
    scratch: &mut Scratch,
) -> Result<Compiled, CompileErrorKind> {
    let body = match &function.code {
        Code::Ir(body) => body,
        Code::Machine(code) => return machine(code),
    };
    scratch.context.clear();
    // What is compiled is the canonical form, so that the code depends on nothing that the form leaves out.
    body.decode_into(function.symbol, &mut scratch.context.func);
    colocate(module, &mut scratch.context.func);
    if is_s390x(isa) {
        s390x::mark(module, &mut scratch.context.func);
    }
    // Cranelift panics on an instruction that a target has no lowering for. The context is of no further use then.
    let Scratch { context, control } = scratch;
    match guard(|| compile_context(context, isa, control)) {
        Ok(result) => result,
        Err(kind) => {
            *scratch = Scratch::new();
            Err(kind)
        }
    }
}

fn is_s390x(isa: &dyn TargetIsa) -> bool {
    isa.name() == "s390x"
}

/// Machine code that a client brought along: as it is, without any table.
fn machine(code: &MachineCode) -> Result<Compiled, CompileErrorKind> {
    let MachineCode { bytes, align, relocs } = code;
    let reloc = |reloc: &CodeReloc| {
        let kind = reloc::kind(reloc.kind)
            .ok_or_else(|| CompileErrorKind::Relocation(format!("relocation {:?}", reloc.kind).into()))?;
        let target = match reloc.target {
            CodeTarget::Symbol(symbol) => Target::Symbol(symbol.as_u32()),
            CodeTarget::LibCall(call) => Target::LibCall(call),
            CodeTarget::Here(offset) => Target::Here(offset),
        };
        Ok(FunctionReloc { offset: reloc.offset, kind, call: Some(reloc.kind), target, addend: reloc.addend })
    };
    Ok(Compiled {
        code: bytes.clone(),
        align: *align,
        relocs: relocs.iter().map(reloc).collect::<Result<_, _>>()?,
        traps: Vec::new(),
        source_ranges: Vec::new(),
        call_sites: Vec::new(),
        handlers: Vec::new(),
        stack_maps: Vec::new(),
        stack_map_entries: Vec::new(),
        patchable_calls: Vec::new(),
        nop: Vec::new(),
        unwind: Rows::default(),
        reused: false,
    })
}

/// What code generation is told about each symbol that `function` refers to: one byte each. Functions of equal canonical form and
/// equal classes have equal code.
pub fn reference_classes(module: &Module, function: &Function) -> Vec<u8> {
    let references = function.body().map_or(&[][..], |body| body.references());
    let class = |id: &SymbolId| {
        let symbol = module.symbol(*id);
        let kind = match symbol.kind {
            SymbolKind::Function => 0,
            SymbolKind::Data => 1,
            SymbolKind::Global => 2,
        };
        // A function that calls itself refers to what it is.
        kind | u8::from(is_near(symbol)) << 2 | u8::from(*id == function.symbol) << 3
    };
    references.iter().map(class).collect()
}

/// Whether a symbol lies in the module, and nothing else can take its place.
fn is_near(symbol: &Symbol) -> bool {
    !matches!(symbol.linkage, Linkage::Import | Linkage::Preemptible)
}

/// References to what the module itself defines are direct, whether or not the client marked them so.
fn colocate(module: &Module, function: &mut ir::Function) {
    let ir::Function { stencil, params, .. } = function;
    let names = params.user_named_funcs();
    for (_, callee) in stencil.dfg.ext_funcs.iter_mut() {
        if let ExternalName::User(name) = callee.name {
            // A callee that no instruction uses may have no symbol.
            let symbol = names.get(name).and_then(|name| module.symbols.get(name.index as usize));
            if symbol.is_some_and(is_near) {
                callee.colocated = true;
            }
        }
    }
}

fn compile_context(
    context: &mut Context,
    isa: &dyn TargetIsa,
    control: &mut ControlPlane,
) -> Result<Compiled, CompileErrorKind> {
    context.compile(isa, control).map_err(|error| CompileErrorKind::Codegen(error.inner))?;
    let code = context.compiled_code().expect("the function was just compiled");
    let names = context.func.params.user_named_funcs();
    let mut relocs = code
        .buffer
        .relocs()
        .iter()
        .map(|reloc| {
            let target = match &reloc.target {
                FinalizedRelocTarget::ExternalName(ExternalName::User(name)) => {
                    Target::Symbol(names[*name].index)
                }
                FinalizedRelocTarget::ExternalName(ExternalName::LibCall(call)) => Target::LibCall(*call),
                FinalizedRelocTarget::Func(offset) => Target::Here(*offset),
                FinalizedRelocTarget::ExternalName(name) => {
                    return Err(CompileErrorKind::Relocation(format!("a reference to {name:?}").into()));
                }
            };
            let kind = reloc::kind(reloc.kind)
                .ok_or_else(|| CompileErrorKind::Relocation(format!("relocation {:?}", reloc.kind).into()))?;
            let call = Some(reloc.kind);
            Ok(FunctionReloc { offset: reloc.offset, kind, call, target, addend: reloc.addend })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut bytes: Box<[u8]> = code.buffer.data().into();
    if is_s390x(isa) {
        s390x::use_slots(&mut bytes, &mut relocs)?;
    }
    let unwind = unwind::rows(code, isa).map_err(CompileErrorKind::Codegen)?;
    Ok(extract(code, bytes, relocs, unwind, context.func.params.base_srcloc().bits()))
}

fn extract(
    code: &CompiledCode,
    bytes: Box<[u8]>,
    relocs: Vec<FunctionReloc>,
    unwind: Rows,
    base: u32,
) -> Compiled {
    let buffer = &code.buffer;
    let mut handlers = Vec::new();
    let mut call_sites = stream::StreamWriter::default();
    for site in buffer.call_sites() {
        handlers.extend(site.exception_handlers.iter().map(handler));
        call_sites.call_site(CallSite {
            return_offset: site.ret_addr,
            frame_offset: site.frame_offset,
            handlers: site.exception_handlers.len() as u32,
        });
    }
    let mut traps = stream::StreamWriter::default();
    for MachTrap { offset, code } in buffer.traps() {
        traps.trap(Trap { offset: *offset, code: code.as_raw().get() });
    }
    // Locations count from the function's base, so that moving a function in its source changes nothing.
    let mut source_ranges = stream::StreamWriter::default();
    for range in buffer.get_srclocs_sorted().iter().filter(|range| !range.loc.is_default()) {
        let location = range.loc.bits().wrapping_sub(base);
        source_ranges.source_range(SourceRange { start: range.start, end: range.end, location });
    }
    let mut stack_map_entries = Vec::new();
    let stack_maps = buffer
        .user_stack_maps()
        .iter()
        .map(|(offset, span, map)| {
            let before = stack_map_entries.len();
            stack_map_entries.extend(map.entries().map(|(ty, offset)| (offset, ty.bytes())));
            let entries = (stack_map_entries.len() - before) as u32;
            FunctionStackMap { return_offset: *offset, span: *span, entries }
        })
        .collect();
    let patchable_calls: Vec<_> =
        buffer.patchable_call_sites().map(|site| (site.ret_addr, site.len)).collect();
    let nop = match patchable_calls.is_empty() {
        true => Vec::new(),
        false => buffer.nop_units.first().cloned().unwrap_or_default(),
    };
    Compiled {
        code: bytes,
        align: buffer.alignment,
        relocs,
        traps: traps.finish(),
        source_ranges: source_ranges.finish(),
        call_sites: call_sites.finish(),
        handlers,
        stack_maps,
        stack_map_entries,
        patchable_calls,
        nop,
        unwind,
        reused: false,
    }
}

fn handler(handler: &FinalizedMachExceptionHandler) -> FunctionHandler {
    let (kind, value, target) = match *handler {
        FinalizedMachExceptionHandler::Tag(tag, target) => (HandlerKind::Tag, tag.as_u32(), Some(target)),
        FinalizedMachExceptionHandler::Default(target) => (HandlerKind::Default, 0, Some(target)),
        FinalizedMachExceptionHandler::Context(ExceptionContextLoc::SPOffset(offset)) => {
            (HandlerKind::ContextStack, offset, None)
        }
        FinalizedMachExceptionHandler::Context(ExceptionContextLoc::GPR(register)) => {
            (HandlerKind::ContextRegister, u32::from(register), None)
        }
    };
    FunctionHandler { kind, value, target }
}
