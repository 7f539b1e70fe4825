//! Defines the items of a plan: the items of one module in a host of its own, or all items in one
//! host.
//!
//! Everything that a module can see is declared in random order, even if the module does not use
//! it. Definitions are in another random order.

use cranelift_codegen::ir::{InstBuilder, MemFlagsData, types};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::{DataDescription, DataId, Linkage, Module, ModuleResult};

use super::body;
use super::plan::{HostIds, Plan, PlannedFunction, PointerTarget, visible};
use super::program::ProgramOptions;
use crate::random::Random;

#[derive(Clone, Copy)]
enum PlannedItem {
    Function(usize),
    Data(usize),
    Checksum(usize),
}

/// Defines module `only`, or all modules: see [`super::Draft`].
#[expect(clippy::result_large_err, reason = "the error type is that of the trait")]
pub(super) fn modules<M: Module>(
    plan: &Plan,
    options: &ProgramOptions,
    only: Option<usize>,
    host: &mut M,
    global: &mut dyn FnMut(&mut M, &str) -> DataId,
) -> ModuleResult<()> {
    let mut random = Random::new(plan.seed ^ (only.map_or(0, |number| number as u64 + 1) << 32));
    let ids = declare(plan, only, host, global, &mut random)?;
    let here = |module: usize| only.is_none_or(|only| only == module);
    let mut definitions = Vec::new();
    for (number, function) in plan.functions.iter().enumerate() {
        if here(function.module) && (only.is_some() || is_used(plan, number)) {
            definitions.push(PlannedItem::Function(number));
        }
    }
    definitions
        .extend((0..plan.data.len()).filter(|&number| here(plan.data[number].module)).map(PlannedItem::Data));
    definitions.extend((0..plan.modules).filter(|&number| here(number)).map(PlannedItem::Checksum));
    random.shuffle(&mut definitions);

    let mut scratch = FunctionBuilderContext::new();
    let mut context = host.make_context();
    for definition in definitions {
        match definition {
            PlannedItem::Function(number) => {
                let function = &plan.functions[number];
                context.func.signature = function.signature.clone();
                body::build(&mut context.func, &mut scratch, host, plan, options, &ids, number);
                host.define_function(
                    ids.functions[number].expect("what is defined is declared"),
                    &mut context,
                )?;
                host.clear_context(&mut context);
            }
            PlannedItem::Data(number) => define_data(plan, number, &ids, host)?,
            PlannedItem::Checksum(module) => {
                context.func.signature.returns =
                    plan.entries.last().expect("checksums").signature.returns.clone();
                context.func.signature.call_conv =
                    plan.entries.last().expect("checksums").signature.call_conv;
                let name = Plan::checksum(module);
                let id = host.declare_function(&name, Linkage::Export, &context.func.signature)?;
                checksum(&mut context.func, &mut scratch, host, plan, &ids, module);
                host.define_function(id, &mut context)?;
                host.clear_context(&mut context);
            }
        }
    }
    Ok(())
}

/// Whether the whole program uses this definition of its name.
fn is_used(plan: &Plan, number: usize) -> bool {
    let is_weak = |number: usize| plan.functions[number].linkage == Linkage::Preemptible;
    let (first, second) = if plan.functions[number].second {
        (number - 1, number)
    } else if plan.functions.get(number + 1).is_some_and(|next| next.second) {
        (number, number + 1)
    } else {
        return true;
    };
    let in_order = plan.functions[first].module < plan.functions[second].module;
    // If both definitions can be overridden, the definition in the first module is used, and if
    // both are replaceable, that in the last.
    let winner = match (plan.functions[first].replaceable, is_weak(second)) {
        (true, _) if !in_order => first,
        (false, true) if in_order => first,
        _ => second,
    };
    number == winner
}

#[expect(clippy::result_large_err, reason = "the error type is that of the trait")]
fn declare<M: Module>(
    plan: &Plan,
    only: Option<usize>,
    host: &mut M,
    global: &mut dyn FnMut(&mut M, &str) -> DataId,
    random: &mut Random,
) -> ModuleResult<HostIds> {
    let mut ids = HostIds {
        functions: vec![None; plan.functions.len()],
        data: vec![None; plan.data.len()],
        globals: plan.globals.iter().map(|object| global(host, &object.key)).collect(),
    };
    let mut order: Vec<usize> = (0..plan.functions.len()).collect();
    random.shuffle(&mut order);
    for number in order {
        let function = &plan.functions[number];
        let linkage = match only {
            Some(only) if !visible(function.linkage, function.module, only) => continue,
            Some(only) if function.module != only => Linkage::Import,
            Some(_) => function.linkage,
            None if is_used(plan, number) => function.linkage,
            None => Linkage::Import,
        };
        ids.functions[number] = Some(match &function.name {
            Some(name) => {
                let name = local(name, function, only);
                host.declare_function(&name, linkage, &function.signature)?
            }
            None => host.declare_anonymous_function(&function.signature)?,
        });
    }
    let mut order: Vec<usize> = (0..plan.data.len()).collect();
    random.shuffle(&mut order);
    for number in order {
        let data = &plan.data[number];
        let linkage = match only {
            Some(only) if !visible(data.linkage, data.module, only) => continue,
            Some(only) if data.module != only => Linkage::Import,
            _ => data.linkage,
        };
        ids.data[number] = Some(match &data.name {
            Some(name) if data.linkage == Linkage::Local && only.is_none() => {
                let name = format!("{name}.{}", data.module);
                host.declare_data(&name, linkage, data.writable, false)?
            }
            Some(name) => host.declare_data(name, linkage, data.writable, false)?,
            None => host.declare_anonymous_data(data.writable, false)?,
        });
    }
    Ok(ids)
}

