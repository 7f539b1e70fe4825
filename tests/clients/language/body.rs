//! The code of one function: scopes and statements.

use std::collections::HashMap;

use cranelift_codegen::ir::{Block, InstBuilder, MemFlagsData, Value, types};
use cranelift_codegen::isa::TargetFrontendConfig;
use cranelift_frontend::{FunctionBuilder, Variable};
use cranelift_module::Module;

use super::Failure;
use super::ast::{Lambda, Stmt, Type};
use super::generate::{Generator, Global};

pub(super) struct Body<'a, 'g, 'm, M> {
    pub(super) generator: &'g mut Generator<'m, M>,
    pub(super) builder: FunctionBuilder<'a>,
    scopes: Vec<HashMap<String, (Variable, Type)>>,
    result: Type,
}

impl<'a, 'g, 'm, M: Module> Body<'a, 'g, 'm, M> {
    pub(super) fn new(
        generator: &'g mut Generator<'m, M>,
        builder: FunctionBuilder<'a>,
        result: Type,
    ) -> Self {
        Self { generator, builder, scopes: vec![HashMap::new()], result }
    }

    /// Opens the first block: parameters become variables, and so do captured values.
    pub(super) fn enter(&mut self, lambda: &Lambda, captured: &[(String, Type)], closure: bool) {
        let entry = self.start_block();
        self.builder.append_block_params_for_function_params(entry);
        let values = self.builder.block_params(entry).to_vec();
        for ((name, ty), value) in lambda.params.iter().zip(&values[usize::from(closure)..]) {
            self.declare(name, ty.clone(), *value);
        }
        for (offset, (name, ty)) in (8..).step_by(8).zip(captured) {
            let clif = self.generator.ty(ty);
            let value = self.builder.ins().load(clif, MemFlagsData::trusted(), values[0], offset);
            self.declare(name, ty.clone(), value);
        }
    }

    /// Returns zero at the end of the function.
    pub(super) fn finish(mut self, config: TargetFrontendConfig) {
        let zero = match &self.result {
            Type::Float => self.builder.ins().f64const(0.0),
            _ => self.builder.ins().iconst(types::I64, 0),
        };
        self.builder.ins().return_(&[zero]);
        self.builder.seal_all_blocks();
        self.builder.finalize(config);
    }

    pub(super) fn start_block(&mut self) -> Block {
        let block = self.builder.create_block();
        self.builder.switch_to_block(block);
        block
    }

    fn declare(&mut self, name: &str, ty: Type, value: Value) {
        let variable = self.builder.declare_var(self.generator.ty(&ty));
        self.builder.def_var(variable, value);
        self.scopes.last_mut().expect("a scope").insert(name.into(), (variable, ty));
    }

    pub(super) fn local(&self, name: &str) -> Option<(Variable, Type)> {
        self.scopes.iter().rev().find_map(|scope| scope.get(name)).cloned()
    }

    pub(super) fn block(&mut self, body: &[Stmt]) -> Result<(), Failure> {
        self.scopes.push(HashMap::new());
        body.iter().try_for_each(|stmt| self.stmt(stmt))?;
        self.scopes.pop();
        Ok(())
    }

    fn stmt(&mut self, stmt: &Stmt) -> Result<(), Failure> {
        match stmt {
            Stmt::Let(name, value) => {
                let (value, ty) = self.expr(value)?;
                self.declare(name, ty, value);
            }
            Stmt::Assign(name, value) => {
                let (value, ty) = self.expr(value)?;
                if let Some((variable, declared)) = self.local(name) {
                    same(&declared, &ty)?;
                    self.builder.def_var(variable, value);
                } else if let Some(Global::Variable(declared)) = self.generator.globals.get(name) {
                    same(declared, &ty)?;
                    let address = self.address(name)?;
                    self.builder.ins().store(MemFlagsData::trusted(), value, address, 0);
                } else {
                    return Err(format!("there is no variable `{name}`").into());
                }
            }
            Stmt::Store(array, index, value) => {
                let address = self.element(array, index, &Type::Cells)?;
                let value = self.typed(value, &Type::Int)?;
                self.builder.ins().store(MemFlagsData::trusted(), value, address, 0);
            }
            Stmt::If(condition, yes, no) => {
                let condition = self.typed(condition, &Type::Int)?;
                let [yes_block, no_block, end] = [(); 3].map(|()| self.builder.create_block());
                self.builder.ins().brif(condition, yes_block, &[], no_block, &[]);
                for (block, body) in [(yes_block, yes), (no_block, no)] {
                    self.builder.switch_to_block(block);
                    self.block(body)?;
                    self.builder.ins().jump(end, &[]);
                }
                self.builder.switch_to_block(end);
            }
            Stmt::While(condition, body) => {
                let [head, inside, end] = [(); 3].map(|()| self.builder.create_block());
                self.builder.ins().jump(head, &[]);
                self.builder.switch_to_block(head);
                let condition = self.typed(condition, &Type::Int)?;
                self.builder.ins().brif(condition, inside, &[], end, &[]);
                self.builder.switch_to_block(inside);
                self.block(body)?;
                self.builder.ins().jump(head, &[]);
                self.builder.switch_to_block(end);
            }
            Stmt::Return(value) => {
                let result = self.result.clone();
                let value = self.typed(value, &result)?;
                self.builder.ins().return_(&[value]);
                // The statements after a `return` are never reached, but need a block.
                self.start_block();
            }
            Stmt::Expr(value) => {
                self.expr(value)?;
            }
        }
        Ok(())
    }
}

/// Returns an error if the types differ.
pub(super) fn same(wanted: &Type, found: &Type) -> Result<(), Failure> {
    if wanted == found { Ok(()) } else { Err(format!("{wanted:?} expected, not {found:?}").into()) }
}
