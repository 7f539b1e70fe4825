//! From the canonical form back to a function that Cranelift compiles.
//!
//! Invariants:
//! - Any bytes end in a function or in an error, in time and memory proportional to their length. Counts are bounded by the bytes
//!   that are left, and every number is checked against the table it goes into, where that table is known, or at the end.
//! - A function that comes out is well-formed in that all its entities exist. Whether it is *valid* IR is the verifier's
//!   business.
//! - Values are created in the order of their numbers, for the form numbers them as the layout defines them. So a use may
//!   stand before its definition.

use cranelift_codegen::entity::EntityRef;
use cranelift_codegen::ir::immediates::{Ieee16, Ieee32, Ieee64, Imm64, Offset32};
use cranelift_codegen::ir::instructions::InstructionFormat;
use cranelift_codegen::ir::{
    self, AliasRegion, AliasRegionData, Block, BlockArg, BlockCall, Constant, ConstantData, DebugTag,
    DynamicStackSlot, DynamicStackSlotData, DynamicType, DynamicTypeData, Endianness, ExceptionTable,
    ExceptionTableData, ExceptionTableItem, ExtFuncData, ExternalName, FuncRef, GlobalValue, GlobalValueData,
    Immediate, Inst, InstructionData, JumpTable, JumpTableData, LibCall, MemFlags, MemFlagsData, Opcode,
    RelSourceLoc, SigRef, SourceLoc, StackSlot, StackSlotData, StackSlotKey, StackSlotKind, UserExternalName,
    UserFuncName, UserStackMapEntry, Value, ValueLabel, ValueLabelAssignments, ValueLabelStart, ValueList,
    ValueListPool, types,
};

use super::wire::{DecodeError, Reader};
use crate::symbol::SymbolId;

type Read<T> = Result<T, DecodeError>;

/// Numbers from here on would not fit where Cranelift packs them with other bits.
const MAX_VALUES: u64 = 1 << 30;

/// How many values a function of so many bytes may have. One call can have 65,535 results, so that a few bytes would
/// otherwise ask for much memory.
pub(super) fn max_values(bytes: usize) -> u64 {
    (bytes as u64).saturating_mul(64).min(MAX_VALUES - 1)
}

/// What a function is decoded from.
pub(crate) struct Parts<'b> {
    pub(crate) bytes: Reader<'b>,
    /// What the function names, in order.
    pub(crate) references: &'b [SymbolId],
    pub(crate) base: SourceLoc,
}

/// Working memory of checking, to be used for many functions.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Number of the signature of each function that may be called.
    functions: Vec<u32>,
    /// Number of results of each signature.
    results: Vec<u32>,
    /// Whether each instruction may have a stack map.
    safepoints: Vec<bool>,
}

/// How many there are of what code refers to.
#[derive(Default)]
struct Counts {
    references: usize,
    regions: usize,
    flags: usize,
    slots: usize,
    dynamic_types: usize,
    dynamic_slots: usize,
    globals: usize,
    functions: usize,
    signatures: usize,
}

/// With `BUILD`, makes a function. Without, it only looks whether it could, and leaves `function` alone.
struct Decoder<'b, 'f, const BUILD: bool> {
    reader: Reader<'b>,
    function: &'f mut ir::Function,
    counts: Counts,
    /// Name of what is at this position of the references; only with `BUILD`, as the next two.
    names: Vec<ExternalName>,
    flags: Vec<MemFlags>,
    regions: Vec<AliasRegion>,
    /// Only without `BUILD`.
    scratch: Scratch,
    /// Number of the next value that is defined.
    next: i64,
    values: u64,
    blocks: usize,
    insts: usize,
    /// A list of values that is being read.
    list: Vec<Value>,
    /// Stands for every call of a block, without `BUILD`.
    nowhere: BlockCall,
}

