//! Turns a program into definitions in a module: declarations by name, and one context for all
//! functions.
//!
//! A function that is used before its definition is declared as an import; its definition widens
//! the linkage. The module itself is the symbol table, and only types are kept here.

use std::collections::HashMap;

use cranelift_codegen::Context;
use cranelift_codegen::ir::{self, AbiParam, types};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::{DataId, FuncId, FuncOrDataId, Linkage, Module};

use super::Failure;
use super::ast::{ItemKind, Lambda, Program, Type};
use super::body::Body;

/// The kind of a name at the top level.
#[derive(Clone)]
pub(super) enum Global {
    Function(Vec<Type>, Type),
    Variable(Type),
    /// The value is its address.
    Constant(Type),
}

pub(super) struct Generator<'m, M> {
    pub(super) module: &'m mut M,
    pub(super) globals: HashMap<String, Global>,
    /// Bytes of the texts that were defined, with their lengths: by name, or by content if the text
    /// has none.
    pub(super) bytes: HashMap<String, (DataId, usize)>,
    pub(super) literals: HashMap<String, DataId>,
    /// Functions as values, by name.
    pub(super) values: HashMap<String, DataId>,
    pub(super) pointer: ir::Type,
}

/// Defines everything in `program`.
pub(crate) fn generate<M: Module>(program: &Program, module: &mut M) -> Result<(), Failure> {
    let pointer = module.isa().pointer_type();
    if pointer != types::I64 {
        return Err(format!("pointers of {} are not supported", module.isa().triple()).into());
    }
    let (globals, bytes) = (HashMap::new(), HashMap::new());
    let mut generator =
        Generator { module, globals, bytes, literals: HashMap::new(), values: HashMap::new(), pointer };
    generator.declare(program)?;
    generator.constants(program)?;
    let mut context = generator.module.make_context();
    let mut scratch = FunctionBuilderContext::new();
    for item in &program.items {
        let ItemKind::Function(lambda) = &item.kind else { continue };
        let id = generator.declare_function(&item.name, item.linkage, lambda)?;
        if lambda.body.is_some() {
            generator
                .lambda(lambda, &[], false, &mut context, &mut scratch)
                .map_err(|e| within(&item.name, e))?;
            generator.module.define_function(id, &mut context)?;
            generator.module.clear_context(&mut context);
        }
    }
    Ok(())
}

fn within(name: &str, error: Failure) -> Failure {
    format!("in `{name}`: {error}").into()
}

impl<M: Module> Generator<'_, M> {
    /// Collects all types, and declares data.
    fn declare(&mut self, program: &Program) -> Result<(), Failure> {
        for item in &program.items {
            let (global, writable) = match &item.kind {
                ItemKind::Function(lambda) => {
                    let params = lambda.params.iter().map(|(_, ty)| ty.clone()).collect();
                    (Global::Function(params, lambda.result.clone()), None)
                }
                ItemKind::Variable(ty, _) => (Global::Variable(ty.clone()), Some(true)),
                ItemKind::Text { .. } => (Global::Constant(Type::Text), Some(false)),
                ItemKind::Cells(_) => (Global::Constant(Type::Cells), Some(true)),
                // All entries have the type of the first.
                ItemKind::Table(entries) => {
                    let first = program.items.iter().find(|item| entries.first() == Some(&item.name));
                    let entry = match first.map(|item| &item.kind) {
                        Some(ItemKind::Function(lambda)) => lambda.as_value(),
                        _ => Type::Text,
                    };
                    (Global::Constant(Type::Table(Box::new(entry))), Some(false))
                }
            };
            if let Some(writable) = writable {
                self.module.declare_data(&item.name, item.linkage, writable, false)?;
            }
            if self.globals.insert(item.name.clone(), global).is_some() {
                return Err(format!("`{}` is defined twice", item.name).into());
            }
        }
        Ok(())
    }

    fn declare_function(&mut self, name: &str, linkage: Linkage, lambda: &Lambda) -> Result<FuncId, Failure> {
        let params: Vec<Type> = lambda.params.iter().map(|(_, ty)| ty.clone()).collect();
        let signature = self.signature(&params, &lambda.result, false);
        Ok(self.module.declare_function(name, linkage, &signature)?)
    }

    pub(super) fn ty(&self, ty: &Type) -> ir::Type {
        match ty {
            Type::Int => types::I64,
            Type::Float => types::F64,
            _ => self.pointer,
        }
    }

    /// The signature; the first parameter of a closure is its environment.
    pub(super) fn signature(&self, params: &[Type], result: &Type, closure: bool) -> ir::Signature {
        let mut signature = self.module.make_signature();
        self.set_signature(&mut signature, params, result, closure);
        signature
    }

    fn set_signature(&self, signature: &mut ir::Signature, params: &[Type], result: &Type, closure: bool) {
        self.module.clear_signature(signature);
        signature.params.extend(closure.then(|| AbiParam::new(self.pointer)));
        signature.params.extend(params.iter().map(|ty| AbiParam::new(self.ty(ty))));
        signature.returns.push(AbiParam::new(self.ty(result)));
    }

    /// The function called `name`. It is declared if it was not yet.
    pub(super) fn function(&mut self, name: &str) -> Result<FuncId, Failure> {
        if let Some(FuncOrDataId::Func(id)) = self.module.get_name(name) {
            return Ok(id);
        }
        let Some(Global::Function(params, result)) = self.globals.get(name).cloned() else {
            return Err(format!("there is no function `{name}`").into());
        };
        let signature = self.signature(&params, &result, false);
        Ok(self.module.declare_function(name, Linkage::Import, &signature)?)
    }

    /// The data object called `name`.
    pub(super) fn datum(&self, name: &str) -> Result<DataId, Failure> {
        match self.module.get_name(name) {
            Some(FuncOrDataId::Data(id)) => Ok(id),
            _ => Err(format!("there is no datum `{name}`").into()),
        }
    }

    /// Builds the IR of a function or a closure in `context`.
    pub(super) fn lambda(
        &mut self,
        lambda: &Lambda,
        captured: &[(String, Type)],
        closure: bool,
        context: &mut Context,
        scratch: &mut FunctionBuilderContext,
    ) -> Result<(), Failure> {
        let params: Vec<Type> = lambda.params.iter().map(|(_, ty)| ty.clone()).collect();
        self.set_signature(&mut context.func.signature, &params, &lambda.result, closure);
        let config = self.module.target_config();
        let builder = FunctionBuilder::new(&mut context.func, scratch);
        let mut body = Body::new(self, builder, lambda.result.clone());
        body.enter(lambda, captured, closure);
        body.block(lambda.body.as_deref().unwrap_or_default())?;
        body.finish(config);
        Ok(())
    }
}

impl Lambda {
    /// The function's type as a value.
    pub(super) fn as_value(&self) -> Type {
        Type::Function(self.params.iter().map(|(_, ty)| ty.clone()).collect(), Box::new(self.result.clone()))
    }
}
