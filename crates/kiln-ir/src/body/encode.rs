//! From a function as a client or a reader made it to its canonical form.
//!
//! One pass over the layout numbers blocks. Another one writes instructions, and numbers values in the order in which they are defined, and
//! everything else in the order in which it is first used.
//!
//! Invariants:
//! - Nothing that the layout does not reach is written, stack slots and dynamic types excepted: they take room in the frame
//!   whether or not an instruction names them.
//! - Every field of Cranelift's structures is taken apart by name, without `..`; those that have private fields (the data flow graph,
//!   memory flags, parameters) are read by their methods.

use cranelift_codegen::entity::EntityRef;
use cranelift_codegen::entity::packed_option::ReservedValue as _;
use cranelift_codegen::ir::entities::AnyEntity;
use cranelift_codegen::ir::function::FunctionStencil;
use cranelift_codegen::ir::{
    self, AliasRegion, AliasRegionData, Block, BlockArg, BlockCall, DebugTag, DynamicStackSlotData,
    DynamicTypeData, Endianness, ExceptionTable, ExceptionTableItem, ExtFuncData, ExternalName, FuncRef,
    GlobalValue, GlobalValueData, Inst, InstructionData, LibCall, MemFlags, MemFlagsData, RelSourceLoc,
    SigRef, SourceLoc, StackSlotData, StackSlotKind, UserStackMapEntry, Value, ValueLabelAssignments,
    ValueLabelStart, ValueList,
};

use super::limits::max_values;
use super::wire::{ByteWriter, zigzag};

/// What no number was given to.
const NONE: u32 = u32::MAX;

/// A place where a function names something outside itself.
#[derive(Clone, Copy)]
pub(crate) enum ExternalRef {
    /// Something to call or to take the address of.
    Function(FuncRef),
    /// Something to take the address of.
    Global(GlobalValue),
}

/// A function that has no canonical form: it uses a value or a block that is nowhere defined, which the verifier reports, or
/// (as a whole) has more values than 64 for each byte of its form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UndefinedEntity(pub(crate) AnyEntity);

/// Numbers given in order of first use.
#[derive(Default)]
struct Renumbering {
    /// New number by old number, or [`NONE`].
    numbers: Vec<u32>,
    /// Old number by new number.
    order: Vec<u32>,
}

impl Renumbering {
    #[inline]
    fn number(&mut self, old: usize) -> u64 {
        if old >= self.numbers.len() {
            self.numbers.resize(old + 1, NONE);
        }
        if self.numbers[old] == NONE {
            self.numbers[old] = self.order.len() as u32;
            self.order.push(old as u32);
        }
        u64::from(self.numbers[old])
    }

    fn clear(&mut self) {
        for old in self.order.drain(..) {
            self.numbers[old as usize] = NONE;
        }
    }
}

/// Runs of instructions of one source location: how many instructions further it changes, and how far from the one before, plus 1; 0
/// to none. (0 in place of the first ends the list.)
#[derive(Default)]
struct LocationRuns {
    runs: ByteWriter,
    /// Number of the first instruction of the last run, and its location.
    last: (usize, RelSourceLoc),
    /// The last location that is not none.
    before: i64,
}

impl LocationRuns {
    /// The location of the instruction with this number.
    #[inline]
    fn push(&mut self, number: usize, location: RelSourceLoc) {
        if location == self.last.1 {
            return;
        }
        let further = (number - self.last.0 + 1) as u64;
        let distance = if location == RelSourceLoc::default() {
            0
        } else {
            let bits = i64::from(relative(location));
            1 + zigzag(bits - std::mem::replace(&mut self.before, bits))
        };
        self.runs.uints([further, distance]);
        self.last = (number, location);
    }
}

/// Working memory, to be used for many functions.
#[derive(Default)]
pub(crate) struct Encoder {
    head: ByteWriter,
    memory: ByteWriter,
    tables: ByteWriter,
    code: ByteWriter,
    locations: LocationRuns,
    values: Vec<u32>,
    blocks: Vec<u32>,
    /// Blocks in order.
    order: Vec<Block>,
    /// Number of the next instruction.
    at: usize,
    /// Instructions with debug tags, and those with stack maps, with their numbers.
    tagged: Vec<(usize, Inst)>,
    mapped: Vec<(usize, Inst)>,
    flags: Renumbering,
    regions: Renumbering,
    globals: Renumbering,
    signatures: Renumbering,
    functions: Renumbering,
    /// What sites name, as numbered by the caller.
    targets: Renumbering,
    /// Number of the next value that is defined.
    next: i64,
}

