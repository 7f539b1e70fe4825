//! The sink that checks a form and builds nothing.

use cranelift_codegen::entity::EntityRef;
use cranelift_codegen::ir::{
    Block, BlockArg, DynamicStackSlotData, DynamicTypeData, FuncRef, GlobalValue, Inst, MemFlagsData, Opcode,
    RelSourceLoc, SigRef, StackSlotData, Type, UserStackMapEntry, Value,
};

use super::sink::Sink;
use crate::body::wire::{ByteReader, DecodeResult};

/// Working memory of a check, which can be reused for many functions.
#[derive(Default)]
pub(crate) struct CheckScratch {
    /// The signature of each external function.
    functions: Vec<SigRef>,
    /// The number of results of each signature.
    results: Vec<u32>,
    /// Whether each instruction may have a stack map.
    safepoints: Vec<bool>,
}

/// Keeps the facts that later bytes are checked against.
pub(super) struct CheckSink<'s> {
    scratch: &'s mut CheckScratch,
    /// The number of results of the last callee.
    callee_results: usize,
}

impl<'s> CheckSink<'s> {
    pub(super) fn new(scratch: &'s mut CheckScratch) -> Self {
        let CheckScratch { functions, results, safepoints } = scratch;
        functions.clear();
        results.clear();
        safepoints.clear();
        Self { scratch, callee_results: 0 }
    }
}

impl Sink for CheckSink<'_> {
    type Made<T> = ();

    #[inline]
    fn made<T>(_: T) {}

    #[inline]
    fn map<T, U>((): (), _: impl FnOnce(T) -> U) {}

    #[inline]
    fn zip<T, U>((): (), (): ()) {}

    fn own_signature(&mut self, reader: &mut ByteReader<'_>) -> DecodeResult<()> {
        reader.skip_signature().map(|_| ())
    }

    fn alias_region(&mut self, _: u32, _: &str) {}

    fn mem_flags(&mut self, _: MemFlagsData, _: Option<usize>) {}

    fn stack_slot(&mut self, _: StackSlotData) {}

    fn dynamic_type(&mut self, _: DynamicTypeData) {}

    fn dynamic_stack_slot(&mut self, _: DynamicStackSlotData) {}

    fn stack_limit(&mut self, _: GlobalValue) {}

    fn reference(&self, _: usize) {}

    fn global_value(&mut self, (): ()) {}

    fn external_function(&mut self, signature: SigRef, (): ()) {
        self.scratch.functions.push(signature);
    }

    fn signature(&mut self, reader: &mut ByteReader<'_>) -> DecodeResult<()> {
        // At most 65,535.
        self.scratch.results.push(reader.skip_signature()? as u32);
        Ok(())
    }

    fn blocks(&mut self, _: usize) {}

    fn start_block(&mut self, _: Block, _: bool) {}

    fn block_param(&mut self, _: Block, _: Type) {}

    #[inline]
    fn mem_flags_at(&self, _: usize) {}

    fn constant(&mut self, _: &[u8]) {}

    fn mask(&mut self, _: &[u8]) {}

    #[inline]
    fn start_list(&mut self) {}

    #[inline]
    fn list_value((): &mut (), _: Value) {}

    #[inline]
    fn end_list(&mut self, (): ()) {}

    #[inline]
    fn block_call(&mut self, _: Block) {}

    #[inline]
    fn block_argument(&mut self, (): &mut (), _: BlockArg) {}

    fn jump_table(&mut self, (): (), _: &[()]) {}

    fn exception_table(&mut self, _: SigRef, (): (), _: Vec<()>) {}

    #[inline]
    fn callee(&mut self, callee: FuncRef) {
        self.callee_signature(self.scratch.functions[callee.index()]);
    }

    #[inline]
    fn callee_signature(&mut self, signature: SigRef) {
        self.callee_results = self.scratch.results[signature.index()] as usize;
    }

    #[inline]
    fn inst(&mut self, _: Block, opcode: Opcode, _: Type, (): ()) -> usize {
        self.scratch.safepoints.push(opcode.is_safepoint());
        match opcode {
            Opcode::Call | Opcode::CallIndirect => self.callee_results,
            _ => opcode.constraints().num_fixed_results(),
        }
    }

    fn source_location(&mut self, _: usize, _: usize, _: RelSourceLoc) {}

    fn debug_tags(&mut self, _: Inst, _: Vec<()>) {}

    fn is_safepoint(&self, inst: Inst) -> bool {
        self.scratch.safepoints[inst.index()]
    }

    fn stack_map_entry(&mut self, _: Inst, _: UserStackMapEntry) {}

    fn start_labels(&mut self) {}

    fn label_starts(&mut self, _: Value, _: Vec<()>) {}

    fn label_alias(&mut self, _: Value, _: RelSourceLoc, _: Value) {}
}
