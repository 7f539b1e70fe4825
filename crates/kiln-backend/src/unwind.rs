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
mod epilogue;
mod riscv64;
mod s390x;
mod writer;
mod x64;

use cranelift_codegen::ir::function::FunctionStencil;
use cranelift_codegen::ir::{DebugTag, Function, Inst, InstructionData, Opcode, TrapCode};
use cranelift_codegen::isa::unwind::UnwindInst;
use cranelift_codegen::isa::{CallConv, TargetIsa};
use cranelift_codegen::{CodegenError, CodegenResult, CompiledCode};
use target_lexicon::Architecture;

use writer::Writer;

/// The rows of a function without a frame: the initial rules of the CIE hold everywhere. It is a
/// no-op, because a function without any rows has no entry.
const NO_CHANGE: u8 = 0;

/// The kinds of tagged instructions: returns and tail calls; calls; traps on stack overflow.
const EXIT: u32 = 0;
const CALL: u32 = 1;
const OVERFLOW: u32 = 2;
/// Stands for the instruction of a trap where traps are in their place.
const NO_TRAP: &[u8] = &[];
/// The number of bits of a tag that hold the kind.
const KIND_BITS: u32 = 2;

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

/// The function whose rows are made.
struct Context<'a> {
    code: &'a CompiledCode,
    function: &'a Function,
    isa: &'a dyn TargetIsa,
}

impl Context<'_> {
    /// Returns Cranelift's notes about the prologue, with the offset just after each instruction.
    fn notes(&self) -> &[(u32, UnwindInst)] {
        &self.code.buffer.unwind_info
    }

    fn bytes(&self) -> &[u8] {
        self.code.buffer.data()
    }

    /// Returns the DWARF number of a register.
    fn register(&self, note: &UnwindInst) -> CodegenResult<u16> {
        let UnwindInst::SaveReg { reg, .. } = *note else { unreachable!("a note without a register") };
        self.isa.map_regalloc_reg_to_dwarf(reg.into()).map_err(CodegenError::RegisterMappingError)
    }

    /// Returns the offset of the trap to which the prologue jumps if the stack's limit is reached,
    /// where an architecture has its traps after a function's code. `trap` is the instruction.
    ///
    /// It is the first such trap that is neither an instruction of the IR nor that of an access to
    /// memory: they are in order of the jumps to them.
    fn overflow(&self, trap: &[u8]) -> Option<u32> {
        self.function.stack_limit.filter(|_| !trap.is_empty())?;
        let mut in_place = Vec::new();
        self.places(|kind, offsets| in_place.extend(offsets.iter().filter(|_| kind == OVERFLOW)));
        let mut traps = self.code.buffer.traps().iter();
        let found = traps.find(|record| {
            record.code == TrapCode::STACK_OVERFLOW
                && self.bytes().get(record.offset as usize..).is_some_and(|code| code.starts_with(trap))
                && !in_place.contains(&record.offset)
        });
        found.map(|record| record.offset)
    }

    /// Writes the rows of all epilogues, and of the prologue's trap, if it is elsewhere: that of
    /// [`Context::overflow`].
    fn exits<D: epilogue::Decoder>(&self, writer: &mut Writer, body: &epilogue::Body, trap: &[u8]) {
        let (code, mut overflow) = (self.bytes(), self.overflow(trap));
        self.places(|kind, offsets| {
            let start = offsets[offsets.len() - 1];
            if let Some(at) = overflow.take_if(|at| *at < start) {
                epilogue::write_overflow(writer, body, code, at, trap.len() as u32);
            }
            if kind == EXIT {
                epilogue::write::<D>(writer, body, code, start);
            }
        });
        if let Some(at) = overflow {
            epilogue::write_overflow(writer, body, code, at, trap.len() as u32);
        }
    }

    /// Calls `visit` with each place that [`mark`] has tagged, in order of offset: its kind, and
    /// the offsets of all instructions that it became, the last of which is the return or tail call
    /// itself, with everything that belongs to it.
    fn places(&self, mut visit: impl FnMut(u32, &[u32])) {
        let (mut last, mut offsets) = (None, Offsets::default());
        for list in self.code.buffer.debug_tags() {
            let [DebugTag::User(tag)] = *list.tags else { continue };
            if last != Some(tag) {
                if let Some(last) = last {
                    visit(last & ((1 << KIND_BITS) - 1), offsets.as_slice());
                }
                (last, offsets) = (Some(tag), Offsets::default());
            }
            offsets.push(list.offset);
        }
        if let Some(last) = last {
            visit(last & ((1 << KIND_BITS) - 1), offsets.as_slice());
        }
    }
}

/// The offsets of the instructions that one instruction of the IR became. A return is a single one,
/// which needs no memory.
#[derive(Default)]
struct Offsets {
    first: Option<u32>,
    all: Vec<u32>,
}

impl Offsets {
    fn push(&mut self, offset: u32) {
        match self.first {
            None => self.first = Some(offset),
            Some(first) => {
                if self.all.is_empty() {
                    self.all.push(first);
                }
                self.all.push(offset);
            }
        }
    }

    fn as_slice(&self) -> &[u32] {
        if self.all.is_empty() { self.first.as_slice() } else { &self.all }
    }
}

#[cfg(test)]
mod tests;