/// Makes `function` the function that `parts` describe, under the name `symbol`.
pub(crate) fn decode(parts: Parts<'_>, symbol: SymbolId, function: &mut ir::Function) -> Read<()> {
    function.clear();
    // `clear` leaves these behind.
    function.dfg.exception_tables.clear();
    function.name = UserFuncName::user(0, symbol.as_u32());
    if !parts.base.is_default() {
        function.params.ensure_base_srcloc(parts.base);
    }
    let names = parts.references.iter().map(|symbol| {
        let name = UserExternalName::new(0, symbol.as_u32());
        ExternalName::user(function.params.ensure_user_func_name(name))
    });
    let names = names.collect();
    Decoder::<true>::new(parts, names, Scratch::default(), function).run()
}

/// Whether [`decode`] would succeed.
pub(crate) fn check(parts: Parts<'_>, scratch: &mut Scratch) -> Read<()> {
    let mut nothing = ir::Function::new();
    let mut decoder = Decoder::<false>::new(parts, Vec::new(), std::mem::take(scratch), &mut nothing);
    let result = decoder.run();
    *scratch = decoder.scratch;
    let Scratch { functions, results, safepoints } = scratch;
    functions.clear();
    results.clear();
    safepoints.clear();
    result
}

impl<'b, 'f, const BUILD: bool> Decoder<'b, 'f, BUILD> {
    fn new(
        parts: Parts<'b>,
        names: Vec<ExternalName>,
        scratch: Scratch,
        function: &'f mut ir::Function,
    ) -> Self {
        Self {
            reader: parts.bytes,
            function,
            counts: Counts { references: parts.references.len(), ..Counts::default() },
            names,
            flags: Vec::new(),
            regions: Vec::new(),
            scratch,
            next: 0,
            values: 0,
            blocks: 0,
            insts: 0,
            list: Vec::new(),
            nowhere: BlockCall::new(Block::from_u32(0), std::iter::empty(), &mut ValueListPool::new()),
        }
    }

    fn run(&mut self) -> Read<()> {
        self.tables()?;
        self.code()?;
        self.side_tables()?;
        self.reader.end()
    }

