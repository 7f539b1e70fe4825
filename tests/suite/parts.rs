//! A builder that finishes several modules: sessions and images take them, in one batch or in
//! several, and the artifacts are the same.

use cranelift_codegen::ir::{AbiParam, InstBuilder, MemFlagsData, Value, types::I64};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::{DataDescription, DataId, FuncId, Linkage, Module as _};
use kiln::image::Image;
use kiln::ir::{Module, ModuleBuilder, Target};
use kiln::{Session, SessionError, jit};

/// Defines a function of one block; `body` gets its parameter.
fn define(
    module: &mut ModuleBuilder,
    id: FuncId,
    body: impl FnOnce(&mut ModuleBuilder, &mut FunctionBuilder<'_>, Value) -> Value,
) {
    let mut context = module.make_context();
    context.func.signature = module.declarations().get_function_decl(id).signature.clone();
    let mut scratch = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut context.func, &mut scratch);
    let block = builder.create_block();
    builder.append_block_params_for_function_params(block);
    builder.switch_to_block(block);
    builder.seal_block(block);
    let param = builder.block_params(block)[0];
    let result = body(module, &mut builder, param);
    builder.ins().return_(&[result]);
    builder.finalize(module.target_config());
    module.define_function(id, &mut context).unwrap();
}

fn call(
    module: &mut ModuleBuilder,
    builder: &mut FunctionBuilder<'_>,
    callee: FuncId,
    value: Value,
) -> Value {
    let callee = module.declare_func_in_func(callee, builder.func);
    let call = builder.ins().call(callee, &[value]);
    builder.inst_results(call)[0]
}

fn load(module: &ModuleBuilder, builder: &mut FunctionBuilder<'_>, data: DataId) -> Value {
    let data = module.declare_data_in_func(data, builder.func);
    let address = builder.ins().symbol_value(I64, data);
    builder.ins().load(I64, MemFlagsData::trusted(), address, 0)
}

/// Two modules of a builder that is called `name`. The first has private functions and data that
/// the second uses, through calls, addresses and pointers in data. With `circle`, it also uses a
/// private function of the second.
fn parts(name: &str, circle: bool) -> Vec<Module> {
    let mut module = ModuleBuilder::new(name, &Target::host()).unwrap();
    let mut unary = module.make_signature();
    unary.params.push(AbiParam::new(I64));
    unary.returns.push(AbiParam::new(I64));
    let declare = |module: &mut ModuleBuilder, text: &str, linkage| {
        module.declare_function(&format!("{name}_{text}"), linkage, &unary).unwrap()
    };
    let anonymous = module.declare_anonymous_function(&unary).unwrap();
    let local = module.declare_function("local", Linkage::Local, &unary).unwrap();
    let later = module.declare_anonymous_function(&unary).unwrap();
    let state = module.declare_data("state", Linkage::Local, true, false).unwrap();
    define(&mut module, anonymous, |module, builder, value| {
        let state = load(module, builder, state);
        builder.ins().iadd(value, state)
    });
    define(
        &mut module,
        local,
        |module, builder, value| {
            if circle { call(module, builder, later, value) } else { value }
        },
    );
    let mut data = DataDescription::new();
    data.define(Box::new(1000i64.to_ne_bytes()));
    module.define_data(state, &data).unwrap();
    let first = module.finish_part("first");

    let table = module.declare_anonymous_data(false, false).unwrap();
    let mut data = DataDescription::new();
    data.define_zeroinit(8);
    let entry = module.declare_func_in_data(anonymous, &mut data);
    data.write_function_addr(0, entry);
    module.define_data(table, &data).unwrap();
    define(&mut module, later, |_, builder, value| builder.ins().iadd(value, value));
    // By pointer, by address, and by call: (value + 1000) + 1000, doubled in a circle.
    let main = declare(&mut module, "main", Linkage::Export);
    define(&mut module, main, |module, builder, value| {
        let signature = builder.import_signature(unary.clone());
        let entry = load(module, builder, table);
        let result = builder.ins().call_indirect(signature, entry, &[value]);
        let value = builder.inst_results(result)[0];
        let callee = module.declare_func_in_func(anonymous, builder.func);
        let address = builder.ins().func_addr(I64, callee);
        let result = builder.ins().call_indirect(signature, address, &[value]);
        let value = builder.inst_results(result)[0];
        call(module, builder, local, value)
    });
    vec![first, module.finish().unwrap()]
}