/// A function's canonical form.
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    /// What the function names, as numbered by the caller, in order of first use.
    pub(crate) targets: Vec<u32>,
    pub(crate) base: SourceLoc,
}

impl Encoder {
    /// Writes `function`. `name` gives a number to what a site names: the same one to the same thing. It is asked about
    /// everything that the function uses, in order of first use.
    pub(crate) fn encode<E: From<UndefinedEntity>>(
        &mut self,
        function: &ir::Function,
        mut name: impl FnMut(ExternalRef) -> Result<u32, E>,
    ) -> Result<Encoded, E> {
        self.clear();
        self.number_blocks(function);
        if self.code(function).is_err() {
            // A value may be used in a block that stands before the one that defines it. That is rare.
            self.clear();
            self.number_blocks(function);
            self.number_values(function);
            self.code(function)?;
        }
        let (signature, global_values, dfg) = (&function.signature, &function.global_values, &function.dfg);
        let mut tables = std::mem::take(&mut self.tables);

        // Used global values may use others; those come behind.
        let mut at = 0;
        while let Some(&old) = self.globals.order.get(at) {
            if let GlobalValueData::Load { base, .. } | GlobalValueData::IAddImm { base, .. } =
                &global_values[GlobalValue::from_u32(old)]
            {
                self.globals.number(base.index());
            }
            at += 1;
        }
        tables.count(at);
        for at in 0..at {
            let global = GlobalValue::from_u32(self.globals.order[at]);
            self.global(&mut tables, global, &global_values[global], &mut name)?;
        }
        tables.count(self.functions.order.len());
        for at in 0..self.functions.order.len() {
            let reference = FuncRef::from_u32(self.functions.order[at]);
            let ExtFuncData { name: target, signature, colocated, patchable } = &dfg.ext_funcs[reference];
            tables.byte(u8::from(*colocated) | u8::from(*patchable) << 1);
            tables.uint(self.signatures.number(signature.index()));
            self.target(&mut tables, target, ExternalRef::Function(reference), &mut name)?;
        }
        tables.count(self.signatures.order.len());
        for &old in &self.signatures.order {
            tables.signature(&dfg.signatures[SigRef::from_u32(old)]);
        }

        let Self { head, memory, flags, regions, .. } = self;
        head.signature(signature);
        memory.count(flags.order.len());
        for &old in &flags.order {
            mem_flags(memory, regions, dfg.mem_flags[MemFlags::from_u32(old)]);
        }
        head.count(regions.order.len());
        for &old in &regions.order {
            let AliasRegionData { user_id, description } = &dfg.alias_regions[AliasRegion::from_u32(old)];
            head.uint(u64::from(*user_id));
            head.str(description);
        }
        head.raw(&memory.0);
        head.raw(&tables.0);
        self.tables = tables;
        let head = &mut self.head;
        head.count(self.next as usize);
        head.count(self.order.len());
        let mut bytes = Vec::with_capacity(head.0.len() + self.code.0.len());
        bytes.extend_from_slice(&head.0);
        bytes.extend_from_slice(&self.code.0);
        if self.next as u64 > max_values(bytes.len()) {
            return Err(UndefinedEntity(AnyEntity::Function).into());
        }
        let targets = self.targets.order.clone();
        Ok(Encoded { bytes, targets, base: function.params.base_srcloc() })
    }

    fn clear(&mut self) {
        let Self {
            head,
            memory,
            tables,
            code,
            locations,
            values,
            blocks,
            order,
            at,
            tagged,
            mapped,
            flags,
            regions,
            globals,
            signatures,
            functions,
            targets,
            next,
        } = self;
        for writer in [head, memory, tables, code, &mut locations.runs] {
            writer.0.clear();
        }
        (locations.last, locations.before) = Default::default();
        values.clear();
        blocks.clear();
        order.clear();
        tagged.clear();
        mapped.clear();
        for dense in [flags, regions, globals, signatures, functions, targets] {
            dense.clear();
        }
        (*at, *next) = (0, 0);
    }