    fn tables(&mut self) -> Read<()> {
        if BUILD {
            self.function.signature = self.reader.signature()?;
        } else {
            self.reader.skip_signature()?;
        }
        self.counts.regions = self.reader.count()?;
        for _ in 0..self.counts.regions {
            let user_id = self.reader.u32()?;
            let description = self.reader.str()?;
            if BUILD {
                let data = AliasRegionData { user_id, description: description.to_owned().into() };
                self.regions.push(self.function.dfg.alias_regions.insert(data));
            }
        }
        self.counts.flags = self.reader.count()?;
        for _ in 0..self.counts.flags {
            let flags = self.mem_flags_data()?;
            if BUILD {
                let flags = self.function.dfg.mem_flags.insert(flags);
                self.flags.push(flags.map_err(|_| self.reader.malformed("too many memory flags"))?);
            }
        }
        self.counts.slots = self.reader.count()?;
        for _ in 0..self.counts.slots {
            let kind = self.stack_slot_kind()?;
            let size = self.reader.u32()?;
            let align_shift = self.reader.byte()?;
            if align_shift >= 32 {
                return Err(self.reader.malformed("not an alignment"));
            }
            let key = if self.reader.bool()? { Some(StackSlotKey::new(self.reader.uint()?)) } else { None };
            if BUILD {
                self.function.sized_stack_slots.push(StackSlotData { kind, size, align_shift, key });
            }
        }
        // Global values that come later are named here.
        let mut global = None;
        let types = self.reader.count()?;
        for _ in 0..types {
            let base_vector_ty = self.reader.ty()?;
            if !base_vector_ty.is_vector() || base_vector_ty.vector_to_dynamic().is_none() {
                return Err(self.reader.malformed("a dynamic type of no vector"));
            }
            let dynamic_scale = GlobalValue::from_u32(self.number()?);
            global = global.max(Some(dynamic_scale));
            if BUILD {
                self.function.dfg.dynamic_types.push(DynamicTypeData { base_vector_ty, dynamic_scale });
            }
        }
        self.counts.dynamic_types = types;
        self.counts.dynamic_slots = self.reader.count()?;
        for _ in 0..self.counts.dynamic_slots {
            let kind = self.stack_slot_kind()?;
            if kind != StackSlotKind::ExplicitDynamicSlot {
                return Err(self.reader.malformed("a dynamic stack slot of a fixed kind"));
            }
            let dyn_ty = DynamicType::new(self.reader.index(types, "no such dynamic type")?);
            if BUILD {
                self.function.dynamic_stack_slots.push(DynamicStackSlotData { kind, dyn_ty });
            }
        }
        if self.reader.bool()? {
            let limit = GlobalValue::from_u32(self.number()?);
            global = global.max(Some(limit));
            if BUILD {
                self.function.stack_limit = Some(limit);
            }
        }
        let globals = self.reader.count()?;
        for _ in 0..globals {
            let data = self.global(globals)?;
            if BUILD {
                self.function.global_values.push(data);
            }
        }
        self.counts.globals = globals;
        if global.is_some_and(|global| global.index() >= globals) {
            return Err(self.reader.malformed("no such global value"));
        }
        let mut largest = None;
        self.counts.functions = self.reader.count()?;
        for _ in 0..self.counts.functions {
            let bits = self.bits(2)?;
            let number = self.number()?;
            let name = self.target()?;
            largest = largest.max(Some(number));
            if BUILD {
                let signature = SigRef::from_u32(number);
                let (colocated, patchable) = (bits & 1 != 0, bits & 2 != 0);
                self.function.dfg.ext_funcs.push(ExtFuncData { name, signature, colocated, patchable });
            } else {
                self.scratch.functions.push(number);
            }
        }
        self.counts.signatures = self.reader.count()?;
        for _ in 0..self.counts.signatures {
            if BUILD {
                let signature = self.reader.signature()?;
                self.function.dfg.signatures.push(signature);
            } else {
                // At most 65,535.
                self.scratch.results.push(self.reader.skip_signature()? as u32);
            }
        }
        if largest.is_some_and(|number| number as usize >= self.counts.signatures) {
            return Err(self.reader.malformed("no such signature"));
        }
        Ok(())
    }

    /// The number of an entity; the largest is reserved.
    fn number(&mut self) -> Read<u32> {
        match self.reader.u32()? {
            u32::MAX => Err(self.reader.malformed("not a number of an entity")),
            number => Ok(number),
        }
    }

    /// A byte of which only the lowest `count` bits may be set.
    fn bits(&mut self, count: u32) -> Read<u8> {
        let bits = self.reader.byte()?;
        if u32::from(bits) >> count == 0 { Ok(bits) } else { Err(self.reader.malformed("unknown flags")) }
    }

    fn stack_slot_kind(&mut self) -> Read<StackSlotKind> {
        match self.reader.byte()? {
            0 => Ok(StackSlotKind::ExplicitSlot),
            1 => Ok(StackSlotKind::ExplicitDynamicSlot),
            _ => Err(self.reader.malformed("not a kind of stack slot")),
        }
    }

    fn mem_flags_data(&mut self) -> Read<MemFlagsData> {
        let bits = self.bits(5)?;
        let mut flags = MemFlagsData::new().with_trap_code(self.reader.trap()?);
        if bits & 1 != 0 {
            flags.set_aligned();
        }
        if bits & 2 != 0 {
            flags.set_readonly();
        }
        if bits & 4 != 0 {
            flags.set_can_move();
        }
        match bits >> 3 {
            0 => {}
            1 => flags.set_endianness(Endianness::Little),
            2 => flags.set_endianness(Endianness::Big),
            _ => return Err(self.reader.malformed("two byte orders")),
        }
        let region = self.reader.index(self.counts.regions + 1, "no such alias region")?;
        Ok(match region.checked_sub(1) {
            Some(index) if BUILD => flags.with_alias_region(Some(self.regions[index])),
            _ => flags.with_alias_region(None),
        })
    }

