//! What a program consists of, decided before any of it is built: who calls whom, who points at what.
//!
//! Invariants, which make every program end and give the same result everywhere:
//! - A function calls only functions with a higher number, and none that another takes the place of. So there is no recursion.
//! - A function executes at most [`Function::cap`] instructions, more or less, calls included.
//! - The bytes of a datum are either plain or a pointer for good: no address is ever read as a number.

use cranelift_codegen::data_value::DataValue;
use cranelift_codegen::ir::immediates::{Ieee32, Ieee64};
use cranelift_codegen::ir::{AbiParam, Signature, Type, types};
use cranelift_codegen::isa::CallConv;
use cranelift_module::Linkage;

use super::{Entry, ProgramOptions};
use crate::random::Random;

/// Scalars of every kind.
pub(super) const SCALARS: [Type; 7] =
    [types::I8, types::I16, types::I32, types::I64, types::I128, types::F32, types::F64];
/// Vectors of every kind.
pub(super) const VECTORS: [Type; 6] =
    [types::I8X16, types::I16X8, types::I32X4, types::I64X2, types::F32X4, types::F64X2];

/// A function to be built.
#[derive(Clone, Debug)]
pub(super) struct Function {
    /// `None`: anonymous.
    pub(super) name: Option<String>,
    pub(super) module: usize,
    pub(super) linkage: Linkage,
    pub(super) signature: Signature,
    /// Instructions that a call may take.
    pub(super) cap: u64,
    /// Seed of its body.
    pub(super) seed: u64,
    /// Another definition takes its place, or it takes the place of another: callers use the first of the two.
    pub(super) second: bool,
}

/// What a pointer in data points at.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    Function(usize),
    /// A datum, and what is added to its address.
    Data(usize, i64),
    /// A run-time object, the same.
    Global(usize, i64),
}

/// A datum to be built.
#[derive(Clone, Debug)]
pub(super) struct Data {
    /// `None`: anonymous.
    pub(super) name: Option<String>,
    pub(super) module: usize,
    pub(super) linkage: Linkage,
    pub(super) writable: bool,
    pub(super) align: Option<u32>,
    /// Initial content; `None` if it is zeros.
    pub(super) bytes: Option<Vec<u8>>,
    pub(super) len: u32,
    /// Where the plain bytes are, and how many.
    pub(super) plain: (u32, u32),
    pub(super) pointers: Vec<(u32, Target)>,
}

/// A run-time object.
#[derive(Clone, Debug)]
pub(super) struct Global {
    pub(super) key: String,
    pub(super) bytes: Vec<u8>,
}

/// A program, not yet built.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) modules: usize,
    /// The first ones are entries.
    pub(super) functions: Vec<Function>,
    pub(super) data: Vec<Data>,
    pub(super) globals: Vec<Global>,
    pub(super) entries: Vec<Entry>,
}

/// Whether module `from` can name what `module` defines with this linkage.
pub(super) fn visible(linkage: Linkage, module: usize, from: usize) -> bool {
    module == from || linkage != Linkage::Local
}

impl Plan {
    pub(super) fn new(seed: u64, options: &ProgramOptions) -> Self {
        let mut random = Random::new(seed);
        let random = &mut random;
        let modules = random.within(1, options.modules.max(1)) as usize;
        let functions = functions(random, options, modules);
        let globals: Vec<Global> = (0..random.below(options.globals + 1))
            .map(|at| {
                let len = *random.choose(&[16, 24, 33, 64, 200]);
                let key =
                    if random.once_in(4) { format!("object {at}: é=\"{at}\"") } else { format!("g{at}") };
                Global { key, bytes: random.bytes(len) }
            })
            .collect();
        let data = data(random, options, modules, &functions, globals.len());
        let entries = entries(random, &functions, modules);
        Self { seed, modules, functions, data, globals, entries }
    }

    /// The name of the function that reads all data of a module.
    pub(super) fn checksum(module: usize) -> String {
        format!("checksum{module}")
    }
}

