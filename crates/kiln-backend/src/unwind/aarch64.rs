//! Rows for aarch64.
//!
//! A function without calls and without stack has no frame. The notes about the frame are followed
//! by `mov x29, sp`. A function with a tail call that needs more stack for arguments than it was
//! given itself moves its frame down; Cranelift notes the distance, but goes on counting from the
//! end of the larger area.

use cranelift_codegen::CodegenResult;
use cranelift_codegen::ir::Endianness;
use cranelift_codegen::isa::CallConv;
use cranelift_codegen::isa::unwind::UnwindInst;

use super::context::{Context, common_entry};
use super::epilogue::{Body, Decoder, LINKAGE, Step};
use super::writer::Writer;

/// CFA = sp.
pub(super) const CIE: [u8; 24] = common_entry(4, 30, 31);

const FP: u16 = 29;
const LR: u16 = 30;
const SP: u16 = 31;
const V0: u16 = 64;
/// The size of every instruction.
const WORD: u32 = 4;

pub(super) fn rows(context: &Context<'_>) -> CodegenResult<Writer> {
    let mut writer = Writer::new(WORD, Endianness::Little);
    let (mut grown, mut base, mut saved, mut cfa) = (0, 0, 0, None);
    let mut last = None;
    for (offset, note) in context.notes() {
        match *note {
            UnwindInst::Aarch64SetPointerAuth { return_addresses } => {
                writer.at(*offset);
                writer.signed_addresses(return_addresses);
            }
            UnwindInst::PushFrameRegs { .. } => {
                writer.at(*offset);
                writer.cfa_offset(LINKAGE);
                writer.offset(FP, -LINKAGE);
                writer.offset(LR, 8 - LINKAGE);
                writer.at(offset + WORD);
                writer.cfa_register(FP);
            }
            // Later notes of this kind are of no interest: the frame pointer does not change.
            UnwindInst::StackAlloc { size } if cfa.is_none() => grown = i64::from(size),
            UnwindInst::DefineNewFrame { offset_downward_to_clobbers, .. } => {
                if grown > 0 {
                    // The caller's frame pointer was loaded again, and saved at its new place.
                    writer.at(offset - 2 * WORD);
                    writer.cfa(SP, LINKAGE + grown);
                    writer.at(*offset);
                    writer.cfa(FP, LINKAGE + grown);
                    writer.offset(FP, -LINKAGE - grown);
                    writer.offset(LR, 8 - LINKAGE - grown);
                }
                cfa = Some(LINKAGE + grown);
                base = LINKAGE + grown + i64::from(offset_downward_to_clobbers);
                last = Some((*offset, -LINKAGE - grown));
            }
            UnwindInst::SaveReg { clobber_offset, .. } => {
                let register = context.register(note)?;
                let place = i64::from(clobber_offset) - base;
                writer.at(*offset);
                writer.offset(register, place);
                saved |= 1 << register;
                last = Some((*offset, last.map_or(place, |(_, lowest)| place.min(lowest))));
            }
            _ => {}
        }
    }
    if context.function.signature.call_conv == CallConv::PreserveAll
        && let Some((offset, lowest)) = last
    {
        saved |= vectors(&mut writer, context.bytes(), offset, lowest);
    }
    let (size, linkage) = (0, 1 << FP | 1 << LR);
    let body = Body { stack: SP, frame: FP, cfa, size, saved, linkage, return_address: None };
    // udf
    context.exits::<Instructions>(&mut writer, &body, &[0x1f, 0xc1, 0, 0]);
    Ok(writer)
}

/// Writes the rows of the vector registers that a function of `preserve_all` saves from `offset`
/// on, below `place`, by `str q, [sp, #-16]!`. Cranelift has no notes about them, and nothing but a
/// prologue has such instructions. DWARF knows the lower half of each register only.
fn vectors(writer: &mut Writer, code: &[u8], mut offset: u32, mut place: i64) -> u128 {
    let mut saved = 0;
    while let Some(word) = word(code, offset as usize).filter(|word| word & !0x1f == 0x3c9f_0fe0) {
        let register = V0 + (word & 0x1f) as u16;
        offset += WORD;
        place -= 16;
        writer.at(offset);
        writer.offset(register, place);
        saved |= 1 << register;
    }
    saved
}