    fn global(&mut self, globals: usize) -> Read<GlobalValueData> {
        let no_global = "no such global value";
        Ok(match self.reader.byte()? {
            0 => GlobalValueData::VMContext,
            1 => GlobalValueData::Load {
                base: GlobalValue::new(self.reader.index(globals, no_global)?),
                offset: Offset32::new(self.reader.i32()?),
                global_type: self.reader.ty()?,
                flags: self.flags()?,
            },
            2 => GlobalValueData::IAddImm {
                base: GlobalValue::new(self.reader.index(globals, no_global)?),
                offset: Imm64::new(self.reader.int()?),
                global_type: self.reader.ty()?,
            },
            3 => {
                let bits = self.bits(2)?;
                let offset = Imm64::new(self.reader.int()?);
                let name = self.target()?;
                GlobalValueData::Symbol { name, offset, colocated: bits & 1 != 0, tls: bits & 2 != 0 }
            }
            4 => GlobalValueData::DynScaleTargetConst { vector_type: self.reader.ty()? },
            _ => return Err(self.reader.malformed("not a global value")),
        })
    }

    fn target(&mut self) -> Read<ExternalName> {
        match self.reader.index(self.counts.references + 1, "no such reference")?.checked_sub(1) {
            Some(index) if BUILD => Ok(self.names[index].clone()),
            Some(_) => Ok(ExternalName::LibCall(LibCall::Probestack)),
            None => self.reader.libcall().map(ExternalName::LibCall),
        }
    }

    fn code(&mut self) -> Read<()> {
        self.values = self.reader.uint()?;
        if self.values > max_values(self.reader.len()) {
            return Err(self.reader.malformed("too many values"));
        }
        self.blocks = self.reader.count()?;
        if BUILD {
            for _ in 0..self.blocks {
                self.function.dfg.make_block();
            }
        }
        for block in (0..self.blocks).map(Block::new) {
            let params = self.reader.uint()?;
            if BUILD {
                self.function.layout.append_block(block);
                if params & 1 != 0 {
                    self.function.layout.set_cold(block);
                }
            }
            if params >> 1 > u64::from(u16::MAX) {
                return Err(self.reader.malformed("more than 65,535 parameters"));
            }
            for _ in 0..params >> 1 {
                let ty = self.reader.ty()?;
                if BUILD {
                    self.function.dfg.append_block_param(block, ty);
                }
            }
            self.next += (params >> 1) as i64;
            while self.reader.peek() != Some(0) {
                self.inst(block)?;
            }
            self.reader.byte()?;
        }
        if self.next as u64 == self.values {
            Ok(())
        } else {
            Err(self.reader.malformed("another number of values than announced"))
        }
    }

    fn inst(&mut self, block: Block) -> Read<()> {
        let opcode = self.reader.opcode()?;
        let constraints = opcode.constraints();
        let ctrl_typevar = match constraints.is_polymorphic() {
            false => types::INVALID,
            true => self.reader.controlling(opcode)?,
        };
        // Code that takes an instruction apart relies on its fixed arguments.
        let data = self.operands(opcode, constraints.num_fixed_value_arguments())?;
        let results = if BUILD {
            let ir::function::FunctionStencil { dfg, layout, .. } = &mut self.function.stencil;
            let inst = dfg.make_inst(data);
            layout.append_inst(inst, block);
            dfg.make_inst_results(inst, ctrl_typevar)
        } else {
            self.scratch.safepoints.push(opcode.is_safepoint());
            let Scratch { functions, results, safepoints: _ } = &self.scratch;
            match data {
                InstructionData::Call { opcode: Opcode::Call, func_ref, .. } => {
                    results[functions[func_ref.index()] as usize] as usize
                }
                InstructionData::CallIndirect { opcode: Opcode::CallIndirect, sig_ref, .. } => {
                    results[sig_ref.index()] as usize
                }
                _ => constraints.num_fixed_results(),
            }
        };
        self.insts += 1;
        self.next += results as i64;
        if self.next as u64 > self.values {
            return Err(self.reader.malformed("more values than announced"));
        }
        Ok(())
    }

