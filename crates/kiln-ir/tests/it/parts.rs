//! Builders as compilers in the wild use them: functions that are defined with another type than
//! declared, modules that are finished on the way, and functions that are verified later.

use cranelift_codegen::ir::{self, AbiParam, InstBuilder, types};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::{DataDescription, FuncId, Linkage, Module as _, ModuleError};
use expect_test::expect;
use kiln_ir::{BuildError, Module, ModuleBuilder, SymbolId, print};

use crate::builder::{builder, define, fails, signature};

/// Defines `caller` as a function that calls `callee` and drops its results.
#[expect(clippy::result_large_err, reason = "the error type is that of the trait")]
fn calls(module: &mut ModuleBuilder, caller: FuncId, callee: FuncId) -> Result<(), ModuleError> {
    define(module, caller, |module, builder| {
        let callee = module.declare_func_in_func(callee, builder.func);
        builder.ins().call(callee, &[]);
        vec![]
    })
}

/// Defines a function that returns a number, whatever type it was declared with.
#[expect(clippy::result_large_err, reason = "the error type is that of the trait")]
fn returns_number(module: &mut ModuleBuilder, id: FuncId, number: i64) -> Result<(), ModuleError> {
    let mut context = module.make_context();
    context.func.signature.returns.push(AbiParam::new(types::I64));
    let mut scratch = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut context.func, &mut scratch);
    let block = builder.create_block();
    builder.switch_to_block(block);
    builder.seal_block(block);
    let value = builder.ins().iconst(types::I64, number);
    builder.ins().return_(&[value]);
    builder.finalize(module.target_config());
    module.define_function(id, &mut context)
}

/// Symbols with their linkage.
fn symbols(module: &Module) -> Vec<String> {
    module.symbols.iter().map(|symbol| format!("{:?} {}", symbol.linkage, symbol.name)).collect()
}

#[test]
fn a_function_is_defined_with_another_type_than_declared() {
    let mut module = builder();
    let none = signature(&module, &[], &[]);
    let number = signature(&module, &[], &[types::I64]);
    let f = module.declare_function("f", Linkage::Export, &none).unwrap();
    let main = module.declare_function("main", Linkage::Export, &none).unwrap();
    returns_number(&mut module, f, 1).unwrap();

    // From now on it has the type of its definition.
    assert_eq!(module.declarations().get_function_decl(f).signature, number);
    assert_eq!(module.declare_function("f", Linkage::Hidden, &number).unwrap(), f);
    let refused = module.declare_function("f", Linkage::Export, &none);
    assert!(matches!(refused, Err(ModuleError::IncompatibleSignature(..))), "{refused:?}");
    define(&mut module, main, |module, builder| {
        let f = module.declare_func_in_func(f, builder.func);
        let call = builder.ins().call(f, &[]);
        assert_eq!(builder.inst_results(call).len(), 1);
        vec![]
    })
    .unwrap();
    let module = module.finish().unwrap();
    assert_eq!(module.symbols[0].signature, Some(number));
}

#[test]
fn a_type_that_is_used_cannot_change() {
    let mut module = builder();
    let none = signature(&module, &[], &[]);
    let [f, user] = ["f", "user"].map(|name| module.declare_function(name, Linkage::Export, &none).unwrap());
    calls(&mut module, user, f).unwrap();
    fails(
        returns_number(&mut module, f, 1),
        expect![
            "Backend error: `user` uses `f` as () system_v, but its code has the type () -> i64 system_v"
        ],
    );
    // It can still be defined as it is used.
    define(&mut module, f, |_, _| vec![]).unwrap();
    module.finish().unwrap();

    // The function itself is no exception, and a finished module is none.
    let mut module = builder();
    let [f, user] = ["f", "user"].map(|name| module.declare_function(name, Linkage::Export, &none).unwrap());
    calls(&mut module, user, f).unwrap();
    module.finish_part("first");
    assert!(matches!(returns_number(&mut module, f, 1), Err(ModuleError::Backend(_))));

    // An import may be used with any type, but once it is defined, the types must agree.
    let mut module = builder();
    let number = signature(&module, &[], &[types::I64]);
    let f = module.declare_function("f", Linkage::Import, &number).unwrap();
    let user = module.declare_function("user", Linkage::Export, &none).unwrap();
    define(&mut module, user, |module, builder| {
        let f = module.declare_func_in_func(f, builder.func);
        let callee = builder.func.dfg.ext_funcs[f].clone();
        let signature = builder.func.import_signature(signature(module, &[], &[]));
        let f = builder.func.import_function(ir::ExtFuncData { signature, ..callee });
        builder.ins().call(f, &[]);
        vec![]
    })
    .unwrap();
    module.declare_function("f", Linkage::Export, &number).unwrap();
    fails(
        returns_number(&mut module, f, 1),
        expect![
            "Backend error: `user` uses `f` as () system_v, but its code has the type () -> i64 system_v"
        ],
    );
}

