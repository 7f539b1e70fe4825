//! The state of an encoder, and the operands that every table writes: values and branches.

use cranelift_codegen::entity::EntityRef;
use cranelift_codegen::ir::entities::AnyEntity;
use cranelift_codegen::ir::{
    self, Block, BlockArg, BlockCall, ExceptionTable, ExceptionTableItem, FuncRef, GlobalValue, Inst,
    MemFlags, SigRef, SourceLoc, Value, ValueList,
};

use super::locations::LocationRuns;
use super::renumbering::{NONE, Renumbering};
use crate::body::wire::{ByteWriter, zigzag};

/// A declaration in a function that refers to a symbol or library call.
#[derive(Clone, Copy)]
pub(crate) enum ExternalRef {
    /// An external function, to call it or to take its address.
    Function(FuncRef),
    /// A global value, to take the address of a symbol.
    Global(GlobalValue),
}

/// The reason why a function has no canonical form.
///
/// The verifier reports each undefined entity. Here they are checked again, because functions are
/// also encoded that the verifier has not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EncodeError {
    /// An entity that is used and not defined.
    #[error("{0} is used and not defined")]
    Undefined(AnyEntity),
    /// An instruction or global value with memory flags that are not defined.
    #[error("{0} has memory flags that are not defined")]
    MemFlags(AnyEntity),
    /// The decoder would refuse the form, for this reason.
    #[error("{0}")]
    Form(&'static str),
}

/// Returns a closure that makes the error for `entity`.
pub(super) fn undefined(entity: impl Into<AnyEntity>) -> impl FnOnce() -> EncodeError {
    move || EncodeError::Undefined(entity.into())
}

/// Checks that an entity is defined that the form refers to by its old number.
pub(super) fn defined(exists: bool, entity: impl Into<AnyEntity>) -> Result<(), EncodeError> {
    exists.then_some(()).ok_or_else(undefined(entity))
}

/// Encodes functions. Its memory is reused from one function to the next.
#[derive(Default)]
pub(crate) struct Encoder {
    pub(super) head: ByteWriter,
    pub(super) memory: ByteWriter,
    pub(super) tables: ByteWriter,
    pub(super) code: ByteWriter,
    pub(super) locations: LocationRuns,
    pub(super) values: Vec<u32>,
    pub(super) blocks: Vec<u32>,
    /// The blocks in layout order.
    pub(super) block_order: Vec<Block>,
    /// The number of the next instruction.
    pub(super) next_inst: usize,
    /// Instructions with debug tags and instructions with stack maps, each with its number.
    pub(super) tagged: Vec<(usize, Inst)>,
    pub(super) mapped: Vec<(usize, Inst)>,
    pub(super) flags: Renumbering,
    pub(super) regions: Renumbering,
    pub(super) globals: Renumbering,
    pub(super) signatures: Renumbering,
    pub(super) functions: Renumbering,
    /// Maps the caller's number of each symbol or library call to its number in the form.
    pub(super) references: Renumbering,
    /// The number of the next value that is defined.
    pub(super) next_value: i64,
}

/// A function's canonical form.
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    /// The things that the function refers to, as numbered by the caller, in order of first use.
    pub(crate) references: Vec<u32>,
    pub(crate) base: SourceLoc,
}

impl Encoder {
    pub(super) fn clear(&mut self) {
        let Self {
            head,
            memory,
            tables,
            code,
            locations,
            values,
            blocks,
            block_order,
            next_inst,
            tagged,
            mapped,
            flags,
            regions,
            globals,
            signatures,
            functions,
            references,
            next_value,
        } = self;
        for writer in [head, memory, tables, code] {
            writer.0.clear();
        }
        locations.clear();
        values.clear();
        blocks.clear();
        block_order.clear();
        tagged.clear();
        mapped.clear();
        for dense in [flags, regions, globals, signatures, functions, references] {
            dense.clear();
        }
        (*next_inst, *next_value) = (0, 0);
    }

    /// Numbers the blocks of the layout.
    pub(super) fn number_blocks(&mut self, function: &ir::Function) -> Result<(), EncodeError> {
        self.values.resize(function.dfg.num_values(), NONE);
        self.blocks.resize(function.dfg.num_blocks(), NONE);
        self.block_order.extend(function.layout.blocks());
        for (number, block) in self.block_order.iter().enumerate() {
            let entry = self.blocks.get_mut(block.index()).ok_or_else(undefined(*block))?;
            *entry = number as u32;
        }
        Ok(())
    }

    /// Numbers all values that blocks define, before the code is written.
    pub(super) fn number_values(&mut self, function: &ir::Function) {
        let (dfg, layout) = (&function.dfg, &function.layout);
        let mut next = 0;
        for block in &self.block_order {
            let results = layout.block_insts(*block).flat_map(|inst| dfg.inst_results(inst));
            for value in dfg.block_params(*block).iter().chain(results) {
                self.values[value.index()] = next;
                next += 1;
            }
        }
    }

    /// Numbers values that are defined here.
    pub(super) fn define(&mut self, defined: &[Value]) {
        for value in defined {
            self.values[value.index()] = self.next_value as u32;
            self.next_value += 1;
        }
    }

    /// Returns the new number of a value. An alias has the number of its original.
    #[inline]
    pub(super) fn new_value(&mut self, dfg: &ir::DataFlowGraph, value: Value) -> Result<u32, EncodeError> {
        match self.values.get(value.index()) {
            Some(&number) if number != NONE => Ok(number),
            _ => self.alias(dfg, value),
        }
    }