    /// Numbers the blocks of the layout.
    fn number_blocks(&mut self, function: &ir::Function) {
        self.values.resize(function.dfg.num_values(), NONE);
        self.blocks.resize(function.dfg.num_blocks(), NONE);
        self.order.extend(function.layout.blocks());
        for (number, block) in self.order.iter().enumerate() {
            self.blocks[block.index()] = number as u32;
        }
    }

    /// Numbers the values that blocks define, before any of them is used.
    fn number_values(&mut self, function: &ir::Function) {
        let (dfg, layout) = (&function.dfg, &function.layout);
        let mut next = 0;
        for block in &self.order {
            let results = layout.block_insts(*block).flat_map(|inst| dfg.inst_results(inst));
            for value in dfg.block_params(*block).iter().chain(results) {
                self.values[value.index()] = next;
                next += 1;
            }
        }
    }

    /// Gives numbers to values that are defined here.
    fn define(&mut self, defined: &[Value]) {
        for value in defined {
            self.values[value.index()] = self.next as u32;
            self.next += 1;
        }
    }

    /// Writes blocks and side tables, and the tables of what is declared and kept, used or not. What else is used is known then.
    fn code(&mut self, function: &ir::Function) -> Result<(), UndefinedEntity> {
        // What is not used here is used by the caller, or goes with the instructions.
        let FunctionStencil {
            version_marker: _,
            signature: _,
            sized_stack_slots,
            dynamic_stack_slots,
            global_values: _,
            dfg,
            layout: _,
            srclocs: _,
            debug_tags: _,
            stack_limit,
        } = &function.stencil;
        let Self { tables, globals, .. } = self;
        tables.count(sized_stack_slots.len());
        for StackSlotData { kind, size, align_shift, key } in sized_stack_slots.values() {
            tables.byte(stack_slot_kind(*kind));
            tables.uint(u64::from(*size));
            tables.byte(*align_shift);
            tables.bool(key.is_some());
            if let Some(key) = key {
                tables.uint(key.bits());
            }
        }
        tables.count(dfg.dynamic_types.len());
        for DynamicTypeData { base_vector_ty, dynamic_scale } in dfg.dynamic_types.values() {
            tables.ty(*base_vector_ty);
            tables.uint(globals.number(dynamic_scale.index()));
        }
        tables.count(dynamic_stack_slots.len());
        for DynamicStackSlotData { kind, dyn_ty } in dynamic_stack_slots.values() {
            tables.byte(stack_slot_kind(*kind));
            tables.uint(u64::from(dyn_ty.as_u32()));
        }
        tables.bool(stack_limit.is_some());
        if let Some(limit) = stack_limit {
            tables.uint(globals.number(limit.index()));
        }
        for number in 0..self.order.len() {
            self.block(function, self.order[number])?;
        }
        self.side_tables(function)
    }

    fn block(&mut self, function: &ir::Function, block: Block) -> Result<(), UndefinedEntity> {
        let (dfg, layout, debug_tags) = (&function.dfg, &function.layout, &function.debug_tags);
        let params = dfg.block_params(block);
        self.code.uint((params.len() as u64) << 1 | u64::from(layout.is_cold(block)));
        for param in params {
            self.code.ty(dfg.value_type(*param));
        }
        self.define(params);
        // `block_insts` and `inst_results` are calls into another crate that take longer.
        let mut next = layout.first_inst(block);
        while let Some(inst) = next {
            next = layout.next_inst(inst);
            self.locations.push(self.at, function.srclocs[inst]);
            if !debug_tags.is_empty() && !debug_tags.get(inst).is_empty() {
                self.tagged.push((self.at, inst));
            }
            let results = dfg.inst_results_list(inst);
            let results = results.as_slice(&dfg.value_lists);
            self.inst(dfg, inst, results.first().copied())?;
            self.define(results);
            self.at += 1;
        }
        // No instruction has number 0.
        self.code.byte(0);
        Ok(())
    }

