//! Decides on the data objects of a program: content, alignment, and pointers to other items.

use cranelift_module::Linkage;

use super::super::plan::{PlannedData, PlannedFunction, PointerTarget, visible};
use super::super::program::ProgramOptions;
use crate::random::Random;

pub(super) fn data(
    random: &mut Random,
    options: &ProgramOptions,
    modules: usize,
    functions: &[PlannedFunction],
    globals: usize,
) -> Vec<PlannedData> {
    let mut data: Vec<PlannedData> = Vec::new();
    let mut locals = vec![0; modules];
    for number in 0..random.below(options.data * modules as u32 + 1) as usize {
        let module = random.below(modules as u32) as usize;
        let linkage = *random.choose(&[
            Linkage::Local,
            Linkage::Local,
            Linkage::Hidden,
            Linkage::Export,
            Linkage::Export,
            Linkage::Preemptible,
        ]);
        let name = match linkage {
            Linkage::Local => {
                locals[module] += 1;
                let anonymous = options.anonymous && random.once_in(4);
                (!anonymous).then(|| format!("data{}", locals[module]))
            }
            _ => Some(format!("d{number}")),
        };
        let len = *random.choose(&[1, 2, 3, 8, 13, 16, 31, 64, 64, 100, 257, 4097]);
        let zeros = random.once_in(4);
        let mut align = *random.choose(&[None, None, Some(1), Some(2), Some(4), Some(16), Some(64)]);
        if random.once_in(32) {
            align = Some(4096);
        }
        let mut plan = PlannedData {
            name,
            module,
            linkage,
            writable: zeros || random.once_in(2),
            align,
            bytes: (!zeros).then(|| random.bytes(len as usize)),
            len,
            plain: (0, len),
            pointers: Vec::new(),
        };
        if random.once_in(3) {
            pointers(random, &mut plan, functions, &data, globals);
        }
        data.push(plan);
    }
    data
}

/// Adds pointers to a data object, before or after its plain bytes, at unaligned offsets too.
fn pointers(
    random: &mut Random,
    plan: &mut PlannedData,
    functions: &[PlannedFunction],
    data: &[PlannedData],
    globals: usize,
) {
    let mut targets = Vec::new();
    for _ in 0..random.within(1, 6) {
        let target = match random.below(4) {
            0 if !data.is_empty() => {
                let number = random.below(data.len() as u32) as usize;
                PointerTarget::Data(number, *random.choose(&[0, 0, 1, 8, -8, 100]))
            }
            1 if globals > 0 => {
                let number = random.below(globals as u32) as usize;
                PointerTarget::Global(number, *random.choose(&[0, 0, 4, -16]))
            }
            _ => PointerTarget::Function(random.below(functions.len() as u32) as usize),
        };
        let fits = match target {
            PointerTarget::Function(number) => {
                let function = &functions[number];
                visible(function.linkage, function.module, plan.module) && !function.second
            }
            PointerTarget::Data(number, _) => visible(data[number].linkage, data[number].module, plan.module),
            PointerTarget::Global(..) => true,
        };
        if fits {
            targets.push(target);
        }
    }
    let room = 8 * targets.len() as u32;
    let gap = if random.once_in(4) { random.below(8) } else { 0 };
    let start = if random.once_in(2) {
        // The pointers are before the plain bytes.
        plan.plain.0 += room + gap;
        gap
    } else {
        plan.len + gap
    };
    plan.len += room + gap;
    plan.pointers =
        targets.into_iter().enumerate().map(|(index, target)| (start + 8 * index as u32, target)).collect();
    if let Some(bytes) = &mut plan.bytes {
        *bytes = random.bytes(plan.len as usize);
    }
}