    /// The rest of an instruction; a list of arguments must have `fixed` of them.
    #[inline]
    fn operands(&mut self, opcode: Opcode, fixed: usize) -> Read<InstructionData> {
        Ok(match opcode.format() {
            InstructionFormat::NullAry => InstructionData::NullAry { opcode },
            InstructionFormat::Unary => InstructionData::Unary { opcode, arg: self.value()? },
            InstructionFormat::Binary => InstructionData::Binary { opcode, args: self.values()? },
            InstructionFormat::Ternary => InstructionData::Ternary { opcode, args: self.values()? },
            InstructionFormat::MultiAry => InstructionData::MultiAry { opcode, args: self.list(fixed)? },
            InstructionFormat::BinaryImm8 => {
                InstructionData::BinaryImm8 { opcode, imm: self.reader.byte()?, arg: self.value()? }
            }
            InstructionFormat::TernaryImm8 => {
                InstructionData::TernaryImm8 { opcode, imm: self.reader.byte()?, args: self.values()? }
            }
            InstructionFormat::UnaryImm => {
                InstructionData::UnaryImm { opcode, imm: Imm64::new(self.reader.int()?) }
            }
            InstructionFormat::UnaryIeee16 => {
                let bits = u16::from_le_bytes(self.reader.array()?);
                InstructionData::UnaryIeee16 { opcode, imm: Ieee16::with_bits(bits) }
            }
            InstructionFormat::UnaryIeee32 => {
                let bits = u32::from_le_bytes(self.reader.array()?);
                InstructionData::UnaryIeee32 { opcode, imm: Ieee32::with_bits(bits) }
            }
            InstructionFormat::UnaryIeee64 => {
                let bits = u64::from_le_bytes(self.reader.array()?);
                InstructionData::UnaryIeee64 { opcode, imm: Ieee64::with_bits(bits) }
            }
            InstructionFormat::UnaryConst => {
                let bytes = self.reader.bytes()?;
                let constant_handle = match BUILD {
                    true => self.function.dfg.constants.insert(ConstantData::from(bytes)),
                    false => Constant::from_u32(0),
                };
                InstructionData::UnaryConst { opcode, constant_handle }
            }
            InstructionFormat::Shuffle => {
                let bytes = self.reader.bytes()?;
                let imm = match BUILD {
                    true => self.function.dfg.immediates.push(ConstantData::from(bytes)),
                    false => Immediate::from_u32(0),
                };
                InstructionData::Shuffle { opcode, args: self.values()?, imm }
            }
            InstructionFormat::UnaryGlobalValue => {
                let count = self.counts.globals;
                let global_value = GlobalValue::new(self.reader.index(count, "no such global value")?);
                InstructionData::UnaryGlobalValue { opcode, global_value }
            }
            InstructionFormat::IntCompare => {
                InstructionData::IntCompare { opcode, cond: self.reader.int_cc()?, args: self.values()? }
            }
            InstructionFormat::FloatCompare => {
                InstructionData::FloatCompare { opcode, cond: self.reader.float_cc()?, args: self.values()? }
            }
            InstructionFormat::IntAddTrap => {
                InstructionData::IntAddTrap { opcode, code: self.reader.some_trap()?, args: self.values()? }
            }
            InstructionFormat::Trap => InstructionData::Trap { opcode, code: self.reader.some_trap()? },
            InstructionFormat::CondTrap => {
                InstructionData::CondTrap { opcode, code: self.reader.some_trap()?, arg: self.value()? }
            }
            InstructionFormat::Load => InstructionData::Load {
                opcode,
                flags: self.flags()?,
                offset: Offset32::new(self.reader.i32()?),
                arg: self.value()?,
            },
            InstructionFormat::Store => InstructionData::Store {
                opcode,
                flags: self.flags()?,
                offset: Offset32::new(self.reader.i32()?),
                args: self.values()?,
            },
            InstructionFormat::LoadNoOffset => {
                InstructionData::LoadNoOffset { opcode, flags: self.flags()?, arg: self.value()? }
            }
            InstructionFormat::StoreNoOffset => {
                InstructionData::StoreNoOffset { opcode, flags: self.flags()?, args: self.values()? }
            }
            InstructionFormat::AtomicCas => {
                InstructionData::AtomicCas { opcode, flags: self.flags()?, args: self.values()? }
            }
            InstructionFormat::AtomicRmw => InstructionData::AtomicRmw {
                opcode,
                flags: self.flags()?,
                op: self.reader.rmw()?,
                args: self.values()?,
            },
            InstructionFormat::StackAddr => {
                let count = self.counts.slots;
                let stack_slot = StackSlot::new(self.reader.index(count, "no such stack slot")?);
                InstructionData::StackAddr { opcode, stack_slot, offset: Offset32::new(self.reader.i32()?) }
            }
            InstructionFormat::DynamicStackAddr => {
                let count = self.counts.dynamic_slots;
                let dynamic_stack_slot =
                    DynamicStackSlot::new(self.reader.index(count, "no such dynamic stack slot")?);
                InstructionData::DynamicStackAddr { opcode, dynamic_stack_slot }
            }
            InstructionFormat::FuncAddr => InstructionData::FuncAddr { opcode, func_ref: self.func_ref()? },
            InstructionFormat::Call => {
                InstructionData::Call { opcode, func_ref: self.func_ref()?, args: self.list(fixed)? }
            }
            InstructionFormat::CallIndirect => {
                InstructionData::CallIndirect { opcode, sig_ref: self.sig_ref()?, args: self.list(fixed)? }
            }
            InstructionFormat::TryCall => InstructionData::TryCall {
                opcode,
                func_ref: self.func_ref()?,
                args: self.list(fixed)?,
                exception: self.handlers()?,
            },
            InstructionFormat::TryCallIndirect => InstructionData::TryCallIndirect {
                opcode,
                args: self.list(fixed)?,
                exception: self.handlers()?,
            },
            InstructionFormat::ExceptionHandlerAddress => InstructionData::ExceptionHandlerAddress {
                opcode,
                block: self.block()?,
                imm: Imm64::new(self.reader.int()?),
            },
            InstructionFormat::Jump => InstructionData::Jump { opcode, destination: self.block_call()? },
            InstructionFormat::Brif => InstructionData::Brif {
                opcode,
                arg: self.value()?,
                blocks: [self.block_call()?, self.block_call()?],
            },
            InstructionFormat::BranchTable => {
                let arg = self.value()?;
                let count = self.reader.count()?;
                if count == 0 {
                    return Err(self.reader.malformed("a jump table without default"));
                }
                let default = self.block_call()?;
                let mut rest = Vec::with_capacity(if BUILD { count - 1 } else { 0 });
                for _ in 1..count {
                    let call = self.block_call()?;
                    if BUILD {
                        rest.push(call);
                    }
                }
                let table = match BUILD {
                    true => self.function.create_jump_table(JumpTableData::new(default, &rest)),
                    false => JumpTable::from_u32(0),
                };
                InstructionData::BranchTable { opcode, arg, table }
            }
        })
    }

