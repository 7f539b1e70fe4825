//! Compiles one function from IR to machine code and compact tables.

use std::cell::Cell;

use cranelift_codegen::Context;
use cranelift_codegen::FinalizedRelocTarget;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{ExternalName, KnownSymbol};
use cranelift_codegen::isa::TargetIsa;
use kiln_artifact::RelocKind;
use kiln_artifact::record::Reloc;
use kiln_ir::{Code, CodeReloc, CodeTarget, Function, MachineCode, Module, SymbolKind};

use crate::colocate::{addresses_taken, colocate, colocate_s390x, reach_directly};
use crate::compiled::{CompiledFunction, FunctionReloc, RelocTarget};
use crate::error::{CompileErrorKind, guard};
use crate::{debug, limits, reloc, s390x, tables, unwind};

/// Working memory of a thread, reused from one function to the next.
pub(crate) struct Scratch {
    context: Context,
    control: ControlPlane,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self { context: Context::new(), control: ControlPlane::default() }
    }
}

thread_local! {
    /// The working memory of a thread that is in no pool.
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// The largest number of instructions of a function whose working memory is kept, so that a large
/// function does not occupy memory for as long as the thread lives.
const KEPT: usize = 2000;

/// Calls `work` with working memory that this thread keeps from call to call: to allocate it takes
/// a good part of the time of compiling a small function.
pub(crate) fn with_scratch<R>(work: impl FnOnce(&mut Scratch) -> R) -> R {
    let mut scratch = SCRATCH.try_with(Cell::take).ok().flatten().unwrap_or_else(|| Box::new(Scratch::new()));
    let result = work(&mut scratch);
    if scratch.context.func.dfg.num_insts() <= KEPT {
        // At the end of the thread, it is too late to keep anything.
        let _ = SCRATCH.try_with(|kept| kept.set(Some(scratch)));
    }
    result
}

/// Compiles one function of `module`.
pub(crate) fn compile(
    module: &Module,
    function: &Function,
    isa: &dyn TargetIsa,
    scratch: &mut Scratch,
) -> Result<CompiledFunction, CompileErrorKind> {
    let body = match &function.code {
        Code::Ir(body) => body,
        Code::Machine(code) => return machine(module, code),
    };
    scratch.context.clear();
    // Compile the canonical form, so that the code depends on nothing that this form leaves out.
    body.decode_into(function.symbol, &mut scratch.context.func);
    if !body.is_verified() {
        kiln_ir::verify(&scratch.context.func, isa).map_err(CompileErrorKind::Invalid)?;
    }
    colocate(module, &mut scratch.context.func);
    if is_direct(isa) {
        reach_directly(module, &mut scratch.context.func);
    }
    if is_s390x(isa) {
        colocate_s390x(module, &mut scratch.context.func);
    }
    unwind::mark(&mut scratch.context.func, isa);
    // Cranelift panics on an instruction that a target has no lowering for. The context must not be
    // used again then.
    let Scratch { context, control } = scratch;
    match guard(|| compile_context(module, context, isa, control)) {
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

/// Whether code contains addresses, which are written when it is loaded.
fn is_direct(isa: &dyn TargetIsa) -> bool {
    !isa.flags().is_pic()
}

/// Takes machine code from the client, unchanged. It has no tables.
fn machine(module: &Module, code: &MachineCode) -> Result<CompiledFunction, CompileErrorKind> {
    let MachineCode { bytes, align, relocs } = code;
    let reloc = |reloc: &CodeReloc| {
        let target = match reloc.target {
            CodeTarget::Symbol(symbol) => RelocTarget::Symbol(symbol.as_u32()),
            CodeTarget::LibCall(call) => RelocTarget::LibCall(call),
            CodeTarget::Here(offset) => RelocTarget::Here(offset),
        };
        function_reloc(reloc.offset, reloc.kind, target, reloc.addend)
    };
    let mut relocs = relocs.iter().map(reloc).collect::<Result<Vec<_>, _>>()?;
    // The client may list relocations in any order.
    relocs.sort_by_key(|reloc| reloc.offset);
    // Nobody knows what the code does with the content of a slot.
    let is_function = |symbol: u32| module.symbols[symbol as usize].kind == SymbolKind::Function;
    flag_addresses(&mut relocs, is_function);
    Ok(CompiledFunction { code: bytes.clone(), align: *align, relocs, ..CompiledFunction::default() })
}

fn function_reloc(
    offset: u32,
    cranelift_kind: cranelift_codegen::binemit::Reloc,
    target: RelocTarget,
    addend: i64,
) -> Result<FunctionReloc, CompileErrorKind> {
    let kind = reloc::kind(cranelift_kind)
        .ok_or_else(|| CompileErrorKind::Relocation(format!("relocation {cranelift_kind:?}").into()))?;
    Ok(FunctionReloc { offset, kind, call: Some(cranelift_kind), target, addend, flags: 0 })
}

/// Whether the linker must know what code does with the address.
fn needs_flag(reloc: &FunctionReloc) -> bool {
    reloc.kind.uses_slot() || reloc.kind == RelocKind::Abs64
}

/// Marks the accesses to slots, or to addresses in code, of functions whose address the code takes.
fn flag_addresses(relocs: &mut [FunctionReloc], takes_address: impl Fn(u32) -> bool) {
    for reloc in relocs.iter_mut().filter(|reloc| needs_flag(reloc)) {
        if let RelocTarget::Symbol(symbol) = reloc.target
            && takes_address(symbol)
        {
            reloc.flags |= Reloc::TAKES_ADDRESS;
        }
    }
}

/// Compiles the function in `context`.
fn compile_context(
    module: &Module,
    context: &mut Context,
    isa: &dyn TargetIsa,
    control: &mut ControlPlane,
) -> Result<CompiledFunction, CompileErrorKind> {
    if let Err(error) = context.compile(isa, control) {
        let error = error.inner;
        return Err(limits::reason(error, &context.func));
    }
    let code = context.compiled_code().expect("the function was just compiled");
    let names = context.func.params.user_named_funcs();
    let mut relocs = code
        .buffer
        .relocs()
        .iter()
        .filter(|reloc| !reloc::is_mark(reloc.kind))
        .map(|reloc| {
            let target = match &reloc.target {
                FinalizedRelocTarget::ExternalName(ExternalName::User(name))
                    if reloc::is_thread_local(reloc.kind) =>
                {
                    RelocTarget::ThreadLocal(names[*name].index)
                }
                FinalizedRelocTarget::ExternalName(ExternalName::User(name)) => {
                    RelocTarget::Symbol(names[*name].index)
                }
                FinalizedRelocTarget::ExternalName(ExternalName::LibCall(call)) => {
                    RelocTarget::LibCall(*call)
                }
                FinalizedRelocTarget::Func(offset) => RelocTarget::Here(*offset),
                // s390x finds thread-local symbols relative to this.
                FinalizedRelocTarget::ExternalName(ExternalName::KnownSymbol(
                    KnownSymbol::ElfGlobalOffsetTable,
                )) => RelocTarget::ThreadLocals,
                FinalizedRelocTarget::ExternalName(name) => {
                    return Err(CompileErrorKind::Relocation(format!("a reference to {name:?}").into()));
                }
            };
            function_reloc(reloc.offset, reloc.kind, target, reloc.addend)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut bytes: Box<[u8]> = code.buffer.data().into();
    if is_s390x(isa) && !is_direct(isa) {
        s390x::use_slots(&mut bytes, &mut relocs)?;
    }
    if relocs.iter().any(needs_flag) {
        let taken = addresses_taken(module, &context.func);
        flag_addresses(&mut relocs, |symbol| taken.binary_search(&symbol).is_ok());
    }
    // Cranelift does not promise that relocations are in order.
    relocs.sort_by_key(|reloc| reloc.offset);
    let unwind = unwind::rows(code, &context.func, isa).map_err(CompileErrorKind::Codegen)?;
    let labels = debug::labels(code, &context.func, isa);
    let tables = tables::collect(code, context.func.params.base_srcloc().bits());
    Ok(CompiledFunction { code: bytes, relocs, unwind, labels, ..tables })
}
