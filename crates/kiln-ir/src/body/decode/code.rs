//! Blocks and their instructions.

use cranelift_codegen::entity::EntityRef;
use cranelift_codegen::ir::{
    Block, BlockArg, BlockCall, ExceptionTable, ExceptionTableItem, ExceptionTag, JumpTable, ValueList, types,
};

use super::decoder::Decoder;
use super::sink::Sink;
use crate::body::limits::{MAX_VALUES, max_values};
use crate::body::wire::{DecodeResult, unzigzag};

impl<S: Sink> Decoder<'_, S> {
    /// Reads the code: the number of values, then each block with its instructions.
    pub(super) fn code(&mut self) -> DecodeResult<()> {
        self.values = self.reader.uint()?;
        if self.values > max_values(self.reader.len()) {
            return Err(self.reader.error("too many values"));
        }
        self.blocks = self.reader.count()?;
        self.sink.blocks(self.blocks);
        for block in (0..self.blocks).map(Block::new) {
            let header = self.reader.uint()?;
            let (params, cold) = (header >> 1, header & 1 != 0);
            if params > u64::from(u16::MAX) {
                return Err(self.reader.error("more than 65,535 parameters"));
            }
            self.sink.start_block(block, cold);
            for _ in 0..params {
                let ty = self.reader.ty()?;
                self.sink.block_param(block, ty);
            }
            self.next_value += params as i64;
            // A block ends with a 0, which is no opcode.
            while self.reader.peek() != Some(0) {
                self.inst(block)?;
            }
            self.reader.byte()?;
        }
        if self.next_value as u64 == self.values {
            Ok(())
        } else {
            Err(self.reader.error("not as many values as announced"))
        }
    }

    fn inst(&mut self, block: Block) -> DecodeResult<()> {
        let opcode = self.reader.opcode()?;
        let constraints = opcode.constraints();
        let ctrl_typevar = match constraints.is_polymorphic() {
            false => types::INVALID,
            true => self.reader.controlling(opcode)?,
        };
        // Cranelift relies on the fixed arguments of an instruction.
        let data = self.operands(opcode, constraints.num_fixed_value_arguments())?;
        let results = self.sink.inst(block, opcode, ctrl_typevar, data);
        self.insts += 1;
        self.next_value += results as i64;
        if self.next_value as u64 > self.values {
            return Err(self.reader.error("more values than announced"));
        }
        Ok(())
    }

    /// Reads a list of at least `fixed` values.
    pub(super) fn value_list(&mut self, fixed: usize) -> DecodeResult<S::Made<ValueList>> {
        let count = self.reader.count()?;
        if count < fixed {
            return Err(self.reader.error("too few arguments"));
        }
        let mut list = self.sink.start_list();
        for _ in 0..count {
            S::list_value(&mut list, self.value()?);
        }
        Ok(self.sink.end_list(list))
    }

    /// Reads the target of a branch: a block and its arguments.
    pub(super) fn block_call(&mut self) -> DecodeResult<S::Made<BlockCall>> {
        let block = self.block()?;
        let count = self.reader.count()?;
        let mut call = self.sink.block_call(block);
        for _ in 0..count {
            let code = self.reader.uint()?;
            let index = || {
                u32::try_from(code >> 2)
                    .ok()
                    .filter(|index| u64::from(*index) < MAX_VALUES)
                    .ok_or_else(|| self.reader.error("an index of more than 30 bits"))
            };
            let argument = match code & 3 {
                0 => BlockArg::Value(self.value_before(unzigzag(code >> 2))?),
                1 => BlockArg::TryCallRet(index()?),
                2 => BlockArg::TryCallExn(index()?),
                _ => return Err(self.reader.error("not an argument of a block")),
            };
            self.sink.block_argument(&mut call, argument);
        }
        Ok(call)
    }

    /// Reads a jump table, whose first entry is the default.
    pub(super) fn jump_table(&mut self) -> DecodeResult<S::Made<JumpTable>> {
        let count = self.reader.count()?;
        if count == 0 {
            return Err(self.reader.error("a jump table without default"));
        }
        let default = self.block_call()?;
        // A vector of `()` allocates nothing.
        let mut others = Vec::with_capacity(count - 1);
        for _ in 1..count {
            others.push(self.block_call()?);
        }
        Ok(self.sink.jump_table(default, &others))
    }

    /// Reads the exception table of a call.
    pub(super) fn exception_table(&mut self) -> DecodeResult<S::Made<ExceptionTable>> {
        let signature = self.sig_ref()?;
        let normal = self.block_call()?;
        let count = self.reader.count()?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(match self.reader.byte()? {
                0 => {
                    let tag = ExceptionTag::with_number(self.reader.u32()?);
                    let tag = tag.ok_or_else(|| self.reader.error("not a tag"))?;
                    S::map(self.block_call()?, |call| ExceptionTableItem::Tag(tag, call))
                }
                1 => S::map(self.block_call()?, ExceptionTableItem::Default),
                2 => S::made(ExceptionTableItem::Context(self.value()?)),
                _ => return Err(self.reader.error("not an exception handler")),
            });
        }
        Ok(self.sink.exception_table(signature, normal, items))
    }
}