    #[inline]
    fn value(&mut self) -> Read<Value> {
        let back = self.reader.int()?;
        self.value_at(back)
    }

    #[inline]
    fn value_at(&self, back: i64) -> Read<Value> {
        match self.next.checked_sub(back).map(u64::try_from) {
            Some(Ok(number)) if number < self.values => Ok(Value::from_u32(number as u32)),
            _ => Err(self.reader.malformed("no such value")),
        }
    }

    fn values<const N: usize>(&mut self) -> Read<[Value; N]> {
        let mut values = [Value::from_u32(0); N];
        for value in &mut values {
            *value = self.value()?;
        }
        Ok(values)
    }

    fn list(&mut self, fixed: usize) -> Read<ValueList> {
        let count = self.reader.count()?;
        if count < fixed {
            return Err(self.reader.malformed("too few arguments"));
        }
        if !BUILD {
            for _ in 0..count {
                self.value()?;
            }
            return Ok(ValueList::new());
        }
        let mut values = std::mem::take(&mut self.list);
        values.clear();
        for _ in 0..count {
            values.push(self.value()?);
        }
        let list = ValueList::from_slice(&values, &mut self.function.dfg.value_lists);
        self.list = values;
        Ok(list)
    }

    #[inline]
    fn flags(&mut self) -> Read<MemFlags> {
        let index = self.reader.index(self.counts.flags, "no such memory flags")?;
        Ok(if BUILD { self.flags[index] } else { MemFlags::from_u32(0) })
    }

