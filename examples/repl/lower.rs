//! The way from a function of the language to a module with this one function.

use std::error::Error;

use cranelift_codegen::ir::{AbiParam, InstBuilder, MemFlagsData, Value, condcodes::IntCC, types::I64};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::{Linkage, Module as _};
use kiln::ir::{Module, ModuleBuilder, Target};

use super::language::{Expr, Function, Operator};

/// The key of the run-time object that holds the number of calls which may still be made inside
/// each other. Code refers to it by this key, so it works in every process.
pub(crate) const DEPTH_KEY: &str = "repl:depth";

/// A value that stays negative while all calls return.
const TOO_DEEP: i64 = i64::MIN / 2;

/// The way in which the function can be used.
pub(crate) struct Export<'a> {
    /// The name of its symbol.
    pub(crate) symbol: &'a str,
    /// Whether it can be defined again.
    pub(crate) replaceable: bool,
}

/// Makes the module. `arity` returns the number of parameters of a function that exists.
pub(crate) fn lower(
    function: &Function,
    export: &Export<'_>,
    target: &Target,
    arity: &dyn Fn(&str) -> Option<usize>,
) -> Result<Module, Box<dyn Error>> {
    let mut module = ModuleBuilder::new(&*function.name, target)?;
    let mut context = module.make_context();
    context.func.signature.params = vec![AbiParam::new(I64); function.params.len()];
    context.func.signature.returns = vec![AbiParam::new(I64)];
    let id = module.declare_function(export.symbol, Linkage::Export, &context.func.signature)?;
    if export.replaceable {
        module.set_replaceable(id)?;
    }

    let mut scratch = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut context.func, &mut scratch);
    let entry = builder.create_block();
    builder.append_block_params_for_function_params(entry);
    builder.switch_to_block(entry);
    let params = builder.block_params(entry).to_vec();
    let depth = module.global(DEPTH_KEY);
    let depth = module.declare_data_in_func(depth, builder.func);
    let depth = builder.ins().symbol_value(I64, depth);
    let mut lowering = Lowering { module: &mut module, builder, function, export, params, depth, arity };
    lowering.enter();
    let value = lowering.value(&function.body)?;
    lowering.leave(value);
    let mut builder = lowering.builder;
    builder.seal_all_blocks();
    builder.finalize(module.target_config());
    module.define_function(id, &mut context)?;
    Ok(module.finish()?)
}

struct Lowering<'m, 'a> {
    module: &'m mut ModuleBuilder,
    builder: FunctionBuilder<'a>,
    function: &'a Function,
    export: &'a Export<'a>,
    params: Vec<Value>,
    /// The address of the object with the key [`DEPTH_KEY`].
    depth: Value,
    arity: &'a dyn Fn(&str) -> Option<usize>,
}

impl Lowering<'_, '_> {
    /// Counts the call, and returns 0 if there are too many inside each other.
    fn enter(&mut self) {
        let depth = self.add_to_depth(-1);
        let [too_deep, body] = [(); 2].map(|()| self.builder.create_block());
        let zero = self.builder.ins().iconst(I64, 0);
        let is_too_deep = self.builder.ins().icmp(IntCC::SignedLessThan, depth, zero);
        self.builder.ins().brif(is_too_deep, too_deep, &[], body, &[]);
        self.builder.switch_to_block(too_deep);
        let negative = self.builder.ins().iconst(I64, TOO_DEEP);
        self.builder.ins().store(MemFlagsData::trusted(), negative, self.depth, 0);
        self.builder.ins().return_(&[zero]);
        self.builder.switch_to_block(body);
    }

    fn leave(&mut self, value: Value) {
        self.add_to_depth(1);
        self.builder.ins().return_(&[value]);
    }

    fn add_to_depth(&mut self, number: i64) -> Value {
        let depth = self.builder.ins().load(I64, MemFlagsData::trusted(), self.depth, 0);
        let number = self.builder.ins().iconst(I64, number);
        let depth = self.builder.ins().iadd(depth, number);
        self.builder.ins().store(MemFlagsData::trusted(), depth, self.depth, 0);
        depth
    }

    fn value(&mut self, expr: &Expr) -> Result<Value, Box<dyn Error>> {
        Ok(match expr {
            Expr::Number(number) => self.builder.ins().iconst(I64, *number),
            Expr::Param(index) => self.params[*index],
            Expr::Call(name, arguments) => self.call(name, arguments)?,
            Expr::Binary(operator, operands) => {
                let (left, right) = (self.value(&operands[0])?, self.value(&operands[1])?);
                let mut compare = |condition| {
                    let result = self.builder.ins().icmp(condition, left, right);
                    self.builder.ins().uextend(I64, result)
                };
                match operator {
                    Operator::Less => compare(IntCC::SignedLessThan),
                    Operator::Equal => compare(IntCC::Equal),
                    Operator::Add => self.builder.ins().iadd(left, right),
                    Operator::Sub => self.builder.ins().isub(left, right),
                    Operator::Mul => self.builder.ins().imul(left, right),
                }
            }
            Expr::If(parts) => {
                let condition = self.value(&parts[0])?;
                let [yes, no, end] = [(); 3].map(|()| self.builder.create_block());
                self.builder.append_block_param(end, I64);
                self.builder.ins().brif(condition, yes, &[], no, &[]);
                for (part, branch) in parts[1..].iter().zip([yes, no]) {
                    self.builder.switch_to_block(branch);
                    let result = self.value(part)?.into();
                    self.builder.ins().jump(end, &[result]);
                }
                self.builder.switch_to_block(end);
                self.builder.block_params(end)[0]
            }
        })
    }

    fn call(&mut self, name: &str, arguments: &[Expr]) -> Result<Value, Box<dyn Error>> {
        let is_own = name == self.function.name;
        // Names that only the process knows, such as `exit`, are no functions of the language.
        let expected = if is_own { Some(self.function.params.len()) } else { (self.arity)(name) };
        let expected = expected.ok_or_else(|| format!("no function `{name}`"))?;
        if expected != arguments.len() {
            return Err(format!("`{name}` takes {expected} arguments, not {}", arguments.len()).into());
        }
        let arguments =
            arguments.iter().map(|argument| self.value(argument)).collect::<Result<Vec<_>, _>>()?;
        let symbol = if is_own { self.export.symbol } else { name };
        let mut signature = self.module.make_signature();
        signature.params = vec![AbiParam::new(I64); expected];
        signature.returns = vec![AbiParam::new(I64)];
        let callee = self.module.declare_function(symbol, Linkage::Import, &signature)?;
        let callee = self.module.declare_func_in_func(callee, self.builder.func);
        let call = self.builder.ins().call(callee, &arguments);
        Ok(self.builder.inst_results(call)[0])
    }
}
