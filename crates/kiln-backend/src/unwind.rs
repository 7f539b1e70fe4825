//! Unwind rows of one function: DWARF call frame instructions that are right at every instruction.
//!
//! A profiler's signal handler, a debugger or a handler of traps may look at a frame anywhere, also
//! in an epilogue. Cranelift describes prologues only, and those of functions with tail calls or
//! stack probes incompletely. So the rows are made here, from three sources:
//!
//! - Cranelift's own notes about the prologue ([`UnwindInst`]), which say what happened at which
//!   offset. Each file of an architecture adds what they leave out.
//! - The exact offset at which each return and tail call begins. [`mark`] attaches a debug tag to
//!   these instructions of the IR; Cranelift writes down at which offset it emits them. A tag
//!   changes nothing in the code.
//! - The instructions from there to the end of the return or tail call. Only these are decoded, by
//!   small decoders of just the instructions that an epilogue can have. Since the first offset is
//!   that of an instruction, no data and no middle of an instruction is ever taken for one.
//!
//! After an epilogue in the middle of a function, the rows of the body are in force again
//! (`remember_state`, `restore_state`). A register is described as restored before the memory that
//! held it is freed, because a signal handler may overwrite that memory.
//!
//! The encoding does not depend on the function's address: the linker writes the address range in
//! front of the rows. The common information entry (CIE) depends on the architecture only.
//!
//! What is not described: registers that do not fit in a DWARF register (vector registers that
//! `preserve_all` saves, beyond their part of 64 bits); the few instructions of `stack_switch`; the
//! loop of stack probes on s390x, where an unwinder is told that it cannot go on; and functions
//! that a client gives as machine code, about which nothing is known. Those have no rows, so an
//! unwinder stops at them.
//!
//! Source: DWARF 5, section 6.4; `isa/*/abi.rs` and `isa/*/inst/emit.rs` of Cranelift.

mod aarch64;
mod context;
mod epilogue;
mod riscv64;
mod s390x;
mod writer;
mod x64;

use cranelift_codegen::ir::function::FunctionStencil;
use cranelift_codegen::ir::{DebugTag, Function, Inst, InstructionData, Opcode};
use cranelift_codegen::isa::{CallConv, TargetIsa};
use cranelift_codegen::{CodegenResult, CompiledCode};
use target_lexicon::Architecture;

use context::{CALL, Context, EXIT, KIND_BITS, OVERFLOW};

/// The rows of a function without a frame: the initial rules of the CIE hold everywhere. It is a
/// no-op, because a function without any rows has no entry.
const NO_CHANGE: u8 = 0;

/// Returns the common information entry of `isa` with its length field, which is padded as the
/// linker pads it; empty if the rows of the architecture are not known.
pub(crate) fn cie(isa: &dyn TargetIsa) -> &'static [u8] {
    match isa.triple().architecture {
        Architecture::X86_64 => &x64::CIE,
        Architecture::Aarch64(_) => &aarch64::CIE,
        Architecture::Riscv64(_) => &riscv64::CIE,
        Architecture::S390x => &s390x::CIE,
        _ => &[],
    }
}

/// Attaches a tag to each return and tail call of `function`, and on s390x to the calls that move
/// the stack pointer.
///
/// The client's tags are dropped: they are in no artifact.
pub(crate) fn mark(function: &mut Function, isa: &dyn TargetIsa) {
    let FunctionStencil { dfg, layout, debug_tags, stack_limit, .. } = &mut function.stencil;
    debug_tags.clear();
    if !isa.flags().unwind_info() {
        return;
    }
    let mut tags = 0;
    let mut tag = |inst: Inst, kind: u32| {
        debug_tags.set(inst, [DebugTag::User(tags << KIND_BITS | kind)]);
        tags += 1;
    };
    for block in layout.blocks() {
        // Nothing follows a return in its block.
        let Some(inst) = layout.last_inst(block) else { continue };
        match dfg.insts[inst].opcode() {
            Opcode::Return | Opcode::ReturnCall | Opcode::ReturnCallIndirect => tag(inst, EXIT),
            Opcode::Trap if stack_limit.is_some() => tag(inst, OVERFLOW),
            _ => {}
        }
    }
    let moves = |convention| convention == CallConv::Tail;
    if isa.triple().architecture == Architecture::S390x
        && dfg.signatures.values().any(|signature| moves(signature.call_conv))
    {
        for block in layout.blocks() {
            for inst in layout.block_insts(block) {
                let signature = match dfg.insts[inst] {
                    InstructionData::Call { func_ref, .. } => dfg.ext_funcs[func_ref].signature,
                    InstructionData::CallIndirect { sig_ref, .. } => sig_ref,
                    InstructionData::TryCall { func_ref, .. } => dfg.ext_funcs[func_ref].signature,
                    InstructionData::TryCallIndirect { exception, .. } => {
                        dfg.exception_tables[exception].signature()
                    }
                    _ => continue,
                };
                let opcode = dfg.insts[inst].opcode();
                if !opcode.is_return() && moves(dfg.signatures[signature].call_conv) {
                    tag(inst, CALL);
                }
            }
        }
    }
}

/// Returns the rows of `code`, which was compiled from `function` after [`mark`]; empty if the
/// client has switched unwind information off.
///
/// # Errors
///
/// An error if Cranelift saves a register that DWARF has no number for.
pub(crate) fn rows(code: &CompiledCode, function: &Function, isa: &dyn TargetIsa) -> CodegenResult<Vec<u8>> {
    if !isa.flags().unwind_info() {
        return Ok(Vec::new());
    }
    let context = Context { code, function, isa };
    let mut writer = match isa.triple().architecture {
        Architecture::X86_64 => x64::rows(&context)?,
        Architecture::Aarch64(_) => aarch64::rows(&context)?,
        Architecture::Riscv64(_) => riscv64::rows(&context)?,
        Architecture::S390x => s390x::rows(&context)?,
        _ => return Ok(Vec::new()),
    };
    if writer.bytes.is_empty() {
        writer.bytes.push(NO_CHANGE);
    }
    Ok(writer.bytes)
}

#[cfg(test)]
mod tests;
