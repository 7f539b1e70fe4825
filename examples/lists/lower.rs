//! The way from a line to a module with one function.

use std::error::Error;

use cranelift_codegen::ir::{
    AbiParam, Block, InstBuilder, MemFlagsData, Value, condcodes::IntCC, types::I64,
};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext, Variable};
use cranelift_module::{Linkage, Module as _};
use kiln::ir::{Module, ModuleBuilder, Target};

use super::syntax::{Expr, Line};

/// The function of the host that makes pairs.
pub(crate) const CONS: &str = "lists_cons";

/// Returns the key of the global that is a variable's cell.
pub(crate) fn variable_key(name: &str) -> String {
    format!("lists:{name}")
}

/// Definitions that are there already.
pub(crate) struct Context<'c> {
    /// Returns the number of parameters of a function.
    pub(crate) arity: &'c dyn Fn(&str) -> Option<usize>,
    /// Returns the address of a variable's cell.
    pub(crate) cell: &'c dyn Fn(&str) -> Option<usize>,
}

/// Makes the module of a line, whose function is called `symbol`. Also returns the variables that
/// it uses.
pub(crate) fn lower(
    line: &Line,
    symbol: &str,
    target: &Target,
    context: &Context<'_>,
) -> Result<(Module, Vec<String>), Box<dyn Error>> {
    let (params, body) = match line {
        Line::Function { params, body, .. } => (&params[..], body),
        Line::Variable { value: body, .. } | Line::Expr(body) => (&[][..], body),
    };
    let mut module = ModuleBuilder::new(symbol, target)?;
    let mut code = module.make_context();
    code.func.signature.params = vec![AbiParam::new(I64); params.len()];
    code.func.signature.returns = vec![AbiParam::new(I64)];
    let id = module.declare_function(symbol, Linkage::Export, &code.func.signature)?;
    let mut scratch = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut code.func, &mut scratch);
    let entry = builder.create_block();
    builder.append_block_params_for_function_params(entry);
    builder.switch_to_block(entry);
    let values = builder.block_params(entry).to_vec();
    let variables: Vec<Variable> = params.iter().map(|_| builder.declare_var(I64)).collect();
    for (&variable, value) in variables.iter().zip(values) {
        builder.def_var(variable, value);
    }
    // A call of itself at the end is a jump back, so a loop needs no stack.
    let start = builder.create_block();
    builder.ins().jump(start, &[]);
    builder.switch_to_block(start);
    let own = Own { symbol, params, variables, start };
    let mut lowering = Lowering { module: &mut module, builder, own, context, used: Vec::new() };
    lowering.end(body)?;
    let Lowering { mut builder, used, .. } = lowering;
    builder.seal_all_blocks();
    builder.finalize(module.target_config());
    module.define_function(id, &mut code)?;
    Ok((module.finish()?, used))
}

/// The function that is made.
struct Own<'a> {
    symbol: &'a str,
    params: &'a [String],
    variables: Vec<Variable>,
    start: Block,
}

struct Lowering<'m, 'a> {
    module: &'m mut ModuleBuilder,
    builder: FunctionBuilder<'a>,
    own: Own<'a>,
    context: &'a Context<'a>,
    /// The variables that are used.
    used: Vec<String>,
}

type Lowered = Result<Value, Box<dyn Error>>;

impl Lowering<'_, '_> {
    /// Ends the function with the value of an expression.
    fn end(&mut self, expr: &Expr) -> Result<(), Box<dyn Error>> {
        match expr {
            Expr::If(parts) => {
                let [yes, no] = self.branch(&parts[0])?;
                for (part, block) in parts[1..].iter().zip([yes, no]) {
                    self.builder.switch_to_block(block);
                    self.end(part)?;
                }
            }
            Expr::Call(name, arguments) if name == self.own.symbol => {
                let values = self.arguments(name, arguments, self.own.params.len())?;
                for (variable, value) in self.own.variables.clone().into_iter().zip(values) {
                    self.builder.def_var(variable, value);
                }
                self.builder.ins().jump(self.own.start, &[]);
            }
            _ => {
                let value = self.value(expr)?;
                self.builder.ins().return_(&[value]);
            }
        }
        Ok(())
    }

    /// Branches if a value is neither 0 nor `nil`. Returns the blocks for yes and no.
    fn branch(&mut self, condition: &Expr) -> Result<[Block; 2], Box<dyn Error>> {
        let value = self.value(condition)?;
        let [yes, no] = [(); 2].map(|()| self.builder.create_block());
        let is_true = self.builder.ins().icmp_imm_u(IntCC::UnsignedGreaterThan, value, 1);
        self.builder.ins().brif(is_true, yes, &[], no, &[]);
        Ok([yes, no])
    }

    fn arguments(
        &mut self,
        name: &str,
        arguments: &[Expr],
        expected: usize,
    ) -> Result<Vec<Value>, Box<dyn Error>> {
        if expected != arguments.len() {
            return Err(format!("`{name}` takes {expected} arguments, not {}", arguments.len()).into());
        }
        arguments.iter().map(|argument| self.value(argument)).collect()
    }

