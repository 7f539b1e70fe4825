//! Blocks and their instructions.

use cranelift_codegen::entity::packed_option::ReservedValue as _;
use cranelift_codegen::ir::{self, Block, Inst, InstructionData, Value};

use super::encoder::{EncodeError, Encoder, defined, undefined};
use crate::body::wire::zigzag;

impl Encoder {
    pub(super) fn block(&mut self, function: &ir::Function, block: Block) -> Result<(), EncodeError> {
        let (dfg, layout, debug_tags) = (&function.dfg, &function.layout, &function.debug_tags);
        let params = dfg.block_params(block);
        self.code.uint((params.len() as u64) << 1 | u64::from(layout.is_cold(block)));
        for param in params {
            self.code.ty(dfg.value_type(*param));
        }
        self.define(params);
        // `block_insts` and `inst_results` are slower: they call into another crate.
        let mut next = layout.first_inst(block);
        while let Some(inst) = next {
            next = layout.next_inst(inst);
            self.locations.push(self.next_inst, function.srclocs[inst]);
            if !debug_tags.is_empty() && !debug_tags.get(inst).is_empty() {
                self.tagged.push((self.next_inst, inst));
            }
            let results = dfg.inst_results_list(inst);
            let results = results.as_slice(&dfg.value_lists);
            self.inst(function, inst, results.first().copied())?;
            self.define(results);
            self.next_inst += 1;
        }
        // 0 ends the block. No opcode is 0.
        self.code.byte(0);
        Ok(())
    }

