//! The interface between the decoder of a form and the code that uses the decoded parts.

use cranelift_codegen::ir::{
    Block, BlockArg, BlockCall, Constant, DebugTag, DynamicStackSlotData, DynamicTypeData, ExceptionTable,
    ExceptionTableItem, ExtFuncData, ExternalName, FuncRef, GlobalValue, GlobalValueData, Immediate, Inst,
    InstructionData, JumpTable, MemFlags, MemFlagsData, Opcode, RelSourceLoc, SigRef, StackSlotData, Type,
    UserStackMapEntry, Value, ValueLabelStart, ValueList,
};

use crate::body::wire::{ByteReader, DecodeResult};

/// Receives the parts of a function in the order in which its form has them.
///
/// A decoder has checked every index that it passes. The exceptions are numbers of global values
/// and signatures in tables that come before the tables of global values and signatures: the
/// decoder checks these numbers before the code begins.
///
/// Some parts are only handles into a function, such as [`ValueList`]. Their type is
/// [`Sink::Made`], so that a sink that makes no function needs no values in their place.
pub(super) trait Sink {
    /// A `T` if the sink builds functions, or `()` if it does not.
    type Made<T>;

    /// Makes a value.
    fn made<T>(value: T) -> Self::Made<T>;

    /// Makes a value from another one.
    fn map<T, U>(made: Self::Made<T>, make: impl FnOnce(T) -> U) -> Self::Made<U>;

    /// Joins two values.
    fn zip<T, U>(first: Self::Made<T>, second: Self::Made<U>) -> Self::Made<(T, U)>;

    // Tables before the code.

    /// Reads the function's own signature.
    fn own_signature(&mut self, reader: &mut ByteReader<'_>) -> DecodeResult<()>;

    /// Adds an alias region with the description `description`.
    fn alias_region(&mut self, user_id: u32, description: &str);

    /// Adds memory flags; `region` is the position of their alias region.
    fn mem_flags(&mut self, flags: MemFlagsData, region: Option<usize>);

    /// Adds a stack slot.
    fn stack_slot(&mut self, data: StackSlotData);

    /// Adds a dynamic type.
    fn dynamic_type(&mut self, data: DynamicTypeData);

    /// Adds a dynamic stack slot.
    fn dynamic_stack_slot(&mut self, data: DynamicStackSlotData);

    /// Sets the stack limit.
    fn stack_limit(&mut self, limit: GlobalValue);

    /// Returns the name of the symbol at `position` of the references.
    fn reference(&self, position: usize) -> Self::Made<ExternalName>;

    /// Adds a global value.
    fn global_value(&mut self, data: Self::Made<GlobalValueData>);

    /// Adds an external function, whose type is `signature`.
    fn external_function(&mut self, signature: SigRef, data: Self::Made<ExtFuncData>);

    /// Reads and adds the type of a callee.
    fn signature(&mut self, reader: &mut ByteReader<'_>) -> DecodeResult<()>;

    // Blocks and instructions.

    /// Creates all blocks, before the first of them starts.
    fn blocks(&mut self, count: usize);

    /// Starts a block.
    fn start_block(&mut self, block: Block, cold: bool);

    /// Adds a parameter to a block.
    fn block_param(&mut self, block: Block, ty: Type);

    /// Returns the memory flags at `position`.
    fn mem_flags_at(&self, position: usize) -> Self::Made<MemFlags>;

    /// Adds a constant.
    fn constant(&mut self, bytes: &[u8]) -> Self::Made<Constant>;

    /// Adds the mask of a shuffle.
    fn mask(&mut self, bytes: &[u8]) -> Self::Made<Immediate>;

    /// Starts a list of values. No list is started within another.
    fn start_list(&mut self) -> Self::Made<Vec<Value>>;

    /// Adds a value to a list.
    fn list_value(list: &mut Self::Made<Vec<Value>>, value: Value);

    /// Ends a list.
    fn end_list(&mut self, list: Self::Made<Vec<Value>>) -> Self::Made<ValueList>;

    /// Makes a branch target: `block`, without arguments yet.
    fn block_call(&mut self, block: Block) -> Self::Made<BlockCall>;

    /// Adds an argument to a branch target.
    fn block_argument(&mut self, call: &mut Self::Made<BlockCall>, argument: BlockArg);

    /// Adds a jump table.
    fn jump_table(
        &mut self,
        default: Self::Made<BlockCall>,
        others: &[Self::Made<BlockCall>],
    ) -> Self::Made<JumpTable>;

    /// Adds an exception table.
    fn exception_table(
        &mut self,
        signature: SigRef,
        normal: Self::Made<BlockCall>,
        items: Vec<Self::Made<ExceptionTableItem>>,
    ) -> Self::Made<ExceptionTable>;

    /// Records that the current instruction calls `callee`.
    fn callee(&mut self, callee: FuncRef);

    /// Records that the current instruction calls a function of the type `signature`.
    fn callee_signature(&mut self, signature: SigRef);

    /// Adds an instruction at the end of `block` and returns its number of results.
    fn inst(
        &mut self,
        block: Block,
        opcode: Opcode,
        ctrl_typevar: Type,
        data: Self::Made<InstructionData>,
    ) -> usize;

    // Tables after the code. Instructions are numbered as they were added.

    /// Sets the source location of the instructions from number `from` to before number `to`.
    fn source_location(&mut self, from: usize, to: usize, location: RelSourceLoc);

    /// Sets the debug tags of an instruction.
    fn debug_tags(&mut self, inst: Inst, tags: Vec<Self::Made<DebugTag>>);

    /// Tells whether an instruction may have a stack map.
    fn is_safepoint(&self, inst: Inst) -> bool;

    /// Adds an entry to the stack map of an instruction.
    fn stack_map_entry(&mut self, inst: Inst, entry: UserStackMapEntry);

    /// Starts the labels of values.
    fn start_labels(&mut self);

    /// Gives a value labels, each of which applies from a certain source location on.
    fn label_starts(&mut self, value: Value, starts: Vec<Self::Made<ValueLabelStart>>);

    /// Gives a value the labels of `original` from a source location on.
    fn label_alias(&mut self, value: Value, from: RelSourceLoc, original: Value);
}
