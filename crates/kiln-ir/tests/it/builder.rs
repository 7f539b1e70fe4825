//! Modules that are built through `cranelift_module::Module`, by code that is generic over it.

use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::ir::{self, AbiParam, InstBuilder, types};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::{
    DataDescription, DataId, FuncId, Linkage, Module, ModuleError, ModuleReloc, ModuleRelocTarget,
};
use expect_test::{Expect, expect};
use kiln_ir::{BuildError, ModuleBuilder, Modules, Source, Target, parse};

use crate::{describe, target};

pub(crate) fn builder() -> ModuleBuilder {
    ModuleBuilder::new("test", &target()).unwrap()
}

pub(crate) fn signature<M: Module>(module: &M, params: &[ir::Type], returns: &[ir::Type]) -> ir::Signature {
    let mut signature = module.make_signature();
    signature.params.extend(params.iter().map(|ty| AbiParam::new(*ty)));
    signature.returns.extend(returns.iter().map(|ty| AbiParam::new(*ty)));
    signature
}

/// Defines `id` with one block that `body` fills.
#[expect(clippy::result_large_err, reason = "the error type is that of the trait")]
pub(crate) fn define<M: Module>(
    module: &mut M,
    id: FuncId,
    body: impl FnOnce(&mut M, &mut FunctionBuilder<'_>) -> Vec<ir::Value>,
) -> Result<(), ModuleError> {
    let mut context = module.make_context();
    context.func.signature = module.declarations().get_function_decl(id).signature.clone();
    let mut scratch = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut context.func, &mut scratch);
    let block = builder.create_block();
    builder.append_block_params_for_function_params(block);
    builder.switch_to_block(block);
    builder.seal_block(block);
    let values = body(module, &mut builder);
    builder.ins().return_(&values);
    builder.finalize(module.target_config());
    module.define_function(id, &mut context)
}

/// A client: a caller, a callee that is defined later, an import, data with addresses.
fn client<M: Module>(module: &mut M, object: Option<DataId>) {
    let unary = signature(module, &[types::I64], &[types::I64]);
    let unused = signature(module, &[types::F64], &[]);
    module.declare_function("never_called", Linkage::Import, &unused).unwrap();
    let caller = module.declare_function("caller", Linkage::Export, &unary).unwrap();
    let callee = module.declare_function("callee", Linkage::Local, &unary).unwrap();
    let import = module.declare_function("import", Linkage::Import, &unary).unwrap();
    let anonymous = module.declare_anonymous_function(&unary).unwrap();
    let table = module.declare_data("table", Linkage::Hidden, true, false).unwrap();

    define(module, caller, |module, builder| {
        let mut value = builder.block_params(builder.current_block().unwrap())[0];
        let never = module.declare_func_in_func(anonymous, builder.func);
        for id in [callee, import, anonymous] {
            let target = module.declare_func_in_func(id, builder.func);
            let call = builder.ins().call(target, &[value]);
            value = builder.inst_results(call)[0];
        }
        let _ = never;
        let table = module.declare_data_in_func(table, builder.func);
        let address = builder.ins().symbol_value(types::I64, table);
        value = builder.ins().iadd(value, address);
        if let Some(object) = object {
            let object = module.declare_data_in_func(object, builder.func);
            let address = builder.ins().symbol_value(types::I64, object);
            value = builder.ins().iadd(value, address);
        }
        vec![value]
    })
    .unwrap();
    for id in [callee, anonymous] {
        define(module, id, |_, builder| builder.block_params(builder.current_block().unwrap()).to_vec())
            .unwrap();
    }

    let mut data = DataDescription::new();
    data.define(vec![0xaa; 32].into());
    data.set_align(32);
    let function = module.declare_func_in_data(import, &mut data);
    let own = module.declare_data_in_data(table, &mut data);
    data.write_data_addr(16, own, -4);
    data.write_function_addr(8, function);
    module.define_data(table, &data).unwrap();
}

