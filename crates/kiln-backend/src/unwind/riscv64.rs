//! Rows for riscv64.
//!
//! Instructions have four bytes, or two if the target has compressed instructions; their two lowest
//! bits tell which. A function that calls nothing and has no stack has no frame. Between
//! Cranelift's note that the frame pointer is saved and its note `DefineNewFrame` there are `mv s0,
//! sp`, perhaps a check of the stack's limit or probes, and perhaps a sequence that moves the frame
//! down, for a tail call that needs more stack for arguments than the function was given. Cranelift
//! does not note that sequence, so the prologue is decoded up to there.

use cranelift_codegen::CodegenResult;
use cranelift_codegen::ir::Endianness;
use cranelift_codegen::isa::unwind::UnwindInst;

use super::context::{Context, NO_TRAP, common_entry};
use super::epilogue::{Body, Decoder, LINKAGE, Step};
use super::writer::Writer;

/// CFA = sp.
pub(super) const CIE: [u8; 24] = common_entry(2, 1, 2);

const RA: u16 = 1;
const SP: u16 = 2;
const FP: u16 = 8;
const F0: u16 = 32;
/// The register in which large distances are made, t6.
const TEMPORARY: u16 = 31;
/// The other register that code outside of a function's body uses, t5.
const TEMPORARY2: u16 = 30;
/// Cranelift's numbers of vector registers begin here. They have no DWARF register that an unwinder
/// of today can restore.
const VECTORS: u16 = 64;

pub(super) fn rows(context: &Context<'_>) -> CodegenResult<Writer> {
    let code = context.bytes();
    let mut writer = Writer::new(2, Endianness::Little);
    let (mut grown, mut base, mut saved, mut cfa, mut framed) = (0, 0, 0, None, 0);
    for (offset, note) in context.notes() {
        match *note {
            UnwindInst::PushFrameRegs { .. } => {
                // addi sp, sp, -16; sd ra, 8(sp); sd s0, 0(sp); mv s0, sp
                writer.at(len(code, 0) as u32);
                writer.cfa_offset(LINKAGE);
                writer.at(*offset);
                writer.offset(FP, -LINKAGE);
                writer.offset(RA, 8 - LINKAGE);
                framed = offset + len(code, *offset as usize) as u32;
                writer.at(framed);
                writer.cfa_register(FP);
            }
            UnwindInst::DefineNewFrame { offset_downward_to_clobbers, .. } => {
                if framed < *offset {
                    grown = grow(&mut writer, code, framed, *offset);
                }
                cfa = Some(LINKAGE + grown);
                base = LINKAGE + grown + i64::from(offset_downward_to_clobbers);
            }
            UnwindInst::SaveReg { clobber_offset, .. } => {
                let register = context.register(note)?;
                if register < VECTORS {
                    writer.at(*offset);
                    writer.offset(register, i64::from(clobber_offset) - base);
                    saved |= 1 << register;
                }
            }
            _ => {}
        }
    }
    let size = context.code.buffer.frame_layout().map_or(0, |layout| layout.frame_to_fp_offset.into());
    let linkage = 1 << FP | 1 << RA;
    let body = Body { stack: SP, frame: FP, cfa, size, saved, linkage, return_address: None };
    // The trap of a prologue is in its place.
    context.exits::<Instructions>(&mut writer, &body, NO_TRAP);
    Ok(writer)
}

/// Writes the rows for the sequence that moves the frame down, if the prologue has it between
/// `start` and `end`, and returns the distance.
fn grow(writer: &mut Writer, code: &[u8], start: u32, end: u32) -> i64 {
    let mut instructions = Instructions::default();
    let (mut at, mut distance, mut grown) = (start, 0, 0);
    while at < end {
        let Some((len, step)) = instructions.step(code, at as usize) else {
            at += len(code, at as usize) as u32;
            continue;
        };
        at += len as u32;
        match step {
            Step::Adjust(amount) => distance = -amount,
            Step::Jump(target) => at = target,
            // The caller's frame pointer is loaded again, to be saved at its new place.
            Step::Load { registers: [Some(FP), _], .. } => {
                grown = distance;
                writer.at(at);
                writer.cfa(SP, LINKAGE + grown);
            }
            _ => {}
        }
    }
    if grown > 0 {
        writer.at(end);
        writer.cfa(FP, LINKAGE + grown);
        writer.offset(FP, -LINKAGE - grown);
        writer.offset(RA, 8 - LINKAGE - grown);
    }
    grown
}

/// Returns the length of the instruction at `at`, in bytes.
fn len(code: &[u8], at: usize) -> usize {
    if code.get(at).is_some_and(|byte| byte & 3 != 3) { 2 } else { 4 }
}

/// The content of the temporary register.
#[derive(Default)]
struct Instructions {
    constant: Option<i64>,
}

impl Decoder for Instructions {
    fn step(&mut self, code: &[u8], at: usize) -> Option<(usize, Step)> {
        let len = len(code, at);
        let code = code.get(at..at + len)?;
        let step = match *code {
            [a, b] => self.short(u16::from_le_bytes([a, b]), at),
            [a, b, c, d] => self.long(u32::from_le_bytes([a, b, c, d]), at),
            _ => None,
        };
        Some((len, step?))
    }
}

