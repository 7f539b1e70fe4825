//! Makes code with a plain `cranelift_jit::JITModule`, and tells debugger, profiler and unwinder
//! about it.
//!
//! ```text
//! cargo run -p kiln-debug --example plain_cranelift -- 1000
//! gdb -ex 'break host' -ex run -ex backtrace target/debug/examples/plain_cranelift
//! perf record target/debug/examples/plain_cranelift 1000000 --map && perf report
//! ```
//!
//! The program has three functions, of which each calls the next; the last one calls `host`.

use cranelift_codegen::Context;
use cranelift_codegen::ir::{AbiParam, InstBuilder, Signature, types};
use cranelift_codegen::isa::{CallConv, OwnedTargetIsa, unwind::UnwindInfo};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module, default_libcall_names};
use gimli::write::{Address, EhFrame, EndianVec, FrameTable};
use kiln_debug::{Code, Function, Section, gdb, perf, unwind};

/// The functions, each of which calls the next; the last one calls `host`.
const NAMES: [&str; 3] = ["outer_square", "middle_triangle", "inner_circle"];

/// A function that was compiled.
struct Compiled {
    name: &'static str,
    id: FuncId,
    size: usize,
    unwind: UnwindInfo,
}

/// The function of the host that compiled code calls.
#[inline(never)]
extern "C" fn host(number: i64) -> i64 {
    if std::env::args().any(|argument| argument == "--backtrace") && number == 3 {
        println!("{}", std::backtrace::Backtrace::force_capture());
    }
    std::hint::black_box(number)
}

fn isa() -> OwnedTargetIsa {
    let mut flags = settings::builder();
    for (name, value) in [("is_pic", "false"), ("preserve_frame_pointers", "true")] {
        flags.set(name, value).expect("the settings exist");
    }
    let isa =
        cranelift_codegen::isa::lookup_by_name(&format!("{}-unknown-linux-gnu", std::env::consts::ARCH));
    let isa = isa.expect("this machine is supported");
    isa.finish(settings::Flags::new(flags)).expect("the settings are right")
}

/// Compiles a function that calls another one with its argument plus 1, and adds 1.
fn compile(module: &mut JITModule, name: &'static str, callee: FuncId) -> Compiled {
    let mut signature = Signature::new(CallConv::SystemV);
    signature.params.push(AbiParam::new(types::I64));
    signature.returns.push(AbiParam::new(types::I64));
    let id = module.declare_function(name, Linkage::Export, &signature).expect("the name is new");
    let mut context = Context::new();
    context.func.signature = signature;
    let callee = module.declare_func_in_func(callee, &mut context.func);
    let mut frontend = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut context.func, &mut frontend);
    let block = builder.create_block();
    builder.append_block_params_for_function_params(block);
    builder.switch_to_block(block);
    builder.seal_all_blocks();
    let argument = builder.block_params(block)[0];
    let argument = builder.ins().iadd_imm_s(argument, 1);
    let call = builder.ins().call(callee, &[argument]);
    let result = builder.inst_results(call)[0];
    let result = builder.ins().iadd_imm_s(result, 1);
    builder.ins().return_(&[result]);
    builder.finalize(module.isa().frontend_config());
    module.define_function(id, &mut context).expect("the function is sound");
    let code = context.compiled_code().expect("it was just compiled");
    let size = code.code_info().total_size as usize;
    let unwind = code.create_unwind_info(module.isa()).ok().flatten().expect("Linux has rows");
    Compiled { name, id, size, unwind }
}

/// Writes the rows of functions as a section `.eh_frame` with absolute addresses.
fn rows(module: &JITModule, functions: &[Compiled]) -> Vec<u8> {
    let mut table = FrameTable::default();
    let cie = table.add_cie(module.isa().create_systemv_cie().expect("Linux has rows"));
    for function in functions {
        let UnwindInfo::SystemV(info) = &function.unwind else { unreachable!("Linux has such rows") };
        let address = module.get_finalized_function(function.id) as u64;
        table.add_fde(cie, info.to_fde(Address::Constant(address)));
    }
    let mut section = EhFrame(EndianVec::new(gimli::NativeEndian));
    table.write_eh_frame(&mut section).expect("the rows are sound");
    let mut section = section.0.into_vec();
    section.extend([0; 4]);
    section
}

pub(crate) fn main() {
    let argument = |name| std::env::args().any(|argument| argument == name);
    let rounds = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(1i64);
    let mut builder = JITBuilder::with_isa(isa(), default_libcall_names());
    builder.symbol("host", host as *const u8);
    let mut module = JITModule::new(builder);
    let mut signature = Signature::new(CallConv::SystemV);
    signature.params.push(AbiParam::new(types::I64));
    signature.returns.push(AbiParam::new(types::I64));
    let mut callee = module.declare_function("host", Linkage::Import, &signature).expect("the name is new");
    let mut functions = Vec::new();
    for name in NAMES.into_iter().rev() {
        functions.push(compile(&mut module, name, callee));
        callee = functions.last().expect("it was just added").id;
    }
    module.finalize_definitions().expect("all functions are defined");

    // What is told: names, addresses and sizes, and the rows.
    let section = rows(&module, &functions);
    let start = |function: &Compiled| module.get_finalized_function(function.id) as usize;
    let described: Vec<Function<'_>> = functions
        .iter()
        .map(|function| Function { name: function.name, address: start(function), size: function.size })
        .collect();
    let first = described.iter().map(|function| function.address).min().unwrap_or(0);
    let last = described.iter().map(|function| function.address + function.size).max().unwrap_or(0);
    let range = first..last;
    let rows = Section { address: section.as_ptr() as usize, bytes: &section };
    let code = Code {
        functions: &described,
        ranges: std::slice::from_ref(&range),
        rows: &[rows],
        ..Code::default()
    };

    let rows = unwind::Rows { section: section.as_ptr(), code: range.clone(), region: range.clone() };
    // SAFETY: the rows are of this code, which is in one range, and they are dropped later.
    let unwinder = unsafe { unwind::Registration::new(rows) };
    // If no debugger is there, the code is not even described.
    let debugger = (gdb::is_watching() || argument("--gdb")).then(|| gdb::Registration::new(&code));
    for (name, kind) in [("--map", perf::Kind::Map), ("--dump", perf::Kind::Dump)] {
        if argument(name) {
            // SAFETY: the functions are in memory.
            unsafe { perf::add(kind, &code) };
        }
    }

    let outer = module.get_finalized_function(callee);
    // SAFETY: the function has this type.
    let outer = unsafe { std::mem::transmute::<*const u8, extern "C" fn(i64) -> i64>(outer) };
    let sum: i64 = (0..rounds).map(|number| outer(number)).sum();
    println!("{sum}");

    // In this order: the unwinder, then the debugger, then the memory.
    drop(unwinder);
    drop(debugger);
    removed();
    // SAFETY: no code of the module runs, and nobody keeps an address.
    unsafe { module.free_memory() };
}

/// A place for a breakpoint: the code is no longer known to the debugger.
#[inline(never)]
fn removed() {
    std::hint::black_box(());
}
