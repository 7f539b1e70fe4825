//! The errors that the trait defines, provoked by one generic function on every implementation.

use cranelift_codegen::Context;
use cranelift_codegen::ir::{AbiParam, InstBuilder, types};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::{DataDescription, FuncId, Linkage, Module, ModuleError};

use crate::engines::{jit_module, kiln_module, object_module};
use crate::host::Host;
use crate::language::Failure;

/// A wrong call, and the module's error.
pub(crate) type Finding = (&'static str, String);

/// Equal wrong calls have to give equal errors on all three modules.
pub(crate) fn compare(
    jit: Vec<Finding>,
    object: Vec<Finding>,
    kiln: Vec<Finding>,
    count: usize,
) -> Result<(), Failure> {
    if kiln.len() != count || kiln.iter().any(|(_, said)| said == "accepted") {
        return Err(format!("an error was accepted, or not tried: {kiln:#?}").into());
    }
    for (peer, theirs) in [("jit", jit), ("object", object)] {
        if theirs != kiln {
            return Err(format!("{peer}: {theirs:#?}\nkiln: {kiln:#?}").into());
        }
    }
    Ok(())
}

pub(crate) fn are_equal() -> Result<(), Failure> {
    let (mut jit, mut object, mut kiln) = (jit_module(&Host::new())?, object_module()?, kiln_module()?);
    // As the others do.
    kiln.verify_at_once(true);
    let found = [provoke(&mut jit)?, provoke(&mut object)?, provoke(&mut kiln)?];
    // A module stays usable: the declarations before the errors are complete.
    kiln.finish()?;
    let [jit, object, kiln] = found;
    compare(jit, object, kiln, 13)
}

/// The variant of an error, and its content where the trait defines it.
pub(crate) fn said<T>(result: Result<T, ModuleError>) -> String {
    match result {
        Ok(_) => "accepted".into(),
        Err(ModuleError::Compilation(_)) => "compilation".into(),
        Err(ModuleError::Allocation { .. }) => "allocation".into(),
        Err(ModuleError::Backend(error)) => format!("backend: {error}"),
        Err(error) => error.to_string(),
    }
}

/// A function that returns a number. If `whole` is false, the `return` is missing.
pub(crate) fn function<M: Module>(module: &M, whole: bool) -> Context {
    let mut context = module.make_context();
    context.func.signature.returns.push(AbiParam::new(types::I64));
    let mut scratch = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut context.func, &mut scratch);
    let block = builder.create_block();
    builder.switch_to_block(block);
    let value = builder.ins().iconst(types::I64, 7);
    builder.ins().return_(if whole { std::slice::from_ref(&value) } else { &[] });
    builder.seal_all_blocks();
    builder.finalize(module.target_config());
    context
}

fn provoke<M: Module>(module: &mut M) -> Result<Vec<Finding>, Failure> {
    let mut found = Vec::new();
    let plain = function(module, true).func.signature.clone();
    let mut other = plain.clone();
    other.params.push(AbiParam::new(types::F64));

    let f = module.declare_function("f", Linkage::Local, &plain)?;
    let d = module.declare_data("d", Linkage::Local, false, false)?;
    found.push(("a function as data", said(module.declare_data("f", Linkage::Import, false, false))));
    found.push(("data as a function", said(module.declare_function("d", Linkage::Import, &plain))));
    found.push(("another signature", said(module.declare_function("f", Linkage::Import, &other))));
    // The errors changed nothing, and an equal declaration may be repeated.
    assert!(module.declare_function("f", Linkage::Import, &plain)? == f);
    assert!(module.declare_data("d", Linkage::Export, true, false)? == d);
    let declared = module.declarations().get_data_decl(d);
    assert!((declared.linkage, declared.writable) == (Linkage::Export, true), "{declared:?}");

    let mut data = DataDescription::new();
    data.define_zeroinit(8);
    let import = module.declare_function("import", Linkage::Import, &plain)?;
    found.push(("an import defined", define(module, import)));
    let import = module.declare_data("imported", Linkage::Import, false, false)?;
    found.push(("imported data defined", said(module.define_data(import, &data))));

    let g = module.declare_function("g", Linkage::Local, &plain)?;
    let mut half = function(module, false);
    found.push(("code that is wrong", said(module.define_function(g, &mut half))));
    for (id, again) in [(f, "a function twice"), (g, "twice after an error")] {
        assert!(define(module, id) == "accepted");
        found.push((again, define(module, id)));
    }
    module.define_data(d, &data)?;
    found.push(("data twice", said(module.define_data(d, &data))));

    let anonymous = module.declare_anonymous_function(&plain)?;
    assert!(define(module, anonymous) == "accepted");
    found.push(("an anonymous function twice", define(module, anonymous)));
    let anonymous = module.declare_anonymous_data(false, false)?;
    module.define_data(anonymous, &data)?;
    found.push(("anonymous data twice", said(module.define_data(anonymous, &data))));

    // The linkage of an import may be widened; then it is defined.
    let widened = module.declare_function("import", Linkage::Export, &plain)?;
    assert!(define(module, widened) == "accepted");
    found.push(("a widened import twice", define(module, widened)));
    module.declare_data("imported", Linkage::Hidden, false, false)?;
    module.define_data(import, &data)?;
    found.push(("widened data twice", said(module.define_data(import, &data))));
    Ok(found)
}

fn define<M: Module>(module: &mut M, id: FuncId) -> String {
    let mut context = function(module, true);
    said(module.define_function(id, &mut context))
}
