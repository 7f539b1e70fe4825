//! The sink that builds a function.

use std::collections::BTreeMap;

use cranelift_codegen::entity::EntityRef;
use cranelift_codegen::ir::function::FunctionStencil;
use cranelift_codegen::ir::{
    self, AliasRegion, AliasRegionData, Block, BlockArg, BlockCall, Constant, ConstantData, DebugTag,
    DynamicStackSlotData, DynamicTypeData, ExceptionTable, ExceptionTableData, ExceptionTableItem,
    ExtFuncData, ExternalName, FuncRef, GlobalValue, GlobalValueData, Immediate, Inst, InstructionData,
    JumpTable, JumpTableData, MemFlags, MemFlagsData, Opcode, RelSourceLoc, SigRef, SourceLoc, StackSlotData,
    Type, UserExternalName, UserFuncName, UserStackMapEntry, Value, ValueLabelAssignments, ValueLabelStart,
    ValueList,
};

use super::sink::Sink;
use crate::body::wire::{ByteReader, DecodeResult};
use crate::symbol::SymbolId;

/// Builds a function.
pub(super) struct BuildSink<'f> {
    function: &'f mut ir::Function,
    /// The name of each reference.
    references: Vec<ExternalName>,
    alias_regions: Vec<AliasRegion>,
    mem_flags: Vec<MemFlags>,
    /// The memory that lists of values are built in.
    list: Vec<Value>,
}

impl<'f> BuildSink<'f> {
    /// Empties `function` and gives it the name of `symbol`.
    pub(super) fn new(
        function: &'f mut ir::Function,
        symbol: SymbolId,
        references: &[SymbolId],
        base: SourceLoc,
    ) -> Self {
        function.clear();
        // `clear` does not remove exception tables.
        function.dfg.exception_tables.clear();
        function.name = UserFuncName::user(0, symbol.as_u32());
        if !base.is_default() {
            function.params.ensure_base_srcloc(base);
        }
        let references = references.iter().map(|symbol| {
            let name = UserExternalName::new(0, symbol.as_u32());
            ExternalName::user(function.params.ensure_user_func_name(name))
        });
        let references = references.collect();
        Self { function, references, alias_regions: Vec::new(), mem_flags: Vec::new(), list: Vec::new() }
    }

    fn label(&mut self, value: Value, assignment: ValueLabelAssignments) {
        self.function.dfg.values_labels.get_or_insert_default().insert(value, assignment);
    }
}

