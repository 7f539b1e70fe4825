//! The way from a checked function to a module with this one function.
//!
//! A function is a module of its own, so that a cache has it when the others have changed. It calls
//! the others by name.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{self, AbiParam, FuncRef, InstBuilder, Value, types};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext, Variable};
use cranelift_module::{Linkage, Module as _};
use kiln::ir::{FileId, Module, ModuleBuilder, SourceFile, Target};

use super::check::{Signature, Signatures};
use super::syntax::{Expr, ExprKind, Function, Operator, Place, Statement, StatementKind, Type};

type Lowered<T> = Result<T, Box<dyn Error>>;

/// Makes the module of a function in the file `path`, which passed the check.
pub(crate) fn lower(
    function: &Function,
    signatures: &Signatures,
    path: &Path,
    target: &Target,
) -> Lowered<Module> {
    let mut module = ModuleBuilder::new(&*function.name, target)?;
    let file = module.file(SourceFile::new(&*path.to_string_lossy()))?;
    let mut context = module.make_context();
    context.func.signature = signature(&module, &signatures[&function.name]);
    let id = module.declare_function(&function.name, Linkage::Export, &context.func.signature)?;

    let mut scratch = FunctionBuilderContext::new();
    let builder = FunctionBuilder::new(&mut context.func, &mut scratch);
    let mut lowering = Lowering {
        module: &mut module,
        builder,
        signatures,
        file,
        scope: Vec::new(),
        callees: BTreeMap::new(),
    };
    lowering.function(function)?;
    let mut builder = lowering.builder;
    builder.seal_all_blocks();
    builder.finalize(module.target_config());
    module.define_function(id, &mut context)?;
    Ok(module.finish()?)
}

/// The type in Cranelift: booleans are bytes.
fn ir_type(ty: Type) -> ir::Type {
    match ty {
        Type::Int => types::I64,
        Type::Float => types::F64,
        Type::Bool => types::I8,
    }
}

fn signature(module: &ModuleBuilder, types: &Signature) -> ir::Signature {
    let mut signature = module.make_signature();
    signature.params = types.params.iter().map(|&ty| AbiParam::new(ir_type(ty))).collect();
    signature.returns = vec![AbiParam::new(ir_type(types.result))];
    signature
}

struct Lowering<'m, 'a> {
    module: &'m mut ModuleBuilder,
    builder: FunctionBuilder<'a>,
    signatures: &'m Signatures,
    file: FileId,
    /// The visible variables, the innermost last.
    scope: Vec<(String, Variable)>,
    callees: BTreeMap<String, FuncRef>,
}

impl Lowering<'_, '_> {
    fn function(&mut self, function: &Function) -> Lowered<()> {
        let entry = self.builder.create_block();
        self.builder.append_block_params_for_function_params(entry);
        self.builder.switch_to_block(entry);
        for (index, (name, _)) in function.params.iter().enumerate() {
            let value = self.builder.block_params(entry)[index];
            self.define(name, value);
        }
        self.block(&function.body)?;
        Ok(())
    }

    fn define(&mut self, name: &str, value: Value) {
        let ty = self.builder.func.dfg.value_type(value);
        let variable = self.builder.declare_var(ty);
        self.builder.def_var(variable, value);
        self.scope.push((name.to_owned(), variable));
    }

    fn variable(&self, name: &str) -> Variable {
        let found = self.scope.iter().rev().find(|(other, _)| other == name);
        found.expect("the check found it").1
    }

    /// Says where in the text the next instructions are from, for traps and debuggers.
    fn at(&mut self, place: Place) -> Lowered<()> {
        let location = self.module.location(self.file, place.line, place.column)?;
        self.builder.set_srcloc(location);
        Ok(())
    }

    /// Lowers statements, and returns whether they always return.
    fn block(&mut self, statements: &[Statement]) -> Lowered<bool> {
        let outer = self.scope.len();
        let mut returns = false;
        for statement in statements {
            returns = self.statement(statement)?;
        }
        self.scope.truncate(outer);
        Ok(returns)
    }

    fn statement(&mut self, statement: &Statement) -> Lowered<bool> {
        self.at(statement.place)?;
        match &statement.kind {
            StatementKind::Let(name, value) => {
                let value = self.value(value)?;
                self.define(name, value);
            }
            StatementKind::Assign(name, value) => {
                let value = self.value(value)?;
                self.builder.def_var(self.variable(name), value);
            }
            StatementKind::If(condition, then, otherwise) => {
                let condition = self.value(condition)?;
                let [yes, no, end] = [(); 3].map(|()| self.builder.create_block());
                self.builder.ins().brif(condition, yes, &[], no, &[]);
                let mut always = true;
                for (statements, block) in [(then, yes), (otherwise, no)] {
                    self.builder.switch_to_block(block);
                    let returns = self.block(statements)?;
                    if !returns {
                        self.builder.ins().jump(end, &[]);
                    }
                    always &= returns;
                }
                if !always {
                    self.builder.switch_to_block(end);
                }
                return Ok(always);
            }
            StatementKind::While(condition, body) => {
                let [head, inner, end] = [(); 3].map(|()| self.builder.create_block());
                self.builder.ins().jump(head, &[]);
                self.builder.switch_to_block(head);
                let condition = self.value(condition)?;
                self.builder.ins().brif(condition, inner, &[], end, &[]);
                self.builder.switch_to_block(inner);
                if !self.block(body)? {
                    self.builder.ins().jump(head, &[]);
                }
                self.builder.switch_to_block(end);
            }
            StatementKind::Return(value) => {
                let value = self.value(value)?;
                self.builder.ins().return_(&[value]);
                return Ok(true);
            }
            StatementKind::Value(value) => {
                self.value(value)?;
            }
        }
        Ok(false)
    }

