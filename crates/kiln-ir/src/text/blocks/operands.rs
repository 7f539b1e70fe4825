//! The operands of an instruction, by its format.

use cranelift_codegen::ir::immediates::{Imm64, Offset32};
use cranelift_codegen::ir::instructions::InstructionFormat;
use cranelift_codegen::ir::{
    AliasRegion, BlockArg, BlockCall, ExceptionTable, ExceptionTableData, ExceptionTableItem, ExceptionTag,
    FuncRef, GlobalValue, InstructionData, JumpTable, JumpTableData, MemFlags, MemFlagsData, Opcode, SigRef,
    StackSlot, Type, Value, ValueList, types,
};

use super::Blocks;

impl Blocks<'_> {
    /// Reads the operands of an instruction. `ty` is the type after the opcode.
    pub(super) fn operands(&mut self, opcode: Opcode, ty: Option<Type>) -> Option<InstructionData> {
        Some(match opcode.format() {
            InstructionFormat::NullAry => InstructionData::NullAry { opcode },
            InstructionFormat::Unary => InstructionData::Unary { opcode, arg: self.used()? },
            InstructionFormat::UnaryImm => {
                let bits = match ty? {
                    types::I8 => 8,
                    types::I16 => 16,
                    types::I32 => 32,
                    types::I64 => 64,
                    _ => return None,
                };
                InstructionData::UnaryImm { opcode, imm: Imm64::new(self.words.integer(bits)?) }
            }
            InstructionFormat::UnaryIeee32 => {
                InstructionData::UnaryIeee32 { opcode, imm: self.words.float()? }
            }
            InstructionFormat::UnaryIeee64 => {
                InstructionData::UnaryIeee64 { opcode, imm: self.words.float()? }
            }
            InstructionFormat::UnaryGlobalValue => {
                let global_value = GlobalValue::with_number(self.words.entity("gv")?)?;
                self.map.contains_gv(global_value).then_some(())?;
                InstructionData::UnaryGlobalValue { opcode, global_value }
            }
            InstructionFormat::Binary => InstructionData::Binary { opcode, args: self.two()? },
            InstructionFormat::BinaryImm8 => {
                let arg = self.used()?;
                self.words.expect(b',')?;
                InstructionData::BinaryImm8 { opcode, arg, imm: self.words.byte()? }
            }
            InstructionFormat::Ternary => {
                let args = self.two()?;
                self.words.expect(b',')?;
                InstructionData::Ternary { opcode, args: [args[0], args[1], self.used()?] }
            }
            InstructionFormat::TernaryImm8 => {
                let args = self.two()?;
                self.words.expect(b',')?;
                InstructionData::TernaryImm8 { opcode, args, imm: self.words.byte()? }
            }
            InstructionFormat::MultiAry => {
                let args = self.values(&[])?;
                // The values may begin on a later line.
                self.last_is_empty = args.is_empty();
                InstructionData::MultiAry { opcode, args }
            }
            InstructionFormat::IntCompare => {
                let cond = self.words.word().parse().ok()?;
                InstructionData::IntCompare { opcode, cond, args: self.two()? }
            }
            InstructionFormat::FloatCompare => {
                let cond = self.words.word().parse().ok()?;
                InstructionData::FloatCompare { opcode, cond, args: self.two()? }
            }
            InstructionFormat::IntAddTrap => {
                let args = self.two()?;
                self.words.expect(b',')?;
                InstructionData::IntAddTrap { opcode, args, code: self.words.word().parse().ok()? }
            }
            InstructionFormat::Trap => {
                InstructionData::Trap { opcode, code: self.words.word().parse().ok()? }
            }
            InstructionFormat::CondTrap => {
                let arg = self.used()?;
                self.words.expect(b',')?;
                InstructionData::CondTrap { opcode, arg, code: self.words.word().parse().ok()? }
            }
            InstructionFormat::Load => {
                let flags = self.mem_flags()?;
                let arg = self.used()?;
                InstructionData::Load { opcode, flags, arg, offset: self.offset()? }
            }
            InstructionFormat::Store => {
                let flags = self.mem_flags()?;
                let args = self.two()?;
                InstructionData::Store { opcode, flags, args, offset: self.offset()? }
            }
            InstructionFormat::LoadNoOffset => {
                InstructionData::LoadNoOffset { opcode, flags: self.mem_flags()?, arg: self.used()? }
            }
            InstructionFormat::StoreNoOffset => {
                InstructionData::StoreNoOffset { opcode, flags: self.mem_flags()?, args: self.two()? }
            }
            InstructionFormat::AtomicRmw => {
                let flags = self.mem_flags()?;
                let op = self.words.word().parse().ok()?;
                InstructionData::AtomicRmw { opcode, flags, op, args: self.two()? }
            }
            InstructionFormat::StackAddr => {
                let stack_slot = StackSlot::with_number(self.words.entity("ss")?)?;
                self.map.contains_ss(stack_slot).then_some(())?;
                InstructionData::StackAddr { opcode, stack_slot, offset: self.offset()? }
            }
            InstructionFormat::FuncAddr => InstructionData::FuncAddr { opcode, func_ref: self.function()? },
            InstructionFormat::Call => {
                let func_ref = self.function()?;
                InstructionData::Call { opcode, func_ref, args: self.arguments(&[])? }
            }
            InstructionFormat::CallIndirect => {
                let sig_ref = self.signature()?;
                self.words.expect(b',')?;
                let callee = self.used()?;
                InstructionData::CallIndirect { opcode, sig_ref, args: self.arguments(&[callee])? }
            }
            InstructionFormat::TryCall => {
                let func_ref = self.function()?;
                let args = self.arguments(&[])?;
                InstructionData::TryCall { opcode, func_ref, args, exception: self.handlers()? }
            }
            InstructionFormat::TryCallIndirect => {
                let callee = self.used()?;
                let args = self.arguments(&[callee])?;
                InstructionData::TryCallIndirect { opcode, args, exception: self.handlers()? }
            }
            InstructionFormat::Jump => InstructionData::Jump { opcode, destination: self.block_call()? },
            InstructionFormat::Brif => {
                let arg = self.used()?;
                self.words.expect(b',')?;
                let then = self.block_call()?;
                self.words.expect(b',')?;
                InstructionData::Brif { opcode, arg, blocks: [then, self.block_call()?] }
            }
            InstructionFormat::BranchTable => {
                let arg = self.used()?;
                self.words.expect(b',')?;
                InstructionData::BranchTable { opcode, arg, table: self.jump_table()? }
            }
            InstructionFormat::ExceptionHandlerAddress => {
                let block = self.words.block()?;
                self.words.expect(b',')?;
                let imm = Imm64::new(self.words.integer(64)?);
                InstructionData::ExceptionHandlerAddress { opcode, block, imm }
            }
            InstructionFormat::UnaryIeee16
            | InstructionFormat::UnaryConst
            | InstructionFormat::Shuffle
            | InstructionFormat::DynamicStackAddr
            | InstructionFormat::AtomicCas => return None,
        })
    }

    #[inline]
    fn two(&mut self) -> Option<[Value; 2]> {
        let first = self.used()?;
        self.words.expect(b',')?;
        Some([first, self.used()?])
    }

    fn function(&mut self) -> Option<FuncRef> {
        let function = FuncRef::with_number(self.words.entity("fn")?)?;
        self.map.contains_fn(function).then_some(())?;
        let dfg = &self.function.dfg;
        dfg.signatures.is_valid(dfg.ext_funcs[function].signature).then_some(function)
    }

    fn signature(&mut self) -> Option<SigRef> {
        let signature = SigRef::with_number(self.words.entity("sig")?)?;
        self.map.contains_sig(signature).then_some(signature)
    }

    /// Reads values with commas between them, which follow `fixed`.
    fn values(&mut self, fixed: &[Value]) -> Option<ValueList> {
        self.list.clear();
        self.list.extend_from_slice(fixed);
        if self.words.next() == Some(b'v') {
            loop {
                let value = self.used()?;
                self.list.push(value);
                if !self.words.eat(b',') {
                    break;
                }
            }
        }
        Some(ValueList::from_slice(&self.list, &mut self.function.dfg.value_lists))
    }

    fn arguments(&mut self, fixed: &[Value]) -> Option<ValueList> {
        self.words.expect(b'(')?;
        let values = self.values(fixed)?;
        self.words.expect(b')')?;
        Some(values)
    }

    /// Reads a block and its arguments, if it has some.
    fn block_call(&mut self) -> Option<BlockCall> {
        let block = self.words.block()?;
        self.block_args.clear();
        if self.words.eat(b'(') && !self.words.eat(b')') {
            loop {
                let argument = match self.words.next()? {
                    b'v' => BlockArg::Value(self.used()?),
                    b'r' => BlockArg::TryCallRet(self.words.entity("ret")?),
                    _ => BlockArg::TryCallExn(self.words.entity("exn")?),
                };
                self.block_args.push(argument);
                if !self.words.eat(b',') {
                    break;
                }
            }
            self.words.expect(b')')?;
        }
        Some(self.function.dfg.block_call(block, &self.block_args))
    }

    fn jump_table(&mut self) -> Option<JumpTable> {
        let default = self.block_call()?;
        self.words.expect(b',')?;
        self.words.expect(b'[')?;
        let mut others = Vec::new();
        if !self.words.eat(b']') {
            loop {
                others.push(self.block_call()?);
                if !self.words.eat(b',') {
                    break;
                }
            }
            self.words.expect(b']')?;
        }
        Some(self.function.dfg.jump_tables.push(JumpTableData::new(default, &others)))
    }

    /// Reads where a call returns to, and its handlers.
    fn handlers(&mut self) -> Option<ExceptionTable> {
        self.words.expect(b',')?;
        let signature = self.signature()?;
        self.words.expect(b',')?;
        let normal = self.block_call()?;
        self.words.expect(b',')?;
        self.words.expect(b'[')?;
        let mut items = Vec::new();
        while !self.words.eat(b']') {
            items.push(match self.words.next()? {
                b't' => {
                    let tag = ExceptionTag::from_u32(self.words.entity("tag")?);
                    self.words.expect(b':')?;
                    ExceptionTableItem::Tag(tag, self.block_call()?)
                }
                b'd' => {
                    (self.words.word() == "default").then_some(())?;
                    self.words.expect(b':')?;
                    ExceptionTableItem::Default(self.block_call()?)
                }
                _ => {
                    (self.words.word() == "context").then_some(())?;
                    ExceptionTableItem::Context(self.used()?)
                }
            });
            if !self.words.eat(b',') {
                self.words.expect(b']')?;
                break;
            }
        }
        Some(self.function.dfg.exception_tables.push(ExceptionTableData::new(signature, normal, items)))
    }

    /// Reads the offset of an address; 0 if it has none.
    fn offset(&mut self) -> Option<Offset32> {
        match self.words.next() {
            Some(b'+' | b'-') => self.words.number().parse().ok(),
            _ => Some(Offset32::new(0)),
        }
    }

    /// Reads the flags of an access to memory.
    fn mem_flags(&mut self) -> Option<MemFlags> {
        let mut data = MemFlagsData::new();
        loop {
            let before = self.words.at();
            let rest = (self.words.next(), self.words.rest());
            if let (Some(b'v'), [_, b'0'..=b'9', ..]) = rest {
                break;
            }
            if rest.1.starts_with(b"region") {
                let region = AliasRegion::from_u32(self.words.entity("region")?);
                data.alias_region().is_none().then_some(())?;
                data.set_alias_region(Some(region));
                continue;
            }
            let word = self.words.word();
            if word.is_empty() || !data.set_by_name(word).ok()? {
                self.words.go_to(before);
                break;
            }
        }
        // A function has a few combinations, and looking them up in its table takes hashing.
        if let Some((_, flags)) = self.mem_flags.iter().find(|(known, _)| *known == data) {
            return Some(*flags);
        }
        let flags = self.function.dfg.mem_flags.insert(data).ok()?;
        self.mem_flags.truncate(16);
        self.mem_flags.push((data, flags));
        Some(flags)
    }
}