fn run(session: &Session, name: &str) -> i64 {
    type Main = extern "C" fn(i64) -> i64;
    let main = session.function(name).unwrap();
    // SAFETY: the code is that of `parts`, which uses nothing but its own functions and data.
    let in_memory = unsafe { main.typed::<Main>() }.unwrap()(1);
    let image = Image::from_bytes(&session.image().unwrap()).unwrap();
    let loaded = image.bind(&jit::libcalls::process).unwrap();
    let main = loaded.function(name).unwrap();
    // SAFETY: as above.
    assert_eq!(unsafe { main.typed::<Main>() }.unwrap()(1), in_memory);
    in_memory
}

#[test]
fn modules_of_a_builder_use_private_definitions_of_each_other() {
    let session = Session::new(Target::host()).unwrap();
    session.add(&parts("whole", true)).unwrap();
    for part in parts("split", false) {
        session.add(&[part]).unwrap();
    }
    assert_eq!((run(&session, "whole_main"), run(&session, "split_main")), (4002, 2001));

    // The artifacts are a function of the modules.
    let again = Session::new(Target::host()).unwrap();
    again.add(&parts("whole", true)).unwrap();
    again.add(&parts("split", false)).unwrap();
    let bytes = |session: &Session| {
        session.artifacts().iter().map(|artifact| artifact.as_bytes().to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(bytes(&session), bytes(&again));
}

#[test]
fn private_definitions_are_found_by_id() {
    let mut module = ModuleBuilder::new("ids", &Target::native()).unwrap();
    let mut unary = module.make_signature();
    unary.params.push(AbiParam::new(I64));
    unary.returns.push(AbiParam::new(I64));
    let private = module.declare_anonymous_function(&unary).unwrap();
    let named = module.declare_function("named", Linkage::Local, &unary).unwrap();
    let data = module.declare_anonymous_data(true, false).unwrap();
    define(&mut module, private, |_, builder, value| builder.ins().iadd(value, value));
    define(&mut module, named, |module, builder, value| {
        let value = call(module, builder, private, value);
        let data = load(module, builder, data);
        builder.ins().iadd(value, data)
    });
    let mut description = DataDescription::new();
    description.define(Box::new(5i64.to_ne_bytes()));
    module.define_data(data, &description).unwrap();
    let module = module.finish().unwrap();
    let ids = module.ids.clone();
    let session = Session::new(Target::native()).unwrap();
    let unit = session.add(&[module]).unwrap();

    let artifact = &unit.artifacts()[0];
    for id in [private, named] {
        let symbol = ids.function(id).unwrap().index();
        let size = artifact.code(symbol).unwrap().len();
        assert!(size > 0);
        assert_eq!(unit.symbol(0, symbol).unwrap().size, size);
    }
    let named = ids.function(named).unwrap().index();
    assert_eq!(artifact.code_of("named"), artifact.code(named));
    assert_eq!(artifact.code_of("other"), None);
    let data = ids.data(data).unwrap().index();
    assert_eq!((artifact.code(data), unit.symbol(0, data).unwrap().size), (None, 8));
    let address = unit.symbol(0, named).unwrap().address;
    // SAFETY: this is the type that it was defined with, and the session lives on.
    let named = unsafe { std::mem::transmute::<*const u8, extern "C" fn(i64) -> i64>(address) };
    assert_eq!(named(10), 25);
}

#[test]
fn private_names_of_builders_with_one_name_clash() {
    let session = Session::new(Target::host()).unwrap();
    session.add(&parts("one", false)).unwrap();
    let mut same = parts("one", false);
    let error = session.add(&[same.remove(0)]).unwrap_err();
    let message = std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string);
    assert!(message.contains("kiln.private.3.one"), "{message}");
}

#[test]
fn a_function_that_is_not_valid_is_an_error_of_the_compilation() {
    let mut module = ModuleBuilder::new("wrong", &Target::host()).unwrap();
    let mut signature = module.make_signature();
    signature.params.push(AbiParam::new(I64));
    let f = module.declare_function("f", Linkage::Export, &signature).unwrap();
    define(&mut module, f, |_, _, value| value);
    let session = Session::new(Target::host()).unwrap();
    let error = session.add(&[module.finish().unwrap()]).unwrap_err();
    let SessionError::Compile(error) = error else { panic!("{error:?}") };
    assert_eq!(
        error.to_string(),
        "function `f` of module wrong: it is not valid: inst0: arguments of return must match function \
         signature"
    );
}
