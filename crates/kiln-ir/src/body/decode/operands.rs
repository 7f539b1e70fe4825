//! The operands of an instruction, by its format.

use cranelift_codegen::entity::EntityRef;
use cranelift_codegen::ir::immediates::{Ieee16, Ieee32, Ieee64, Imm64, Offset32};
use cranelift_codegen::ir::instructions::InstructionFormat;
use cranelift_codegen::ir::{DynamicStackSlot, GlobalValue, InstructionData, Opcode, StackSlot};

use super::decoder::Decoder;
use super::sink::Sink;
use crate::body::wire::DecodeResult;

impl<S: Sink> Decoder<'_, S> {
    /// Reads the operands that follow an opcode. A list of arguments must have at least `fixed`
    /// entries.
    #[inline]
    pub(super) fn operands(
        &mut self,
        opcode: Opcode,
        fixed: usize,
    ) -> DecodeResult<S::Made<InstructionData>> {
        Ok(match opcode.format() {
            InstructionFormat::NullAry => S::made(InstructionData::NullAry { opcode }),
            InstructionFormat::Unary => S::made(InstructionData::Unary { opcode, arg: self.value()? }),
            InstructionFormat::Binary => {
                S::made(InstructionData::Binary { opcode, args: self.value_array()? })
            }
            InstructionFormat::Ternary => {
                S::made(InstructionData::Ternary { opcode, args: self.value_array()? })
            }
            InstructionFormat::MultiAry => {
                S::map(self.value_list(fixed)?, |args| InstructionData::MultiAry { opcode, args })
            }
            InstructionFormat::BinaryImm8 => {
                let imm = self.reader.byte()?;
                S::made(InstructionData::BinaryImm8 { opcode, imm, arg: self.value()? })
            }
            InstructionFormat::TernaryImm8 => {
                let imm = self.reader.byte()?;
                S::made(InstructionData::TernaryImm8 { opcode, imm, args: self.value_array()? })
            }
            InstructionFormat::UnaryImm => {
                S::made(InstructionData::UnaryImm { opcode, imm: Imm64::new(self.reader.int()?) })
            }
            InstructionFormat::UnaryIeee16 => {
                let bits = u16::from_le_bytes(self.reader.array()?);
                S::made(InstructionData::UnaryIeee16 { opcode, imm: Ieee16::with_bits(bits) })
            }
            InstructionFormat::UnaryIeee32 => {
                let bits = u32::from_le_bytes(self.reader.array()?);
                S::made(InstructionData::UnaryIeee32 { opcode, imm: Ieee32::with_bits(bits) })
            }
            InstructionFormat::UnaryIeee64 => {
                let bits = u64::from_le_bytes(self.reader.array()?);
                S::made(InstructionData::UnaryIeee64 { opcode, imm: Ieee64::with_bits(bits) })
            }
            InstructionFormat::UnaryConst => {
                let bytes = self.reader.bytes()?;
                S::map(self.sink.constant(bytes), |constant_handle| InstructionData::UnaryConst {
                    opcode,
                    constant_handle,
                })
            }
            InstructionFormat::Shuffle => {
                let bytes = self.reader.bytes()?;
                let mask = self.sink.mask(bytes);
                let args = self.value_array()?;
                S::map(mask, |imm| InstructionData::Shuffle { opcode, args, imm })
            }
            InstructionFormat::UnaryGlobalValue => {
                let position = self.reader.index(self.lengths.global_values, "no such global value")?;
                let global_value = GlobalValue::new(position);
                S::made(InstructionData::UnaryGlobalValue { opcode, global_value })
            }
            InstructionFormat::IntCompare => {
                let cond = self.reader.int_cc()?;
                S::made(InstructionData::IntCompare { opcode, cond, args: self.value_array()? })
            }
            InstructionFormat::FloatCompare => {
                let cond = self.reader.float_cc()?;
                S::made(InstructionData::FloatCompare { opcode, cond, args: self.value_array()? })
            }
            InstructionFormat::IntAddTrap => {
                let code = self.reader.some_trap()?;
                S::made(InstructionData::IntAddTrap { opcode, code, args: self.value_array()? })
            }
            InstructionFormat::Trap => {
                S::made(InstructionData::Trap { opcode, code: self.reader.some_trap()? })
            }
            InstructionFormat::CondTrap => {
                let code = self.reader.some_trap()?;
                S::made(InstructionData::CondTrap { opcode, code, arg: self.value()? })
            }
            InstructionFormat::Load => {
                let flags = self.mem_flags()?;
                let offset = Offset32::new(self.reader.i32()?);
                let arg = self.value()?;
                S::map(flags, |flags| InstructionData::Load { opcode, flags, offset, arg })
            }
            InstructionFormat::Store => {
                let flags = self.mem_flags()?;
                let offset = Offset32::new(self.reader.i32()?);
                let args = self.value_array()?;
                S::map(flags, |flags| InstructionData::Store { opcode, flags, offset, args })
            }
            InstructionFormat::LoadNoOffset => {
                let flags = self.mem_flags()?;
                let arg = self.value()?;
                S::map(flags, |flags| InstructionData::LoadNoOffset { opcode, flags, arg })
            }
            InstructionFormat::StoreNoOffset => {
                let flags = self.mem_flags()?;
                let args = self.value_array()?;
                S::map(flags, |flags| InstructionData::StoreNoOffset { opcode, flags, args })
            }
            InstructionFormat::AtomicCas => {
                let flags = self.mem_flags()?;
                let args = self.value_array()?;
                S::map(flags, |flags| InstructionData::AtomicCas { opcode, flags, args })
            }
            InstructionFormat::AtomicRmw => {
                let flags = self.mem_flags()?;
                let op = self.reader.rmw()?;
                let args = self.value_array()?;
                S::map(flags, |flags| InstructionData::AtomicRmw { opcode, flags, op, args })
            }
            InstructionFormat::StackAddr => {
                let position = self.reader.index(self.lengths.stack_slots, "no such stack slot")?;
                let stack_slot = StackSlot::new(position);
                let offset = Offset32::new(self.reader.i32()?);
                S::made(InstructionData::StackAddr { opcode, stack_slot, offset })
            }
            InstructionFormat::DynamicStackAddr => {
                let count = self.lengths.dynamic_stack_slots;
                let position = self.reader.index(count, "no such dynamic stack slot")?;
                let dynamic_stack_slot = DynamicStackSlot::new(position);
                S::made(InstructionData::DynamicStackAddr { opcode, dynamic_stack_slot })
            }
            InstructionFormat::FuncAddr => {
                S::made(InstructionData::FuncAddr { opcode, func_ref: self.func_ref()? })
            }
            InstructionFormat::Call => {
                let func_ref = self.func_ref()?;
                self.sink.callee(func_ref);
                S::map(self.value_list(fixed)?, |args| InstructionData::Call { opcode, func_ref, args })
            }
            InstructionFormat::CallIndirect => {
                let sig_ref = self.sig_ref()?;
                self.sink.callee_signature(sig_ref);
                S::map(self.value_list(fixed)?, |args| InstructionData::CallIndirect {
                    opcode,
                    sig_ref,
                    args,
                })
            }
            InstructionFormat::TryCall => {
                let func_ref = self.func_ref()?;
                let args = self.value_list(fixed)?;
                S::map(S::zip(args, self.exception_table()?), |(args, exception)| InstructionData::TryCall {
                    opcode,
                    func_ref,
                    args,
                    exception,
                })
            }
            InstructionFormat::TryCallIndirect => {
                let args = self.value_list(fixed)?;
                S::map(S::zip(args, self.exception_table()?), |(args, exception)| {
                    InstructionData::TryCallIndirect { opcode, args, exception }
                })
            }
            InstructionFormat::ExceptionHandlerAddress => {
                let block = self.block()?;
                let imm = Imm64::new(self.reader.int()?);
                S::made(InstructionData::ExceptionHandlerAddress { opcode, block, imm })
            }
            InstructionFormat::Jump => {
                S::map(self.block_call()?, |destination| InstructionData::Jump { opcode, destination })
            }
            InstructionFormat::Brif => {
                let arg = self.value()?;
                let then = self.block_call()?;
                S::map(S::zip(then, self.block_call()?), |(then, otherwise)| InstructionData::Brif {
                    opcode,
                    arg,
                    blocks: [then, otherwise],
                })
            }
            InstructionFormat::BranchTable => {
                let arg = self.value()?;
                S::map(self.jump_table()?, |table| InstructionData::BranchTable { opcode, arg, table })
            }
        })
    }
}
