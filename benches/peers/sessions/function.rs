//! The small function that every row uses, and both engines with equal settings.

use cranelift_codegen::Context;
use cranelift_codegen::ir::{self, AbiParam, InstBuilder, types};
use cranelift_codegen::isa::{CallConv, OwnedTargetIsa, TargetFrontendConfig};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module as _, default_libcall_names};
use kiln::Compiler;
use kiln::ir::{Module, ModuleBuilder, ModuleSettings, OptLevel, Target};

use crate::jit::without_pic;
use crate::setup::Failure;

/// Both engines, and what they share.
pub(super) struct Peer {
    pub(super) target: Target,
    pub(super) compiler: Compiler,
    isa: OwnedTargetIsa,
}

/// A function that is ready to be defined.
pub(super) struct Small {
    pub(super) name: String,
    pub(super) ir: ir::Function,
    number: i64,
}

impl Peer {
    pub(super) fn new() -> Result<Self, Failure> {
        let target = Target::host().opt_level(OptLevel::None);
        let isa = target.isa(&ModuleSettings::default())?;
        // Kiln verifies every function too.
        let isa = without_pic(&isa, true)?;
        Ok(Self { isa, compiler: Compiler::new(target.clone()), target })
    }

    /// Returns an empty `JITModule`, which verifies, as it does by default.
    pub(super) fn module(&self) -> JITModule {
        JITModule::new(JITBuilder::with_isa(self.isa.clone(), default_libcall_names()))
    }

    /// Defines a function in a module of its own, and returns its address.
    pub(super) fn define_alone(
        &self,
        module: &mut JITModule,
        name: &str,
        ir: &ir::Function,
        context: &mut Context,
    ) -> Result<*const u8, Failure> {
        let id = module.declare_function(name, Linkage::Export, &ir.signature)?;
        context.clear();
        context.func.clone_from(ir);
        module.define_function(id, context)?;
        module.finalize_definitions()?;
        Ok(module.get_finalized_function(id))
    }

    /// Returns the code of `functions`, for `define_function_bytes`.
    pub(super) fn bytes(&self, functions: &[Small]) -> Result<Vec<Box<[u8]>>, Failure> {
        let mut context = Context::new();
        let code = functions.iter().map(|function| {
            context.clear();
            context.func = function.ir.clone();
            let compiled = context
                .compile(&*self.isa, &mut Default::default())
                .map_err(|error| format!("{:?}", error.inner))?;
            if !compiled.buffer.relocs().is_empty() {
                return Err("the small function has a relocation".into());
            }
            Ok(compiled.buffer.data().into())
        });
        code.collect()
    }

    /// Returns functions with the numbers `first..first + count`.
    pub(super) fn functions(&self, first: usize, count: usize) -> Vec<Small> {
        let config = self.isa.frontend_config();
        (first..first + count).map(|number| Small::new(number as i64, config)).collect()
    }

    /// Returns a module for each function.
    pub(super) fn modules(&self, functions: &[Small]) -> Result<Vec<Module>, Failure> {
        let mut context = Context::new();
        functions.iter().map(|function| function.module(&self.target, &mut context)).collect()
    }

    /// Returns modules of `size` functions each.
    pub(super) fn modules_of(&self, functions: &[Small], size: usize) -> Result<Vec<Module>, Failure> {
        let mut context = Context::new();
        let module = |functions: &[Small]| -> Result<Module, Failure> {
            let mut builder = ModuleBuilder::new(&*functions[0].name, &self.target)?;
            for function in functions {
                function.define(&mut builder, &mut context)?;
            }
            Ok(builder.finish()?)
        };
        functions.chunks(size).map(module).collect()
    }
}

impl Small {
    fn new(number: i64, config: TargetFrontendConfig) -> Self {
        let mut ir = ir::Function::new();
        ir.signature.call_conv = CallConv::SystemV;
        ir.signature.params.extend([AbiParam::new(types::I64); 2]);
        ir.signature.returns.push(AbiParam::new(types::I64));
        let mut scratch = FunctionBuilderContext::new();
        let mut builder = FunctionBuilder::new(&mut ir, &mut scratch);
        let block = builder.create_block();
        builder.append_block_params_for_function_params(block);
        builder.switch_to_block(block);
        builder.seal_block(block);
        let [a, b] = [0, 1].map(|index| builder.block_params(block)[index]);
        let sum = builder.ins().iadd(a, b);
        let factor = builder.ins().iconst(types::I64, number);
        let product = builder.ins().imul(sum, factor);
        builder.ins().return_(&[product]);
        builder.finalize(config);
        Self { name: format!("small_{number}"), ir, number }
    }

    /// Builds a module of this function alone.
    pub(super) fn module(&self, target: &Target, context: &mut Context) -> Result<Module, Failure> {
        let mut builder = ModuleBuilder::new(&*self.name, target)?;
        self.define(&mut builder, context)?;
        Ok(builder.finish()?)
    }

    /// Declares and defines this function, whatever the engine.
    pub(super) fn define(
        &self,
        module: &mut impl cranelift_module::Module,
        context: &mut Context,
    ) -> Result<FuncId, Failure> {
        let id = module.declare_function(&self.name, Linkage::Export, &self.ir.signature)?;
        context.clear();
        context.func.clone_from(&self.ir);
        module.define_function(id, context)?;
        Ok(id)
    }

    /// Returns the result of the function for the arguments 3 and 4.
    pub(super) fn result(&self) -> i64 {
        7 * self.number
    }

    /// Calls the function at `address`, and checks its result.
    pub(super) fn check(&self, address: Option<*const u8>) -> Result<(), Failure> {
        let address = address.ok_or_else(|| format!("{} is not found", self.name))?;
        // SAFETY: the address is that of this function's code, which has this type and touches no
        // memory.
        let result = unsafe {
            let function: extern "C" fn(i64, i64) -> i64 = std::mem::transmute(address);
            function(3, 4)
        };
        if result == self.result() {
            return Ok(());
        }
        Err(format!("{} returned {result}", self.name).into())
    }
}
