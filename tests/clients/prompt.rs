//! A client that evaluates line by line, and goes on with the same ids: every line is a function
//! that is run before the next line is compiled. Lines call earlier lines and use their data, which
//! have no names.

use cranelift_codegen::ir::{AbiParam, InstBuilder, MemFlagsData, types};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::{DataDescription, DataId, FuncId, Module};
use kiln::Session;
use kiln::image::Image;
use kiln::ir::ModuleBuilder;

use crate::engines::{jit_module, own_target};
use crate::host::Host;
use crate::language::Failure;

const LINES: usize = 8;

/// The client's memory of earlier lines.
#[derive(Default)]
struct Lines {
    functions: Vec<FuncId>,
    /// A counter of how often each line was run.
    counters: Vec<DataId>,
}

impl Lines {
    /// Defines the next line: it counts itself, and returns the number of times that it and the
    /// line before ran, plus ten times what the line before the last returns when called.
    fn next<M: Module>(&mut self, module: &mut M) -> Result<FuncId, Failure> {
        let mut context = module.make_context();
        context.func.signature.returns.push(AbiParam::new(types::I64));
        let id = module.declare_anonymous_function(&context.func.signature)?;
        let counter = module.declare_anonymous_data(true, false)?;
        let mut data = DataDescription::new();
        data.define_zeroinit(8);
        module.define_data(counter, &data)?;

        let mut scratch = FunctionBuilderContext::new();
        let mut builder = FunctionBuilder::new(&mut context.func, &mut scratch);
        let block = builder.create_block();
        builder.switch_to_block(block);
        let own = module.declare_data_in_func(counter, builder.func);
        let own = builder.ins().symbol_value(types::I64, own);
        let count = builder.ins().load(types::I64, MemFlagsData::trusted(), own, 0);
        let one = builder.ins().iconst(types::I64, 1);
        let mut sum = builder.ins().iadd(count, one);
        builder.ins().store(MemFlagsData::trusted(), sum, own, 0);
        if let Some(before) = self.counters.last() {
            let before = module.declare_data_in_func(*before, builder.func);
            let before = builder.ins().symbol_value(types::I64, before);
            let before = builder.ins().load(types::I64, MemFlagsData::trusted(), before, 0);
            sum = builder.ins().iadd(sum, before);
        }
        if let Some(called) = self.functions.iter().rev().nth(1) {
            let called = module.declare_func_in_func(*called, builder.func);
            let call = builder.ins().call(called, &[]);
            let ten = builder.ins().iconst(types::I64, 10);
            let tens = builder.inst_results(call)[0];
            let tens = builder.ins().imul(tens, ten);
            sum = builder.ins().iadd(sum, tens);
        }
        builder.ins().return_(&[sum]);
        builder.seal_all_blocks();
        builder.finalize(module.target_config());
        module.define_function(id, &mut context)?;
        self.functions.push(id);
        self.counters.push(counter);
        Ok(id)
    }
}

/// Calls a line.
fn run(code: *const u8) -> i64 {
    // SAFETY: `Lines` defines functions of this type, which use nothing but their own data; their
    // memory lives on.
    let line = unsafe { std::mem::transmute::<*const u8, extern "C" fn() -> i64>(code) };
    line()
}

fn with_jit() -> Result<Vec<i64>, Failure> {
    let mut module = jit_module(&Host::new())?;
    let (mut lines, mut results) = (Lines::default(), Vec::new());
    for _ in 0..LINES {
        let id = lines.next(&mut module)?;
        module.finalize_definitions()?;
        results.push(run(module.get_finalized_function(id)));
    }
    // SAFETY: no code of it runs any more.
    unsafe { module.free_memory() };
    Ok(results)
}

fn with_session(session: &Session, name: &str) -> Result<Vec<i64>, Failure> {
    let mut module = ModuleBuilder::new(name, session.target())?;
    let (mut lines, mut results) = (Lines::default(), Vec::new());
    for number in 0..LINES {
        let id = lines.next(&mut module)?;
        let part = module.finish_part(format!("{name} line {number}"));
        let symbol = part.ids.function(id).ok_or("the line has no symbol")?;
        let unit = session.add(&[part])?;
        results.push(run(unit.symbol(0, symbol.index()).ok_or("the line is not there")?.address));
    }
    Ok(results)
}

/// The results are those of `JITModule`, for two prompts of one session; and the image of all lines
/// can be loaded.
pub(crate) fn goes_on_with_the_same_ids() -> Result<(), Failure> {
    let expected = with_jit()?;
    let session = Session::new(own_target()?)?;
    for name in ["first", "second"] {
        let found = with_session(&session, name)?;
        if found != expected {
            return Err(format!("{name}: expected {expected:?}, found {found:?}").into());
        }
    }
    let image = Image::from_bytes(&session.image()?)?;
    image.verify()?;
    image.bind(&kiln::jit::libcalls::process)?;
    Ok(())
}
