//! A client that writes addresses of the host into its code, as roto's does, and one that declares
//! a host function with a wrong type.

use cranelift_codegen::ir::{self, AbiParam, InstBuilder, MemFlagsData, Value, types};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::{Linkage, Module};
use kiln::ir::ModuleBuilder;
use kiln::{Session, find_addresses};

use crate::engines::own_target;
use crate::language::Failure;

static OBJECT: i64 = 42;

/// Defines `start`, which loads from the address that `object` gives.
fn load<M: Module>(
    module: &mut M,
    object: impl FnOnce(&mut M, &mut FunctionBuilder<'_>) -> Value,
) -> Result<(), Failure> {
    let mut context = module.make_context();
    context.func.signature.returns.push(AbiParam::new(types::I64));
    let id = module.declare_function("start", Linkage::Export, &context.func.signature)?;
    let mut scratch = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut context.func, &mut scratch);
    let block = builder.create_block();
    builder.switch_to_block(block);
    builder.set_srcloc(ir::SourceLoc::new(0x77));
    let address = object(module, &mut builder);
    let value = builder.ins().load(types::I64, MemFlagsData::trusted(), address, 0);
    builder.ins().return_(&[value]);
    builder.seal_all_blocks();
    builder.finalize(module.target_config());
    Ok(module.define_function(id, &mut context)?)
}

/// The address is found, with its function and place; the same program with a key has none.
pub(crate) fn are_found_in_constants() -> Result<(), Failure> {
    let target = own_target()?;
    let mut module = ModuleBuilder::new("by address", &target)?;
    load(&mut module, |_, builder| builder.ins().iconst(types::I64, &raw const OBJECT as i64))?;
    let by_address = module.finish()?;
    let found = find_addresses(std::slice::from_ref(&by_address))?;
    let [found] = &found[..] else { return Err(format!("{found:#?}").into()) };
    let shown = found.to_string();
    let expected = "module by address, `start`: `v0 = iconst.i64 0x";
    let place = found.location.map(ir::SourceLoc::bits);
    if !shown.starts_with(expected) || place != Some(0x77) || found.value != &raw const OBJECT as u64 {
        return Err(format!("{shown} at {place:?}").into());
    }

    let session = Session::new(target)?;
    let mut module = ModuleBuilder::new("by key", session.target())?;
    let key = module.global("client:object");
    session.bind_global("client:object", &raw const OBJECT as usize)?;
    load(&mut module, |module, builder| {
        let object = module.declare_data_in_func(key, builder.func);
        builder.ins().symbol_value(types::I64, object)
    })?;
    let by_key = module.finish()?;
    if !find_addresses(std::slice::from_ref(&by_key))?.is_empty() {
        return Err("an address is found in code without one".into());
    }
    session.add(&[by_key])?;
    let start = session.function("start").ok_or("no `start`")?;
    // SAFETY: the type is compared, and the code reads only the bound object.
    let start = unsafe { start.typed::<extern "C" fn() -> i64>()? };
    if start() == OBJECT { Ok(()) } else { Err("the object is not read".into()) }
}

extern "C" fn half(value: f64) -> f64 {
    value / 2.0
}

/// Defines `start`, which calls `half` with the type `ty`, and rounds.
fn halve<M: Module>(module: &mut M, ty: ir::Type) -> Result<(), Failure> {
    let mut signature = module.make_signature();
    signature.params.push(AbiParam::new(ty));
    signature.returns.push(AbiParam::new(ty));
    let half = module.declare_function("half", Linkage::Import, &signature)?;
    let mut context = module.make_context();
    context.func.signature.returns.push(AbiParam::new(types::I64));
    let id = module.declare_function("start", Linkage::Export, &context.func.signature)?;
    let mut scratch = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut context.func, &mut scratch);
    let block = builder.create_block();
    builder.switch_to_block(block);
    let half = module.declare_func_in_func(half, builder.func);
    let value = match ty {
        types::F32 => builder.ins().f32const(84.0),
        _ => builder.ins().f64const(84.0),
    };
    let call = builder.ins().call(half, &[value]);
    let result = builder.inst_results(call)[0];
    let result = builder.ins().fcvt_to_sint_sat(types::I64, result);
    builder.ins().return_(&[result]);
    builder.seal_all_blocks();
    builder.finalize(module.target_config());
    Ok(module.define_function(id, &mut context)?)
}

/// A session refuses a call of a host function with another type, of which `JITModule` makes a
/// wrong number.
pub(crate) fn have_types() -> Result<(), Failure> {
    let session = Session::new(own_target()?)?;
    session.bind_function("half", half as extern "C" fn(f64) -> f64)?;
    let mut module = ModuleBuilder::new("wrong", session.target())?;
    halve(&mut module, types::F32)?;
    let error = session.add(&[module.finish()?]).err().ok_or("a wrong type is accepted")?;
    let mut message = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        message = format!("{message}: {error}");
        source = error.source();
    }
    let expected = "symbol `half` is called as (f32) -> f32 system_v, but is bound as (f64) -> f64 system_v";
    if !message.contains(expected) {
        return Err(message.into());
    }
    let mut module = ModuleBuilder::new("right", session.target())?;
    halve(&mut module, types::F64)?;
    session.add(&[module.finish()?])?;
    let start = session.function("start").ok_or("no `start`")?;
    // SAFETY: the type is compared, and the code calls only `half`.
    let start = unsafe { start.typed::<extern "C" fn() -> i64>()? };
    if start() == 42 { Ok(()) } else { Err("a wrong result".into()) }
}
