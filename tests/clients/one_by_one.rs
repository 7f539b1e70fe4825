//! A client with a module for each function, as clojurust's: a function refers to earlier ones by
//! name. With `JITModule`, each module registers all host symbols and the addresses of the earlier
//! functions again.

use std::collections::BTreeMap;

use cranelift_codegen::ir::{AbiParam, InstBuilder, Signature, types};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module, default_libcall_names};
use kiln::Session;
use kiln::ir::{ModuleBuilder, Target};

use crate::engines::own_target;
use crate::host::Host;
use crate::language::Failure;

const FUNCTIONS: usize = 20;

fn name(number: usize) -> String {
    format!("fib_{number}")
}

fn unary<M: Module>(module: &M) -> Signature {
    let mut signature = module.make_signature();
    signature.params.push(AbiParam::new(types::I64));
    signature.returns.push(AbiParam::new(types::I64));
    signature
}

/// Defines function `number`: its argument plus the results of the two functions before it.
fn define<M: Module>(module: &mut M, number: usize) -> Result<FuncId, Failure> {
    let signature = unary(module);
    let id = module.declare_function(&name(number), Linkage::Export, &signature)?;
    let mut context = module.make_context();
    context.func.signature = signature.clone();
    let mut scratch = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut context.func, &mut scratch);
    let block = builder.create_block();
    builder.append_block_params_for_function_params(block);
    builder.switch_to_block(block);
    let argument = builder.block_params(block)[0];
    let mut sum = argument;
    for before in number.saturating_sub(2)..number {
        let before = module.declare_function(&name(before), Linkage::Import, &signature)?;
        let before = module.declare_func_in_func(before, builder.func);
        let call = builder.ins().call(before, &[argument]);
        let result = builder.inst_results(call)[0];
        sum = builder.ins().iadd(sum, result);
    }
    builder.ins().return_(&[sum]);
    builder.seal_all_blocks();
    builder.finalize(module.target_config());
    module.define_function(id, &mut context)?;
    Ok(id)
}

fn call(code: *const u8) -> i64 {
    // SAFETY: `define` makes functions of this type, which only call each other and live on.
    unsafe { std::mem::transmute::<*const u8, extern "C" fn(i64) -> i64>(code)(1) }
}

fn with_jit() -> Result<Vec<i64>, Failure> {
    let host = Host::new();
    let (mut modules, mut addresses) = (Vec::new(), BTreeMap::new());
    let mut results = Vec::new();
    for number in 0..FUNCTIONS {
        let mut builder = JITBuilder::new(default_libcall_names())?;
        builder.symbols(host.symbols());
        builder.symbols(addresses.iter().map(|(name, address)| (String::clone(name), *address)));
        let mut module = JITModule::new(builder);
        let id = define(&mut module, number)?;
        module.finalize_definitions()?;
        let address = module.get_finalized_function(id);
        addresses.insert(name(number), address);
        results.push(call(address));
        modules.push(module);
    }
    // SAFETY: no code of them runs any more.
    modules.into_iter().for_each(|module| unsafe { module.free_memory() });
    Ok(results)
}

/// A session has the host symbols once, and finds the earlier functions itself. The target is the
/// client's own; so each function is compiled as `JITModule` compiles it.
fn with_session(target: Target) -> Result<Vec<i64>, Failure> {
    let session = Session::new(target)?;
    let host = Host::new();
    for (name, address) in host.symbols() {
        session.bind_symbol(name, address as usize)?;
    }
    let mut results = Vec::new();
    for number in 0..FUNCTIONS {
        let mut module = ModuleBuilder::new(name(number), session.target())?;
        let id = define(&mut module, number)?;
        let module = module.finish()?;
        let symbol = module.ids.function(id).ok_or("it has no symbol")?.index();
        let unit = session.add(&[module])?;
        let function = unit.symbol(0, symbol).ok_or("it is not there")?;
        // The size, which `Context::compiled_code` would give with `JITModule`.
        let code = unit.artifacts()[0].code_of(&name(number)).ok_or("it has no code")?;
        if code.is_empty() || code.len() != function.size {
            return Err(format!("{} and {} bytes", code.len(), function.size).into());
        }
        results.push(call(function.address));
    }
    Ok(results)
}

pub(crate) fn results_are_equal() -> Result<(), Failure> {
    let expected = with_jit()?;
    for target in [own_target()?, Target::native(), Target::host()] {
        let found = with_session(target)?;
        if found != expected {
            return Err(format!("expected {expected:?}, found {found:?}").into());
        }
    }
    Ok(())
}