#[test]
fn ids_stay_when_a_module_is_finished() {
    let mut module = ModuleBuilder::new("a \"builder\"", &crate::target()).unwrap();
    let none = signature(&module, &[], &[]);
    let first = module.declare_function("first", Linkage::Export, &none).unwrap();
    let local = module.declare_function("local", Linkage::Local, &none).unwrap();
    let anonymous = module.declare_anonymous_function(&none).unwrap();
    let later = module.declare_function("later", Linkage::Export, &none).unwrap();
    let later_local = module.declare_anonymous_function(&none).unwrap();
    let never_used = module.declare_anonymous_function(&none).unwrap();
    let data = module.declare_anonymous_data(true, false).unwrap();
    let global = module.global("key");

    calls(&mut module, first, later).unwrap();
    calls(&mut module, local, later_local).unwrap();
    calls(&mut module, anonymous, local).unwrap();
    let mut description = DataDescription::new();
    description.define_zeroinit(8);
    module.define_data(data, &description).unwrap();
    let part = module.finish_part("part 1");
    assert_eq!(&*part.name, "part 1");
    assert_eq!(
        symbols(&part),
        [
            "Export first",
            "Import later",
            r#"Hidden kiln.private.13.a \"builder\".local"#,
            r#"Import kiln.private.13.a \"builder\":fn4"#,
            r#"Hidden kiln.private.13.a \"builder\":fn2"#,
            r#"Hidden kiln.private.13.a \"builder\":data0"#,
        ]
    );
    assert_eq!(part.ids.function(anonymous), Some(SymbolId::from_u32(4)));
    assert_eq!(part.ids.data(data), Some(SymbolId::from_u32(5)));
    assert_eq!(part.ids.function(never_used), None);

    // What is finished cannot be defined again, and a private name stays private.
    fails(calls(&mut module, first, later), expect!["Duplicate definition of identifier: first"]);
    let again = module.define_data(data, &description);
    assert!(matches!(again, Err(ModuleError::DuplicateDefinition(_))), "{again:?}");
    fails(
        module.declare_function("local", Linkage::Export, &none),
        expect![
            "Backend error: `local` is local in a module that was finished, so its linkage cannot be widened"
        ],
    );
    fails(
        module.declare_function("kiln.private.x", Linkage::Export, &none),
        expect![
            "Backend error: `kiln.private.x` cannot be a name: only private definitions have names that begin like this"
        ],
    );

    // An empty module, then the last one: what nothing else refers to is local in it.
    assert!(module.finish_part("part 2").symbols.is_empty());
    let helper = module.declare_anonymous_function(&none).unwrap();
    calls(&mut module, later, helper).unwrap();
    calls(&mut module, helper, anonymous).unwrap();
    define(&mut module, later_local, |module, builder| {
        for id in [data, global] {
            let value = module.declare_data_in_func(id, builder.func);
            builder.ins().symbol_value(types::I64, value);
        }
        vec![]
    })
    .unwrap();
    let last = module.finish().unwrap();
    assert_eq!(
        symbols(&last),
        [
            "Export later",
            "Local ",
            r#"Import kiln.private.13.a \"builder\":fn2"#,
            r#"Hidden kiln.private.13.a \"builder\":fn4"#,
            r#"Import kiln.private.13.a \"builder\":data0"#,
            "Import key",
        ]
    );
    assert_eq!(last.ids.data(global), Some(SymbolId::from_u32(5)));

    // The modules fit together, and can be printed.
    assert!(kiln_ir::check_program(&[&part, &last]).is_empty());
    assert!(kiln_ir::undefined(&[&part, &last], &|_| false).is_empty());
    for module in [&part, &last] {
        assert_eq!(symbols(&crate::module(&print(module).unwrap())), symbols(module));
    }
}