    fn value(&mut self, expr: &Expr) -> Lowered {
        Ok(match expr {
            Expr::Number(number) => self.builder.ins().iconst(I64, number << 1 | 1),
            Expr::Nil => self.builder.ins().iconst(I64, 0),
            Expr::Name(name) => match self.own.params.iter().position(|param| param == name) {
                Some(index) => self.builder.use_var(self.own.variables[index]),
                None => {
                    (self.context.cell)(name).ok_or_else(|| format!("no variable `{name}`"))?;
                    self.used.push(name.clone());
                    let global = self.module.global(&variable_key(name));
                    let global = self.module.declare_data_in_func(global, self.builder.func);
                    let cell = self.builder.ins().symbol_value(I64, global);
                    self.builder.ins().load(I64, MemFlagsData::trusted(), cell, 0)
                }
            },
            Expr::If(parts) => {
                let [yes, no] = self.branch(&parts[0])?;
                let end = self.builder.create_block();
                self.builder.append_block_param(end, I64);
                for (part, block) in parts[1..].iter().zip([yes, no]) {
                    self.builder.switch_to_block(block);
                    let result = self.value(part)?.into();
                    self.builder.ins().jump(end, &[result]);
                }
                self.builder.switch_to_block(end);
                self.builder.block_params(end)[0]
            }
            Expr::Call(name, arguments) => self.call(name, arguments)?,
        })
    }

    fn call(&mut self, name: &str, arguments: &[Expr]) -> Lowered {
        match name {
            "+" | "-" | "*" | "rem" | "<" | "=" => {
                let values = self.arguments(name, arguments, 2)?;
                Ok(self.operator(name, values[0], values[1]))
            }
            "head" | "tail" => {
                let value = self.arguments(name, arguments, 1)?[0];
                Ok(self.part(value, if name == "head" { 0 } else { 8 }))
            }
            "cons" => {
                let values = self.arguments(name, arguments, 2)?;
                self.call_symbol(CONS, &values)
            }
            _ if name == self.own.symbol => {
                let values = self.arguments(name, arguments, self.own.params.len())?;
                self.call_symbol(name, &values)
            }
            _ => {
                let arity = (self.context.arity)(name).ok_or_else(|| format!("no function `{name}`"))?;
                let values = self.arguments(name, arguments, arity)?;
                self.call_symbol(name, &values)
            }
        }
    }

    fn call_symbol(&mut self, symbol: &str, values: &[Value]) -> Lowered {
        let mut signature = self.module.make_signature();
        signature.returns.push(AbiParam::new(I64));
        signature.params.extend(values.iter().map(|_| AbiParam::new(I64)));
        let id = self.module.declare_function(symbol, Linkage::Import, &signature)?;
        let function = self.module.declare_func_in_func(id, self.builder.func);
        let call = self.builder.ins().call(function, values);
        Ok(self.builder.inst_results(call)[0])
    }

    /// Calculates with numbers; of anything else the result is some number.
    fn operator(&mut self, name: &str, left: Value, right: Value) -> Value {
        if name == "=" {
            let equal = self.builder.ins().icmp(IntCC::Equal, left, right);
            return self.number_of(equal);
        }
        let [left, right] = [left, right].map(|value| self.builder.ins().sshr_imm_u(value, 1));
        let ins = self.builder.ins();
        let result = match name {
            "+" => ins.iadd(left, right),
            "-" => ins.isub(left, right),
            "*" => ins.imul(left, right),
            "<" => {
                let less = ins.icmp(IntCC::SignedLessThan, left, right);
                return self.number_of(less);
            }
            // Neither 0 nor -1, so nothing traps.
            _ => {
                let two = ins.iconst(I64, 2);
                let is_small = self.builder.ins().icmp(IntCC::SignedLessThan, right, two);
                let right = self.builder.ins().select(is_small, two, right);
                self.builder.ins().srem(left, right)
            }
        };
        self.tagged(result)
    }

    fn number_of(&mut self, condition: Value) -> Value {
        let number = self.builder.ins().uextend(I64, condition);
        self.tagged(number)
    }

    fn tagged(&mut self, number: Value) -> Value {
        let shifted = self.builder.ins().ishl_imm_u(number, 1);
        self.builder.ins().bor_imm_u(shifted, 1)
    }

    /// Returns a part of a pair, and `nil` of anything else.
    fn part(&mut self, value: Value, offset: i32) -> Value {
        let [pair, end] = [(); 2].map(|()| self.builder.create_block());
        self.builder.append_block_param(end, I64);
        let nil = self.builder.ins().iconst(I64, 0);
        let odd = self.builder.ins().band_imm_u(value, 1);
        let is_number = self.builder.ins().icmp_imm_u(IntCC::Equal, odd, 1);
        let word = self.builder.ins().select(is_number, nil, value);
        self.builder.ins().brif(word, pair, &[], end, &[nil.into()]);
        self.builder.switch_to_block(pair);
        let part = self.builder.ins().load(I64, MemFlagsData::trusted(), value, offset);
        self.builder.ins().jump(end, &[part.into()]);
        self.builder.switch_to_block(end);
        self.builder.block_params(end)[0]
    }
}
