//! Rows for s390x.
//!
//! There is no frame pointer: the CFA is always relative to the stack pointer, `%r15`, which
//! changes in the prologue, in epilogues, in probes of the stack, and around calls with the
//! convention `tail`, which take their stack arguments from below the caller's frame. In all these
//! places the instructions are decoded, from an offset that is known. Their length is in their
//! first two bits.
//!
//! By the architecture's ABI, the CFA is 160 bytes above the stack pointer at a call, and the 160
//! bytes between belong to the callee, which saves general registers there. The CIE says that the
//! caller's stack pointer is CFA - 160, so no function needs a row for it. For a function of
//! convention `tail`, that is the stack pointer after its stack arguments were popped, which is the
//! same for all functions of a chain of tail calls. So an unwinder, which looks for the caller's
//! rows just before the return address, must find there that the arguments are popped: the last
//! byte of the call instruction has the rows of the next instruction. (A stub knows of no
//! arguments. In the stub of a function that has some on the stack, the CFA is too low by their
//! size.)
//!
//! Source: z/Architecture Principles of Operation; ELF ABI s390x supplement.

use cranelift_codegen::CodegenResult;
use cranelift_codegen::ir::Endianness;
use cranelift_codegen::isa::CallConv;
use cranelift_codegen::isa::unwind::UnwindInst;

use super::context::{CALL, Context, EXIT};
use super::writer::Writer;

/// CFA = r15 + 160; r15 is CFA - 160.
pub(super) const CIE: [u8; 24] =
    [0, 0, 0, 20, 0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 14, 1, 0x1b, 0x0c, 15, 0xa0, 1, 0x14, 15, 20];

const LINK: u16 = 14;
const STACK: u16 = 15;
/// The size of the area that a caller provides for registers, in bytes.
const SAVE_AREA: i64 = 160;
/// The DWARF numbers of the registers f8 to f15, the upper halves of v8 to v15.
const FLOATS: [u16; 8] = [24, 28, 25, 29, 26, 30, 27, 31];

pub(super) fn rows(context: &Context<'_>) -> CodegenResult<Writer> {
    let code = context.bytes();
    let mut rows = Rows { writer: Writer::new(1, Endianness::Big), cfa: SAVE_AREA, saved: 0 };
    let mut base = 0;
    for (offset, note) in context.notes() {
        match *note {
            UnwindInst::DefineNewFrame { offset_upward_to_caller_sp, offset_downward_to_clobbers } => {
                rows.set(0, i64::from(offset_upward_to_caller_sp));
                rows.probes(code, *offset);
                base = i64::from(offset_upward_to_caller_sp + offset_downward_to_clobbers);
            }
            UnwindInst::StackAlloc { size } => {
                let cfa = rows.cfa + i64::from(size);
                rows.set(*offset, cfa);
                if context.function.signature.call_conv == CallConv::PreserveAll {
                    rows.vectors(code, *offset, -base);
                }
            }
            UnwindInst::SaveReg { clobber_offset, .. } => {
                let register = context.register(note)?;
                if register != STACK {
                    rows.writer.at(*offset);
                    rows.writer.offset(register, i64::from(clobber_offset) - base);
                    rows.saved |= 1 << register;
                }
            }
            _ => {}
        }
    }
    let mut calls = context.code.buffer.call_sites().map(|site| site.ret_addr).peekable();
    context.places(|kind, offsets| {
        if kind == CALL {
            for &offset in offsets {
                while calls.next_if(|&site| site <= offset).is_some() {}
                rows.arguments(code, offset, calls.peek().copied());
            }
        } else if kind == EXIT {
            let known = rows.epilogue(code, offsets[offsets.len() - 1]);
            debug_assert!(known.is_some(), "an epilogue has an instruction that is not known");
        }
    });
    Ok(rows.writer)
}

struct Rows {
    writer: Writer,
    /// The distance from the stack pointer to the CFA, in the body of the function.
    cfa: i64,
    /// The registers with a row, by DWARF number.
    saved: u128,
}

impl Rows {
    fn set(&mut self, offset: u32, cfa: i64) {
        if cfa != self.cfa {
            self.writer.at(offset);
            self.writer.cfa_offset(cfa);
            self.cfa = cfa;
        }
    }

    /// Writes the rows of the stack probes between the function's start and `end`.
    fn probes(&mut self, code: &[u8], end: u32) {
        let mut at = 0;
        while at < end {
            let Some(instruction) = instruction(code, at) else { return };
            let next = at + instruction.len() as u32;
            // The next instruction but one is a jump back: a loop lowers the stack pointer, so that
            // no rule holds at each turn.
            let is_loop = instruction.starts_with(&[0xa7, 0xfb])
                && self::instruction(code, next + 4)
                    .is_some_and(|jump| matches!(*jump, [0xa7, low, ..] if low & 15 == 6));
            if is_loop {
                self.writer.at(at);
                self.writer.undefined(LINK);
                // Cranelift's next instruction undoes all turns.
                let after = next + 8;
                let Some(amount) = self::instruction(code, after).and_then(adjustment) else { return };
                let cfa = self.cfa;
                self.writer.at(after);
                self.writer.restore(LINK);
                self.set(after, cfa + amount);
                at = after;
                continue;
            }
            if let Some(amount) = adjustment(instruction) {
                let cfa = self.cfa - amount;
                self.set(next, cfa);
            }
            at = next;
        }
    }

