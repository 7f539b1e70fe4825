//! Functions that count their calls, and tell the host when they are hot.
//!
//! A counter is 8 bytes of data of the module. Counting is not atomic: when threads count at once,
//! some calls are lost, which only delays the host's hook. The code says no address and no number
//! of this process, so it can be kept.

use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::dominator_tree::DominatorTree;
use cranelift_codegen::flowgraph::ControlFlowGraph;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    self, AbiParam, Block, InstBuilder, MemFlagsData, UserExternalName, Value, types,
};
use cranelift_codegen::isa::{CallConv, TargetIsa};
use cranelift_codegen::loop_analysis::LoopAnalysis;

use crate::body::Body;
use crate::data::{DataObject, Init};
use crate::function::Code;
use crate::module::Module;
use crate::symbol::{Linkage, Symbol, SymbolId, SymbolKind};

/// The size of a counter, in bytes.
const COUNTER: u64 = 8;

/// The events that count, and the count at which the host is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountCalls<'a> {
    /// The count at which a call tells the host. Then counting starts again.
    pub limit: u64,
    /// Whether each round of a loop counts, as a call does.
    pub loops: bool,
    /// The name of the host's function, of type `(pointer) system_v`. It gets the address of the
    /// function's counter.
    pub hook: &'a str,
}

/// Returns `module` with functions that count, and the number of the symbol of the counters, a
/// private data object. Counter *i* belongs to function *i* of the module. Functions of machine
/// code do not count.
///
/// # Panics
///
/// If a function of the module is not well-formed, which the verifier would have reported.
pub fn count_calls(module: &Module, count: CountCalls<'_>, isa: &dyn TargetIsa) -> (Module, SymbolId) {
    let mut counting = module.clone();
    let pointer = isa.pointer_type();
    let mut hook_type = ir::Signature::new(CallConv::SystemV);
    hook_type.params.push(AbiParam::new(pointer));
    let mut add = |name: &str, kind, linkage, signature: Option<&ir::Signature>| {
        let id = SymbolId::from_u32(counting.symbols.len() as u32);
        let (name, signature) = (name.into(), signature.cloned());
        counting.symbols.push(Symbol { name, kind, linkage, signature, line: 0 });
        id
    };
    let hook = add(count.hook, SymbolKind::Function, Linkage::Import, Some(&hook_type));
    let counters = add("", SymbolKind::Data, Linkage::Local, None);
    for (number, function) in counting.functions.iter_mut().enumerate() {
        let Some(mut func) = function.ir() else { continue };
        let counter = Counter { count, hook, counters, offset: number as u64 * COUNTER, pointer };
        counter.add_to(&mut func, &hook_type);
        function.code = Code::Ir(Body::new(&func).expect("a function that defines what it uses"));
    }
    counting.data.push(DataObject {
        symbol: counters,
        writable: true,
        align: COUNTER as u32,
        init: Init::Zeros(counting.functions.len() as u64 * COUNTER),
        section: None,
        addresses: Vec::new(),
        line: 0,
    });
    (counting, counters)
}

/// The counter of one function.
struct Counter<'a> {
    count: CountCalls<'a>,
    hook: SymbolId,
    counters: SymbolId,
    /// Offset in the counters, in bytes.
    offset: u64,
    pointer: ir::Type,
}

impl Counter<'_> {
    fn add_to(&self, func: &mut ir::Function, hook_type: &ir::Signature) {
        let entry = func.layout.entry_block().expect("a function has a block");
        let headers = if self.count.loops { loop_headers(func) } else { Vec::new() };
        let name = |func: &mut ir::Function, symbol: SymbolId| {
            let name = UserExternalName { namespace: 0, index: symbol.as_u32() };
            ir::ExternalName::User(func.declare_imported_user_function(name))
        };
        let symbol = name(func, self.counters);
        let address = func.create_global_value(ir::GlobalValueData::Symbol {
            name: symbol,
            offset: ir::immediates::Imm64::new(self.offset as i64),
            colocated: true,
            tls: false,
        });
        let signature = func.import_signature(hook_type.clone());
        let name = name(func, self.hook);
        let hook = ir::ExtFuncData { name, signature, colocated: false, patchable: false };
        let hook = func.import_function(hook);

        for header in headers {
            let first = func.layout.first_inst(header).expect("a block has instructions");
            let mut at = FuncCursor::new(func).at_inst(first);
            let (counter, next) = self.next(&mut at, address);
            at.ins().store(MemFlagsData::trusted(), next, counter, 0);
        }

        // A new entry block counts, and goes on in the old one with the same parameters.
        let start = func.dfg.make_block();
        let hot = func.dfg.make_block();
        func.layout.insert_block(start, entry);
        let params: Vec<(Value, ir::Type)> =
            func.dfg.block_params(entry).iter().map(|&param| (param, func.dfg.value_type(param))).collect();
        let arguments: Vec<ir::BlockArg> =
            params.iter().map(|&(_, ty)| func.dfg.append_block_param(start, ty).into()).collect();
        let mut at = FuncCursor::new(func).at_bottom(start);
        let (counter, next) = self.next(&mut at, address);
        let limit = at.ins().iconst(types::I64, self.count.limit.cast_signed());
        let is_hot = at.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, next, limit);
        let zero = at.ins().iconst(types::I64, 0);
        let stored = at.ins().select(is_hot, zero, next);
        at.ins().store(MemFlagsData::trusted(), stored, counter, 0);
        at.ins().brif(is_hot, hot, &[], entry, &arguments);
        func.layout.append_block(hot);
        func.layout.set_cold(hot);
        let mut at = FuncCursor::new(func).at_bottom(hot);
        at.ins().call(hook, &[counter]);
        at.ins().jump(entry, &arguments);
    }

    /// Returns the counter's address, and its value after one more call.
    fn next(&self, at: &mut FuncCursor<'_>, address: ir::GlobalValue) -> (Value, Value) {
        let counter = at.ins().symbol_value(self.pointer, address);
        let value = at.ins().load(types::I64, MemFlagsData::trusted(), counter, 0);
        let one = at.ins().iconst(types::I64, 1);
        (counter, at.ins().iadd(value, one))
    }
}

/// Returns the first block of every loop.
fn loop_headers(func: &ir::Function) -> Vec<Block> {
    let graph = ControlFlowGraph::with_function(func);
    let tree = DominatorTree::with_function(func, &graph);
    let mut loops = LoopAnalysis::new();
    loops.compute(func, &graph, &tree);
    let mut headers: Vec<Block> = loops.loops().map(|number| loops.loop_header(number)).collect();
    headers.sort_unstable();
    headers.dedup();
    headers
}