    fn inst(&mut self, function: &ir::Function, inst: Inst, first: Option<Value>) -> Result<(), EncodeError> {
        let dfg = &function.dfg;
        let data = &dfg.insts[inst];
        let opcode = data.opcode();
        let constraints = opcode.constraints();
        if constraints.is_polymorphic() {
            // This is the type that `ctrl_typevar` returns.
            let first = first.unwrap_or(Value::reserved_value());
            let value = match constraints.requires_typevar_operand() {
                true => data.typevar_operand(&dfg.value_lists).unwrap_or(first),
                false => first,
            };
            defined(dfg.value_is_valid(value), value)?;
            self.code.byte_and_type(opcode as u8, dfg.value_type(value));
        } else {
            self.code.byte(opcode as u8);
        }
        // Only safepoints may have a stack map.
        if opcode.is_safepoint() && dfg.user_stack_map_entries(inst).is_some_and(|map| !map.is_empty()) {
            self.mapped.push((self.next_inst, inst));
        }
        match *data {
            InstructionData::NullAry { opcode: _ } => {}
            InstructionData::Unary { opcode: _, arg } => self.value(dfg, arg)?,
            InstructionData::Binary { opcode: _, args: [a, b] } => {
                let values = [self.distance(dfg, a)?, self.distance(dfg, b)?];
                self.code.uints(values);
            }
            InstructionData::Ternary { opcode: _, args } => self.values(dfg, &args)?,
            InstructionData::MultiAry { opcode: _, args } => self.list(dfg, args)?,
            InstructionData::BinaryImm8 { opcode: _, arg, imm } => {
                self.code.byte(imm);
                self.value(dfg, arg)?;
            }
            InstructionData::TernaryImm8 { opcode: _, args, imm } => {
                self.code.byte(imm);
                self.values(dfg, &args)?;
            }
            InstructionData::UnaryImm { opcode: _, imm } => self.code.int(imm.bits()),
            InstructionData::UnaryIeee16 { opcode: _, imm } => self.code.raw(&imm.bits().to_le_bytes()),
            InstructionData::UnaryIeee32 { opcode: _, imm } => self.code.raw(&imm.bits().to_le_bytes()),
            InstructionData::UnaryIeee64 { opcode: _, imm } => self.code.raw(&imm.bits().to_le_bytes()),
            InstructionData::UnaryConst { opcode: _, constant_handle } => {
                self.code.bytes(dfg.constants.get(constant_handle).as_slice());
            }
            InstructionData::Shuffle { opcode: _, args, imm } => {
                let mask = dfg.immediates.get(imm).ok_or_else(undefined(inst))?;
                self.code.bytes(mask.as_slice());
                self.values(dfg, &args)?;
            }
            InstructionData::UnaryGlobalValue { opcode: _, global_value } => {
                let number = self.global_value(function, global_value)?;
                self.code.uint(number);
            }
            InstructionData::IntCompare { opcode: _, args: [a, b], cond } => {
                // A condition is smaller than 128, so its byte is also its encoding as an integer.
                let values = [cond as u64, self.distance(dfg, a)?, self.distance(dfg, b)?];
                self.code.uints(values);
            }
            InstructionData::FloatCompare { opcode: _, args, cond } => {
                self.code.byte(cond as u8);
                self.values(dfg, &args)?;
            }
            InstructionData::IntAddTrap { opcode: _, args, code } => {
                self.code.trap(Some(code));
                self.values(dfg, &args)?;
            }
            InstructionData::Trap { opcode: _, code } => self.code.trap(Some(code)),
            InstructionData::CondTrap { opcode: _, arg, code } => {
                self.code.trap(Some(code));
                self.value(dfg, arg)?;
            }
            InstructionData::Load { opcode: _, arg, flags, offset } => {
                let flags = self.mem_flags(dfg, inst, flags)?;
                let offset = zigzag(i64::from(i32::from(offset)));
                let arg = self.distance(dfg, arg)?;
                self.code.uints([flags, offset, arg]);
            }
            InstructionData::Store { opcode: _, args: [value, address], flags, offset } => {
                let flags = self.mem_flags(dfg, inst, flags)?;
                let offset = zigzag(i64::from(i32::from(offset)));
                let (value, address) = (self.distance(dfg, value)?, self.distance(dfg, address)?);
                self.code.uints([flags, offset, value, address]);
            }
            InstructionData::LoadNoOffset { opcode: _, arg, flags } => {
                let flags = self.mem_flags(dfg, inst, flags)?;
                self.code.uint(flags);
                self.value(dfg, arg)?;
            }
            InstructionData::StoreNoOffset { opcode: _, args, flags } => {
                let flags = self.mem_flags(dfg, inst, flags)?;
                self.code.uint(flags);
                self.values(dfg, &args)?;
            }
            InstructionData::AtomicCas { opcode: _, args, flags } => {
                let flags = self.mem_flags(dfg, inst, flags)?;
                self.code.uint(flags);
                self.values(dfg, &args)?;
            }
            InstructionData::AtomicRmw { opcode: _, args, flags, op } => {
                let flags = self.mem_flags(dfg, inst, flags)?;
                self.code.uint(flags);
                self.code.listed(ir::AtomicRmwOp::all(), &op);
                self.values(dfg, &args)?;
            }
            InstructionData::StackAddr { opcode: _, stack_slot, offset } => {
                defined(function.sized_stack_slots.is_valid(stack_slot), stack_slot)?;
                self.code.uint(u64::from(stack_slot.as_u32()));
                self.code.int(i64::from(i32::from(offset)));
            }
            InstructionData::DynamicStackAddr { opcode: _, dynamic_stack_slot } => {
                let exists = function.dynamic_stack_slots.is_valid(dynamic_stack_slot);
                defined(exists, dynamic_stack_slot)?;
                self.code.uint(u64::from(dynamic_stack_slot.as_u32()));
            }
            InstructionData::FuncAddr { opcode: _, func_ref } => {
                let number = self.function(dfg, func_ref)?;
                self.code.uint(number);
            }
            InstructionData::Call { opcode: _, args, func_ref } => {
                let number = self.function(dfg, func_ref)?;
                self.code.uint(number);
                self.list(dfg, args)?;
            }
            InstructionData::CallIndirect { opcode: _, args, sig_ref } => {
                let number = self.signature(dfg, sig_ref)?;
                self.code.uint(number);
                self.list(dfg, args)?;
            }
            InstructionData::TryCall { opcode: _, args, func_ref, exception } => {
                let number = self.function(dfg, func_ref)?;
                self.code.uint(number);
                self.list(dfg, args)?;
                self.handlers(dfg, exception)?;
            }
            InstructionData::TryCallIndirect { opcode: _, args, exception } => {
                self.list(dfg, args)?;
                self.handlers(dfg, exception)?;
            }
            InstructionData::ExceptionHandlerAddress { opcode: _, block, imm } => {
                let number = self.block_number(block)?;
                self.code.uints([number, zigzag(imm.bits())]);
            }
            InstructionData::Jump { opcode: _, destination } => self.block_call(dfg, destination)?,
            InstructionData::Brif { opcode: _, arg, blocks } => {
                self.value(dfg, arg)?;
                for call in blocks {
                    self.block_call(dfg, call)?;
                }
            }
            InstructionData::BranchTable { opcode: _, arg, table } => {
                self.value(dfg, arg)?;
                let table = dfg.jump_tables.get(table).ok_or_else(undefined(table))?;
                let branches = table.all_branches();
                self.code.count(branches.len());
                for call in branches {
                    self.block_call(dfg, *call)?;
                }
            }
        }
        Ok(())
    }
}