fn functions(random: &mut Random, options: &ProgramOptions, modules: usize) -> Vec<Function> {
    // Few signatures, so that functions can stand for one another.
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
            // On purpose the same in every module.
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
        let mut function =
            Function { name, module, linkage, signature, cap, seed: random.next(), second: false };
        let preemptible = linkage == Linkage::Preemptible && modules > 1 && random.once_in(2);
        functions.push(function.clone());
        if preemptible {
            // Another definition, in another module, which takes its place or gives way like it.
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

/// A signature whose results fit every machine's registers: two integers of 64 bits, and two floats or vectors.
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

fn data(
    random: &mut Random,
    options: &ProgramOptions,
    modules: usize,
    functions: &[Function],
    globals: usize,
) -> Vec<Data> {
    let mut data: Vec<Data> = Vec::new();
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
        let mut plan = Data {
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

/// Adds pointers to a datum, before or behind its plain bytes, at odd places too.
fn pointers(random: &mut Random, plan: &mut Data, functions: &[Function], data: &[Data], globals: usize) {
    let mut targets = Vec::new();
    for _ in 0..random.within(1, 6) {
        let target = match random.below(4) {
            0 if !data.is_empty() => {
                let at = random.below(data.len() as u32) as usize;
                Target::Data(at, *random.choose(&[0, 0, 1, 8, -8, 100]))
            }
            1 if globals > 0 => {
                let at = random.below(globals as u32) as usize;
                Target::Global(at, *random.choose(&[0, 0, 4, -16]))
            }
            _ => Target::Function(random.below(functions.len() as u32) as usize),
        };
        let fits = match target {
            Target::Function(at) => {
                let function = &functions[at];
                visible(function.linkage, function.module, plan.module) && !function.second
            }
            Target::Data(at, _) => visible(data[at].linkage, data[at].module, plan.module),
            Target::Global(..) => true,
        };
        if fits {
            targets.push(target);
        }
    }
    let room = 8 * targets.len() as u32;
    let gap = if random.once_in(4) { random.below(8) } else { 0 };
    let start = if random.once_in(2) {
        // In front.
        plan.plain.0 += room + gap;
        gap
    } else {
        plan.len + gap
    };
    plan.len += room + gap;
    plan.pointers =
        targets.into_iter().enumerate().map(|(at, target)| (start + 8 * at as u32, target)).collect();
    if let Some(bytes) = &mut plan.bytes {
        *bytes = random.bytes(plan.len as usize);
    }
}

fn entries(random: &mut Random, functions: &[Function], modules: usize) -> Vec<Entry> {
    let mut entries = Vec::new();
    let exported = |function: &Function| matches!(function.linkage, Linkage::Export | Linkage::Preemptible);
    let callable = |at: usize| {
        let replaced = functions.get(at + 1).is_some_and(|next| next.second && !exported(next));
        let function = &functions[at];
        let first = !function.second && !replaced;
        (first && exported(function) && function.signature.call_conv == CallConv::SystemV).then_some(function)
    };
    let callable: Vec<&Function> = (0..functions.len()).filter_map(callable).collect();
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

/// The bits of a number that is likely to be interesting.
pub(super) fn bits(random: &mut Random) -> u64 {
    match random.below(10) {
        0 => 0,
        1 => 1,
        2 => u64::MAX,
        3 => 1 << random.below(64),
        4 => (1 << random.below(64)) - 1,
        5 => !0 << random.below(64),
        6 | 7 => u64::from(random.below(256)),
        _ => random.next(),
    }
}

/// The bits of a float of 64 bits that is likely to be interesting; a NaN is the one that results are.
pub(super) fn float(random: &mut Random) -> f64 {
    let special = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        1.5,
        2.5,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MIN_POSITIVE,
        5e-324,
        f64::MAX,
        2_147_483_648.0,
        -9_223_372_036_854_775_808.0,
        1e-40,
        16_777_217.0,
    ];
    match random.below(8) {
        0 => f64::from_bits(0x7ff8_0000_0000_0000),
        1..5 => *random.choose(&special),
        5 => f64::from(random.next() as i32) / 8.0,
        _ => {
            let value = f64::from_bits(random.next());
            if value.is_nan() { 3.25 } else { value }
        }
    }
}

/// A float of 32 bits, in the same way.
pub(super) fn float32(random: &mut Random) -> u32 {
    let value = float(random);
    if value.is_nan() { 0x7fc0_0000 } else { (value as f32).to_bits() }
}

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