    /// Writes the rows of the floating-point registers that a function of `preserve_all` saves with
    /// all vector registers, after `offset`, about which Cranelift has no notes. They begin 48
    /// bytes after `base`, relative to the CFA.
    fn vectors(&mut self, code: &[u8], mut offset: u32, base: i64) {
        let mut numbers = 0;
        while numbers < 16 {
            let Some(instruction) = instruction(code, offset) else { return };
            offset += instruction.len() as u32;
            // vst
            if !matches!(*instruction, [0xe7, _, _, _, _, 0x0e]) {
                continue;
            }
            if numbers >= 8 {
                let register = FLOATS[numbers - 8];
                self.writer.at(offset);
                self.writer.offset(register, base + 48 + 16 * numbers as i64);
                self.saved |= 1 << register;
            }
            numbers += 1;
        }
    }

    /// Writes the rows of a call whose arguments are pushed by the instruction at `offset`, if it
    /// does that, and popped when it returns to `end`.
    fn arguments(&mut self, code: &[u8], offset: u32, end: Option<u32>) {
        let (Some(instruction), Some(end)) = (instruction(code, offset), end) else { return };
        let Some(amount) = adjustment(instruction).filter(|amount| *amount < 0) else { return };
        let cfa = self.cfa;
        self.set(offset + instruction.len() as u32, cfa - amount);
        self.set(end - 1, cfa);
    }

    /// Writes the rows of the epilogue that begins at `start`, and those after it. Returns `None`
    /// if it has an instruction that does not belong there.
    fn epilogue(&mut self, code: &[u8], start: u32) -> Option<()> {
        let (mut at, mut cfa, mut changed) = (start, self.cfa, false);
        let mut saved = self.saved;
        let mut result = None;
        while let Some(instruction) = instruction(code, at) {
            let end = at + instruction.len() as u32;
            let multiple = multiple(instruction);
            let (now, amount) = match *instruction {
                // bcr 15, register; brcl 15, symbol
                [0x07, 0xf0..=0xff] | [0xc0, 0xf4, ..] => {
                    result = Some(());
                    at = end;
                    break;
                }
                // Loads of vector registers, of one lane, and of floating-point registers; lgr;
                // lay; la.
                [0xe7, ..]
                | [0x68, ..]
                | [0xed, _, _, _, _, 0x65]
                | [0xb9, 0x04, ..]
                | [0xe3, ..]
                | [0x41, ..] => (cfa, 0),
                // lay, or algfi, for an address that is far away
                [0xc2, low, ..] if low != 0xf8 && low != 0xfa => (cfa, 0),
                // lmg with the stack pointer, whose value was saved
                _ if multiple.is_some_and(|(_, last)| last == STACK) => (SAVE_AREA, cfa - SAVE_AREA),
                _ if multiple.is_some() => (cfa, 0),
                _ => match adjustment(instruction) {
                    Some(amount) => (cfa - amount, amount),
                    None => break,
                },
            };
            // The memory below the stack pointer is free: of what lies there, nothing is left.
            let mut restored = if amount == 0 { 0 } else { saved & !0xffff };
            if !changed && (restored != 0 || multiple.is_some() || now != cfa) {
                self.writer.remember();
                changed = true;
            }
            saved &= !restored;
            self.restore(at, &mut restored);
            if now != cfa {
                self.writer.at(end);
                self.writer.cfa_offset(now);
                cfa = now;
            }
            if let Some((first, last)) = multiple {
                let mut loaded = saved & ((2 << last) - (1 << first));
                saved &= !loaded;
                self.restore(end, &mut loaded);
            }
            at = end;
        }
        if changed && (at as usize) < code.len() {
            self.writer.at(at);
            self.writer.restore_state();
        }
        result
    }

    /// Describes registers as restored, from `offset` on.
    fn restore(&mut self, offset: u32, registers: &mut u128) {
        while *registers != 0 {
            self.writer.at(offset);
            self.writer.restore(registers.trailing_zeros() as u16);
            *registers &= *registers - 1;
        }
    }
}

/// Returns the instruction at `at`.
fn instruction(code: &[u8], at: u32) -> Option<&[u8]> {
    let code = code.get(at as usize..)?;
    let len = match code.first()? >> 6 {
        0 => 2,
        1 | 2 => 4,
        _ => 6,
    };
    code.get(..len)
}

/// Returns what an instruction adds to the stack pointer, if it does that.
fn adjustment(instruction: &[u8]) -> Option<i64> {
    match *instruction {
        // aghi
        [0xa7, 0xfb, a, b] => Some(i16::from_be_bytes([a, b]).into()),
        // agfi
        [0xc2, 0xf8, a, b, c, d] => Some(i32::from_be_bytes([a, b, c, d]).into()),
        // algfi, slgfi
        [0xc2, 0xfa, a, b, c, d] => Some(u32::from_be_bytes([a, b, c, d]).into()),
        [0xc2, 0xf4, a, b, c, d] => Some(-i64::from(u32::from_be_bytes([a, b, c, d]))),
        _ => None,
    }
}

/// Returns the first and the last register that `lmg` loads.
fn multiple(instruction: &[u8]) -> Option<(u16, u16)> {
    match *instruction {
        [0xeb, registers, _, _, _, 0x04] => Some((u16::from(registers >> 4), u16::from(registers & 15))),
        _ => None,
    }
}
