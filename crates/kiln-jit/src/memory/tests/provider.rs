//! A plain `JITModule` in our memory.

use cranelift_codegen::ir::{AbiParam, InstBuilder, MemFlagsData, types::I64};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{BranchProtection, JITBuilder, JITMemoryKind, JITMemoryProvider, JITModule};
use cranelift_module::{DataDescription, DataId, FuncId, Module, default_libcall_names};

use super::*;

fn module(memory: &Arc<Memory>) -> JITModule {
    let mut builder = JITBuilder::new(default_libcall_names()).unwrap();
    builder.memory_provider(Box::new(MemoryProvider::new(memory.clone())));
    JITModule::new(builder)
}

/// Defines eight bytes.
fn data(module: &mut JITModule, value: i64, writable: bool) -> DataId {
    let id = module.declare_anonymous_data(writable, false).unwrap();
    let mut description = DataDescription::new();
    description.define(value.to_le_bytes().into());
    module.define_data(id, &description).unwrap();
    id
}

/// Defines a function that returns the sum of two numbers in memory, of its argument, and of what
/// `callee` returns for its argument. It also increments the first number.
fn function(module: &mut JITModule, numbers: [DataId; 2], callee: Option<FuncId>) -> FuncId {
    let mut context = module.make_context();
    context.func.signature.params.push(AbiParam::new(I64));
    context.func.signature.returns.push(AbiParam::new(I64));
    let id = module.declare_anonymous_function(&context.func.signature).unwrap();
    let mut builder_context = FunctionBuilderContext::new();
    let mut body = FunctionBuilder::new(&mut context.func, &mut builder_context);
    let block = body.create_block();
    body.append_block_params_for_function_params(block);
    body.switch_to_block(block);
    let argument = body.block_params(block)[0];
    let mut sum = argument;
    let mut loaded = Vec::new();
    for number in numbers {
        let global = module.declare_data_in_func(number, body.func);
        let address = body.ins().symbol_value(I64, global);
        let value = body.ins().load(I64, MemFlagsData::trusted(), address, 0);
        loaded.push((address, value));
        sum = body.ins().iadd(sum, value);
    }
    let more = body.ins().iadd_imm_u(loaded[0].1, 1);
    body.ins().store(MemFlagsData::trusted(), more, loaded[0].0, 0);
    if let Some(callee) = callee {
        let callee = module.declare_func_in_func(callee, body.func);
        let call = body.ins().call(callee, &[argument]);
        let result = body.inst_results(call)[0];
        sum = body.ins().iadd(sum, result);
    }
    body.ins().return_(&[sum]);
    body.seal_all_blocks();
    body.finalize(module.target_config());
    module.define_function(id, &mut context).unwrap();
    id
}

fn call(module: &JITModule, function: FuncId, argument: i64) -> i64 {
    let code = module.get_finalized_function(function);
    // SAFETY: every function has this type, and its module exists.
    unsafe { std::mem::transmute::<*const u8, extern "C" fn(i64) -> i64>(code)(argument) }
}

#[test]
fn a_plain_module_runs_in_our_memory() {
    for mapping in [Mapping::Dual, Mapping::Protect] {
        let memory = memory(mapping);
        // What a session uses is between the module's blocks.
        let other = memory.allocate(Region::Code, 64, 16).unwrap();
        let mut first = module(&memory);
        let counter = data(&mut first, 100, true);
        let constant = data(&mut first, 7, false);
        let one = function(&mut first, [counter, constant], None);
        first.finalize_definitions().unwrap();
        assert_eq!(call(&first, one, 1), 108);
        let two = function(&mut first, [counter, constant], Some(one));
        let many: Vec<_> = (0..200).map(|_| function(&mut first, [counter, constant], Some(two))).collect();
        first.finalize_definitions().unwrap();
        assert_eq!(call(&first, two, 0), (101 + 7) + (102 + 7));
        assert_eq!(call(&first, many[199], 0), (103 + 7) + (104 + 7) + (105 + 7));
        assert_eq!(call(&first, one, 0), 106 + 7);

        let mut second = module(&memory);
        let number = data(&mut second, 1, true);
        let not_finished = function(&mut second, [number, number], None);
        second.finalize_definitions().unwrap();
        assert_eq!(call(&second, not_finished, 0), 2);
        function(&mut second, [number, number], None);
        assert!((4..=16).contains(&mappings(&memory)));
        // SAFETY: nothing of it is used any more.
        unsafe { first.free_memory() };
        drop(second);
        free(&memory, [other]);
        for region in Region::ALL {
            assert_eq!(memory.core.usage(region).used, 0, "{mapping:?} {region}");
        }
        // The pages are as they were: a session can use them.
        let block = memory.allocate(Region::Code, 3 << 20, 16).unwrap();
        // SAFETY: it is in use and not published.
        unsafe { block.bytes().fill(0xff) };
        memory.publish(&[block]).unwrap();
        // SAFETY: it was published.
        assert!(all(unsafe { std::slice::from_raw_parts(block.address, block.len) }, 0xff));
    }
}

#[test]
fn a_full_memory_is_an_error_of_the_module() {
    let memory = Memory::reserve(MemoryOptions { data: 4096, ..MemoryOptions::with_size(1 << 20) }).unwrap();
    let mut module = module(&memory);
    let id = module.declare_anonymous_data(true, false).unwrap();
    let mut description = DataDescription::new();
    description.define_zeroinit(5000);
    let error = module.define_data(id, &description).unwrap_err();
    assert!(error.to_string().contains("MemoryOptions::data"), "{error}");
    let mut provider = MemoryProvider::new(memory);
    let error = provider.allocate(8, 1 << 20, JITMemoryKind::Executable).unwrap_err();
    assert!(error.to_string().contains("aligned to 1048576 bytes"), "{error}");
    for align in [1, 8, 64, 4096] {
        for len in [0, 1, 100, 40_000] {
            let address = provider.allocate(len, align, JITMemoryKind::Executable).unwrap();
            assert!((address as u64).is_multiple_of(align));
        }
    }
    provider.finalize(BranchProtection::None).unwrap();
}