    #[inline]
    fn func_ref(&mut self) -> Read<FuncRef> {
        self.reader.index(self.counts.functions, "no such function").map(FuncRef::new)
    }

    #[inline]
    fn sig_ref(&mut self) -> Read<SigRef> {
        self.reader.index(self.counts.signatures, "no such signature").map(SigRef::new)
    }

    #[inline]
    fn block(&mut self) -> Read<Block> {
        self.reader.index(self.blocks, "no such block").map(Block::new)
    }

    fn block_call(&mut self) -> Read<BlockCall> {
        let block = self.block()?;
        let count = self.reader.count()?;
        let mut call = match BUILD {
            true => BlockCall::new(block, std::iter::empty(), &mut self.function.dfg.value_lists),
            false => self.nowhere,
        };
        for _ in 0..count {
            let code = self.reader.uint()?;
            let index = || {
                u32::try_from(code >> 2)
                    .ok()
                    .filter(|index| u64::from(*index) < MAX_VALUES)
                    .ok_or_else(|| self.reader.malformed("an index of more than 30 bits"))
            };
            let argument = match code & 3 {
                0 => BlockArg::Value(self.value_at(super::wire::unzigzag(code >> 2))?),
                1 => BlockArg::TryCallRet(index()?),
                2 => BlockArg::TryCallExn(index()?),
                _ => return Err(self.reader.malformed("not an argument of a block")),
            };
            if BUILD {
                call.append_argument(argument, &mut self.function.dfg.value_lists);
            }
        }
        Ok(call)
    }

    fn handlers(&mut self) -> Read<ExceptionTable> {
        let signature = self.sig_ref()?;
        let normal = self.block_call()?;
        let count = self.reader.count()?;
        let mut items = Vec::with_capacity(if BUILD { count } else { 0 });
        for _ in 0..count {
            let item = match self.reader.byte()? {
                0 => {
                    let tag = ir::ExceptionTag::with_number(self.reader.u32()?);
                    let tag = tag.ok_or_else(|| self.reader.malformed("not a tag"))?;
                    ExceptionTableItem::Tag(tag, self.block_call()?)
                }
                1 => ExceptionTableItem::Default(self.block_call()?),
                2 => ExceptionTableItem::Context(self.value()?),
                _ => return Err(self.reader.malformed("not an exception handler")),
            };
            if BUILD {
                items.push(item);
            }
        }
        Ok(match BUILD {
            true => {
                self.function.dfg.exception_tables.push(ExceptionTableData::new(signature, normal, items))
            }
            false => ExceptionTable::from_u32(0),
        })
    }