#[test]
fn the_last_module_needs_what_the_others_refer_to() {
    let undefined = |late: bool| {
        let mut module = builder();
        let none = signature(&module, &[], &[]);
        let first = module.declare_function("first", Linkage::Export, &none).unwrap();
        let missing = module.declare_anonymous_function(&none).unwrap();
        calls(&mut module, first, missing).unwrap();
        module.finish_part("part");
        if late {
            define(&mut module, missing, |_, _| vec![]).unwrap();
        }
        module.finish()
    };
    assert!(matches!(undefined(false), Err(BuildError::Undefined(name)) if &*name == ".Lfn1"));
    assert_eq!(symbols(&undefined(true).unwrap()), ["Hidden kiln.private.4.test:fn1"]);

    // A name that a finished module imports may turn out to be local.
    let mut module = builder();
    let none = signature(&module, &[], &[]);
    let first = module.declare_function("first", Linkage::Export, &none).unwrap();
    let import = module.declare_function("import", Linkage::Import, &none).unwrap();
    calls(&mut module, first, import).unwrap();
    module.finish_part("part");
    module.declare_function("import", Linkage::Local, &none).unwrap();
    define(&mut module, import, |_, _| vec![]).unwrap();
    assert_eq!(symbols(&module.finish().unwrap()), ["Hidden import"]);
}

#[test]
fn a_function_is_verified_when_it_is_compiled() {
    let mut module = builder();
    let number = signature(&module, &[], &[types::I64]);
    let f = module.declare_function("f", Linkage::Export, &number).unwrap();
    define(&mut module, f, |_, _| vec![]).unwrap();
    let isa = crate::target().isa(&Default::default()).unwrap();
    let module = module.finish().unwrap();
    let function = &module.functions[0];
    assert!(!function.body().unwrap().is_verified());
    let faults = kiln_ir::verify(&function.ir().unwrap(), &*isa).unwrap_err();
    expect!["inst0: arguments of return must match function signature"].assert_eq(&faults[0].to_string());
    // Verified or not, it is the same code.
    let read = kiln_ir::parse_unverified(
        std::sync::Arc::new(kiln_ir::Source::new("f.clif", print(&module).unwrap())),
        &crate::target(),
    );
    assert_eq!(read.unwrap().module().functions[0].code, function.code);
}

#[test]
fn ir_that_has_no_form_is_refused_at_once() {
    type Damage = fn(&mut ir::Function);
    let damages: [(&str, Damage); 4] = [
        ("no value", |f| {
            let inst = f.layout.first_inst(f.layout.entry_block().unwrap()).unwrap();
            f.dfg.inst_args_mut(inst)[0] = ir::Value::from_u32(999);
        }),
        ("no block", |f| {
            let block = f.layout.entry_block().unwrap();
            let inst = f.layout.last_inst(block).unwrap();
            let call = f.dfg.block_call(ir::Block::from_u32(77), &[]);
            f.dfg.insts[inst] = ir::InstructionData::Jump { opcode: ir::Opcode::Jump, destination: call };
        }),
        ("no function", |f| {
            let inst = f.layout.last_inst(f.layout.entry_block().unwrap()).unwrap();
            f.dfg.insts[inst] = ir::InstructionData::Call {
                opcode: ir::Opcode::Call,
                args: ir::ValueList::new(),
                func_ref: ir::FuncRef::from_u32(5),
            };
        }),
        ("no table", |f| {
            let inst = f.layout.last_inst(f.layout.entry_block().unwrap()).unwrap();
            let arg = f.dfg.first_result(f.layout.first_inst(f.layout.entry_block().unwrap()).unwrap());
            f.dfg.insts[inst] = ir::InstructionData::BranchTable {
                opcode: ir::Opcode::BrTable,
                arg,
                table: ir::JumpTable::from_u32(3),
            };
        }),
    ];
    for (name, damage) in damages {
        let mut module = builder();
        let unary = signature(&module, &[types::I64], &[]);
        let f = module.declare_function("f", Linkage::Export, &unary).unwrap();
        let mut context = module.make_context();
        context.func.signature = unary;
        let mut scratch = FunctionBuilderContext::new();
        let mut builder = FunctionBuilder::new(&mut context.func, &mut scratch);
        let block = builder.create_block();
        builder.append_block_params_for_function_params(block);
        builder.switch_to_block(block);
        builder.seal_block(block);
        let param = builder.block_params(block)[0];
        builder.ins().iadd(param, param);
        builder.ins().return_(&[]);
        builder.finalize(module.target_config());
        damage(&mut context.func);
        let refused = module.define_function(f, &mut context);
        // Cranelift's verifier panics on some.
        assert!(
            matches!(refused, Err(ModuleError::Compilation(_) | ModuleError::Backend(_))),
            "{name}: {refused:?}"
        );
        // The builder is as before.
        define(&mut module, f, |_, _| vec![]).unwrap();
    }
}
