//! Functions that may be inlined, in the form in which they are.
//!
//! A function is refused if its meaning depends on its having a frame or a call of its own, or if
//! it is not certain that Cranelift's inliner keeps everything in it:
//!
//! - parameters that are passed in a special way: a copied structure, a place for results, `vmctx`;
//! - a stack limit, dynamic stack slots or types, and more than a few bytes of stack slots;
//! - tail calls, patchable calls, switches of stacks, pinned registers, and instructions that ask
//!   for the frame, the stack or the return address;
//! - addresses that are computed from other global values;
//! - alias regions, whose numbers mean something within one function only.
//!
//! A load may be marked as one from memory that does not change, or as one that may be moved to any
//! place *in its function*. Neither need be true in the caller, so the marks are taken away.

use cranelift_codegen::ir::{
    self, ArgumentPurpose, ExternalName, GlobalValueData, Inst, InstructionData, MemFlags, MemFlagsData,
    Opcode, UserExternalName, UserExternalNameRef,
};
use cranelift_codegen::isa::TargetIsa;

use super::options::{FORM, HINTED, Inlining, STACK};
use crate::function::{Function, InlineHint};
use crate::symbol::SymbolId;
use crate::unverified::verify;

/// A function that may be inlined.
pub(super) struct Callee {
    /// Its code, with names as [`set_namespace`] makes them.
    pub(super) ir: ir::Function,
    /// The number of its instructions.
    pub(super) size: u32,
    /// The bytes of its stack slots.
    pub(super) stack: u64,
    /// The symbols it refers to.
    pub(super) references: Box<[SymbolId]>,
    /// Whether it refers to thread-local data.
    pub(super) is_thread_local: bool,
    /// Whether it has the hint that it is to be inlined.
    pub(super) is_hinted: bool,
}

/// Names symbols by the number of their module, too: `UserExternalName { namespace, index }`, where
/// 1 is added to the number, because 0 is the namespace of names in a body.
pub(super) fn set_namespace(function: &mut ir::Function, module: usize) {
    let names: Vec<(UserExternalNameRef, UserExternalName)> =
        function.params.user_named_funcs().iter().map(|(at, name)| (at, name.clone())).collect();
    for (at, UserExternalName { namespace: _, index }) in names {
        let namespace = module as u32 + 1;
        function.params.reset_user_func_name(at, UserExternalName { namespace, index });
    }
}

/// Returns the module and the symbol that a name means.
pub(super) fn named(function: &ir::Function, name: &ExternalName) -> Option<(usize, SymbolId)> {
    let ExternalName::User(name) = name else { return None };
    let UserExternalName { namespace, index } = function.params.user_named_funcs().get(*name)?;
    Some((namespace.checked_sub(1)? as usize, SymbolId::from_u32(*index)))
}

/// Returns `function`, of the module with this number, in the form in which it is inlined; `None`
/// if it is not small enough, or must not be inlined.
pub(super) fn prepare(
    module: usize,
    function: &Function,
    isa: &dyn TargetIsa,
    options: Inlining,
) -> Option<Callee> {
    let is_hinted = function.inline == InlineHint::Inline;
    let limit = if is_hinted { options.size.max(HINTED) } else { options.size };
    let body = function.body().filter(|_| function.inline != InlineHint::Never)?;
    if body.as_bytes().len() as u64 > FORM * (u64::from(limit) + 1) {
        return None;
    }
    let mut ir = body.decode(function.symbol);
    let insts: Vec<Inst> = ir.layout.blocks().flat_map(|block| ir.layout.block_insts(block)).collect();
    let size = u32::try_from(insts.len()).ok().filter(|size| *size <= limit)?;
    if !body.is_verified() && verify(&ir, isa).is_err() {
        return None;
    }
    let stack = ir.sized_stack_slots.values().map(|slot| u64::from(slot.size)).sum();
    if stack > STACK
        || !has_plain_tables(&ir)
        || insts.iter().any(|inst| needs_frame(ir.dfg.insts[*inst].opcode()))
    {
        return None;
    }
    forget_marks(&mut ir, &insts)?;
    set_namespace(&mut ir, module);
    let is_thread_local =
        ir.global_values.values().any(|global| matches!(global, GlobalValueData::Symbol { tls: true, .. }));
    Some(Callee { ir, size, stack, references: body.references().into(), is_thread_local, is_hinted })
}

/// Whether the declarations of a function can be moved to another function.
fn has_plain_tables(ir: &ir::Function) -> bool {
    let dfg = &ir.dfg;
    let params = ir.signature.params.iter().chain(&ir.signature.returns);
    let symbol = |global: &GlobalValueData| {
        matches!(global, GlobalValueData::Symbol { name: ExternalName::User(_), .. })
    };
    ir.layout.entry_block().is_some()
        && params.into_iter().all(|param| param.purpose == ArgumentPurpose::Normal)
        && ir.stack_limit.is_none()
        && ir.dynamic_stack_slots.is_empty()
        && dfg.dynamic_types.is_empty()
        && dfg.alias_regions.len() == 0
        && ir.global_values.values().all(symbol)
        && dfg.ext_funcs.values().all(|callee| {
            !callee.patchable && matches!(callee.name, ExternalName::User(_) | ExternalName::LibCall(_))
        })
}

/// Whether an instruction needs the function's own frame or return, or state that calls switch.
fn needs_frame(opcode: Opcode) -> bool {
    matches!(
        opcode,
        Opcode::ReturnCall
            | Opcode::ReturnCallIndirect
            | Opcode::StackSwitch
            | Opcode::GetFramePointer
            | Opcode::GetStackPointer
            | Opcode::GetReturnAddress
            | Opcode::GetExceptionHandlerAddress
            | Opcode::GetPinnedReg
            | Opcode::SetPinnedReg
            | Opcode::SequencePoint
    )
}

/// Takes the marks from loads that are promises about the function as a whole. Returns `None` if
/// there are too many kinds of flags.
fn forget_marks(ir: &mut ir::Function, insts: &[Inst]) -> Option<()> {
    for &inst in insts {
        let (InstructionData::Load { flags, .. } | InstructionData::LoadNoOffset { flags, .. }) =
            ir.dfg.insts[inst]
        else {
            continue;
        };
        let new = without_marks(ir, flags)?;
        if let InstructionData::Load { flags, .. } | InstructionData::LoadNoOffset { flags, .. } =
            &mut ir.dfg.insts[inst]
        {
            *flags = new;
        }
    }
    Some(())
}

fn without_marks(ir: &mut ir::Function, flags: MemFlags) -> Option<MemFlags> {
    let data = ir.dfg.mem_flags[flags];
    if !data.readonly() && !data.can_move() {
        return Some(flags);
    }
    let mut plain = MemFlagsData::new().with_trap_code(data.trap_code());
    if data.aligned() {
        plain.set_aligned();
    }
    if let Some(endianness) = data.explicit_endianness() {
        plain.set_endianness(endianness);
    }
    ir.dfg.mem_flags.insert(plain).ok()
}
