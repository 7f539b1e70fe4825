//! Decides on the functions of a program: modules, names, linkages, signatures.

use cranelift_codegen::ir::{AbiParam, Signature, types};
use cranelift_codegen::isa::CallConv;
use cranelift_module::Linkage;

use super::super::plan::{PlannedFunction, VECTORS};
use super::super::program::ProgramOptions;
use crate::random::Random;

pub(super) fn functions(
    random: &mut Random,
    options: &ProgramOptions,
    modules: usize,
) -> Vec<PlannedFunction> {
    // There are only a few signatures, so that calls can choose between functions of the same type.
    let pool: Vec<Signature> =
        (0..random.within(2, 5)).map(|_| signature(random, options, CallConv::SystemV)).collect();
    let mut tail = pool[..1].to_vec();
    tail.iter_mut().for_each(|signature| signature.call_conv = CallConv::Tail);
    let count = random.within(modules as u32, options.functions.max(1) * modules as u32) as usize;
    let entries = random.within(1, 3) as usize;
    let mut functions = Vec::new();
    let mut locals = vec![0; modules];
    while functions.len() < count {
        let number = functions.len();
        let entry = number < entries;
        let module = random.below(modules as u32) as usize;
        let linkage = match random.below(8) {
            _ if entry => *random.choose(&[Linkage::Export, Linkage::Export, Linkage::Preemptible]),
            0..3 => Linkage::Local,
            3..5 => Linkage::Hidden,
            5..7 => Linkage::Export,
            _ => Linkage::Preemptible,
        };
        let name = match linkage {
            // Local names are the same in every module, on purpose.
            Linkage::Local => {
                locals[module] += 1;
                let anonymous = options.anonymous && random.once_in(4);
                (!anonymous).then(|| format!("local{}", locals[module]))
            }
            _ if random.once_in(16) => Some(format!("ƒ {number}$@\"odd\"")),
            _ if random.once_in(16) => Some(format!("u1:{number}")),
            _ => Some(format!("f{number}")),
        };
        let by_tail = !entry && options.tail_calls && random.once_in(3);
        let signature = random.choose(if by_tail { &tail } else { &pool }).clone();
        let cap = if entry { u64::from(options.steps) } else { u64::from(options.steps) >> random.below(8) };
        let cap = cap.max(50);
        let replaceable = linkage == Linkage::Export && random.once_in(3);
        let seed = random.next();
        let mut function =
            PlannedFunction { name, module, linkage, signature, cap, seed, replaceable, second: false };
        let preemptible = linkage == Linkage::Preemptible && modules > 1 && random.once_in(2);
        functions.push(function.clone());
        if replaceable && modules > 1 && random.once_in(2) {
            // The definition in the later module is in force.
            function.module = (module + 1 + random.below(modules as u32 - 1) as usize) % modules;
            function.seed = random.next();
            function.second = true;
            functions.push(function);
        } else if preemptible {
            // The second definition is in another module. It overrides the first, or can be
            // overridden too.
            function.module = (module + 1 + random.below(modules as u32 - 1) as usize) % modules;
            function.linkage = *random.choose(&[Linkage::Export, Linkage::Hidden, Linkage::Preemptible]);
            if entry {
                function.linkage = Linkage::Export;
            }
            function.seed = random.next();
            function.second = true;
            functions.push(function);
        }
    }
    functions
}

/// Returns a signature whose results fit every machine's registers: at most two 64-bit integers,
/// and at most two floats or vectors.
fn signature(random: &mut Random, options: &ProgramOptions, call_conv: CallConv) -> Signature {
    let ints = [types::I8, types::I16, types::I32, types::I64, types::I64];
    let mut others = Vec::new();
    if options.floats {
        others.extend([types::F32, types::F64, types::F32, types::F64]);
    }
    if options.vectors {
        others.extend(VECTORS.iter().filter(|ty| options.floats || ty.lane_type().is_int()));
    }
    let mut signature = Signature::new(call_conv);
    for _ in 0..*random.choose(&[0, 1, 2, 3, 4, 5, 7, 10]) {
        let other = !others.is_empty() && random.once_in(2);
        let param = AbiParam::new(*random.choose(if other { &others } else { &ints }));
        signature.params.push(match random.below(4) {
            0 if !other && param.value_type != types::I64 => param.uext(),
            1 if !other && param.value_type != types::I64 => param.sext(),
            _ => param,
        });
    }
    let mut left = [2, 2 * others.len().min(1)];
    for _ in 0..*random.choose(&[0, 1, 1, 1, 2, 2, 3]) {
        let kind = if random.once_in(3) { 1 } else { 0 };
        if left[kind] > 0 {
            left[kind] -= 1;
            let ty = *random.choose(if kind == 1 { &others } else { &ints });
            signature.returns.push(AbiParam::new(ty));
        }
    }
    signature
}