#[test]
fn a_client_that_is_generic_over_the_module() {
    let mut module = builder();
    let object = module.global("runtime::object");
    assert_eq!(object, module.global("runtime::object"));
    module.global("not used");
    client(&mut module, Some(object));
    expect![[r#"
        0: Export Function "caller" (i64) -> i64 system_v line 0
        1: Hidden Data "table"  line 0
        2: Import Global "runtime::object"  line 0
        3: Local Function "callee" (i64) -> i64 system_v line 0
        4: Import Function "import" (i64) -> i64 system_v line 0
        5: Local Function "" (i64) -> i64 system_v line 0
        data 1 writable align 32 line 0: aaaaaaaaaaaaaaaa00000000000000000000000000000000aaaaaaaaaaaaaaaa, 4 at 8 + 0, 1 at 16 + -4
        function 0 line 0
        function u0:0(i64) -> i64 system_v {
            gv0 = symbol colocated userextname0
            gv1 = symbol userextname1
            sig0 = (i64) -> i64 system_v
            sig1 = (i64) -> i64 system_v
            sig2 = (i64) -> i64 system_v
            fn0 = colocated u0:3 sig0
            fn1 = u0:4 sig1
            fn2 = colocated u0:5 sig2

        block0(v0: i64):
            v1 = call fn0(v0)
            v2 = call fn1(v1)
            v3 = call fn2(v2)
            v4 = symbol_value.i64 gv0
            v5 = iadd v3, v4
            v6 = symbol_value.i64 gv1
            v7 = iadd v5, v6
            return v7
        }

        function 3 line 0
        function u0:3(i64) -> i64 system_v {
        block0(v0: i64):
            return v0
        }

        function 5 line 0
        function u0:5(i64) -> i64 system_v {
        block0(v0: i64):
            return v0
        }

    "#]].assert_eq(&describe(&module.finish().unwrap()));
}

#[test]
fn the_result_does_not_depend_on_the_order_of_declarations() {
    let mut plain = builder();
    client(&mut plain, None);
    let mut other = builder();
    let unary = signature(&other, &[types::I64], &[types::I64]);
    other.declare_data("table", Linkage::Import, false, false).unwrap();
    other.declare_function("import", Linkage::Import, &unary).unwrap();
    other.declare_function("callee", Linkage::Import, &unary).unwrap();
    client(&mut other, None);
    let (plain, other) = (plain.finish().unwrap(), other.finish().unwrap());
    let declarations = |text: String| text.split("function ").next().map(str::to_owned);
    assert_eq!(declarations(describe(&plain)), declarations(describe(&other)));
    let codes = |module: &kiln_ir::Module| {
        module.functions.iter().map(|f| f.ir().unwrap().stencil).collect::<Vec<_>>()
    };
    assert!(codes(&plain) == codes(&other));
}

#[track_caller]
pub(crate) fn fails<T: std::fmt::Debug>(result: Result<T, ModuleError>, expected: Expect) {
    expected.assert_eq(&result.unwrap_err().to_string());
}

#[test]
fn faults_of_functions() {
    let mut module = builder();
    module.verify_at_once(true);
    let none = signature(&module, &[], &[]);
    let unary = signature(&module, &[types::I64], &[types::I64]);
    let f = module.declare_function("f", Linkage::Export, &none).unwrap();
    let import = module.declare_function("import", Linkage::Import, &none).unwrap();
    let data = module.declare_data("data", Linkage::Import, false, false).unwrap();

    fails(
        module.declare_function("f", Linkage::Export, &unary),
        expect![
            "Function f signature Signature { params: [AbiParam { value_type: types::I64, purpose: Normal, extension: None }], returns: [AbiParam { value_type: types::I64, purpose: Normal, extension: None }], call_conv: SystemV } is incompatible with previous declaration Signature { params: [], returns: [], call_conv: SystemV }"
        ],
    );
    fails(
        module.declare_data("f", Linkage::Export, false, false),
        expect!["Incompatible declaration of identifier: f"],
    );
    fails(
        define(&mut module, import, |_, _| vec![]),
        expect!["Invalid to define identifier declared as an import: import"],
    );
    fails(
        module.declare_data("a\0b", Linkage::Export, false, false),
        expect![[r"Backend error: `a\0b` cannot be a name: it is empty or holds a zero byte"]],
    );
    fails(
        module.declare_function("", Linkage::Export, &none),
        expect!["Backend error: `` cannot be a name: it is empty or holds a zero byte"],
    );
    fails(
        module.define_function_bytes(f, 3, &[0xc3], &[]),
        expect!["Backend error: `f`: the alignment is not a power of two up to 4096"],
    );
    fails(
        module.define_function_bytes(f, 1, &[], &[]),
        expect!["Backend error: `f`: the code is empty or has 4 GiB or more"],
    );
    let reloc = |offset, kind, name| ModuleReloc { offset, kind, name, addend: 0 };
    let own = ModuleRelocTarget::from(f);
    fails(
        module.define_function_bytes(f, 1, &[0xc3], &[reloc(1, Reloc::Abs8, own.clone())]),
        expect!["Backend error: `f`: the relocation at offset 1 is outside of the code"],
    );
    fails(
        module.define_function_bytes(f, 1, &[0xc3], &[reloc(0, Reloc::ElfX86_64TlsGd, own)]),
        expect!["Backend error: `f`: the relocation at offset 0 is of a kind that is not linked"],
    );
    let elsewhere = ModuleRelocTarget::FunctionOffset(import, 0);
    fails(
        module.define_function_bytes(f, 1, &[0xc3], &[reloc(0, Reloc::Abs8, elsewhere)]),
        expect!["Backend error: `f`: the relocation at offset 0 refers to something that cannot be linked"],
    );
    fails(
        module.define_function_bytes(f, 1, &[0xc3], &[reloc(0, Reloc::Abs8, ModuleRelocTarget::user(0, 99))]),
        expect!["Backend error: f: there is no function or data object with this number"],
    );

    // A return without the declared value, which Cranelift's verifier finds.
    let wrong = define(&mut module, f, |_, builder| vec![builder.ins().iconst(types::I64, 1)]);
    assert!(matches!(wrong, Err(ModuleError::Compilation(_))), "{wrong:?}");

    // References made by hand: out of range, by text, and to data as if it were a function.
    for (namespace, index) in [(0, 99), (1, 99), (7, 0), (1, data.as_u32())] {
        let result = define(&mut module, f, |_, builder| {
            let name = builder.func.declare_imported_user_function(ir::UserExternalName { namespace, index });
            call(builder, ir::ExternalName::user(name))
        });
        assert!(matches!(result, Err(ModuleError::Backend(_))), "{result:?}");
    }
    fails(
        define(&mut module, f, |_, builder| call(builder, ir::ExternalName::testcase("f"))),
        expect!["Backend error: %f: there is no function or data object with this number"],
    );

    define(&mut module, f, |_, _| vec![]).unwrap();
    fails(define(&mut module, f, |_, _| vec![]), expect!["Duplicate definition of identifier: f"]);
    // The definitions that failed have changed nothing.
    let module = module.finish().unwrap();
    assert_eq!((module.symbols.len(), module.functions.len()), (1, 1));
}

fn call(builder: &mut FunctionBuilder<'_>, name: ir::ExternalName) -> Vec<ir::Value> {
    let signature = builder.func.signature.clone();
    let signature = builder.func.import_signature(signature);
    let data = ir::ExtFuncData { name, signature, colocated: false, patchable: false };
    let callee = builder.func.import_function(data);
    builder.ins().call(callee, &[]);
    vec![]
}

#[test]
fn faults_of_data() {
    let mut module = builder();
    let data = module.declare_data("data", Linkage::Local, false, false).unwrap();
    let import = module.declare_data("import", Linkage::Import, false, false).unwrap();
    let global = module.global("key");
    let mut description = DataDescription::new();
    let tls = module.declare_data("tls", Linkage::Local, true, true).unwrap();
    fails(
        module.define_data(data, &description),
        expect!["Backend error: `data`: the content is not initialized"],
    );
    description.define_zeroinit(20);
    fails(
        module.define_data(import, &description),
        expect!["Invalid to define identifier declared as an import: import"],
    );
    fails(
        module.define_data(global, &description),
        expect!["Backend error: `key` is a global: it has no definition in a module"],
    );
    fails(
        module.define_data(DataId::from_u32(77), &description),
        expect!["Backend error: dataid77: there is no function or data object with this number"],
    );

    let own = module.declare_data_in_data(data, &mut description);
    let attempt = |change: &dyn Fn(&mut DataDescription)| {
        let mut description = description.clone();
        change(&mut description);
        description
    };
    fails(
        module.define_data(data, &attempt(&|d| d.write_data_addr(13, own, 0))),
        expect!["Backend error: `data`: the address at offset 13 is not inside the content"],
    );
    fails(
        module.define_data(
            data,
            &attempt(&|d| {
                d.write_data_addr(8, own, 0);
                d.write_data_addr(1, own, 0);
            }),
        ),
        expect!["Backend error: `data`: the address at offset 8 overlaps another"],
    );
    fails(
        module.define_data(data, &attempt(&|d| d.set_custom_section(""))),
        expect!["Backend error: `data`: the section's name is empty or holds a zero byte"],
    );
    fails(
        module.define_data(data, &attempt(&|d| d.set_custom_section(".init_array.5"))),
        expect![
            "Backend error: `data`: no data can be placed in section `.init_array.5`, which means something to loaders"
        ],
    );
    fails(
        module.define_data(tls, &attempt(&|d| d.set_custom_section("mine"))),
        expect!["Backend error: `tls`: thread-local data is in a section of its own"],
    );
    fails(
        module.define_data(data, &attempt(&|d| d.align = Some(3))),
        expect!["Backend error: `data`: the alignment is not a power of two up to 4096"],
    );
    module.define_data(data, &description).unwrap();
    fails(module.define_data(data, &description), expect!["Duplicate definition of identifier: data"]);
    assert_eq!(module.finish().unwrap().data.len(), 1);
}

#[test]
fn thread_local_data_is_what_the_text_form_says() {
    let mut module = builder();
    let counter = module.declare_data("counter", Linkage::Export, false, true).unwrap();
    let mut description = DataDescription::new();
    description.define(Box::new([7, 0, 0, 0, 0, 0, 0, 0]));
    module.define_data(counter, &description).unwrap();
    let other = module.declare_data("other", Linkage::Import, true, true).unwrap();
    let ty = signature(&module, &[], &[types::I64]);
    let read = module.declare_function("read", Linkage::Export, &ty).unwrap();
    let body = |module: &mut ModuleBuilder, builder: &mut FunctionBuilder<'_>| {
        let values = [counter, other].map(|data| {
            let place = module.declare_data_in_func(data, builder.func);
            let address = builder.ins().tls_value(types::I64, place);
            builder.ins().load(types::I64, ir::MemFlagsData::trusted(), address, 0)
        });
        vec![builder.ins().iadd(values[0], values[1])]
    };
    define(&mut module, read, body).unwrap();
    let module = module.finish().unwrap();
    assert!(module.data[0].is_thread_local() && module.data[0].writable);
    let text = kiln_ir::print(&module).unwrap();
    let data = text.lines().find(|line| line.starts_with("data")).unwrap();
    assert_eq!(data, "data %counter tls { bytes #0700000000000000 }");
    let symbols: Vec<_> = text.lines().filter(|line| line.contains("symbol")).collect();
    assert_eq!(symbols, ["    gv0 = symbol colocated tls %counter", "    gv1 = symbol tls %other"]);
    let again = parse(Source::new("again.clif", text.clone()).into(), &target()).unwrap();
    assert_eq!(kiln_ir::print(&again).unwrap(), text);
    let bytes = module.to_bytes();
    let read = Modules::new(&*bytes).next().unwrap().unwrap().verify(&target()).unwrap();
    assert_eq!(kiln_ir::print(&read).unwrap(), text);
}

#[test]
fn replaceable_functions() {
    let mut module = builder();
    let none = signature(&module, &[], &[]);
    let mut functions = Vec::new();
    for name in ["before", "after", "plain"] {
        let function = module.declare_function(name, Linkage::Export, &none).unwrap();
        functions.push(function);
        if name == "before" {
            module.set_replaceable(function).unwrap();
        }
        define(&mut module, function, |_, _| vec![]).unwrap();
    }
    module.set_replaceable(functions[1]).unwrap();
    let module = module.finish().unwrap();
    let linkages: Vec<_> = module.symbols.iter().map(|symbol| symbol.linkage).collect();
    use kiln_ir::Linkage::{Export, Replaceable};
    assert_eq!(linkages, [Replaceable, Replaceable, Export]);
    let text = kiln_ir::print(&module).unwrap();
    assert!(text.contains("\nreplaceable function %after()"), "{text}");
    assert_eq!(text.matches("replaceable").count(), 2);
}

#[test]
fn faults_of_modules() {
    let mut module = builder();
    let none = signature(&module, &[], &[]);
    let main = module.declare_function("main", Linkage::Export, &none).unwrap();
    let lost = module.declare_anonymous_function(&none).unwrap();
    module.declare_function("weak", Linkage::Preemptible, &none).unwrap();
    define(&mut module, main, |module, builder| {
        let lost = module.declare_func_in_func(lost, builder.func);
        builder.ins().call(lost, &[]);
        vec![]
    })
    .unwrap();
    assert!(matches!(module.finish(), Err(BuildError::Undefined(name)) if &*name == ".Lfn1"));

    let mut module = builder();
    module.declare_data("gone", Linkage::Hidden, false, false).unwrap();
    assert!(matches!(module.finish(), Err(BuildError::Undefined(name)) if &*name == "gone"));

    let mut module = builder();
    let local = module.declare_function("local", Linkage::Local, &none).unwrap();
    let import = module.declare_function("import", Linkage::Import, &none).unwrap();
    let anonymous = module.declare_anonymous_function(&none).unwrap();
    for (function, name) in [(local, "local"), (import, "import"), (anonymous, ".Lfn2")] {
        assert!(matches!(module.set_replaceable(function), Err(BuildError::Replaceable(n)) if &*n == name));
    }
    let unknown = FuncId::from_u32(99);
    assert!(matches!(module.set_replaceable(unknown), Err(BuildError::Undeclared { .. })));

    let target = Target::host().setting("no_such_setting", "1");
    assert!(matches!(ModuleBuilder::new("test", &target), Err(BuildError::Target(_))));
}