fn word(code: &[u8], at: usize) -> Option<u32> {
    code.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// The registers x16 and x17, in which large distances are made.
#[derive(Default)]
pub(super) struct Instructions {
    constants: [Option<u64>; 2],
}

impl Decoder for Instructions {
    fn step(&mut self, code: &[u8], at: usize) -> Option<(usize, Step)> {
        let word = word(code, at)?;
        let register = |shift: u32| (word >> shift & 0x1f) as u16;
        let load = |first: u16, second: Option<u16>, pop: u32| Step::Load {
            registers: [Some(first), second],
            pop: pop.into(),
        };
        // The size of a pair, and that of a single register, after which sp is raised by as much.
        let (pair, single) = (word >> 15 & 0x7f, word >> 12 & 0x1ff);
        let step = match word {
            // ret, retaa, retab, br, and a branch that the linker resolves
            0xd65f_03c0 | 0xd65f_0bff | 0xd65f_0fff | 0x1400_0000 => Step::Exit,
            _ if word & 0xffff_fc1f == 0xd61f_0000 => Step::Exit,
            // autiasp, autibsp, autiaz, autibz
            0xd503_23bf | 0xd503_23ff | 0xd503_239f | 0xd503_23df => Step::Authenticate,
            // ldp x, x, [sp], #n; ldp d, d, [sp], #n
            _ if word & 0xffe0_03e0 == 0xa8c0_03e0 => load(register(0), Some(register(10)), pair * 8),
            _ if word & 0xffe0_03e0 == 0x6cc0_03e0 => {
                load(V0 + register(0), Some(V0 + register(10)), pair * 8)
            }
            // ldr x, [sp], #n; ldr d, [sp], #n; ldr q, [sp], #n
            _ if word & 0xfff0_0fe0 == 0xf840_07e0 => load(register(0), None, single),
            _ if word & 0xfff0_0fe0 == 0xfc40_07e0 => load(V0 + register(0), None, single),
            _ if word & 0xfff0_0fe0 == 0x3cc0_07e0 => load(V0 + register(0), None, single),
            // add sp, sp, #n; add sp, sp, x
            _ if word & 0xff80_03ff == 0x9100_03ff => {
                Step::Adjust(i64::from(word >> 10 & 0xfff) << if word & 1 << 22 == 0 { 0 } else { 12 })
            }
            _ if word & 0xffe0_ffff == 0x8b20_63ff => {
                let constant = self.constants.get(usize::from(register(16).checked_sub(16)?))?;
                Step::Adjust((*constant)? as i64)
            }
            // b over an island
            _ if word >> 25 == 0b000_1010 => Step::Jump(at as u32 + ((word & 0x1ff_ffff) << 2)),
            _ => self.constant(word)?,
        };
        Some((WORD as usize, step))
    }
}

impl Instructions {
    /// Follows an instruction that makes a constant.
    fn constant(&mut self, word: u32) -> Option<Step> {
        let constant = self.constants.get_mut(usize::try_from((word & 0x1f).checked_sub(16)?).ok()?)?;
        let shift = 16 * (word >> 21 & 3);
        let value = u64::from(word >> 5 & 0xffff) << shift;
        let width = if word >> 31 == 0 { u64::from(u32::MAX) } else { u64::MAX };
        *constant = match word & 0x7f80_0000 {
            // movn, movz, movk
            0x1280_0000 => Some(!value & width),
            0x5280_0000 => Some(value),
            0x7280_0000 => (*constant).map(|old| old & !(0xffff << shift) | value),
            // orr x, xzr, #n
            0x3200_0000 if word & 0x3e0 == 0x3e0 => logical(word).map(|value| value & width),
            _ => return None,
        };
        Some(Step::Other)
    }
}

/// Returns the immediate operand of a logical instruction: a rotated run of ones, repeated. Source:
/// Arm Architecture Reference Manual, `DecodeBitMasks`.
fn logical(word: u32) -> Option<u64> {
    let (n, rotation, ones) = (word >> 22 & 1, word >> 16 & 0x3f, word >> 10 & 0x3f);
    let log = (n << 6 | !ones & 0x3f).checked_ilog2()?;
    let size = 1 << log;
    let (rotation, ones) = (rotation & (size - 1), ones & (size - 1));
    if ones == size - 1 {
        return None;
    }
    let run = (1u64 << (ones + 1)) - 1;
    let mask = if size == 64 { u64::MAX } else { (1 << size) - 1 };
    let mut value = if rotation == 0 { run } else { (run >> rotation | run << (size - rotation)) & mask };
    let mut width = size;
    while width < 64 {
        value |= value << width;
        width *= 2;
    }
    Some(value)
}
