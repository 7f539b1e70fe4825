//! A plain `cranelift_jit::JITModule` whose code is in Kiln's memory.
//!
//! Many small modules share pages of one reservation, a module's memory is freed when it is
//! dropped, and a full memory is an error that says what to raise.
//!
//! ```text
//! cargo run -p kiln-jit --example jit_module
//! ```

use std::error::Error;

use cranelift_codegen::ir::{AbiParam, InstBuilder, types::I64};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{Linkage, Module, default_libcall_names};
use kiln_jit::{Memory, MemoryOptions, MemoryProvider};

fn main() -> Result<(), Box<dyn Error>> {
    let memory = Memory::reserve(MemoryOptions::with_size(64 << 20))?;
    let mut builder = JITBuilder::new(default_libcall_names())?;
    builder.memory_provider(Box::new(MemoryProvider::new(memory.clone())));
    let mut module = JITModule::new(builder);

    let mut context = module.make_context();
    context.func.signature.params.push(AbiParam::new(I64));
    context.func.signature.returns.push(AbiParam::new(I64));
    let square = module.declare_function("square", Linkage::Export, &context.func.signature)?;
    let mut builder_context = FunctionBuilderContext::new();
    let mut body = FunctionBuilder::new(&mut context.func, &mut builder_context);
    let block = body.create_block();
    body.append_block_params_for_function_params(block);
    body.switch_to_block(block);
    let number = body.block_params(block)[0];
    let result = body.ins().imul(number, number);
    body.ins().return_(&[result]);
    body.seal_all_blocks();
    body.finalize(module.target_config());
    module.define_function(square, &mut context)?;
    module.finalize_definitions()?;

    let code = module.get_finalized_function(square);
    // SAFETY: the function has this type, and its module still exists.
    let square = unsafe { std::mem::transmute::<*const u8, extern "C" fn(i64) -> i64>(code) };
    println!("12 * 12 = {}", square(12));
    println!("{} bytes of code in use", memory.usage().code.used);
    drop(module);
    println!("{} bytes of code in use without the module", memory.usage().code.used);
    Ok(())
}
