//! Closures: an anonymous function, and memory of the host for its address and the captured values.

use std::collections::BTreeMap;

use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{AbiParam, InstBuilder, MemFlagsData, Value, types};
use cranelift_frontend::FunctionBuilderContext;
use cranelift_module::{Linkage, Module};

use super::Failure;
use super::ast::{Lambda, Type, names};
use super::body::Body;

impl<M: Module> Body<'_, '_, '_, M> {
    /// Makes a closure, and copies the captured variables into it.
    pub(super) fn closure(&mut self, lambda: &Lambda) -> Result<(Value, Type), Failure> {
        let mut used = BTreeMap::new();
        names(lambda.body.as_deref().unwrap_or_default(), &mut |name| {
            if let Some(local) = self.local(name) {
                used.insert(name, local);
            }
        });
        lambda.params.iter().for_each(|(param, _)| drop(used.remove(&**param)));
        let captured: Vec<(String, Type)> =
            used.iter().map(|(name, (_, ty))| ((*name).to_owned(), ty.clone())).collect();

        let mut context = self.generator.module.make_context();
        let mut scratch = FunctionBuilderContext::new();
        self.generator.lambda(lambda, &captured, true, &mut context, &mut scratch)?;
        let module = &mut *self.generator.module;
        let id = module.declare_anonymous_function(&context.func.signature)?;
        module.define_function_with_control_plane(id, &mut context, &mut ControlPlane::default())?;

        let mut signature = module.make_signature();
        signature.params.push(AbiParam::new(types::I64));
        signature.returns.push(AbiParam::new(self.generator.pointer));
        let allocate = module.declare_function("allocate", Linkage::Import, &signature)?;
        let allocate = module.declare_func_in_func(allocate, self.builder.func);
        let code = module.declare_func_in_func(id, self.builder.func);
        let size = self.builder.ins().iconst(types::I64, 8 + 8 * captured.len() as i64);
        let call = self.builder.ins().call(allocate, &[size]);
        let closure = self.builder.inst_results(call)[0];
        let code = self.builder.ins().func_addr(self.generator.pointer, code);
        let flags = MemFlagsData::trusted();
        self.builder.ins().store(flags, code, closure, 0);
        for (offset, (variable, _)) in (8..).step_by(8).zip(used.values()) {
            let value = self.builder.use_var(*variable);
            self.builder.ins().store(flags, value, closure, offset);
        }
        Ok((closure, lambda.as_value()))
    }
}
