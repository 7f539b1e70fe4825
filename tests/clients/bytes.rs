//! Functions that a client defines by machine code.
//!
//! The client compiles with the module's own code generator and takes code and relocations from
//! there, like a client with its own assembler. Its functions call each other, a function that is
//! defined as IR, a function of the host and a routine of the C library, and use data.

use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{AbiParam, InstBuilder, MemFlagsData, Signature, Value, types};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::{DataDescription, FuncId, Linkage, Module, ModuleReloc};

use crate::Way;
use crate::engines::{Client, jit_module, kiln_module, object_module};
use crate::errors::{Finding, compare, function, said};
use crate::host::{Host, Outcome};
use crate::language::Failure;

pub(crate) fn check(run: Way<Machine>) -> Result<(), Failure> {
    let outcome = run(&Machine)?;
    let expected = Outcome { result: 1042, output: "42\n".into(), tally: 42, state: Some(1042) };
    if outcome == expected {
        Ok(())
    } else {
        Err(format!("expected {expected:#?}\nfound {outcome:#?}").into())
    }
}

/// A client whose functions are bytes, except for one.
pub(crate) struct Machine;

impl Client for Machine {
    fn build<M: Module>(&self, module: &mut M) -> Result<(), Failure> {
        let nullary = signature(module, 0);
        let unary = signature(module, 1);
        let start = module.declare_function("start", Linkage::Export, &nullary)?;
        let twice = module.declare_function("twice", Linkage::Local, &unary)?;
        let add = module.declare_anonymous_function(&unary)?;
        let print = module.declare_function("print_int", Linkage::Import, &unary)?;
        let tally = module.declare_data("tally", Linkage::Import, true, false)?;
        let state = module.declare_data("state", Linkage::Export, true, false)?;
        let mut data = DataDescription::new();
        data.define(Box::new(1000i64.to_ne_bytes()));
        data.set_custom_section("machine_state");
        data.set_used(true);
        module.define_data(state, &data)?;

        // 21 doubled is 42: printed, written to `tally`, and added to `state`.
        let context = code(module, start, |module, builder, _| {
            let value = builder.ins().iconst(types::I64, 21);
            let doubled = call(module, builder, twice, value);
            call(module, builder, print, doubled);
            let tally = module.declare_data_in_func(tally, builder.func);
            let tally = builder.ins().symbol_value(types::I64, tally);
            builder.ins().store(MemFlagsData::trusted(), doubled, tally, 0);
            call(module, builder, add, doubled)
        });
        define_bytes(module, start, context)?;
        // With a fused multiply-add, which is a call if the CPU has no instruction for it.
        let context = code(module, twice, |_, builder, value| {
            let value = builder.ins().fcvt_from_sint(types::F64, value);
            let (two, zero) = (builder.ins().f64const(2.0), builder.ins().f64const(0.0));
            let value = builder.ins().fma(value, two, zero);
            builder.ins().fcvt_to_sint_sat(types::I64, value)
        });
        define_bytes(module, twice, context)?;
        // IR, called from bytes.
        let mut context = code(module, add, |module, builder, value| {
            let state = module.declare_data_in_func(state, builder.func);
            let state = builder.ins().symbol_value(types::I64, state);
            let old = builder.ins().load(types::I64, MemFlagsData::trusted(), state, 0);
            let sum = builder.ins().iadd(old, value);
            builder.ins().store(MemFlagsData::trusted(), sum, state, 0);
            sum
        });
        Ok(module.define_function(add, &mut context)?)
    }
}

fn signature<M: Module>(module: &M, params: usize) -> Signature {
    let mut signature = module.make_signature();
    signature.params = vec![AbiParam::new(types::I64); params];
    signature.returns.push(AbiParam::new(types::I64));
    signature
}

/// The IR of `id`, in one block. `body` gets its parameter, or an unused zero.
fn code<M: Module>(
    module: &mut M,
    id: FuncId,
    body: impl FnOnce(&mut M, &mut FunctionBuilder<'_>, Value) -> Value,
) -> Context {
    let mut context = module.make_context();
    context.func.signature = module.declarations().get_function_decl(id).signature.clone();
    let mut scratch = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut context.func, &mut scratch);
    let block = builder.create_block();
    builder.append_block_params_for_function_params(block);
    builder.switch_to_block(block);
    let param = builder.block_params(block).first().copied();
    let param = param.unwrap_or_else(|| builder.ins().iconst(types::I64, 0));
    let value = body(module, &mut builder, param);
    builder.ins().return_(&[value]);
    builder.seal_all_blocks();
    builder.finalize(module.target_config());
    context
}

fn call<M: Module>(module: &mut M, builder: &mut FunctionBuilder<'_>, callee: FuncId, value: Value) -> Value {
    let callee = module.declare_func_in_func(callee, builder.func);
    let call = builder.ins().call(callee, &[value]);
    builder.inst_results(call)[0]
}

/// Compiles with the module's code generator, and defines the function by the resulting bytes.
fn define_bytes<M: Module>(module: &mut M, id: FuncId, mut context: Context) -> Result<(), Failure> {
    let compiled = context.compile(module.isa(), &mut ControlPlane::default());
    let alignment = u64::from(compiled.map_err(|error| format!("{:?}", error.inner))?.buffer.alignment);
    let buffer = &context.compiled_code().ok_or("it was just compiled")?.buffer;
    let relocs: Vec<_> =
        buffer.relocs().iter().map(|reloc| ModuleReloc::from_mach_reloc(reloc, &context.func, id)).collect();
    Ok(module.define_function_bytes(id, alignment, buffer.data(), &relocs)?)
}

pub(crate) fn errors_are_equal() -> Result<(), Failure> {
    let jit = provoke(&mut jit_module(&Host::new())?)?;
    compare(jit, provoke(&mut object_module()?)?, provoke(&mut kiln_module()?)?, 3)
}

fn provoke<M: Module>(module: &mut M) -> Result<Vec<Finding>, Failure> {
    let signature = signature(module, 0);
    let import = module.declare_function("import", Linkage::Import, &signature)?;
    let bytes = module.declare_function("bytes", Linkage::Local, &signature)?;
    let ir = module.declare_function("ir", Linkage::Local, &signature)?;
    let mut again = |id, name| {
        let mut context = function(module, true);
        context
            .compile(module.isa(), &mut ControlPlane::default())
            .map_err(|error| format!("{:?}", error.inner))?;
        let code = context.compiled_code().ok_or("it was just compiled")?.buffer.data().to_vec();
        if name != "an import" {
            match name {
                "bytes twice" => module.define_function_bytes(id, 1, &code, &[])?,
                _ => module.define_function(id, &mut function(module, true))?,
            }
        }
        Ok::<_, Failure>((name, said(module.define_function_bytes(id, 1, &code, &[]))))
    };
    Ok(vec![again(import, "an import")?, again(bytes, "bytes twice")?, again(ir, "bytes after code")?])
}
