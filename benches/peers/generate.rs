//! The generated workload: modules like the output of a compiler's front end, from a seed.
//!
//! Most functions are small, and a few have several hundred instructions. Bodies have loops,
//! branches, `br_table`, memory accesses, integer and float arithmetic, calls inside the module, to
//! other modules and to the C library, run-time objects and a table of function addresses. Every
//! function terminates, because loops have a counter and a parameter limits the depth of calls. No
//! instruction can trap. So functions can be run, and the results of different engines compared.

mod body;
mod plan;

use cranelift_codegen::Context;
use cranelift_codegen::ir::{AbiParam, types};
use cranelift_frontend::FunctionBuilderContext;
use cranelift_module::{DataDescription, DataId, FuncId, Linkage, Module as _};
use kiln::ir::{Module, ModuleBuilder, Target};
use kiln_oracle::random::Random;
use rayon::prelude::*;

use self::plan::{FunctionPlan, MODULE, ModuleScope, plan};
pub(crate) use self::plan::{GLOBALS, MEMORY, is_entry};
use crate::setup::Failure;

/// Generates `functions` functions in modules of [`MODULE`] functions.
pub(crate) fn modules(functions: u32, seed: u64, target: &Target) -> Result<Vec<Module>, Failure> {
    let mut random = Random::new(seed);
    let plans: Vec<FunctionPlan> = (0..functions).map(|index| plan(index, &mut random)).collect();
    let numbers: Vec<usize> = (0..plans.chunks(MODULE as usize).len()).collect();
    numbers.into_par_iter().map(|number| module(number, &plans, seed, target)).collect()
}

fn module(number: usize, plans: &[FunctionPlan], seed: u64, target: &Target) -> Result<Module, Failure> {
    let mut random = Random::new(seed ^ (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut builder = ModuleBuilder::new(format!("generated {number}"), target)?;
    // As modules from text: comparison A measures code generation.
    builder.verify_at_once(true);
    let start = number * MODULE as usize;
    let own = &plans[start..plans.len().min(start + MODULE as usize)];
    let mut callees = Vec::new();
    for plan in own {
        let signature = plan.signature(&builder);
        callees.push((builder.declare_function(&plan.name(), plan.linkage, &signature)?, *plan));
    }
    for _ in 0..12 {
        let other = plans[random.below(plans.len() as u32) as usize];
        let elsewhere = other.index as usize / MODULE as usize != number;
        if elsewhere && other.linkage != Linkage::Local {
            let signature = other.signature(&builder);
            callees.push((builder.declare_function(&other.name(), Linkage::Import, &signature)?, other));
        }
    }
    let scope = ModuleScope {
        imported: {
            let mut signature = builder.make_signature();
            signature.params.push(AbiParam::new(types::I64));
            signature.returns.push(AbiParam::new(types::I64));
            builder.declare_function("labs", Linkage::Import, &signature)?
        },
        globals: (0..6).map(|_| builder.global(&format!("object:{}", random.below(GLOBALS)))).collect(),
        constants: constants(&mut builder, number, &mut random)?,
        memory: memory(&mut builder, number)?,
        table: table(&mut builder, number, &callees[..own.len()])?,
        callees,
    };
    let mut context = Context::new();
    let mut scratch = FunctionBuilderContext::new();
    for (id, plan) in &scope.callees[..own.len()] {
        context.clear();
        context.func.signature = plan.signature(&builder);
        body::build(&mut context.func, &mut scratch, &mut builder, &scope, *plan, &mut random);
        builder.define_function(*id, &mut context)?;
    }
    Ok(builder.finish()?)
}

fn constants(builder: &mut ModuleBuilder, number: usize, random: &mut Random) -> Result<DataId, Failure> {
    let id = builder.declare_data(&format!("m{number}_constants"), Linkage::Local, false, false)?;
    let mut description = DataDescription::new();
    description.define((0..MEMORY).map(|_| random.below(256) as u8).collect());
    description.set_align(16);
    builder.define_data(id, &description)?;
    Ok(id)
}

fn memory(builder: &mut ModuleBuilder, number: usize) -> Result<DataId, Failure> {
    let id = builder.declare_data(&format!("m{number}_memory"), Linkage::Hidden, true, false)?;
    let mut description = DataDescription::new();
    description.define_zeroinit(MEMORY);
    description.set_align(16);
    builder.define_data(id, &description)?;
    Ok(id)
}

fn table(
    builder: &mut ModuleBuilder,
    number: usize,
    own: &[(FuncId, FunctionPlan)],
) -> Result<Option<(DataId, u32)>, Failure> {
    let entries: Vec<FuncId> =
        own.iter().filter(|(_, plan)| plan.shape == 0).map(|(id, _)| *id).take(8).collect();
    if entries.is_empty() {
        return Ok(None);
    }
    let id = builder.declare_data(&format!("m{number}_table"), Linkage::Local, false, false)?;
    let mut description = DataDescription::new();
    description.define(vec![0; 8 * entries.len()].into());
    description.set_align(8);
    for (at, entry) in entries.iter().enumerate() {
        let function = builder.declare_func_in_data(*entry, &mut description);
        description.write_function_addr(8 * at as u32, function);
    }
    builder.define_data(id, &description)?;
    Ok(Some((id, entries.len() as u32)))
}