fn load(register: u16) -> Step {
    Step::Load { registers: [Some(register), None], pop: 0 }
}

/// Extends the sign of a number that has `bits` bits.
fn signed(value: u32, bits: u32) -> i64 {
    i64::from((value << (32 - bits)) as i32 >> (32 - bits))
}

impl Instructions {
    /// Follows `rd = value + immediate`, where the value is zero or a register.
    fn add(&mut self, rd: u16, rs: u16, immediate: i64) -> Option<Step> {
        match (rd, rs) {
            (SP, SP) => return Some(Step::Adjust(immediate)),
            (TEMPORARY, 0) => self.constant = Some(immediate),
            (TEMPORARY, TEMPORARY) => self.constant = self.constant.map(|value| value + immediate),
            (TEMPORARY, _) => self.constant = None,
            (TEMPORARY2, _) => {}
            _ => return None,
        }
        Some(Step::Other)
    }

    /// Follows the sum of two registers.
    fn sum(&mut self, rd: u16, operands: [u16; 2]) -> Option<Step> {
        match rd {
            SP if operands.contains(&SP) && operands.contains(&TEMPORARY) => self.constant.map(Step::Adjust),
            _ => self.other(rd),
        }
    }

    /// Follows an instruction that sets a register to something of no interest.
    fn other(&mut self, rd: u16) -> Option<Step> {
        if rd == TEMPORARY {
            self.constant = None;
        }
        matches!(rd, TEMPORARY | TEMPORARY2).then_some(Step::Other)
    }

    /// Follows an instruction of two bytes.
    fn short(&mut self, code: u16, at: usize) -> Option<Step> {
        let bit = |from: u32, to: u32| u32::from(code >> from & 1) << to;
        let rd = code >> 7 & 0x1f;
        let immediate = signed(u32::from(code >> 2 & 0x1f) | bit(12, 5), 6);
        match code & 0xe003 {
            // c.ldsp, c.fldsp
            0x6002 => Some(load(rd)),
            0x2002 => Some(load(F0 + rd)),
            // c.addi, c.addiw, c.li
            0x0001 => self.add(rd, rd, immediate),
            0x2001 => self.add(rd, rd, immediate),
            0x4001 => self.add(rd, 0, immediate),
            // c.addi16sp, c.lui
            0x6001 if rd == SP => {
                let amount = bit(6, 4) | bit(2, 5) | bit(5, 6) | bit(3, 7) | bit(4, 8) | bit(12, 9);
                Some(Step::Adjust(signed(amount, 10)))
            }
            0x6001 => self.add(rd, 0, immediate << 12),
            // c.j
            0xa001 => {
                let distance = bit(3, 1)
                    | bit(4, 2)
                    | bit(5, 3)
                    | bit(11, 4)
                    | bit(2, 5)
                    | bit(7, 6)
                    | bit(6, 7)
                    | bit(9, 8)
                    | bit(10, 9)
                    | bit(8, 10)
                    | bit(12, 11);
                jump(at, signed(distance, 12))
            }
            // c.jr, c.mv, c.add
            0x8002 => match (code >> 12 & 1, code >> 2 & 0x1f) {
                (0, 0) => Some(Step::Exit),
                (0, rs) => self.sum(rd, [0, rs]),
                (_, 0) => None,
                (_, rs) => self.sum(rd, [rd, rs]),
            },
            _ => None,
        }
    }

    /// Follows an instruction of four bytes.
    fn long(&mut self, code: u32, at: usize) -> Option<Step> {
        let register = |shift: u32| (code >> shift & 0x1f) as u16;
        let (rd, rs) = (register(7), register(15));
        match (code & 0x7f, code >> 12 & 7) {
            // ld, fld
            (0x03, 3) => {
                self.other(rd);
                Some(load(rd))
            }
            (0x07, 3) => Some(load(F0 + rd)),
            // Loads of vectors, and the settings for them.
            (0x07 | 0x57, _) => Some(Step::Other),
            // addi, addiw
            (0x13 | 0x1b, 0) => self.add(rd, rs, signed(code >> 20, 12)),
            // lui
            (0x37, _) => self.add(rd, 0, i64::from((code & !0xfff) as i32)),
            // auipc
            (0x17, _) => self.other(rd),
            // add
            (0x33, 0) if code >> 25 == 0 => self.sum(rd, [rs, register(20)]),
            // jalr, jal
            (0x67, 0) if rd == 0 => Some(Step::Exit),
            (0x6f, _) if rd == 0 => {
                let bits = |from: u32, len: u32, to: u32| (code >> from & ((1 << len) - 1)) << to;
                let distance = bits(21, 10, 1) | bits(20, 1, 11) | bits(12, 8, 12) | bits(31, 1, 20);
                jump(at, signed(distance, 21))
            }
            _ => None,
        }
    }
}

/// Returns the step of a jump forward, over an island.
fn jump(at: usize, distance: i64) -> Option<Step> {
    (distance > 0).then(|| Step::Jump(at as u32 + distance as u32))
}
