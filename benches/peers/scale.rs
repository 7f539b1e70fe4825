//! Comparison N: how time and memory grow with the number of functions.
//!
//! Times are those of the processor, summed over threads. Every size is compiled and linked in a
//! process of its own, so that its memory can be seen. The functions are small and call one
//! another, also in other modules, so that linking has as many names and relocations to resolve as
//! there are functions.

use std::process::Command;

use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{AbiParam, InstBuilder, types};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::{FuncId, Linkage, Module as _};
use kiln::Compiler;
use kiln::globals::GlobalTable;
use kiln::image::{ImageOptions, write_image};
use kiln::ir::{Module, ModuleBuilder, ModuleSettings, Target};
use rayon::prelude::*;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::measure::spread;
use crate::report::{Comparison, Curve, Goal};
use crate::sessions::{peak, resident};
use crate::setup::{Failure, Setup};

/// The number of functions in a module.
const MODULE: usize = 100;

/// The smallest size, which the others are compared with.
const SMALLEST: usize = 10_000;

/// The compiler of a child process.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum ScaleChild {
    Kiln,
    Raw,
}

/// Generates `functions` functions in modules of [`MODULE`] functions.
fn modules(functions: usize, target: &Target) -> Result<Vec<Module>, Failure> {
    let name = |index: usize| format!("function_{index}");
    let module = |number: usize| -> Result<Module, Failure> {
        let mut builder = ModuleBuilder::new(format!("module {number}"), target)?;
        let mut signature = builder.make_signature();
        signature.params.extend([AbiParam::new(types::I64); 2]);
        signature.returns.push(AbiParam::new(types::I64));
        let declare = |builder: &mut ModuleBuilder, index: usize, linkage| -> Result<FuncId, Failure> {
            Ok(builder.declare_function(&name(index), linkage, &signature)?)
        };
        let own = number * MODULE..functions.min((number + 1) * MODULE);
        let ids: Vec<FuncId> = own
            .clone()
            .map(|index| declare(&mut builder, index, Linkage::Export))
            .collect::<Result<_, _>>()?;
        // Eight functions of other modules, far away and near.
        let others = (1..=8).map(|step| (own.start + step * functions / 9) % functions);
        let others: Vec<FuncId> = others
            .filter(|index| !own.contains(index))
            .map(|index| declare(&mut builder, index, Linkage::Import))
            .collect::<Result<_, _>>()?;
        let (mut context, mut scratch) = (Context::new(), FunctionBuilderContext::new());
        for (number, &id) in ids.iter().enumerate() {
            context.clear();
            context.func.signature = signature.clone();
            let callee = match others.get(number % 12) {
                Some(&other) => other,
                None => ids[number / 2],
            };
            let callee = builder.declare_func_in_func(callee, &mut context.func);
            let mut body = FunctionBuilder::new(&mut context.func, &mut scratch);
            let block = body.create_block();
            body.append_block_params_for_function_params(block);
            body.switch_to_block(block);
            body.seal_block(block);
            let [a, b] = [0, 1].map(|index| body.block_params(block)[index]);
            let factor = body.ins().iconst(types::I64, (own.start + number) as i64);
            let product = body.ins().imul(a, factor);
            let sum = body.ins().iadd(product, b);
            let call = body.ins().call(callee, &[sum, a]);
            let called = body.inst_results(call)[0];
            let result = body.ins().bxor(called, product);
            body.ins().return_(&[result]);
            body.finalize(builder.target_config());
            builder.define_function(id, &mut context)?;
        }
        Ok(builder.finish()?)
    };
    (0..functions.div_ceil(MODULE)).into_par_iter().map(module).collect()
}

/// Returns the time of the processor that all threads of this process have taken, in seconds. Other
/// programs do not add to it as they do to the time of a clock, so that long runs can be compared.
fn processor_time() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Compiles and links, and prints the figures for the parent.
pub(crate) fn child(compiler: ScaleChild, functions: usize, setup: &Setup) -> Result<(), Failure> {
    let target = Target::host();
    let modules = setup.pool.install(|| modules(functions, &target))?;
    let before = resident()?;
    // The peak is counted from here.
    std::fs::write("/proc/self/clear_refs", "5")?;
    let start = processor_time();
    let figures = match compiler {
        ScaleChild::Kiln => {
            let compiler = Compiler::new(target).pool(setup.pool.clone());
            let artifacts = compiler.compile(&modules)?.artifacts;
            let compile = processor_time() - start;
            let start = processor_time();
            let options = ImageOptions::default();
            let image = setup.pool.install(|| write_image(&artifacts, &GlobalTable::new(), &options));
            let image =
                image.map_err(|errors| errors.first().map_or_else(String::new, ToString::to_string))?;
            let link = processor_time() - start;
            json!({ "compile": compile, "link": link, "image": image.len() })
        }
        ScaleChild::Raw => {
            let isa = target.isa(&ModuleSettings::default())?;
            let compile = |context: &mut Context, module: &Module| {
                let code = module.functions.iter().map(|function| {
                    context.clear();
                    context.func = function.ir().ok_or("machine code in a module")?;
                    let code = context
                        .compile(&*isa, &mut ControlPlane::default())
                        .map_err(|error| format!("{:?}", error.inner))?;
                    Ok(Box::from(code.buffer.data()))
                });
                code.collect::<Result<Vec<Box<[u8]>>, Failure>>()
            };
            let code = setup.pool.install(|| {
                modules.par_iter().map_init(Context::new, compile).collect::<Result<Vec<_>, Failure>>()
            })?;
            std::hint::black_box(code);
            json!({ "compile": processor_time() - start, "link": 0.0, "image": 0 })
        }
    };
    println!("{}", json!({ "before": before, "peak": peak()?, "figures": figures }));
    Ok(())
}

