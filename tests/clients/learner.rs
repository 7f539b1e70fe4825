//! A client that learns the type of a function while it lowers it, as RustPython's JIT does: the
//! function is declared with its parameters alone, and defined with its return type.

use cranelift_codegen::ir::{AbiParam, InstBuilder, Value, types};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::{FuncId, Linkage, Module};

use crate::Way;
use crate::engines::Client;
use crate::host::Outcome;
use crate::language::Failure;

/// A source of stack code.
enum Code {
    Int(i64),
    Float(f64),
    Add,
    /// Makes an integer of a float.
    Round,
}

/// Functions by name.
pub(crate) struct Learner([(&'static str, Vec<Code>); 3]);

pub(crate) fn check(run: Way<Learner>) -> Result<(), Failure> {
    let learner = Learner([
        ("integer", vec![Code::Int(1), Code::Int(2), Code::Add]),
        ("float", vec![Code::Float(1.5), Code::Float(0.25), Code::Add]),
        ("start", vec![Code::Float(40.5), Code::Float(1.5), Code::Add, Code::Round]),
    ]);
    let outcome = run(&learner)?;
    let expected = Outcome { result: 42, output: String::new(), tally: 0, state: None };
    if outcome == expected { Ok(()) } else { Err(format!("found {outcome:#?}").into()) }
}

impl Client for Learner {
    fn build<M: Module>(&self, module: &mut M) -> Result<(), Failure> {
        let mut context = module.make_context();
        let mut scratch = FunctionBuilderContext::new();
        for (name, code) in &self.0 {
            let id: FuncId = module.declare_function(name, Linkage::Export, &context.func.signature)?;
            // For calls of itself, which are not in these programs.
            module.declare_func_in_func(id, &mut context.func);
            let mut builder = FunctionBuilder::new(&mut context.func, &mut scratch);
            let block = builder.create_block();
            builder.switch_to_block(block);
            let result = lower(code, &mut builder);
            let ty = builder.func.dfg.value_type(result);
            builder.func.signature.returns.push(AbiParam::new(ty));
            builder.ins().return_(&[result]);
            builder.seal_all_blocks();
            builder.finalize(module.target_config());
            module.define_function(id, &mut context)?;
            module.clear_context(&mut context);
        }
        Ok(())
    }
}

fn lower(code: &[Code], builder: &mut FunctionBuilder<'_>) -> Value {
    let mut stack = Vec::new();
    for step in code {
        let value = match step {
            Code::Int(value) => builder.ins().iconst(types::I64, *value),
            Code::Float(value) => builder.ins().f64const(*value),
            Code::Add => {
                let (b, a) = (stack.pop().expect("a value"), stack.pop().expect("a value"));
                match builder.func.dfg.value_type(a) {
                    types::F64 => builder.ins().fadd(a, b),
                    _ => builder.ins().iadd(a, b),
                }
            }
            Code::Round => {
                let value = stack.pop().expect("a value");
                builder.ins().fcvt_to_sint_sat(types::I64, value)
            }
        };
        stack.push(value);
    }
    stack.pop().expect("a result")
}