impl Sink for BuildSink<'_> {
    type Made<T> = T;

    #[inline]
    fn made<T>(value: T) -> T {
        value
    }

    #[inline]
    fn map<T, U>(made: T, make: impl FnOnce(T) -> U) -> U {
        make(made)
    }

    #[inline]
    fn zip<T, U>(first: T, second: U) -> (T, U) {
        (first, second)
    }

    fn own_signature(&mut self, reader: &mut ByteReader<'_>) -> DecodeResult<()> {
        self.function.signature = reader.signature()?;
        Ok(())
    }

    fn alias_region(&mut self, user_id: u32, description: &str) {
        let data = AliasRegionData { user_id, description: description.to_owned().into() };
        self.alias_regions.push(self.function.dfg.alias_regions.insert(data));
    }

    fn mem_flags(&mut self, flags: MemFlagsData, region: Option<usize>) {
        let flags = flags.with_alias_region(region.map(|position| self.alias_regions[position]));
        self.mem_flags.push(self.function.dfg.mem_flags.insert_unchecked(flags));
    }

    fn stack_slot(&mut self, data: StackSlotData) {
        self.function.sized_stack_slots.push(data);
    }

    fn dynamic_type(&mut self, data: DynamicTypeData) {
        self.function.dfg.dynamic_types.push(data);
    }

    fn dynamic_stack_slot(&mut self, data: DynamicStackSlotData) {
        self.function.dynamic_stack_slots.push(data);
    }

    fn stack_limit(&mut self, limit: GlobalValue) {
        self.function.stack_limit = Some(limit);
    }

    fn reference(&self, position: usize) -> ExternalName {
        self.references[position].clone()
    }

    fn global_value(&mut self, data: GlobalValueData) {
        self.function.global_values.push(data);
    }

    fn external_function(&mut self, _: SigRef, data: ExtFuncData) {
        self.function.dfg.ext_funcs.push(data);
    }

    fn signature(&mut self, reader: &mut ByteReader<'_>) -> DecodeResult<()> {
        self.function.dfg.signatures.push(reader.signature()?);
        Ok(())
    }

    fn blocks(&mut self, count: usize) {
        for _ in 0..count {
            self.function.dfg.make_block();
        }
    }

    fn start_block(&mut self, block: Block, cold: bool) {
        self.function.layout.append_block(block);
        if cold {
            self.function.layout.set_cold(block);
        }
    }

    fn block_param(&mut self, block: Block, ty: Type) {
        self.function.dfg.append_block_param(block, ty);
    }

    #[inline]
    fn mem_flags_at(&self, position: usize) -> MemFlags {
        self.mem_flags[position]
    }

    fn constant(&mut self, bytes: &[u8]) -> Constant {
        self.function.dfg.constants.insert(ConstantData::from(bytes))
    }

    fn mask(&mut self, bytes: &[u8]) -> Immediate {
        self.function.dfg.immediates.push(ConstantData::from(bytes))
    }

    #[inline]
    fn start_list(&mut self) -> Vec<Value> {
        let mut list = std::mem::take(&mut self.list);
        list.clear();
        list
    }

    #[inline]
    fn list_value(list: &mut Vec<Value>, value: Value) {
        list.push(value);
    }

    #[inline]
    fn end_list(&mut self, list: Vec<Value>) -> ValueList {
        let values = ValueList::from_slice(&list, &mut self.function.dfg.value_lists);
        self.list = list;
        values
    }

    #[inline]
    fn block_call(&mut self, block: Block) -> BlockCall {
        BlockCall::new(block, std::iter::empty(), &mut self.function.dfg.value_lists)
    }

    #[inline]
    fn block_argument(&mut self, call: &mut BlockCall, argument: BlockArg) {
        call.append_argument(argument, &mut self.function.dfg.value_lists);
    }

    fn jump_table(&mut self, default: BlockCall, others: &[BlockCall]) -> JumpTable {
        self.function.create_jump_table(JumpTableData::new(default, others))
    }

    fn exception_table(
        &mut self,
        signature: SigRef,
        normal: BlockCall,
        items: Vec<ExceptionTableItem>,
    ) -> ExceptionTable {
        self.function.dfg.exception_tables.push(ExceptionTableData::new(signature, normal, items))
    }

    #[inline]
    fn callee(&mut self, _: FuncRef) {}

    #[inline]
    fn callee_signature(&mut self, _: SigRef) {}

    #[inline]
    fn inst(&mut self, block: Block, _: Opcode, ctrl_typevar: Type, data: InstructionData) -> usize {
        let FunctionStencil { dfg, layout, .. } = &mut self.function.stencil;
        let inst = dfg.make_inst(data);
        layout.append_inst(inst, block);
        dfg.make_inst_results(inst, ctrl_typevar)
    }

    fn source_location(&mut self, from: usize, to: usize, location: RelSourceLoc) {
        for number in from..to {
            self.function.stencil.srclocs[Inst::new(number)] = location;
        }
    }

    fn debug_tags(&mut self, inst: Inst, tags: Vec<DebugTag>) {
        self.function.stencil.debug_tags.set(inst, tags);
    }

    fn is_safepoint(&self, inst: Inst) -> bool {
        self.function.dfg.insts[inst].opcode().is_safepoint()
    }

    fn stack_map_entry(&mut self, inst: Inst, entry: UserStackMapEntry) {
        self.function.dfg.append_user_stack_map_entry(inst, entry);
    }

    fn start_labels(&mut self) {
        self.function.dfg.values_labels = Some(BTreeMap::new());
    }

    fn label_starts(&mut self, value: Value, starts: Vec<ValueLabelStart>) {
        self.label(value, ValueLabelAssignments::Starts(starts));
    }

    fn label_alias(&mut self, value: Value, from: RelSourceLoc, original: Value) {
        self.label(value, ValueLabelAssignments::Alias { from, value: original });
    }
}