/// Chooses one of the figures.
type Figure = fn(&Figures) -> f64;

/// The figures of one child, each for one function: seconds or bytes.
struct Figures {
    compile: f64,
    link: f64,
    /// The peak without the IR.
    memory: f64,
    /// The whole peak, not divided.
    peak: f64,
    image: f64,
}

fn run(compiler: &str, functions: usize, setup: &Setup) -> Result<Figures, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--scale-child", compiler]);
    command.args([format!("--scale={functions}"), format!("--threads={}", setup.threads)]);
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("{functions} functions: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let value: Value = serde_json::from_slice(&output.stdout)?;
    let number = |value: &Value| value.as_f64().ok_or("no number");
    let each = |value: &Value| Ok::<_, Failure>(number(value)? / functions as f64);
    let (peak, before) = (number(&value["peak"])?, number(&value["before"])?);
    Ok(Figures {
        compile: each(&value["figures"]["compile"])?,
        link: each(&value["figures"]["link"])?,
        memory: (peak - before) / functions as f64,
        peak,
        image: number(&value["figures"]["image"])?,
    })
}

/// Compares sizes up to `largest` functions.
pub(crate) fn compare(setup: &Setup, largest: usize) -> Result<Comparison, Failure> {
    let mut comparison = Comparison::new("small functions", "N. cost of a function, by their number");
    let smallest = SMALLEST.min((largest / 10).max(1));
    let mut sizes: Vec<usize> = std::iter::successors(Some(smallest), |size| Some(size * 10))
        .take_while(|size| *size < largest)
        .collect();
    sizes.push(largest);
    // A large size is noise enough by itself, and takes minutes.
    let rounds = |size: usize| (setup.rounds as usize).min((500_000 / size).max(1));
    let mut measured: Vec<Vec<Figures>> = sizes.iter().map(|_| Vec::new()).collect();
    let mut raw = Vec::new();
    for round in 0..setup.rounds as usize {
        for (size, figures) in sizes.iter().zip(&mut measured) {
            if round < rounds(*size) {
                figures.push(run("kiln", *size, setup)?);
            }
        }
    }
    for size in &sizes {
        raw.push(run("raw", *size, setup)?);
    }
    let of = |figure: Figure, figures: &[Figures]| -> Vec<f64> { figures.iter().map(figure).collect() };
    let kinds: [(&str, &str, Figure, f64); 4] = [
        ("compile and link a function", "us", |figures| figures.compile + figures.link, 1e6),
        ("compile a function", "us", |figures| figures.compile, 1e6),
        ("link a function", "us", |figures| figures.link, 1e6),
        ("peak memory of a function, without its IR", "bytes", |figures| figures.memory, 1.0),
    ];
    for (what, unit, figure, factor) in kinds {
        let first = spread(&of(figure, &measured[0])).median;
        let mut curve = Curve::new(what, unit, "functions");
        let points = |runs: &[Vec<Figures>]| -> Vec<(f64, f64)> {
            let each = sizes.iter().zip(runs);
            each.map(|(size, runs)| (*size as f64, spread(&of(figure, runs)).median * factor)).collect()
        };
        curve.line("kiln", points(&measured));
        for (size, figures) in sizes.iter().zip(&measured) {
            let values: Vec<f64> = of(figure, figures).iter().map(|value| value * factor).collect();
            comparison.values(format!("{what}, {unit}: {size} functions"), &values, Goal::None);
        }
        for (size, figures) in sizes.iter().zip(&measured).skip(1) {
            let values: Vec<f64> = of(figure, figures).iter().map(|value| value / first).collect();
            comparison.values(
                format!("{what}: {size} functions / {smallest} functions"),
                &values,
                Goal::AtMost(1.10),
            );
        }
        if raw.iter().all(|raw| figure(raw) > 0.0) {
            let line = sizes.iter().zip(&raw).map(|(size, raw)| (*size as f64, figure(raw) * factor));
            curve.line("raw loop that keeps its code", line.collect());
        }
        comparison.curve(curve);
    }
    comparison.note("times are those of the processor, summed over threads");
    for ((size, figures), raw) in sizes.iter().zip(&measured).zip(&raw) {
        comparison.note(format!(
            "{size} functions: peak {:.0} MB in kiln, {:.0} MB in the raw loop; the image has {:.0} MB",
            figures[0].peak / 1e6,
            raw.peak / 1e6,
            figures[0].image / 1e6,
        ));
    }
    Ok(comparison)
}