    #[cold]
    #[inline(never)]
    fn alias(&mut self, dfg: &ir::DataFlowGraph, value: Value) -> Result<u32, EncodeError> {
        // A value that does not exist is no alias.
        if value.index() >= self.values.len() {
            return Err(EncodeError::Undefined(value.into()));
        }
        let mut original = value;
        for _ in 0..dfg.num_values() {
            let Some(next) = dfg.value_alias_dest_for_serialization(original) else { break };
            original = next;
            match self.values.get(original.index()) {
                None => break,
                Some(&NONE) => {}
                Some(&number) => {
                    // Number every alias on the way, so that each chain is followed once.
                    let mut alias = value;
                    while alias != original {
                        self.values[alias.index()] = number;
                        alias = dfg.value_alias_dest_for_serialization(alias).unwrap_or(original);
                    }
                    return Ok(number);
                }
            }
        }
        Err(EncodeError::Undefined(value.into()))
    }

    /// Returns the distance from a value to the next value that will be defined, as an unsigned
    /// integer.
    #[inline]
    pub(super) fn distance(&mut self, dfg: &ir::DataFlowGraph, value: Value) -> Result<u64, EncodeError> {
        let number = self.new_value(dfg, value)?;
        Ok(zigzag(self.next_value - i64::from(number)))
    }

    #[inline]
    pub(super) fn value(&mut self, dfg: &ir::DataFlowGraph, value: Value) -> Result<(), EncodeError> {
        let distance = self.distance(dfg, value)?;
        self.code.uints([distance]);
        Ok(())
    }

    #[inline]
    pub(super) fn values(&mut self, dfg: &ir::DataFlowGraph, values: &[Value]) -> Result<(), EncodeError> {
        values.iter().try_for_each(|value| self.value(dfg, *value))
    }

    pub(super) fn list(&mut self, dfg: &ir::DataFlowGraph, list: ValueList) -> Result<(), EncodeError> {
        let values = list.as_slice(&dfg.value_lists);
        self.code.count(values.len());
        self.values(dfg, values)
    }

    /// Returns the new number of a signature.
    #[inline]
    pub(super) fn signature(
        &mut self,
        dfg: &ir::DataFlowGraph,
        signature: SigRef,
    ) -> Result<u64, EncodeError> {
        let exists = || dfg.signatures.is_valid(signature);
        self.signatures.number(signature.index(), exists).ok_or_else(undefined(signature))
    }

    /// Returns the new number of an external function.
    #[inline]
    pub(super) fn function(
        &mut self,
        dfg: &ir::DataFlowGraph,
        function: FuncRef,
    ) -> Result<u64, EncodeError> {
        let exists = || dfg.ext_funcs.is_valid(function);
        self.functions.number(function.index(), exists).ok_or_else(undefined(function))
    }

    /// Returns the new number of a global value.
    pub(super) fn global_value(
        &mut self,
        function: &ir::Function,
        global: GlobalValue,
    ) -> Result<u64, EncodeError> {
        let exists = || function.global_values.is_valid(global);
        self.globals.number(global.index(), exists).ok_or_else(undefined(global))
    }

    /// Returns the new number of the memory flags of `user`.
    #[inline]
    pub(super) fn mem_flags(
        &mut self,
        dfg: &ir::DataFlowGraph,
        user: impl Into<AnyEntity>,
        flags: MemFlags,
    ) -> Result<u64, EncodeError> {
        let exists = || dfg.mem_flags.is_valid(flags);
        self.flags.number(flags.index(), exists).ok_or_else(|| EncodeError::MemFlags(user.into()))
    }

    /// Returns the new number of a block.
    #[inline]
    pub(super) fn block_number(&self, block: Block) -> Result<u64, EncodeError> {
        match self.blocks.get(block.index()) {
            None | Some(&NONE) => Err(EncodeError::Undefined(block.into())),
            Some(&number) => Ok(u64::from(number)),
        }
    }

    pub(super) fn block_call(&mut self, dfg: &ir::DataFlowGraph, call: BlockCall) -> Result<(), EncodeError> {
        let number = self.block_number(call.block(&dfg.value_lists))?;
        self.code.uints([number, call.len(&dfg.value_lists) as u64]);
        for argument in call.args(&dfg.value_lists) {
            let (kind, number) = match argument {
                BlockArg::Value(value) => (0, self.distance(dfg, value)?),
                BlockArg::TryCallRet(index) => (1, u64::from(index)),
                BlockArg::TryCallExn(index) => (2, u64::from(index)),
            };
            self.code.uints([number << 2 | kind]);
        }
        Ok(())
    }

    pub(super) fn handlers(
        &mut self,
        dfg: &ir::DataFlowGraph,
        table: ExceptionTable,
    ) -> Result<(), EncodeError> {
        let table = dfg.exception_tables.get(table).ok_or_else(undefined(table))?;
        let signature = self.signature(dfg, table.signature())?;
        self.code.uint(signature);
        self.block_call(dfg, *table.normal_return())?;
        self.code.count(table.items().count());
        for item in table.items() {
            match item {
                ExceptionTableItem::Tag(tag, call) => {
                    self.code.byte(0);
                    self.code.uint(u64::from(tag.as_u32()));
                    self.block_call(dfg, call)?;
                }
                ExceptionTableItem::Default(call) => {
                    self.code.byte(1);
                    self.block_call(dfg, call)?;
                }
                ExceptionTableItem::Context(value) => {
                    self.code.byte(2);
                    self.value(dfg, value)?;
                }
            }
        }
        Ok(())
    }
}
