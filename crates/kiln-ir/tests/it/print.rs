//! Printed modules are read back unchanged, and printing them again gives the same text.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::ir::immediates::{Ieee16, Ieee32, Ieee64, Offset32};
use cranelift_codegen::ir::{
    self, AbiParam, AliasRegionData, ArgumentPurpose, ConstantData, DebugTag, InstBuilder, LibCall,
    MemFlagsData, RelSourceLoc, SourceLoc, StackSlotData, StackSlotKey, StackSlotKind, TrapCode,
    UserStackMapEntry, ValueLabel, ValueLabelAssignments, ValueLabelStart, types,
};
use cranelift_codegen::isa::CallConv;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::{DataDescription, FuncId, Linkage, Module as _, ModuleReloc, ModuleRelocTarget};
use kiln_ir::{DiagnosticKind, Module, ModuleBuilder, Source, Target, parse, print};
use kiln_oracle::forms::through_text;

use crate::{module, show, target};

/// Returns the module's text, after checking that it is read back as the same module and printed in
/// the same way.
#[track_caller]
pub(crate) fn assert_round_trips_for(module: &Module, target: &Target) -> String {
    if let Err(difference) = through_text(module, target) {
        panic!("{difference}");
    }
    print(module).expect("it was just printed")
}

/// Does the same for modules of the tests' target.
#[track_caller]
pub(crate) fn assert_round_trips(module: &Module) -> String {
    assert_round_trips_for(module, &target())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "clif") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Checks the files of a folder. Returns the number of modules, each target counted.
fn check_files(folder: &Path, foreign: bool) -> usize {
    let targets = ["x86_64", "aarch64", "riscv64", "s390x"].map(|name| Target::parse(name).unwrap());
    let mut modules = 0;
    for path in files(folder) {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for target in &targets {
            let source = Arc::new(Source::new(path.display().to_string(), text.as_str()));
            match parse(source, target) {
                Ok(module) => {
                    assert_round_trips_for(&module, target);
                    modules += 1;
                }
                Err(faults) => {
                    let kind = faults[0].kind;
                    let other = matches!(kind, DiagnosticKind::OtherTarget | DiagnosticKind::Target);
                    assert!(foreign || other, "{}", show(&faults));
                    // From a file with errors, take the functions that have none.
                    for piece in text.split("\nfunction ").skip(1).filter(|_| !other) {
                        let source = Source::new("piece", format!("function {piece}"));
                        if let Ok(module) = parse(Arc::new(source), target) {
                            assert_round_trips_for(&module, target);
                            modules += 1;
                        }
                    }
                }
            }
        }
    }
    modules
}

#[test]
fn every_program() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clif");
    assert!(check_files(&folder, false) > 15);
}

/// Files from elsewhere, which may contain what Kiln refuses:
/// `KILN_PRINT_FILES=folder cargo test -p kiln-ir`.
#[test]
fn files_of_a_folder() {
    match std::env::var_os("KILN_PRINT_FILES") {
        Some(folder) => println!("{} modules", check_files(Path::new(&folder), true)),
        None => println!("KILN_PRINT_FILES names no folder"),
    }
}

fn builder() -> ModuleBuilder {
    ModuleBuilder::new("test", &target()).unwrap()
}

