//! Rows for x86-64.
//!
//! Every function has a frame. After Cranelift's notes, the frame pointer is set by an instruction
//! of three bytes. A function with a tail call that needs more stack for arguments than it was
//! given itself moves its frame down; the sequence that does so ends at the note `DefineNewFrame`,
//! and its length follows from the distance.

use cranelift_codegen::CodegenResult;
use cranelift_codegen::ir::Endianness;
use cranelift_codegen::isa::unwind::UnwindInst;

use super::context::Context;
use super::epilogue::{Body, Decoder, LINKAGE, Step};
use super::writer::Writer;

/// CFA = rsp + 8; the return address is at CFA - 8.
pub(super) const CIE: [u8; 24] =
    [20, 0, 0, 0, 0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 16, 1, 0x1b, 0x0c, 7, 8, 0x90, 1, 0, 0];

const RBP: u16 = 6;
const RSP: u16 = 7;
const RETURN_ADDRESS: u16 = 16;
const XMM0: u16 = 17;

/// The DWARF numbers of the general registers, by number in instructions.
const REGISTERS: [u16; 16] = [0, 2, 1, 3, 7, 6, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15];

pub(super) fn rows(context: &Context<'_>) -> CodegenResult<Writer> {
    let mut writer = Writer::new(1, Endianness::Little);
    let (mut grown, mut base, mut saved) = (0, 0, 0);
    for (offset, note) in context.notes() {
        match *note {
            UnwindInst::PushFrameRegs { .. } => {
                writer.at(*offset);
                writer.cfa_offset(LINKAGE);
                writer.offset(RBP, -LINKAGE);
                // mov rbp, rsp
                writer.at(offset + 3);
                writer.cfa_register(RBP);
            }
            UnwindInst::DefineNewFrame { offset_upward_to_caller_sp, offset_downward_to_clobbers } => {
                grown = i64::from(offset_upward_to_caller_sp) - LINKAGE;
                base = LINKAGE + grown + i64::from(offset_downward_to_clobbers);
                if grown > 0 {
                    grow(&mut writer, *offset, grown);
                }
            }
            UnwindInst::SaveReg { clobber_offset, .. } => {
                let register = context.register(note)?;
                writer.at(*offset);
                writer.offset(register, i64::from(clobber_offset) - base);
                saved |= 1 << register;
            }
            _ => {}
        }
    }
    let body = Body {
        stack: RSP,
        frame: RBP,
        cfa: Some(LINKAGE + grown),
        size: 0,
        saved,
        linkage: 1 << RBP,
        return_address: Some(RETURN_ADDRESS),
    };
    // ud2
    context.exits::<Instructions>(&mut writer, &body, &[0x0f, 0x0b]);
    Ok(writer)
}

/// Writes the rows for the sequence that moves a frame down by `distance` bytes and ends at `end`:
///
/// ```text
/// sub rsp, distance
/// mov rbp, rsp
/// mov r11, [rsp + distance]
/// mov [rsp], r11
/// mov r11, [rsp + distance + 8]
/// mov [rsp + 8], r11
/// ```
fn grow(writer: &mut Writer, end: u32, distance: i64) {
    let load = |offset: i64| if offset < 0x80 { 5 } else { 8 };
    writer.at(end - 5 - load(distance + 8) - 4 - load(distance));
    writer.cfa_offset(LINKAGE + distance);
    writer.at(end);
    writer.offset(RBP, -LINKAGE - distance);
    writer.offset(RETURN_ADDRESS, 8 - LINKAGE - distance);
}

#[derive(Default)]
struct Instructions;

impl Decoder for Instructions {
    fn step(&mut self, code: &[u8], at: usize) -> Option<(usize, Step)> {
        let code = code.get(at..)?;
        Some(match *code {
            // ret; ret imm16
            [0xc3, ..] => (1, Step::Exit),
            [0xc2, _, _, ..] => (3, Step::Exit),
            // pop rbp
            [0x5d, ..] => (1, Step::Load { registers: [Some(RBP), None], pop: 8 }),
            // mov rsp, rbp
            [0x48, 0x89, 0xec, ..] => (3, Step::Reset),
            // add rsp, imm
            [0x48, 0x83, 0xc4, byte, ..] => (4, Step::Adjust((byte as i8).into())),
            [0x48, 0x81, 0xc4, a, b, c, d, ..] => (7, Step::Adjust(i32::from_le_bytes([a, b, c, d]).into())),
            // jmp rel32; jmp register
            [0xe9, ..] => (5, Step::Exit),
            [0xff, 0xe0..=0xe7, ..] => (2, Step::Exit),
            [0x41, 0xff, 0xe0..=0xe7, ..] => (3, Step::Exit),
            // mov register, [rsp + offset], and the reverse
            [rex @ 0x48..=0x4f, 0x8b, modrm, 0x24, ..] => {
                let register = REGISTERS[usize::from(modrm >> 3 & 7 | (rex & 4) << 1)];
                (3 + on_stack(modrm)?, Step::Load { registers: [Some(register), None], pop: 0 })
            }
            [0x48..=0x4f, 0x89, modrm, 0x24, ..] => (3 + on_stack(modrm)?, Step::Other),
            // movups register, [rsp + offset]; movdqu likewise
            [0x0f, 0x10, modrm, 0x24, ..] => (3 + on_stack(modrm)?, xmm(modrm, false)),
            [rex @ 0x40..=0x4f, 0x0f, 0x10, modrm, 0x24, ..] => {
                (4 + on_stack(modrm)?, xmm(modrm, rex & 4 != 0))
            }
            [0xf3, 0x0f, 0x6f, modrm, 0x24, ..] => (4 + on_stack(modrm)?, xmm(modrm, false)),
            [0xf3, rex @ 0x40..=0x4f, 0x0f, 0x6f, modrm, 0x24, ..] => {
                (5 + on_stack(modrm)?, xmm(modrm, rex & 4 != 0))
            }
            // vmovups and vmovdqu, with a prefix of two or of three bytes
            [0xc5, vex, 0x10 | 0x6f, modrm, 0x24, ..] => (4 + on_stack(modrm)?, xmm(modrm, vex & 0x80 == 0)),
            [0xc4, vex, _, 0x10 | 0x6f, modrm, 0x24, ..] => {
                (5 + on_stack(modrm)?, xmm(modrm, vex & 0x80 == 0))
            }
            _ => return None,
        })
    }
}

/// Returns the number of bytes of a memory operand after its first byte `modrm`, if it is `[rsp +
/// offset]`.
fn on_stack(modrm: u8) -> Option<usize> {
    match (modrm >> 6, modrm & 7) {
        (0, 4) => Some(1),
        (1, 4) => Some(2),
        (2, 4) => Some(5),
        _ => None,
    }
}

fn xmm(modrm: u8, upper: bool) -> Step {
    let register = XMM0 + u16::from(modrm >> 3 & 7) + if upper { 8 } else { 0 };
    Step::Load { registers: [Some(register), None], pop: 0 }
}
