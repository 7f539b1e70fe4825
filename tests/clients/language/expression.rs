//! Expressions: each gives a value and its type.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value, types};
use cranelift_module::Module;

use super::Failure;
use super::ast::{Expr, Type};
use super::body::{Body, same};
use super::generate::Global;

impl<M: Module> Body<'_, '_, '_, M> {
    /// The value of an expression that must be of type `ty`.
    pub(super) fn typed(&mut self, expr: &Expr, ty: &Type) -> Result<Value, Failure> {
        let (value, found) = self.expr(expr)?;
        same(ty, &found)?;
        Ok(value)
    }

    pub(super) fn expr(&mut self, expr: &Expr) -> Result<(Value, Type), Failure> {
        match expr {
            Expr::Int(value) => Ok((self.builder.ins().iconst(types::I64, *value), Type::Int)),
            Expr::Float(value) => Ok((self.builder.ins().f64const(*value), Type::Float)),
            Expr::Text(text) => {
                let id = self.generator.literal(text)?;
                let text = self.generator.module.declare_data_in_func(id, self.builder.func);
                Ok((self.builder.ins().symbol_value(self.generator.pointer, text), Type::Text))
            }
            Expr::Name(name) => self.name(name),
            Expr::Negate(value) => match self.expr(value)? {
                (value, Type::Int) => Ok((self.builder.ins().ineg(value), Type::Int)),
                (value, Type::Float) => Ok((self.builder.ins().fneg(value), Type::Float)),
                _ => Err("only numbers can be negated".into()),
            },
            Expr::Binary(operator, left, right) => {
                let (left, ty) = self.expr(left)?;
                let right = self.typed(right, &ty)?;
                match ty {
                    Type::Int => Ok((self.integers(operator, left, right), Type::Int)),
                    Type::Float => self.floats(operator, left, right),
                    _ => Err(format!("`{operator}` is for numbers").into()),
                }
            }
            Expr::Call(callee, arguments) => self.call(callee, arguments),
            Expr::Index(base, index) => self.index(base, index),
            Expr::Closure(lambda) => self.closure(lambda),
        }
    }

    fn name(&mut self, name: &str) -> Result<(Value, Type), Failure> {
        if let Some((variable, ty)) = self.local(name) {
            return Ok((self.builder.use_var(variable), ty));
        }
        match self.generator.globals.get(name).cloned() {
            Some(Global::Variable(ty)) => {
                let (address, clif) = (self.address(name)?, self.generator.ty(&ty));
                Ok((self.builder.ins().load(clif, MemFlagsData::trusted(), address, 0), ty))
            }
            Some(Global::Constant(ty)) => Ok((self.address(name)?, ty)),
            Some(Global::Function(params, result)) => {
                let id = self.generator.value(name)?;
                let value = self.generator.module.declare_data_in_func(id, self.builder.func);
                let value = self.builder.ins().symbol_value(self.generator.pointer, value);
                Ok((value, Type::Function(params, Box::new(result))))
            }
            None => Err(format!("there is no `{name}`").into()),
        }
    }

    /// The address of the data object `name`.
    pub(super) fn address(&mut self, name: &str) -> Result<Value, Failure> {
        let id = self.generator.datum(name)?;
        let datum = self.generator.module.declare_data_in_func(id, self.builder.func);
        Ok(self.builder.ins().symbol_value(self.generator.pointer, datum))
    }

    /// The address of an element of an array.
    pub(super) fn element(&mut self, base: &Expr, index: &Expr, ty: &Type) -> Result<Value, Failure> {
        let base = self.typed(base, ty)?;
        let index = self.typed(index, &Type::Int)?;
        let offset = self.builder.ins().imul_imm_s(index, 8);
        Ok(self.builder.ins().iadd(base, offset))
    }

    fn index(&mut self, base: &Expr, index: &Expr) -> Result<(Value, Type), Failure> {
        let (base, ty) = self.expr(base)?;
        let index = self.typed(index, &Type::Int)?;
        let flags = MemFlagsData::trusted();
        if ty == Type::Text {
            let bytes = self.builder.ins().load(self.generator.pointer, flags, base, 8);
            let address = self.builder.ins().iadd(bytes, index);
            return Ok((self.builder.ins().uload8(types::I64, flags, address, 0), Type::Int));
        }
        let element = match ty {
            Type::Cells => Type::Int,
            Type::Table(element) => *element,
            _ => return Err(format!("{ty:?} has no elements").into()),
        };
        let offset = self.builder.ins().imul_imm_s(index, 8);
        let address = self.builder.ins().iadd(base, offset);
        let clif = self.generator.ty(&element);
        Ok((self.builder.ins().load(clif, flags, address, 0), element))
    }

    fn integers(&mut self, operator: &str, left: Value, right: Value) -> Value {
        let compare = match operator {
            "+" => return self.builder.ins().iadd(left, right),
            "-" => return self.builder.ins().isub(left, right),
            "*" => return self.builder.ins().imul(left, right),
            "/" => return self.builder.ins().sdiv(left, right),
            "%" => return self.builder.ins().srem(left, right),
            "==" => IntCC::Equal,
            "!=" => IntCC::NotEqual,
            "<=" => IntCC::SignedLessThanOrEqual,
            ">=" => IntCC::SignedGreaterThanOrEqual,
            "<" => IntCC::SignedLessThan,
            _ => IntCC::SignedGreaterThan,
        };
        let bit = self.builder.ins().icmp(compare, left, right);
        self.builder.ins().uextend(types::I64, bit)
    }

    fn floats(&mut self, operator: &str, left: Value, right: Value) -> Result<(Value, Type), Failure> {
        let compare = match operator {
            "+" => return Ok((self.builder.ins().fadd(left, right), Type::Float)),
            "-" => return Ok((self.builder.ins().fsub(left, right), Type::Float)),
            "*" => return Ok((self.builder.ins().fmul(left, right), Type::Float)),
            "/" => return Ok((self.builder.ins().fdiv(left, right), Type::Float)),
            "==" => FloatCC::Equal,
            "!=" => FloatCC::NotEqual,
            "<=" => FloatCC::LessThanOrEqual,
            ">=" => FloatCC::GreaterThanOrEqual,
            "<" => FloatCC::LessThan,
            ">" => FloatCC::GreaterThan,
            _ => return Err(format!("`{operator}` is for integers").into()),
        };
        let bit = self.builder.ins().fcmp(compare, left, right);
        Ok((self.builder.ins().uextend(types::I64, bit), Type::Int))
    }

    fn call(&mut self, callee: &Expr, arguments: &[Expr]) -> Result<(Value, Type), Failure> {
        if let Expr::Name(name) = callee
            && self.local(name).is_none()
        {
            if let Some(Global::Function(params, result)) = self.generator.globals.get(name).cloned() {
                let arguments = self.arguments(arguments, &params)?;
                let id = self.generator.function(name)?;
                let target = self.generator.module.declare_func_in_func(id, self.builder.func);
                let call = self.builder.ins().call(target, &arguments);
                return Ok((self.builder.inst_results(call)[0], result));
            }
            if !self.generator.globals.contains_key(name) {
                return self.builtin(name, arguments);
            }
        }
        let (closure, Type::Function(params, result)) = self.expr(callee)? else {
            return Err("only functions can be called".into());
        };
        let mut values = vec![closure];
        values.extend(self.arguments(arguments, &params)?);
        let signature = self.generator.signature(&params, &result, true);
        let signature = self.builder.import_signature(signature);
        let code = self.builder.ins().load(self.generator.pointer, MemFlagsData::trusted(), closure, 0);
        let call = self.builder.ins().call_indirect(signature, code, &values);
        Ok((self.builder.inst_results(call)[0], *result))
    }

    fn arguments(&mut self, arguments: &[Expr], params: &[Type]) -> Result<Vec<Value>, Failure> {
        if arguments.len() != params.len() {
            return Err(format!("{} arguments expected, not {}", params.len(), arguments.len()).into());
        }
        arguments.iter().zip(params).map(|(argument, ty)| self.typed(argument, ty)).collect()
    }

    fn builtin(&mut self, name: &str, arguments: &[Expr]) -> Result<(Value, Type), Failure> {
        let (params, result): (&[Type], Type) = match name {
            "len" => (&[Type::Text], Type::Int),
            "next" => (&[Type::Text], Type::Text),
            "int" => (&[Type::Float], Type::Int),
            "float" => (&[Type::Int], Type::Float),
            "sqrt" | "floor" => (&[Type::Float], Type::Float),
            "fused" => (&[Type::Float, Type::Float, Type::Float], Type::Float),
            // For any type that is a pointer.
            "address" => match arguments {
                [argument] => return Ok((self.expr(argument)?.0, Type::Int)),
                _ => return Err("`address` takes one argument".into()),
            },
            _ => return Err(format!("there is no function `{name}`").into()),
        };
        let values = self.arguments(arguments, params)?;
        let (flags, pointer) = (MemFlagsData::trusted(), self.generator.pointer);
        let value = match name {
            "len" => self.builder.ins().load(types::I64, flags, values[0], 0),
            "next" => self.builder.ins().load(pointer, flags, values[0], 16),
            "int" => self.builder.ins().fcvt_to_sint_sat(types::I64, values[0]),
            "float" => self.builder.ins().fcvt_from_sint(types::F64, values[0]),
            "sqrt" => self.builder.ins().sqrt(values[0]),
            "floor" => self.builder.ins().floor(values[0]),
            _ => self.builder.ins().fma(values[0], values[1], values[2]),
        };
        Ok((value, result))
    }
}