/// Defines a function with the instructions that `body` writes into its first block.
#[track_caller]
fn define(
    module: &mut ModuleBuilder,
    id: FuncId,
    body: impl FnOnce(&mut ModuleBuilder, &mut FunctionBuilder<'_>) -> Vec<ir::Value>,
) {
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
    module.define_function(id, &mut context).unwrap();
}

/// Names that a text cannot express, or that have another meaning there.
const NAMES: [&str; 18] = [
    "_ZN3foo3barE",
    "foo.bar$baz",
    "foo bar",
    "\"quoted\"",
    "back\\slash",
    "\u{fc}nic\u{f6}de \u{1f980}",
    "a\nbc\u{7f}",
    "u0:1",
    "u0:01",
    "u0",
    "u00:1",
    "v1",
    "CeilF32",
    "ElfGlobalOffsetTable",
    "42",
    "foo_bar_baz",
    "foo_bar_baz_2",
    "function",
];

#[test]
fn strange_names() {
    for kinds in 0..4_usize {
        let mut module = builder();
        let none = module.make_signature();
        let main = module.declare_function("main", Linkage::Export, &none).unwrap();
        let anonymous = module.declare_anonymous_function(&none).unwrap();
        let nameless = module.declare_anonymous_data(true, false).unwrap();
        let mut functions = vec![anonymous];
        let mut data = vec![nameless];
        let linkages = [Linkage::Local, Linkage::Hidden, Linkage::Export, Linkage::Preemptible];
        for (number, name) in NAMES.into_iter().enumerate() {
            let linkage = linkages[(number / 2 + kinds) % 4];
            match (number + kinds) % 4 {
                0 => functions.push(module.declare_function(name, linkage, &none).unwrap()),
                1 => data.push(module.declare_data(name, linkage, number % 3 == 0, false).unwrap()),
                _ => {}
            }
        }
        define(&mut module, main, |module, builder| {
            for (number, name) in NAMES.into_iter().enumerate() {
                match (number + kinds) % 4 {
                    2 => {
                        let id = module.declare_function(name, Linkage::Import, &none).unwrap();
                        let id = module.declare_func_in_func(id, builder.func);
                        builder.ins().call(id, &[]);
                    }
                    3 => {
                        let id = module.declare_data(name, Linkage::Import, false, false).unwrap();
                        let id = module.declare_data_in_func(id, builder.func);
                        builder.ins().symbol_value(types::I64, id);
                    }
                    _ => {}
                }
                // As a key the same text is a different thing.
                let id = module.global(name);
                let id = module.declare_data_in_func(id, builder.func);
                builder.ins().symbol_value(types::I64, id);
            }
            vec![]
        });
        for &id in &functions {
            define(&mut module, id, |_, _| vec![]);
        }
        for (&id, number) in data.iter().zip(0..) {
            let mut description = DataDescription::new();
            description.define(vec![number; 24].into());
            let to = module.declare_data_in_data(data[0], &mut description);
            description.write_data_addr(8, to, i64::MIN + i64::from(number));
            module.define_data(id, &description).unwrap();
        }
        let text = assert_round_trips(&module.finish().unwrap());
        assert!(text.contains("\nanonymous %symbol"), "{text}");
    }
}

#[test]
fn imports_that_only_data_or_code_names() {
    let mut module = builder();
    let mut unary = module.make_signature();
    unary.params.push(AbiParam::new(types::I32).uext());
    let mut variadic = unary.clone();
    variadic.returns.push(AbiParam::new(types::F64));
    let call = module.declare_function("called.otherwise", Linkage::Import, &variadic).unwrap();
    let address = module.declare_function("address_only", Linkage::Import, &unary).unwrap();
    let code = module.declare_function("code", Linkage::Hidden, &unary).unwrap();
    let main = module.declare_function("main", Linkage::Export, &unary).unwrap();
    let object = module.global("key");
    let table = module.declare_data("table", Linkage::Local, false, false).unwrap();

    define(&mut module, main, |module, builder| {
        // A variadic function is called with a type that differs from its declaration's.
        let called = module.declare_func_in_func(call, builder.func);
        let other = builder.import_signature(unary.clone());
        builder.func.dfg.ext_funcs[called].signature = other;
        let value = builder.block_params(builder.current_block().unwrap())[0];
        builder.ins().call(called, &[value]);
        vec![]
    });
    let reloc = |offset, kind, name, addend| ModuleReloc { offset, kind, name, addend };
    let relocs = [
        reloc(30, Reloc::X86CallPCRel4, ModuleRelocTarget::from(address), -4),
        reloc(1, Reloc::X86GOTPCRel4, ModuleRelocTarget::from(object), i64::MIN),
        reloc(1, Reloc::Abs8, ModuleRelocTarget::LibCall(LibCall::CeilF32), i64::MAX),
        reloc(9, Reloc::Abs8, ModuleRelocTarget::FunctionOffset(code, 7), 0),
        reloc(20, Reloc::X86PCRel4, ModuleRelocTarget::from(table), 0),
    ];
    let bytes: Vec<u8> = (0..100).collect();
    module.define_function_bytes(code, 4096, &bytes, &relocs).unwrap();
    let mut description = DataDescription::new();
    description.define_zeroinit(16);
    description.set_custom_section(".my \"section\"");
    description.set_align(1);
    let to = module.declare_func_in_data(address, &mut description);
    description.write_function_addr(8, to);
    module.define_data(table, &description).unwrap();
    let text = assert_round_trips(&module.finish().unwrap());
    expect_test::expect![[r#"
        symbol %called_otherwise = "called.otherwise"
        import function %called_otherwise(i32 uext) -> f64 system_v
        import function %address_only(i32 uext) system_v

        global %key = "key"

        local data %table align=1 section=".my \"section\"" { zeros 8, addr %address_only }

        function %main(i32 uext) system_v {
            sig0 = (i32 uext) system_v
            fn0 = %called_otherwise sig0

        block0(v0: i32):
            call fn0(v0)
            return
        }

        hidden code %code(i32 uext) system_v {
            align 4096,
            bytes #000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f,
            bytes #202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f,
            bytes #404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f,
            bytes #60616263,
            reloc x86_gotpcrel4 at 1 %key - 9223372036854775808,
            reloc abs8 at 1 routine CeilF32 + 9223372036854775807,
            reloc abs8 at 9 here 7,
            reloc x86_pcrel4 at 20 %table,
            reloc x86_call_pcrel4 at 30 %address_only - 4
        }
    "#]]
    .assert_eq(&text);
}

#[test]
fn data_of_all_kinds() {
    let mut module = builder();
    let contents: [&[u8]; 12] = [
        b"",
        b"\0",
        b"text",
        b"a line\nanother\n\0",
        b"\x01\x02abc",
        b"\0\0\0\0\0\0\0\0\0\0a",
        b"abcd\0\0\0\0\0\0\0\0\0\0\xff",
        &[0xff; 100],
        &[b'x'; 200],
        b"\"\\\x7f\xc3\xbc\xff\r\t",
        &[1; 8],
        b"ends with zeros\0\0\0\0\0\0\0\0\0",
    ];
    for (number, content) in contents.into_iter().enumerate() {
        let id = module.declare_data(&format!("d{number}"), Linkage::Export, number % 2 == 0, false).unwrap();
        let mut description = DataDescription::new();
        description.define(content.into());
        module.define_data(id, &description).unwrap();
    }
    for (number, size) in [0, 1, 7, 1 << 33].into_iter().enumerate() {
        let id = module.declare_data(&format!("z{number}"), Linkage::Local, true, false).unwrap();
        let mut description = DataDescription::new();
        description.define_zeroinit(size);
        module.define_data(id, &description).unwrap();
    }
    assert_round_trips(&module.finish().unwrap());
}

#[test]
fn what_only_instructions_hold() {
    let mut module = builder();
    let mut signature = module.make_signature();
    signature.call_conv = CallConv::Fast;
    signature.params.push(AbiParam::new(types::I64));
    signature.params.push(AbiParam::special(types::I64, ArgumentPurpose::StructArgument(48)));
    signature.params.push(AbiParam::special(types::I64, ArgumentPurpose::VMContext));
    signature.params.push(AbiParam::new(types::I8).sext());
    let f = module.declare_function("f", Linkage::Export, &signature).unwrap();
    let data = module.declare_data("data", Linkage::Import, false, false).unwrap();
    define(&mut module, f, |module, builder| {
        let address = builder.block_params(builder.current_block().unwrap())[0];
        builder.func.params.ensure_base_srcloc(SourceLoc::new(0x1000));
        builder.set_srcloc(SourceLoc::new(0x1234));
        for bits in [0, 1, 0x7c00, 0xfc00, 0x7e00, 0xfe01, 0x7c01, 0xfd55, 0x3c01] {
            builder.ins().f16const(Ieee16::with_bits(bits));
        }
        for bits in
            [0, 1, 0x7f80_0000, 0xff80_0000, 0x7fc0_0000, 0xffc0_0001, 0x7f80_0001, 0x8000_0000, 0x3f9d_f3b6]
        {
            builder.ins().f32const(Ieee32::with_bits(bits));
        }
        for bits in [
            0,
            1,
            0x7ff0 << 48,
            0xfff0 << 48,
            0x7ff8 << 48,
            0xfff8_0000_0000_0001,
            0x7ff0_0000_0000_0001,
            1 << 63,
        ] {
            builder.ins().f64const(Ieee64::with_bits(bits));
        }
        for number in [0, 1, -1, 9999, 10_000, -10_000, i64::MIN, i64::MAX] {
            builder.ins().iconst(types::I64, number);
            builder.ins().stack_addr(
                types::I64,
                ir::StackSlot::from_u32(0),
                Offset32::new(number.clamp(-5000, 5000) as i32),
            );
        }
        for (ty, number) in
            [(types::I8, 0x80), (types::I8, 0xff), (types::I16, 0x8000), (types::I32, 0xffff_ffff)]
        {
            builder.ins().iconst(ty, number);
        }
        builder.func.sized_stack_slots.clear();
        for (size, shift) in [(u32::MAX, 31), (0, 0), (16, 4)] {
            let mut slot = StackSlotData::new(StackSlotKind::ExplicitSlot, size, shift);
            slot.key = (shift == 4).then(|| StackSlotKey::new(u64::MAX));
            builder.create_sized_stack_slot(slot);
        }
        for offset in [1, -1, 10_000, -10_000, i64::from(i32::MIN), i64::from(i32::MAX)] {
            let global = module.declare_data_in_func(data, builder.func);
            if let ir::GlobalValueData::Symbol { offset: of, .. } = &mut builder.func.global_values[global] {
                *of = offset.into();
            }
            builder.ins().symbol_value(types::I64, global);
        }
        let vmctx = builder.func.create_global_value(ir::GlobalValueData::VMContext);
        let flags = builder.func.dfg.mem_flags.insert(MemFlagsData::trusted().with_readonly()).unwrap();
        let base = builder.create_global_value(ir::GlobalValueData::Load {
            base: vmctx,
            offset: Offset32::new(-8),
            global_type: types::I64,
            flags,
        });
        let sum = builder.create_global_value(ir::GlobalValueData::IAddImm {
            base,
            offset: i64::from(i32::MIN).into(),
            global_type: types::I64,
        });
        builder.func.stack_limit = Some(sum);
        for constant in [[0; 16], [0xff; 16], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0]] {
            let handle = builder.func.dfg.constants.insert(ConstantData::from(&constant[..]));
            let vector = builder.ins().vconst(types::I8X16, handle);
            builder.ins().f128const(handle);
            let mask = builder
                .func
                .dfg
                .immediates
                .push(ConstantData::from(&[31, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0][..]));
            builder.ins().shuffle(vector, vector, mask);
        }
        builder.set_srcloc(SourceLoc::new(0x10));
        let mut flags = vec![MemFlagsData::new(), MemFlagsData::trusted()];
        for (user_id, description) in [(0, "heap"), (u32::MAX, "a \"quote\", a \\, a \\x41,\na line")] {
            let region = builder
                .func
                .dfg
                .alias_regions
                .insert(AliasRegionData { user_id, description: description.into() });
            flags.push(MemFlagsData::new().with_alias_region(Some(region)).with_can_move());
        }
        flags
            .push(MemFlagsData::new().with_endianness(ir::Endianness::Big).with_trap_code(TrapCode::user(7)));
        flags.push(MemFlagsData::new().with_endianness(ir::Endianness::Little).with_aligned());
        for flags in flags {
            let loaded = builder.ins().load(types::I32, flags, address, 10_000);
            builder.ins().store(flags, loaded, address, -7);
            builder.ins().atomic_rmw(types::I32, flags, ir::AtomicRmwOp::Umin, address, loaded);
            builder.ins().atomic_cas(flags, address, loaded, loaded);
            builder.ins().atomic_store(flags, loaded, address);
            builder.ins().atomic_load(types::I16, flags, address);
        }
        let none = builder.func.signature.clone();
        let none = builder.import_signature(ir::Signature { params: vec![], ..none });
        let libcall = ir::ExtFuncData {
            name: ir::ExternalName::LibCall(LibCall::Memset),
            signature: none,
            colocated: false,
            patchable: false,
        };
        let libcall = builder.import_function(libcall);
        let call = builder.ins().call(libcall, &[]);
        let slot = ir::StackSlot::from_u32(2);
        for (ty, offset) in [(types::I32, 0), (types::I64, 8)] {
            builder.func.dfg.append_user_stack_map_entry(call, UserStackMapEntry { ty, slot, offset });
        }
        let tags = vec![DebugTag::User(u32::MAX), DebugTag::StackSlot(slot), DebugTag::User(0)];
        builder.func.debug_tags.set(call, tags);
        let value = builder.ins().iconst(types::I64, 5);
        let labels = [
            (address, ValueLabelAssignments::Starts(vec![])),
            (
                value,
                ValueLabelAssignments::Starts(vec![
                    ValueLabelStart { from: RelSourceLoc::new(3), label: ValueLabel::from_u32(7) },
                    ValueLabelStart { from: RelSourceLoc::default(), label: ValueLabel::from_u32(0) },
                ]),
            ),
        ];
        builder.func.dfg.values_labels = Some(labels.into_iter().collect());
        vec![]
    });
    let text = assert_round_trips(&module.finish().unwrap());
    assert!(text.contains("debug %f { base @1000, labels, v0, v"), "{text}");
    assert!(text.contains("atomic_rmw.i32 notrap aligned umin"), "{text}");
}

/// A text with a comment at every place.
const COMMENTED: &str = "; first line

;; title
;
test run ; after a header line
set opt_level=speed unwind_info=true
; between header lines
target x86_64

; about the file

; about the globals
global %unused = \"unused\" ; after what is dropped
global %g = \"a key\" ; after a global
; above data
data %d ; in data
  { i32 1 ; in data too
  , addr %g } ; after data
; below data
  ; run: belongs to nobody

import function %i(i64) ; after an import

function %f(i64) -> i64 { ; after the head
    ; before the declarations
    fn0 = %i(i64) ; after a declaration

    ; before the block
block0(v0: i64): ; after a block
    ; in the block
    call fn0(v0) ; after an instruction ; twice
    ;
    v1 = iconst.i64 1
    v2 = iadd ; in an instruction
      v0, v1
    gv9
} ; after a function
; run: %f(1) == 1
; not a run line

; about the next one
; run: %f(2) == 2
; the same

global %late = \"late\"
; run: %f(3) == 3
local ; between linkage and keyword
code %c() { ; in code
  bytes #c3 } ; after code
; run: %c()

symbol %s = \"strange name\" ; after an alias
function %s() { block0: return ; }
}

; the end

; run: %s()
; really
";

#[test]
fn comments_stay_where_they_are() {
    let text = COMMENTED.replace("    gv9\n", "    return v2\n");
    let printed = assert_round_trips(&module(&text));
    expect_test::expect![[r#"
        ; first line

        ;; title
        ;
        ; after a header line
        ; between header lines
        test run
        set opt_level=speed unwind_info=true
        target x86_64

        ; below data
        ; run: belongs to nobody

        ; after an import
        import function %i(i64) system_v

        ; about the file

        ; about the globals
        ; after what is dropped
        ; after a global
        global %a_key = "a key"

        ; above data
        ; in data
        ; in data too
        ; after data
        data %d { bytes #01000000, addr %a_key }

        function %f(i64) -> i64 system_v { ; after the head
            ; before the declarations
            ; after a declaration
            ; before the block
            sig0 = (i64) system_v
            fn0 = %i sig0

        block0(v0: i64): ; after a block
            ; in the block
            call fn0(v0) ; after an instruction ; twice
            ;
            v1 = iconst.i64 1
            v2 = iadd v0, v1 ; in an instruction
            return v2
        } ; after a function
        ; run: %f(1) == 1
        ; not a run line
        ; run: %f(2) == 2
        ; run: %f(3) == 3

        ; about the next one
        ; the same

        ; between linkage and keyword
        ; in code
        local code %c() system_v {
            align 1,
            bytes #c3
        } ; after code
        ; run: %c()

        ; after an alias
        symbol %strange_name = "strange name"
        function %strange_name() system_v {
        block0:
            return ; }
        }
        ; run: %s()

        ; the end

        ; really
    "#]]
    .assert_eq(&printed);
}

#[test]
fn comments_alone() {
    for text in [
        "",
        "; a",
        "; a\n\n\n; b\n",
        "test run\n; a\n",
        "\n\n; a\n\nset opt_level=none ; b",
        "\u{feff}; a\ndata %d {} ; b\n",
    ] {
        assert_round_trips(&module(text));
    }
    assert_eq!(print(&module("\n ; a \n\n\n;b")).unwrap(), "; a\n\n;b\n");
}

#[test]
fn items_on_one_line() {
    let text = "data %b { addr %g } global %g = \"g\" function %f() { block0: return } ; of f
        ; of a
        data %a{}function %h(){block0:return}data %c{ ; of c
        }global %x=\"g\"";
    expect_test::expect![[r#"
        global %g = "g"

        data %b { addr %g }

        function %f() system_v {
        block0:
            return
        } ; of f
        ; of a

        data %a {}

        ; of c
        data %c {}

        function %h() system_v {
        block0:
            return
        }
    "#]]
    .assert_eq(&assert_round_trips(&module(text)));
}

#[test]
fn manuals_are_as_they_are_printed() {
    for name in ["manual", "machine_code"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/clif/{name}.clif"));
        let text = std::fs::read_to_string(&path).unwrap();
        let printed = assert_round_trips(&module(&text));
        expect_test::expect_file![path].assert_eq(&printed);
    }
}

/// Returns the reason why a module with one function, `f`, has no text form.
#[track_caller]
fn refused(body: impl FnOnce(&mut ModuleBuilder, &mut FunctionBuilder<'_>) -> Vec<ir::Value>) -> String {
    let mut module = builder();
    let mut signature = module.make_signature();
    signature.params.push(AbiParam::special(types::I64, ArgumentPurpose::VMContext));
    let f = module.declare_function("f", Linkage::Export, &signature).unwrap();
    define(&mut module, f, body);
    let error = print(&module.finish().unwrap()).unwrap_err();
    assert_eq!(error.name(), "f");
    error.to_string()
}

#[test]
fn what_has_no_text_form() {
    let loads = refused(|_, builder| {
        let base = builder.create_global_value(ir::GlobalValueData::VMContext);
        let flags = builder.func.dfg.mem_flags.insert(MemFlagsData::new()).unwrap();
        let (offset, global_type) = (Offset32::new(0), types::I64);
        let load = ir::GlobalValueData::Load { base, offset, global_type, flags };
        builder.func.stack_limit = Some(builder.create_global_value(load));
        vec![]
    });
    assert_eq!(loads, "`f` has no text form: gv0 is a load that is not `notrap` and `aligned`");
    let wraps = refused(|_, builder| {
        builder.func.params.ensure_base_srcloc(SourceLoc::new(10));
        let value = builder.ins().iconst(types::I8, 0);
        let inst = builder.func.dfg.value_def(value).unwrap_inst();
        builder.func.stencil.srclocs[inst] = RelSourceLoc::new(u32::MAX - 10);
        vec![]
    });
    assert_eq!(wraps, "`f` has no text form: the source location of inst0 wraps around");
    let blocks = refused(|_, builder| {
        for _ in 0..100_000 {
            let block = builder.create_block();
            builder.ins().jump(block, &[]);
            builder.switch_to_block(block);
        }
        builder.seal_all_blocks();
        vec![]
    });
    assert_eq!(blocks, "`f` has no text form: it has more than 100000 blocks");

    let mut module = builder();
    let data = module.declare_data("large", Linkage::Export, true, false).unwrap();
    let mut description = DataDescription::new();
    description.define_zeroinit((1 << 40) + 1);
    module.define_data(data, &description).unwrap();
    let error = print(&module.finish().unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "`large` has no text form: it has more than 1099511627776 bytes");
}

#[test]
fn a_location_that_a_reader_would_lose() {
    let mut ir =
        module("function %f() {\nblock0:\n@12 nop\n@14 nop\n@13 nop\nreturn\n}").functions[0].ir().unwrap();
    let mut insts =
        ir.layout.blocks().flat_map(|block| ir.layout.block_insts(block)).collect::<Vec<_>>().into_iter();
    let second = insts.nth(1).unwrap();
    ir.set_srcloc(second, SourceLoc::new(0x11));
    let mut lost = module("function %f() {\nblock0:\nreturn\n}");
    // Relative to another base, it is a location like others.
    let mut params = ir::function::FunctionParameters::new();
    params.ensure_base_srcloc(SourceLoc::new(0x10));
    let locations = [0x12, 0x11, 0x13].map(SourceLoc::new);
    let nops: Vec<_> = ir.layout.blocks().flat_map(|block| ir.layout.block_insts(block)).collect();
    ir.params = params;
    for (inst, location) in nops.into_iter().zip(locations) {
        ir.set_srcloc(inst, location);
    }
    lost.functions[0].code = kiln_ir::Code::Ir(kiln_ir::Body::new(&ir).unwrap());
    let message = print(&lost).unwrap_err().to_string();
    assert_eq!(message, "`f` has no text form: the source location of inst1 is the one before the first");
}

/// A reader takes up to 2^24 bytes for few words. Zeros beyond that are written out.
#[test]
fn many_zeros() {
    let mut builder = builder();
    let id = builder.declare_data("zeros", Linkage::Export, true, false).unwrap();
    let mut bytes = vec![0; (1 << 24) - 4];
    bytes.push(1);
    bytes.extend([0; 64]);
    bytes.push(1);
    let mut description = DataDescription::new();
    description.define(bytes.into());
    builder.define_data(id, &description).unwrap();
    let zeros = "00".repeat(32);
    let expected = format!(
        "data %zeros writable {{
    zeros 16777212,
    bytes #01{},
    bytes #{zeros},
    bytes #0001
}}
",
        &zeros[2..]
    );
    assert_eq!(assert_round_trips(&builder.finish().unwrap()), expected);
    let file = |data: &str| parse(Arc::new(Source::new("zeros.clif", data)), &target());
    assert!(file("data %d { zeros 16778000, i8 1 }").is_ok());
    assert!(file("data %d { zeros 16780000, i8 1 }").is_err());
    assert!(file("data %d { zeros 16000000, i8 1 } data %e { zeros 1000000, i8 1 }").is_err());
    assert!(file("data %d { zeros 1000000000000 }").is_ok());
}

/// More references by number than a reader takes are refused. Comments that look like references
/// are not counted.
#[test]
fn many_names() {
    let names = |count: usize| -> String { (0..count).map(|n| format!("u0:{n} ")).collect() };
    let comments = format!("function %f() {{\nblock0: ; {}\n    return\n}}\n", names(20_000));
    assert_round_trips(&module(&comments));
    let mut builder = builder();
    let signature = builder.make_signature();
    let caller = builder.declare_function("caller", Linkage::Export, &signature).unwrap();
    let callees: Vec<FuncId> = (0..16_500)
        .map(|n| builder.declare_function(&format!("u1:{n}"), Linkage::Import, &signature).unwrap())
        .collect();
    define(&mut builder, caller, |module, builder| {
        for callee in callees {
            let callee = module.declare_func_in_func(callee, builder.func);
            builder.ins().call(callee, &[]);
        }
        Vec::new()
    });
    let error = print(&builder.finish().unwrap()).unwrap_err().to_string();
    assert_eq!(error, "`caller` has no text form: a function has up to 16384 references by number");
}
