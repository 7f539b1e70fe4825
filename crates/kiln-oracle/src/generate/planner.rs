//! Decides what a program consists of, as a function of its seed and options.

mod data;
mod functions;

use cranelift_codegen::data_value::DataValue;
use cranelift_codegen::ir::immediates::{Ieee32, Ieee64};
use cranelift_codegen::ir::{AbiParam, Signature, Type, types};
use cranelift_codegen::isa::CallConv;
use cranelift_module::Linkage;

use super::constants::{bits, float, float32};
use super::plan::{Plan, PlannedFunction, PlannedGlobal};
use super::program::{Entry, ProgramOptions};
use crate::random::Random;

/// Decides what the program of `seed` consists of.
pub(super) fn plan(seed: u64, options: &ProgramOptions) -> Plan {
    let mut random = Random::new(seed);
    let random = &mut random;
    let modules = random.within(1, options.modules.max(1)) as usize;
    let functions = functions::functions(random, options, modules);
    let globals: Vec<PlannedGlobal> = (0..random.below(options.globals + 1))
        .map(|number| {
            let len = *random.choose(&[16, 24, 33, 64, 200]);
            let key = if random.once_in(4) {
                format!("object {number}: é=\"{number}\"")
            } else {
                format!("g{number}")
            };
            PlannedGlobal { key, bytes: random.bytes(len) }
        })
        .collect();
    let data = data::data(random, options, modules, &functions, globals.len());
    let entries = entries(random, &functions, modules);
    Plan { seed, modules, functions, data, globals, entries }
}

/// Decides on the calls: a few calls of every function that the host can call, then one of every
/// checksum function.
fn entries(random: &mut Random, functions: &[PlannedFunction], modules: usize) -> Vec<Entry> {
    let mut entries = Vec::new();
    let exported =
        |function: &PlannedFunction| matches!(function.linkage, Linkage::Export | Linkage::Preemptible);
    let callable = |number: usize| {
        let replaced = functions.get(number + 1).is_some_and(|next| next.second && !exported(next));
        let function = &functions[number];
        let first = !function.second && !replaced;
        (first && exported(function) && function.signature.call_conv == CallConv::SystemV).then_some(function)
    };
    let callable: Vec<&PlannedFunction> = (0..functions.len()).filter_map(callable).collect();
    for _ in 0..random.within(1, 3) {
        for function in &callable {
            let arguments =
                function.signature.params.iter().map(|p| argument(random, p.value_type)).collect();
            let (name, signature) = (function.name.clone().unwrap_or_default(), function.signature.clone());
            entries.push(Entry { name: name.into(), signature, arguments });
        }
    }
    for module in 0..modules {
        let mut signature = Signature::new(CallConv::SystemV);
        signature.returns.push(AbiParam::new(types::I64));
        entries.push(Entry { name: Plan::checksum(module).into(), signature, arguments: Vec::new() });
    }
    entries
}

/// Returns an argument of this type.
fn argument(random: &mut Random, ty: Type) -> DataValue {
    match ty {
        types::F32 => DataValue::F32(Ieee32::with_bits(float32(random))),
        types::F64 => DataValue::F64(Ieee64::with_bits(float(random).to_bits())),
        _ if ty.is_vector() => {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&random.bytes(16));
            DataValue::V128(bytes)
        }
        _ => DataValue::from_integer(i128::from(bits(random)), ty).expect("an integer type"),
    }
}