    fn value(&mut self, expr: &Expr) -> Lowered<Value> {
        Ok(match &expr.kind {
            ExprKind::Int(number) => self.builder.ins().iconst(types::I64, *number),
            ExprKind::Float(number) => self.builder.ins().f64const(*number),
            ExprKind::Bool(value) => self.builder.ins().iconst(types::I8, i64::from(*value)),
            ExprKind::Name(name) => self.builder.use_var(self.variable(name)),
            ExprKind::Negate(operand) => {
                let value = self.value(operand)?;
                if self.is_float(value) {
                    self.builder.ins().fneg(value)
                } else {
                    self.builder.ins().ineg(value)
                }
            }
            ExprKind::Not(operand) => {
                let value = self.value(operand)?;
                let one = self.builder.ins().iconst(types::I8, 1);
                self.builder.ins().bxor(value, one)
            }
            ExprKind::Call(name, arguments) => {
                let arguments =
                    arguments.iter().map(|argument| self.value(argument)).collect::<Result<Vec<_>, _>>()?;
                let callee = self.callee(name)?;
                self.at(expr.place)?;
                let call = self.builder.ins().call(callee, &arguments);
                self.builder.inst_results(call)[0]
            }
            ExprKind::Binary(operator @ (Operator::And | Operator::Or), operands) => {
                self.short_circuit(*operator, operands)?
            }
            ExprKind::Binary(operator, operands) => {
                let (left, right) = (self.value(&operands[0])?, self.value(&operands[1])?);
                self.at(expr.place)?;
                self.binary(*operator, left, right)
            }
        })
    }

    fn is_float(&self, value: Value) -> bool {
        self.builder.func.dfg.value_type(value) == types::F64
    }

    fn callee(&mut self, name: &str) -> Lowered<FuncRef> {
        if let Some(callee) = self.callees.get(name) {
            return Ok(*callee);
        }
        let signature = signature(self.module, &self.signatures[name]);
        let id = self.module.declare_function(name, Linkage::Import, &signature)?;
        let callee = self.module.declare_func_in_func(id, self.builder.func);
        self.callees.insert(name.to_owned(), callee);
        Ok(callee)
    }

    /// The right operand is evaluated only if the left one does not decide.
    fn short_circuit(&mut self, operator: Operator, operands: &[Expr; 2]) -> Lowered<Value> {
        let left = self.value(&operands[0])?;
        let [more, end] = [(); 2].map(|()| self.builder.create_block());
        self.builder.append_block_param(end, types::I8);
        let decided = [left.into()];
        if operator == Operator::And {
            self.builder.ins().brif(left, more, &[], end, &decided);
        } else {
            self.builder.ins().brif(left, end, &decided, more, &[]);
        }
        self.builder.switch_to_block(more);
        let right = self.value(&operands[1])?.into();
        self.builder.ins().jump(end, &[right]);
        self.builder.switch_to_block(end);
        Ok(self.builder.block_params(end)[0])
    }

    fn binary(&mut self, operator: Operator, left: Value, right: Value) -> Value {
        let is_float = self.is_float(left);
        let ins = self.builder.ins();
        let conditions = match operator {
            Operator::Less => (IntCC::SignedLessThan, FloatCC::LessThan),
            Operator::LessEqual => (IntCC::SignedLessThanOrEqual, FloatCC::LessThanOrEqual),
            Operator::Greater => (IntCC::SignedGreaterThan, FloatCC::GreaterThan),
            Operator::GreaterEqual => (IntCC::SignedGreaterThanOrEqual, FloatCC::GreaterThanOrEqual),
            Operator::NotEqual => (IntCC::NotEqual, FloatCC::NotEqual),
            _ => (IntCC::Equal, FloatCC::Equal),
        };
        match (operator, is_float) {
            (Operator::Add, false) => ins.iadd(left, right),
            (Operator::Sub, false) => ins.isub(left, right),
            (Operator::Mul, false) => ins.imul(left, right),
            // Both trap if the right operand is 0.
            (Operator::Div, false) => ins.sdiv(left, right),
            (Operator::Rem, _) => ins.srem(left, right),
            (Operator::Add, true) => ins.fadd(left, right),
            (Operator::Sub, true) => ins.fsub(left, right),
            (Operator::Mul, true) => ins.fmul(left, right),
            (Operator::Div, true) => ins.fdiv(left, right),
            (_, false) => ins.icmp(conditions.0, left, right),
            (_, true) => ins.fcmp(conditions.1, left, right),
        }
    }
}