    fn side_tables(&mut self) -> Read<()> {
        let insts = self.insts;
        // Runs of equal locations.
        let mut run = (0, RelSourceLoc::default());
        let mut before = 0i64;
        let mut end = |from: usize, to: usize, location: RelSourceLoc| {
            if BUILD && location != RelSourceLoc::default() {
                for number in from..to {
                    self.function.stencil.srclocs[Inst::new(number)] = location;
                }
            }
        };
        loop {
            let step = self.reader.uint()?;
            let Some(step) = step.checked_sub(1) else {
                end(run.0, insts, run.1);
                break;
            };
            let next = usize::try_from(step).ok().and_then(|step| run.0.checked_add(step));
            let next = next.filter(|next| *next < insts);
            let next = next.ok_or_else(|| self.reader.malformed("no such instruction"))?;
            end(run.0, next, run.1);
            let location = match self.reader.uint()?.checked_sub(1) {
                None => RelSourceLoc::default(),
                Some(distance) => {
                    let bits = before.checked_add(super::wire::unzigzag(distance));
                    let bits =
                        bits.and_then(|bits| u32::try_from(bits).ok()).filter(|bits| *bits != u32::MAX);
                    let bits = bits.ok_or_else(|| self.reader.malformed("not a source location"))?;
                    before = i64::from(bits);
                    RelSourceLoc::new(bits)
                }
            };
            if location == run.1 {
                return Err(self.reader.malformed("a source location that does not change"));
            }
            run = (next, location);
        }

        let slots = self.counts.slots;
        for _ in 0..self.reader.count()? {
            let inst = Inst::new(self.reader.index(insts, "no such instruction")?);
            let mut tags = Vec::new();
            for _ in 0..self.reader.count()? {
                let code = self.reader.uint()?;
                let number =
                    u32::try_from(code >> 1).map_err(|_| self.reader.malformed("not a debug tag"))?;
                tags.push(match code & 1 {
                    0 => DebugTag::User(number),
                    _ if (number as usize) < slots => DebugTag::StackSlot(StackSlot::from_u32(number)),
                    _ => return Err(self.reader.malformed("no such stack slot")),
                });
            }
            if BUILD {
                self.function.stencil.debug_tags.set(inst, tags);
            }
        }
        for _ in 0..self.reader.count()? {
            let inst = Inst::new(self.reader.index(insts, "no such instruction")?);
            let safepoint = match BUILD {
                true => self.function.dfg.insts[inst].opcode().is_safepoint(),
                false => self.scratch.safepoints[inst.index()],
            };
            if !safepoint {
                return Err(self.reader.malformed("a stack map of an instruction that is no call"));
            }
            for _ in 0..self.reader.count()? {
                let ty = self.reader.ty()?;
                let slot = StackSlot::new(self.reader.index(slots, "no such stack slot")?);
                let offset = self.reader.u32()?;
                let entry = UserStackMapEntry { ty, slot, offset };
                if BUILD {
                    self.function.dfg.append_user_stack_map_entry(inst, entry);
                }
            }
        }
        if self.reader.bool()? {
            self.labels()?;
        }
        Ok(())
    }

    fn labels(&mut self) -> Read<()> {
        let mut labels = std::collections::BTreeMap::new();
        for _ in 0..self.reader.count()? {
            let value = self.numbered_value()?;
            let assignment = match self.reader.byte()? {
                0 => {
                    let mut starts = Vec::new();
                    for _ in 0..self.reader.count()? {
                        let from = RelSourceLoc::new(self.reader.u32()?);
                        let label = self.number()?;
                        starts.push(ValueLabelStart { from, label: ValueLabel::from_u32(label) });
                    }
                    ValueLabelAssignments::Starts(starts)
                }
                1 => ValueLabelAssignments::Alias {
                    from: RelSourceLoc::new(self.reader.u32()?),
                    value: self.numbered_value()?,
                },
                _ => return Err(self.reader.malformed("not a label")),
            };
            labels.insert(value, assignment);
        }
        if BUILD {
            self.function.dfg.values_labels = Some(labels);
        }
        Ok(())
    }

    fn numbered_value(&mut self) -> Read<Value> {
        let count = usize::try_from(self.values).unwrap_or(usize::MAX);
        self.reader.index(count, "no such value").map(Value::new)
    }
}
