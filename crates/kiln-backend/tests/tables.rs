//! The tables of an artifact, compared with what Cranelift says about each function when it is
//! compiled alone.

use cranelift_codegen::{Context, ExceptionContextLoc, FinalizedMachExceptionHandler};
use kiln_artifact::Artifact;
use kiln_artifact::record::HandlerKind;
use kiln_backend::{Job, compile, compile_all};
use kiln_ir::{Module, Source, Target, parse};

/// Traps, source locations, stack maps, exception tables and patchable calls, in several
/// functions.
const TEXT: &str = "
function %padding() -> i32 {
block0:
    v0 = iconst.i32 1
    return v0
}

function %traps(i32, i32) -> i32 {
block0(v0: i32, v1: i32):
@0010    v2 = udiv v0, v1
@0020    trapz v2, user1
@0030    v3 = iadd v2, v0
@0040    trapnz v3, user2
@0050    return v3
}

function %maps(i64) -> i64 {
    ss0 = explicit_slot 16
    fn0 = %callee(i64) -> i64 system_v

block0(v0: i64):
    v1 = stack_addr.i64 ss0
    store v0, v1
    v2 = call fn0(v0), stack_map=[i64 @ ss0+0]
    v3 = call fn0(v2), stack_map=[i64 @ ss0+0, i32 @ ss0+8]
    return v3
}

function %catches(i64) -> i64 tail {
    sig0 = (i64) -> i64 tail
    fn0 = %thrower(i64) -> i64 tail

block0(v0: i64):
    try_call fn0(v0), sig0, block1(ret0), [ tag1: block2(exn0), context v0, tag7: block3(exn1), default: block3(exn0) ]

block1(v1: i64):
    return v1

block2(v2: i64):
    v3 = iconst.i64 2
    v4 = iadd v2, v3
    return v4

block3(v5: i64):
    return v5
}

function %patched(i64) system_v {
    fn0 = colocated patchable %hook(i64) preserve_all

block0(v0: i64):
    call fn0(v0)
    return
}
";

fn module() -> (Module, Target) {
    let target = Target::host();
    let module = parse(Source::new("tables", TEXT).into(), &target);
    let module = module
        .unwrap_or_else(|faults| panic!("{}", faults.iter().map(ToString::to_string).collect::<String>()));
    (module, target)
}

/// All tables as text, in terms of offsets in the code of the module.
fn tables(artifact: &Artifact) -> Vec<String> {
    let mut lines = Vec::new();
    for trap in artifact.traps() {
        lines.push(format!("trap {} {}", trap.offset, trap.code));
    }
    for range in artifact.source_ranges() {
        lines.push(format!("source {}..{} {:#x}", range.start, range.end, range.location));
    }
    for (site, handlers) in artifact.call_sites() {
        lines.push(format!("call {} {:?}", site.return_offset, site.frame_offset));
        for handler in handlers {
            let kind = HandlerKind::from_code(handler.kind).unwrap();
            lines.push(format!("  {kind:?} {} {}", handler.value, handler.target));
        }
    }
    for map in artifact.stack_maps() {
        lines.push(format!("map {} {}", map.return_offset, map.span));
        let start = map.entries_start.get() as usize;
        for entry in &artifact.stack_map_entries()[start..start + map.entries_len.get() as usize] {
            lines.push(format!("  {} {}", entry.offset, entry.size));
        }
    }
    for call in artifact.patchable_calls() {
        lines.push(format!("patchable {} {}", call.end, call.len));
    }
    lines
}

/// The tables that Cranelift gives function by function, each at its offset in the artifact.
fn expected(module: &Module, target: &Target, artifact: &Artifact) -> Vec<String> {
    let isa = target.isa(&module.settings).unwrap();
    let mut groups: [Vec<String>; 5] = Default::default();
    for (function, record) in module.functions.iter().zip(artifact.functions()) {
        let start = record.start.get();
        let mut context = Context::for_function(function.ir().expect("a function of IR"));
        let code = context.compile(&*isa, &mut Default::default()).unwrap();
        let buffer = &code.buffer;
        for trap in buffer.traps() {
            groups[0].push(format!("trap {} {}", start + trap.offset, trap.code.as_raw()));
        }
        for range in buffer.get_srclocs_sorted().iter().filter(|range| !range.loc.is_default()) {
            let (from, to) = (start + range.start, start + range.end);
            groups[1].push(format!("source {from}..{to} {:#x}", range.loc.bits()));
        }
        for site in buffer.call_sites() {
            groups[2].push(format!("call {} {:?}", start + site.ret_addr, site.frame_offset));
            groups[2].extend(site.exception_handlers.iter().map(|handler| match handler {
                FinalizedMachExceptionHandler::Tag(tag, target) => {
                    format!("  Tag {} {}", tag.as_u32(), start + target)
                }
                FinalizedMachExceptionHandler::Default(target) => {
                    format!("  Default 0 {}", start + target)
                }
                FinalizedMachExceptionHandler::Context(ExceptionContextLoc::SPOffset(offset)) => {
                    format!("  ContextStack {offset} 0")
                }
                FinalizedMachExceptionHandler::Context(ExceptionContextLoc::GPR(register)) => {
                    format!("  ContextRegister {register} 0")
                }
            }));
        }
        for (offset, span, map) in buffer.user_stack_maps() {
            groups[3].push(format!("map {} {span}", start + offset));
            groups[3].extend(map.entries().map(|(ty, offset)| format!("  {offset} {}", ty.bytes())));
        }
        for call in buffer.patchable_call_sites() {
            groups[4].push(format!("patchable {} {}", start + call.ret_addr, call.len));
        }
    }
    groups.concat()
}