    fn inst(
        &mut self,
        dfg: &ir::DataFlowGraph,
        inst: Inst,
        first: Option<Value>,
    ) -> Result<(), UndefinedEntity> {
        let data = &dfg.insts[inst];
        let opcode = data.opcode();
        let constraints = opcode.constraints();
        if constraints.is_polymorphic() {
            // What `ctrl_typevar` gives.
            let first = first.unwrap_or(Value::reserved_value());
            let value = match constraints.requires_typevar_operand() {
                true => data.typevar_operand(&dfg.value_lists).unwrap_or(first),
                false => first,
            };
            self.code.byte_and_type(opcode as u8, dfg.value_type(value));
        } else {
            self.code.byte(opcode as u8);
        }
        // Only these may have one.
        if opcode.is_safepoint() && dfg.user_stack_map_entries(inst).is_some_and(|map| !map.is_empty()) {
            self.mapped.push((self.at, inst));
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
                self.code.bytes(dfg.immediates[imm].as_slice());
                self.values(dfg, &args)?;
            }
            InstructionData::UnaryGlobalValue { opcode: _, global_value } => {
                self.code.uint(self.globals.number(global_value.index()));
            }
            InstructionData::IntCompare { opcode: _, args: [a, b], cond } => {
                // A condition is smaller than 128, and so is itself as an integer.
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
                let flags = self.flags.number(flags.index());
                let offset = zigzag(i64::from(i32::from(offset)));
                let arg = self.distance(dfg, arg)?;
                self.code.uints([flags, offset, arg]);
            }
            InstructionData::Store { opcode: _, args: [value, address], flags, offset } => {
                let flags = self.flags.number(flags.index());
                let offset = zigzag(i64::from(i32::from(offset)));
                let (value, address) = (self.distance(dfg, value)?, self.distance(dfg, address)?);
                self.code.uints([flags, offset, value, address]);
            }
            InstructionData::LoadNoOffset { opcode: _, arg, flags } => {
                self.code.uint(self.flags.number(flags.index()));
                self.value(dfg, arg)?;
            }
            InstructionData::StoreNoOffset { opcode: _, args, flags } => {
                self.code.uint(self.flags.number(flags.index()));
                self.values(dfg, &args)?;
            }
            InstructionData::AtomicCas { opcode: _, args, flags } => {
                self.code.uint(self.flags.number(flags.index()));
                self.values(dfg, &args)?;
            }
            InstructionData::AtomicRmw { opcode: _, args, flags, op } => {
                self.code.uint(self.flags.number(flags.index()));
                self.code.listed(ir::AtomicRmwOp::all(), &op);
                self.values(dfg, &args)?;
            }
            InstructionData::StackAddr { opcode: _, stack_slot, offset } => {
                self.code.uint(u64::from(stack_slot.as_u32()));
                self.code.int(i64::from(i32::from(offset)));
            }
            InstructionData::DynamicStackAddr { opcode: _, dynamic_stack_slot } => {
                self.code.uint(u64::from(dynamic_stack_slot.as_u32()));
            }
            InstructionData::FuncAddr { opcode: _, func_ref } => {
                self.code.uint(self.functions.number(func_ref.index()));
            }
            InstructionData::Call { opcode: _, args, func_ref } => {
                self.code.uint(self.functions.number(func_ref.index()));
                self.list(dfg, args)?;
            }
            InstructionData::CallIndirect { opcode: _, args, sig_ref } => {
                self.code.uint(self.signatures.number(sig_ref.index()));
                self.list(dfg, args)?;
            }
            InstructionData::TryCall { opcode: _, args, func_ref, exception } => {
                self.code.uint(self.functions.number(func_ref.index()));
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
                let branches = dfg.jump_tables[table].all_branches();
                self.code.count(branches.len());
                for call in branches {
                    self.block_call(dfg, *call)?;
                }
            }
        }
        Ok(())
    }

    /// The new number of a value; an alias has that of what it stands for.
    #[inline]
    fn new_value(&mut self, dfg: &ir::DataFlowGraph, value: Value) -> Result<u32, UndefinedEntity> {
        match self.values.get(value.index()) {
            Some(&number) if number != NONE => Ok(number),
            _ => self.alias(dfg, value),
        }
    }

    #[cold]
    #[inline(never)]
    fn alias(&mut self, dfg: &ir::DataFlowGraph, value: Value) -> Result<u32, UndefinedEntity> {
        // A value that does not exist stands for nothing.
        if value.index() >= self.values.len() {
            return Err(UndefinedEntity(value.into()));
        }
        let mut original = value;
        for _ in 0..dfg.num_values() {
            let Some(next) = dfg.value_alias_dest_for_serialization(original) else { break };
            original = next;
            match self.values.get(original.index()) {
                None => break,
                Some(&NONE) => {}
                Some(&number) => {
                    // Every alias on the way is known then, so that chains are gone through once.
                    let mut alias = value;
                    while alias != original {
                        self.values[alias.index()] = number;
                        alias = dfg.value_alias_dest_for_serialization(alias).unwrap_or(original);
                    }
                    return Ok(number);
                }
            }
        }
        Err(UndefinedEntity(value.into()))
    }

    /// How far back a value was defined.
    #[inline]
    fn distance(&mut self, dfg: &ir::DataFlowGraph, value: Value) -> Result<u64, UndefinedEntity> {
        let number = self.new_value(dfg, value)?;
        Ok(zigzag(self.next - i64::from(number)))
    }

    #[inline]
    fn value(&mut self, dfg: &ir::DataFlowGraph, value: Value) -> Result<(), UndefinedEntity> {
        let distance = self.distance(dfg, value)?;
        self.code.uints([distance]);
        Ok(())
    }

    #[inline]
    fn values(&mut self, dfg: &ir::DataFlowGraph, values: &[Value]) -> Result<(), UndefinedEntity> {
        values.iter().try_for_each(|value| self.value(dfg, *value))
    }

    fn list(&mut self, dfg: &ir::DataFlowGraph, list: ValueList) -> Result<(), UndefinedEntity> {
        let values = list.as_slice(&dfg.value_lists);
        self.code.count(values.len());
        self.values(dfg, values)
    }

    /// The new number of a block.
    #[inline]
    fn block_number(&self, block: Block) -> Result<u64, UndefinedEntity> {
        match self.blocks.get(block.index()) {
            None | Some(&NONE) => Err(UndefinedEntity(block.into())),
            Some(&number) => Ok(u64::from(number)),
        }
    }

    fn block_call(&mut self, dfg: &ir::DataFlowGraph, call: BlockCall) -> Result<(), UndefinedEntity> {
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

    fn handlers(&mut self, dfg: &ir::DataFlowGraph, table: ExceptionTable) -> Result<(), UndefinedEntity> {
        let table = &dfg.exception_tables[table];
        self.code.uint(self.signatures.number(table.signature().index()));
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

    /// What few functions have: source locations, debug tags, stack maps, labels of values.
    fn side_tables(&mut self, function: &ir::Function) -> Result<(), UndefinedEntity> {
        let dfg = &function.dfg;
        self.code.raw(&self.locations.runs.0);
        self.code.byte(0);

        self.code.count(self.tagged.len());
        for &(number, inst) in &self.tagged {
            let tags = function.debug_tags.get(inst);
            self.code.count(number);
            self.code.count(tags.len());
            for tag in tags {
                let (kind, number) = match tag {
                    DebugTag::User(number) => (0, *number),
                    DebugTag::StackSlot(slot) => (1, slot.as_u32()),
                };
                self.code.uint(u64::from(number) << 1 | kind);
            }
        }

        self.code.count(self.mapped.len());
        for &(number, inst) in &self.mapped {
            let entries = dfg.user_stack_map_entries(inst).unwrap_or_default();
            self.code.count(number);
            self.code.count(entries.len());
            for UserStackMapEntry { ty, slot, offset } in entries {
                self.code.ty(*ty);
                self.code.uint(u64::from(slot.as_u32()));
                self.code.uint(u64::from(*offset));
            }
        }
        self.labels(dfg)
    }

    /// Labels of values for debug information, by ascending number of the value; of values that were dropped nothing stays.
    fn labels(&mut self, dfg: &ir::DataFlowGraph) -> Result<(), UndefinedEntity> {
        self.code.bool(dfg.values_labels.is_some());
        let Some(labels) = &dfg.values_labels else { return Ok(()) };
        let mut kept = Vec::with_capacity(labels.len());
        for (value, assignment) in labels {
            if let Ok(number) = self.new_value(dfg, *value) {
                kept.push((number, assignment));
            }
        }
        // Several aliases of one value keep the order of their numbers; the last one counts, as it does in a map.
        kept.sort_by_key(|(number, _)| *number);
        kept.reverse();
        kept.dedup_by_key(|(number, _)| *number);
        kept.reverse();
        self.code.count(kept.len());
        for (number, assignment) in kept {
            self.code.uint(u64::from(number));
            match assignment {
                ValueLabelAssignments::Starts(starts) => {
                    self.code.byte(0);
                    self.code.count(starts.len());
                    for ValueLabelStart { from, label } in starts {
                        self.code.uint(u64::from(relative(*from)));
                        self.code.uint(u64::from(label.as_u32()));
                    }
                }
                ValueLabelAssignments::Alias { from, value } => {
                    let number = self.new_value(dfg, *value)?;
                    self.code.byte(1);
                    self.code.uint(u64::from(relative(*from)));
                    self.code.uint(u64::from(number));
                }
            }
        }
        Ok(())
    }

    fn global<E: From<UndefinedEntity>>(
        &mut self,
        tables: &mut ByteWriter,
        at: GlobalValue,
        data: &GlobalValueData,
        name: &mut impl FnMut(ExternalRef) -> Result<u32, E>,
    ) -> Result<(), E> {
        match data {
            GlobalValueData::VMContext => tables.byte(0),
            GlobalValueData::Load { base, offset, global_type, flags } => {
                tables.byte(1);
                tables.uint(self.globals.number(base.index()));
                tables.int(i64::from(i32::from(*offset)));
                tables.ty(*global_type);
                tables.uint(self.flags.number(flags.index()));
            }
            GlobalValueData::IAddImm { base, offset, global_type } => {
                tables.byte(2);
                tables.uint(self.globals.number(base.index()));
                tables.int(offset.bits());
                tables.ty(*global_type);
            }
            GlobalValueData::Symbol { name: target, offset, colocated, tls } => {
                tables.byte(3);
                tables.byte(u8::from(*colocated) | u8::from(*tls) << 1);
                tables.int(offset.bits());
                self.target(tables, target, ExternalRef::Global(at), name)?;
            }
            GlobalValueData::DynScaleTargetConst { vector_type } => {
                tables.byte(4);
                tables.ty(*vector_type);
            }
        }
        Ok(())
    }

    /// What a declaration names: 0 and a library call, or one more than its position among the targets.
    fn target<E>(
        &mut self,
        tables: &mut ByteWriter,
        target: &ExternalName,
        site: ExternalRef,
        name: &mut impl FnMut(ExternalRef) -> Result<u32, E>,
    ) -> Result<(), E> {
        if let ExternalName::LibCall(call) = target {
            tables.byte(0);
            tables.listed(LibCall::all_libcalls(), call);
        } else {
            tables.uint(1 + self.targets.number(name(site)? as usize));
        }
        Ok(())
    }
}

/// A relative location as a number. Relative to 0 it is itself.
#[inline]
fn relative(location: RelSourceLoc) -> u32 {
    location.expand(SourceLoc::new(0)).bits()
}

fn stack_slot_kind(kind: StackSlotKind) -> u8 {
    match kind {
        StackSlotKind::ExplicitSlot => 0,
        StackSlotKind::ExplicitDynamicSlot => 1,
    }
}

fn mem_flags(out: &mut ByteWriter, regions: &mut Renumbering, flags: MemFlagsData) {
    let order = match flags.explicit_endianness() {
        None => 0,
        Some(Endianness::Little) => 1,
        Some(Endianness::Big) => 2,
    };
    let bits = u8::from(flags.aligned()) | u8::from(flags.readonly()) << 1 | u8::from(flags.can_move()) << 2;
    out.byte(bits | order << 3);
    out.trap(flags.trap_code());
    out.uint(flags.alias_region().map_or(0, |region| 1 + regions.number(region.index())));
}