fn local(name: &str, function: &PlannedFunction, only: Option<usize>) -> String {
    match only {
        None if function.linkage == Linkage::Local => format!("{name}.{}", function.module),
        _ => name.to_owned(),
    }
}

#[expect(clippy::result_large_err, reason = "the error type is that of the trait")]
fn define_data<M: Module>(plan: &Plan, number: usize, ids: &HostIds, host: &mut M) -> ModuleResult<()> {
    let data = &plan.data[number];
    let mut description = DataDescription::new();
    match &data.bytes {
        Some(bytes) => description.define(bytes.clone().into()),
        None => description.define_zeroinit(data.len as usize),
    }
    if let Some(align) = data.align {
        description.set_align(u64::from(align));
    }
    let declared = "a pointer's target is visible where the pointer is";
    for &(offset, target) in &data.pointers {
        match target {
            PointerTarget::Function(number) => {
                let function =
                    host.declare_func_in_data(ids.functions[number].expect(declared), &mut description);
                description.write_function_addr(offset, function);
            }
            PointerTarget::Data(number, addend) => {
                let target = host.declare_data_in_data(ids.data[number].expect(declared), &mut description);
                description.write_data_addr(offset, target, addend);
            }
            PointerTarget::Global(number, addend) => {
                let target = host.declare_data_in_data(ids.globals[number], &mut description);
                description.write_data_addr(offset, target, addend);
            }
        }
    }
    host.define_data(ids.data[number].expect("what is defined is declared"), &description)
}

/// Builds a function that reads the plain bytes of all data of a module.
fn checksum<M: Module>(
    function: &mut cranelift_codegen::ir::Function,
    scratch: &mut FunctionBuilderContext,
    host: &mut M,
    plan: &Plan,
    ids: &HostIds,
    module: usize,
) {
    let mut builder = FunctionBuilder::new(function, scratch);
    let entry = builder.create_block();
    builder.switch_to_block(entry);
    builder.seal_block(entry);
    let mut hash = builder.ins().iconst(types::I64, 0x1234_5678);
    for (data, id) in plan.data.iter().zip(&ids.data).filter(|(data, _)| data.module == module) {
        let (start, len) = data.plain;
        let id = id.expect("a module's own data are declared");
        let global = host.declare_data_in_func(id, builder.func);
        let base = builder.ins().symbol_value(types::I64, global);
        let first = builder.ins().iconst(types::I64, i64::from(start));
        let first = builder.ins().iadd(base, first);
        // Only every 61st byte of a large object is read, because the interpreter is slow.
        let stride = if len > 300 { 61 } else { 1 };
        let count = builder.ins().iconst(types::I64, i64::from(len.div_ceil(stride)));
        let [head, after] = [(); 2].map(|()| builder.create_block());
        let params = [(); 3].map(|()| builder.append_block_param(head, types::I64));
        let result = builder.append_block_param(after, types::I64);
        builder.ins().jump(head, &[first.into(), count.into(), hash.into()]);
        builder.switch_to_block(head);
        let [at, left, sum] = params;
        let byte = builder.ins().uload8(types::I64, MemFlagsData::new(), at, 0);
        let sum = builder.ins().bxor(sum, byte);
        let prime = builder.ins().iconst(types::I64, 0x0100_0000_01b3);
        let sum = builder.ins().imul(sum, prime);
        let step = builder.ins().iconst(types::I64, i64::from(stride));
        let at = builder.ins().iadd(at, step);
        let one = builder.ins().iconst(types::I64, 1);
        let left = builder.ins().isub(left, one);
        builder.ins().brif(left, head, &[at.into(), left.into(), sum.into()], after, &[sum.into()]);
        builder.seal_block(head);
        builder.switch_to_block(after);
        builder.seal_block(after);
        hash = result;
    }
    builder.ins().return_(&[hash]);
    builder.finalize(host.target_config());
}