#[test]
fn tables_are_those_of_cranelift() {
    let (module, target) = module();
    let isa = target.isa(&module.settings).unwrap();
    let artifact = compile(&Job::new(&module, &*isa)).unwrap().artifact;
    let tables = tables(&artifact);
    for kind in ["trap", "source", "call", "  Tag 7", "  Default", "  Context", "map", "patchable"] {
        assert!(tables.iter().any(|line| line.starts_with(kind)), "no {kind} in {tables:#?}");
    }
    assert_eq!(tables, expected(&module, &target, &artifact));
    assert!(!artifact.nops().is_empty());
    assert!(artifact.functions().iter().all(|function| function.unwind_len.get() > 0), "unwind rows");
    assert!(
        artifact.functions().iter().skip(1).all(|function| function.start.get() > 0),
        "offsets are shifted"
    );
}

#[test]
fn one_function_and_the_queue_give_the_same_artifact() {
    let (module, target) = module();
    let isa = target.isa(&module.settings).unwrap();
    let job = Job::new(&module, &*isa);
    let done = std::sync::atomic::AtomicUsize::new(0);
    let count = || {
        done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    };
    let queued = compile_all(&[job, job], &count).unwrap();
    let one = compile(&job).unwrap();
    assert!(queued[0] == one && queued[1] == one);
    assert_eq!(one.reused, 0);
    assert_eq!(done.into_inner(), 2 * module.functions.len());
    assert!(compile_all(&[], &|| {}).unwrap().is_empty());
}

#[test]
fn every_function_that_cannot_be_compiled_is_named_in_order() {
    let target = Target::host();
    // More results than registers, without the setting that would pass them in memory.
    let bad = |name: &str| {
        format!(
            "function %{name}(i32) -> i32, i32, i32, i32 {{\nblock0(v0: i32):\n    return v0, v0, v0, v0\n}}\n"
        )
    };
    let good = "function %good() {\nblock0:\n    return\n}\n";
    let module = |name: &str, text: String| parse(Source::new(name, text).into(), &target).unwrap();
    let modules = [
        module("a", bad("first") + good + &bad("second")),
        module("b", good.into()),
        module("c", bad("third")),
    ];
    let isa = target.isa(&modules[0].settings).unwrap();
    let jobs = modules.each_ref().map(|module| Job::new(module, &*isa));
    let errors = compile_all(&jobs, &|| {}).unwrap_err();
    let places: Vec<_> =
        errors.iter().map(|e| (e.module, &*e.module_name, e.function_index, &*e.function, e.line)).collect();
    assert_eq!(
        places,
        [(0, "a", Some(0), "first", 1), (0, "a", Some(2), "second", 9), (2, "c", Some(0), "third", 1)]
    );
}

/// The only error of compiling `text`.
fn error_of(text: &str) -> (String, u32) {
    let target = Target::parse("x86_64").unwrap();
    let module = parse(Source::new("m", text).into(), &target).unwrap();
    let isa = target.isa(&module.settings).unwrap();
    let errors = compile_all(&[Job::new(&module, &*isa)], &|| {}).unwrap_err();
    assert_eq!(errors.len(), 1);
    (errors[0].to_string(), errors[0].line)
}

#[test]
fn data_that_is_too_large_is_named_with_its_place() {
    let small = "function %f() {\nblock0:\n return\n}\ndata %s writable { zeros 8 }\n";
    let errors = [
        (
            "data %z writable { zeros 3000000000 }",
            "the module's zeroed data with data object `z` has 3000000008 bytes",
        ),
        (
            "data %r { zeros 3000000000 }",
            "the module's read-only data with data object `r` has 3000000000 bytes",
        ),
        (
            "data %w writable { addr %s, zeros 8 }\ndata %v section=\"x\" writable { zeros 2147483649 }",
            "writable section `x` with data object `v` has 2147483649 bytes",
        ),
    ];
    for (data, message) in errors {
        let line = 5 + u32::try_from(data.lines().count()).unwrap();
        let expected = format!("module m: {message}, limit 2147483648");
        assert_eq!(error_of(&format!("{small}{data}")), (expected, line));
    }
}

#[test]
fn limits_of_the_code_generator_are_named() {
    let slots = "function %f() {\n ss0 = explicit_slot 4000000000\n ss1 = explicit_slot 1000000000\nblock0:\n return\n}";
    let message = "function `f` of module m: its stack frame is larger than the code generator can address: \
                   2 stack slots of 5000000000 bytes, of which the largest has 4000000000";
    assert_eq!(error_of(slots), (message.into(), 1));
    let one = slots.replace("ss1 = explicit_slot 1000000000", "");
    assert!(error_of(&one).0.contains("1 stack slots of 4000000000 bytes"), "{}", error_of(&one).0);
    let params = "function %g(i64 sarg(200000000)) {\nblock0(v0: i64):\n return\n}";
    let message = "function `g` of module m: the parameters of the function take 200000000 bytes of stack, limit 134217728";
    assert_eq!(error_of(params), (message.into(), 1));
    let call =
        "function %h(i64) {\n fn0 = %g(i64 sarg(200000000))\nblock0(v0: i64):\n call fn0(v0)\n return\n}";
    assert!(
        error_of(call).0.contains("the parameters of a function that it calls take 200000000 bytes"),
        "{}",
        error_of(call).0
    );
}
