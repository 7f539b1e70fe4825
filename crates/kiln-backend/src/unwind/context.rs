//! The function whose rows are made, and the places in its code that `mark` has tagged.

use cranelift_codegen::ir::{DebugTag, Function, TrapCode};
use cranelift_codegen::isa::TargetIsa;
use cranelift_codegen::isa::unwind::UnwindInst;
use cranelift_codegen::{CodegenError, CodegenResult, CompiledCode};

use super::epilogue::{self, Body, Decoder};
use super::writer::Writer;

/// The kinds of tagged instructions: returns and tail calls; calls; traps on stack overflow.
pub(super) const EXIT: u32 = 0;
pub(super) const CALL: u32 = 1;
pub(super) const OVERFLOW: u32 = 2;
/// Stands for the instruction of a trap where traps are in their place.
pub(super) const NO_TRAP: &[u8] = &[];
/// The number of bits of a tag that hold the kind.
pub(super) const KIND_BITS: u32 = 2;

/// Returns the common information entry of a little-endian architecture with a link register, where
/// the CFA is the stack pointer at first.
pub(super) const fn common_entry(code_factor: u8, return_address: u8, stack: u8) -> [u8; 24] {
    let mut entry = *b"\x14\0\0\0\0\0\0\0\x01zR\0\0\x78\0\x01\x1b\x0c\0\0\0\0\0\0";
    (entry[12], entry[14], entry[18]) = (code_factor, return_address, stack);
    entry
}

/// The function whose rows are made.
pub(super) struct Context<'a> {
    pub(super) code: &'a CompiledCode,
    pub(super) function: &'a Function,
    pub(super) isa: &'a dyn TargetIsa,
}

impl Context<'_> {
    /// Returns Cranelift's notes about the prologue, with the offset just after each instruction.
    pub(super) fn notes(&self) -> &[(u32, UnwindInst)] {
        &self.code.buffer.unwind_info
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.code.buffer.data()
    }

    /// Returns the DWARF number of a register.
    pub(super) fn register(&self, note: &UnwindInst) -> CodegenResult<u16> {
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
    pub(super) fn exits<D: Decoder>(&self, writer: &mut Writer, body: &Body, trap: &[u8]) {
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

    /// Calls `visit` with each place that `mark` has tagged, in order of offset: its kind, and
    /// the offsets of all instructions that it became, the last of which is the return or tail call
    /// itself, with everything that belongs to it.
    pub(super) fn places(&self, mut visit: impl FnMut(u32, &[u32])) {
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
