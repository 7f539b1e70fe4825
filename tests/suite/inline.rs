//! Inlining between modules: what is inlined and what is not, what it does to keys, and what a
//! session may still exchange.

use std::convert::Infallible;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};

use kiln::cache::MemoryStore;
use kiln::globals::GlobalAccess;
use kiln::ir::{InlineHint, Inlining, Module, Target};
use kiln::jit::JitOptions;
use kiln::{Compiled, Compiler, Lazy, LazyKey, Session, Verify};
use kiln_oracle::generate::{ProgramOptions, program as program_of};

use crate::common::{SharedStore, module, shared};

/// The largest size of a function that is inlined here.
const SIZE: u32 = 6;

fn inlining() -> Compiler {
    Compiler::new(Target::host()).inline(Inlining::of_size(SIZE))
}

/// Compiles modules with these texts, and returns the number of calls that are inlined.
fn calls(texts: &[&str]) -> usize {
    compiled(texts).stats.inlined_calls
}

fn modules(texts: &[&str]) -> Vec<Module> {
    texts.iter().enumerate().map(|(number, text)| module(&format!("m{number}"), text)).collect()
}

fn compiled(texts: &[&str]) -> Compiled {
    inlining().compile(&modules(texts)).unwrap()
}

/// Calls `f` of a function in a session with these modules.
fn result(texts: &[&str], argument: i64) -> i64 {
    let session = Session::with_compiler(inlining(), JitOptions::default()).unwrap();
    session.add(&modules(texts)).unwrap();
    call(&session, "user", argument)
}

fn call(session: &Session, name: &str, argument: i64) -> i64 {
    let function = session.function(name).unwrap();
    // SAFETY: `typed` checks the signature, and the code of these tests accesses only its own data.
    unsafe { function.typed::<extern "C" fn(i64) -> i64>() }.unwrap()(argument)
}

const USER: &str = "
function %user(i64) -> i64 {
    fn0 = %small(i64) -> i64
block0(v0: i64):
    v1 = call fn0(v0)
    v2 = call fn0(v1)
    return v2
}";

/// Adds 1.
const SMALL: &str = "
function %small(i64) -> i64 {
block0(v0: i64):
    v1 = iconst.i64 1
    v2 = iadd v0, v1
    return v2
}";

#[test]
fn small_functions_of_other_modules_are_inlined() {
    let compiled = compiled(&[USER, SMALL]);
    assert_eq!(compiled.stats.inlined_calls, 2);
    assert_eq!(result(&[USER, SMALL], 40), 42);
    // The module does not refer to the function any more.
    let symbols = compiled.artifacts[0].symbols();
    let names: Vec<_> = symbols.iter().map(|symbol| compiled.artifacts[0].name(symbol)).collect();
    assert_eq!(names, ["user"]);
    // Off, it does, and nothing else is different from what it always was.
    let off = Compiler::new(Target::host()).compile(&modules(&[USER, SMALL])).unwrap();
    assert_eq!((off.stats.inlined_calls, off.artifacts[0].symbols().len()), (0, 2));
    assert!(off.artifacts[1] == compiled.artifacts[1]);
}

#[test]
fn the_hint_and_the_size_decide() {
    let hinted = |hint: &str, text: &str| text.replacen("function", &format!("{hint} function"), 1);
    // 7 instructions, one more than the limit.
    let large = SMALL.replace("return v2", "v3 = bnot v2 v4 = bnot v3 v5 = bnot v4 v6 = bnot v5 return v6");
    assert_eq!(calls(&[USER, &large]), 0);
    assert_eq!(calls(&[USER, &large.replace("v6 = bnot v5 return v6", "return v5")]), 2);
    assert_eq!(calls(&[USER, &hinted("inline", &large)]), 2);
    assert_eq!(calls(&[USER, &hinted("noinline", SMALL)]), 0);
    assert_eq!(calls(&[USER, &hinted("hidden inline", &large)]), 2);
    let chain: String = (0..600).map(|n| format!(" v{} = bnot v{}", n + 3, n + 2)).collect();
    let huge = SMALL.replace("return v2", &format!("{chain} return v602"));
    assert_eq!(calls(&[USER, &hinted("inline", &huge)]), 0);
    let cold = USER.replace("v2 = call", "jump block1 block1 cold: v2 = call");
    assert_eq!(calls(&[&cold, SMALL]), 1);
    assert_eq!(calls(&[&cold, &hinted("inline", SMALL)]), 2);
    let off = Compiler::new(Target::host()).inline(Inlining::of_size(0));
    assert_eq!(off.compile(&modules(&[USER, SMALL])).unwrap().stats.inlined_calls, 0);
}

#[test]
fn a_builder_gives_hints() {
    use cranelift_module::{Linkage as Declared, Module as _};
    let mut builder = kiln::ir::ModuleBuilder::new("built", &Target::host()).unwrap();
    let text = module("small", SMALL);
    let mut ids = Vec::new();
    for hint in [InlineHint::BySize, InlineHint::Inline, InlineHint::Never] {
        let mut context = builder.make_context();
        context.func = text.functions[0].ir().unwrap();
        let name = format!("{hint:?}");
        let id = builder.declare_function(&name, Declared::Export, &context.func.signature).unwrap();
        builder.set_inline(id, hint).unwrap();
        builder.define_function(id, &mut context).unwrap();
        ids.push(id);
    }
    let unknown = cranelift_module::FuncId::from_u32(99);
    assert!(builder.set_inline(unknown, InlineHint::Never).is_err());
    let built = builder.finish().unwrap();
    let hints: Vec<_> = built.functions.iter().map(|function| function.inline).collect();
    assert_eq!(hints, [InlineHint::BySize, InlineHint::Inline, InlineHint::Never]);
    // Hints are no content: they change what is made of callers, not of the function.
    let mut other = built.clone();
    other.functions[0].inline = InlineHint::Never;
    assert_eq!(other.fingerprint(), built.fingerprint());
}

#[test]
fn functions_that_may_be_others_are_called() {
    for linkage in ["preemptible", "replaceable"] {
        assert_eq!(calls(&[USER, &format!("{linkage} {SMALL}")]), 0, "{linkage}");
    }
    for linkage in ["export", "hidden"] {
        assert_eq!(calls(&[USER, &format!("{linkage} {SMALL}")]), 2, "{linkage}");
    }
    // Local ones, in their module.
    assert_eq!(calls(&[&format!("{USER} local {SMALL}")]), 2);
    // Two definitions, of which the preemptible one is not in force.
    assert_eq!(calls(&[USER, SMALL, &format!("preemptible {SMALL}")]), 0);
    // Nobody knows the code.
    assert_eq!(calls(&[USER]), 0);
}

/// Bodies of `%small(i64) -> i64`, with their declarations, that are not inlined.
const REFUSED: [(&str, &str); 12] = [
    ("a tail call", "fn0 = %small(i64) -> i64 tail block0(v0: i64): return_call fn0(v0)"),
    ("its frame", "block0(v0: i64): v1 = get_frame_pointer.i64 return v1"),
    ("its stack", "block0(v0: i64): v1 = get_stack_pointer.i64 return v1"),
    ("its return address", "block0(v0: i64): v1 = get_return_address.i64 return v1"),
    ("much stack", "ss0 = explicit_slot 264 block0(v0: i64): v1 = stack_addr.i64 ss0 return v0"),
    ("regions", "region0 = 1 \"heap\" block0(v0: i64): v1 = load.i64 region0 v0 return v1"),
    ("private data", "gv0 = symbol %private block0(v0: i64): v1 = symbol_value.i64 gv0 return v1"),
    ("a private function", "fn0 = %own(i64) -> i64 block0(v0: i64): v1 = call fn0(v0) return v1"),
    ("thread-local data", "gv0 = symbol tls %seen block0(v0: i64): v1 = tls_value.i64 gv0 return v1"),
    ("a name that is private there", "fn0 = %own(i64) -> i64 block0(v0: i64): v1 = call fn0(v0) return v1"),
    ("a patchable call", "fn0 = colocated patchable %p() block0(v0: i64): call fn0() return v0"),
    ("itself", "fn0 = %small(i64) -> i64 block0(v0: i64): v1 = call fn0(v0) return v1"),
];

#[test]
fn functions_that_need_a_frame_or_what_is_private_are_called() {
    for (what, body) in REFUSED {
        let convention = if what == "a tail call" { " tail" } else { "" };
        let user = USER.replace("-> i64\nblock0", &format!("-> i64{convention}\nblock0"));
        let user = match what {
            "a name that is private there" => {
                format!("{user} local function %own(i64) -> i64 {{ block0(v0: i64): return v0 }}")
            }
            _ => user,
        };
        let own = match what {
            "a private function" => "local noinline function %own(i64) -> i64 { block0(v0: i64): return v0 }",
            "a name that is private there" => {
                "noinline function %own(i64) -> i64 { block0(v0: i64): return v0 }"
            }
            "private data" => "local data %private { bytes \"x\" }",
            "thread-local data" => "data %seen tls { bytes \"x\" }",
            _ => "",
        };
        let text = format!("function %small(i64) -> i64{convention} {{ {body} }} {own}");
        // What calls itself is inlined, and then called.
        let expected = if what == "itself" { 2 } else { 0 };
        assert_eq!(calls(&[&user, &text]), expected, "{what}: {text}");
    }
}

#[test]
fn special_parameters_and_other_calls_are_left() {
    let copied = USER.replace("fn0 = %small(i64)", "fn0 = %small(i64 sarg(64))");
    assert_eq!(calls(&[&copied, &SMALL.replace("(i64)", "(i64 sarg(64))")]), 0);
    let context = |text: &str| text.replacen("%small(i64)", "%small(i64 vmctx)", 1);
    assert_eq!(calls(&[&context(USER), &context(SMALL)]), 0);
    // Extension of an argument is a matter of the call.
    let narrow = |text: &str, how: &str| {
        text.replacen("%small(i64)", &format!("%small(i8{how})"), 1).replace("v0: i64", "v0: i8")
    };
    let user = narrow(USER, " uext").replace("%user(i64)", "%user(i8)").replace("fn0(v1)", "fn0(v0)");
    let small = SMALL.replace("v2 = iadd v0, v1", "v3 = uextend.i64 v0 v2 = iadd v3, v1");
    assert_eq!(calls(&[&user, &narrow(&small, " uext")]), 2);
    assert_eq!(calls(&[&user, &narrow(&small, " sext")]), 0);
    // Tail calls, and calls with handlers.
    let tail = "function %user(i64) -> i64 tail {
        fn0 = %small(i64) -> i64 tail
    block0(v0: i64): return_call fn0(v0) }";
    assert_eq!(calls(&[tail, &SMALL.replace("-> i64 {", "-> i64 tail {")]), 0);
    let handled = "function %user(i64) -> i64 {
        sig0 = (i64) -> i64
        fn0 = %small(i64) -> i64
    block0(v0: i64): try_call fn0(v0), sig0, block1(ret0), [ default: block1(exn0) ]
    block1(v1: i64): return v1 }";
    assert_eq!(calls(&[handled, SMALL]), 0);
    // A caller whose accesses are in regions.
    let regions = USER.replace("block0(v0: i64):", "block0(v0: i64): v9 = load.i64 region0 v0");
    let regions = regions.replace("fn0 =", "region0 = 1 \"heap\" fn0 =");
    assert_eq!(calls(&[&regions, SMALL]), 0);
}

#[test]
fn modules_with_other_settings_are_apart() {
    let with = |line: &str, text: &str| format!("{line}\n{text}");
    let nan = "set enable_nan_canonicalization=true";
    assert_eq!(calls(&[USER, &with(nan, SMALL)]), 0);
    assert_eq!(calls(&[&with(nan, USER), &with(nan, SMALL)]), 2);
    // `test` lines are not for the code.
    assert_eq!(calls(&[USER, &with("test run", SMALL)]), 2);
}

#[test]
fn names_of_an_inlined_body_are_those_of_its_module() {
    // The module of the user has symbols of its own with the numbers of those of `small`, and also
    // refers to `shared`.
    let small = "
global %counter = \"the counter\"
data %shared writable { bytes \"\\x05\\0\\0\\0\\0\\0\\0\\0\" }
function %small(i64) -> i64 {
    gv0 = symbol colocated %shared
    gv1 = symbol %counter
    fn0 = colocated %twice(i64) -> i64
block0(v0: i64):
    v1 = symbol_value.i64 gv0
    v2 = load.i64 v1
    v3 = symbol_value.i64 gv1
    v4 = load.i64 v3
    v5 = iadd v2, v4
    v6 = call fn0(v5)
    v7 = iadd v6, v0
    return v7
}";
    let twice = "function %twice(i64) -> i64 { block0(v0: i64): v1 = iadd v0, v0 return v1 }";
    let user = "
local data %own { bytes \"\\x07\\0\\0\\0\\0\\0\\0\\0\" }
function %user(i64) -> i64 {
    gv0 = symbol %own
    gv1 = symbol %shared
    fn0 = %small(i64) -> i64
block0(v0: i64):
    v1 = symbol_value.i64 gv0
    v2 = load.i64 v1
    v3 = call fn0(v2)
    v4 = symbol_value.i64 gv1
    v5 = load.i64 v4
    v6 = iconst.i64 1000
    v7 = imul v5, v6
    v8 = iadd v7, v3
    return v8
}
data %pointer { addr %user }";
    // What is near in its module need not be near in another one.
    let called = twice.replace("function", "noinline function");
    let inlined = inlined(Inlining::of_size(20), &[user, small, &called]);
    let ir = inlined.functions[0].ir().unwrap().to_string();
    assert!(ir.contains("call fn") && !ir.contains("colocated"), "{ir}");
    let modules = modules(&[user, small, twice]);
    for access in GlobalAccess::ALL {
        let compiler = Compiler::new(Target::host().globals(access)).inline(Inlining::of_size(20));
        // `twice` into `small`, `small` into `user`, and `twice` with it.
        assert_eq!(compiler.compile(&modules).unwrap().stats.inlined_calls, 3);
        let session = Session::with_compiler(compiler, JitOptions::default()).unwrap();
        let counter = 10_i64;
        session.bind_global("the counter", &raw const counter as usize).unwrap();
        session.add(&modules).unwrap();
        assert_eq!(call(&session, "user", 0), 5037);
    }
}

#[test]
fn promises_of_loads_end_with_their_function() {
    // In `small`, the memory does not change, and is always there. In `user` it changes, and need
    // not be there.
    let small = "function %small(i64) -> i64 {
    block0(v0: i64): v1 = load.i64 notrap aligned readonly can_move v0 return v1 }";
    let user = "function %user(i64) -> i64 {
    ss0 = explicit_slot 8
    fn0 = %small(i64) -> i64
block0(v0: i64):
    v1 = stack_addr.i64 ss0
    store v0, v1
    v2 = call fn0(v1)
    v3 = iadd v2, v0
    store v3, v1
    v4 = call fn0(v1)
    v5 = iadd v4, v2
    v6 = iconst.i64 0
    brif v0, block1, block2
block1:
    return v5
block2:
    v7 = icmp eq v0, v6
    brif v7, block3, block4
block3:
    return v6
block4:
    v8 = call fn0(v6)
    return v8
}";
    assert_eq!(calls(&[user, small]), 3);
    assert_eq!(result(&[user, small], 14), 42);
    assert_eq!(result(&[user, small], 0), 0);
    let ir = inlined(Inlining::of_size(SIZE), &[user, small]);
    let ir = ir.functions[0].ir().unwrap().to_string();
    assert!(!ir.contains("readonly") && !ir.contains("can_move"), "{ir}");
    assert!(ir.contains("notrap aligned"), "{ir}");
}

/// The first module, with what is inlined into it.
fn inlined(inlining: Inlining, texts: &[&str]) -> Module {
    let (modules, target) = (modules(texts), Target::host());
    let isas: Vec<_> = modules.iter().map(|module| target.isa(&module.settings).unwrap()).collect();
    let isas: Vec<_> = isas.iter().map(|isa| &**isa).collect();
    kiln::ir::inline(&modules, &isas, inlining, false).remove(0).unwrap().module
}

#[test]
fn recursion_and_growth_end() {
    // Two functions that call each other, from another module.
    let pair = "
function %small(i64) -> i64 { fn0 = %other(i64) -> i64 block0(v0: i64): v1 = call fn0(v0) return v1 }
function %other(i64) -> i64 { fn0 = %small(i64) -> i64 block0(v0: i64): v1 = call fn0(v0) return v1 }";
    // Into `user` both, twice; into `small` and `other` the other one.
    assert_eq!(calls(&[USER, pair]), 6);
    // Each calls the next one twice, so all of them would be 2^20 calls.
    let level = |number: usize| {
        format!(
            "function %f{number}(i64) -> i64 {{ fn0 = %f{}(i64) -> i64
            block0(v0: i64): v1 = call fn0(v0) v2 = call fn0(v1) return v2 }}",
            number + 1
        )
    };
    let levels: Vec<String> = (0..20).map(level).collect();
    let texts: Vec<&str> = levels.iter().map(|text| &**text).collect();
    let compiled = compiled(&texts);
    let longest = compiled.artifacts.iter().map(|artifact| artifact.text().len()).max().unwrap();
    assert!(compiled.stats.inlined_calls > 1000 && longest < 40_000, "{longest}");
}

#[test]
fn what_a_session_replaces_is_called_and_what_it_inlined_is_removed_with_it() {
    let session = Session::with_compiler(inlining(), JitOptions::default()).unwrap();
    let replaceable = format!("replaceable {SMALL}");
    session.add(&modules(&[USER, &replaceable])).unwrap();
    assert_eq!(call(&session, "user", 40), 42);
    session.replace(&modules(&[&replaceable.replace("iconst.i64 1", "iconst.i64 10")])).unwrap();
    assert_eq!(call(&session, "user", 40), 60);

    // Nothing of another unit is inlined, so it knows who uses it.
    let session = Session::with_compiler(inlining(), JitOptions::default()).unwrap();
    let unit = session.add(&modules(&[SMALL])).unwrap();
    session.add(&modules(&[USER])).unwrap();
    assert!(session.remove(&[unit]).is_err());
    assert_eq!(session.stats().inlined_calls, 0);
    let session = Session::with_compiler(inlining(), JitOptions::default()).unwrap();
    let unit = session.add(&modules(&[USER, SMALL])).unwrap();
    assert_eq!(session.stats().inlined_calls, 2);
    session.remove(&[unit]).unwrap();
    assert!(session.function("user").is_none() && session.function("small").is_none());
}

#[test]
fn an_import_with_another_type_is_an_error_as_before() {
    let session = Session::with_compiler(inlining(), JitOptions::default()).unwrap();
    let other = SMALL.replace("(i64) -> i64 {", "(i64) -> i64, i64 {").replace("return v2", "return v2, v2");
    let error = session.add(&modules(&[USER, &other])).unwrap_err();
    assert!(format!("{error:?}").contains("is declared as"), "{error:?}");
}

/// Functions compiled, functions reused, modules reused.
fn took(compiled: &Compiled) -> (usize, usize, usize) {
    let stats = compiled.stats;
    (stats.compiled_functions, stats.reused_functions, stats.reused_modules)
}

/// A program of four modules: two use `small`, one in two functions, and one does not.
fn program(small: &str) -> Vec<Module> {
    let second = USER.replace("%user", "%second");
    let both = format!("{} {}", USER, SMALL.replace("%small", "%unrelated"));
    modules(&[&both, small, &second, &SMALL.replace("%small", "%alone")])
}

fn kept(store: &SharedStore) -> Compiler {
    inlining().store(store.clone()).verify(Verify::Nothing)
}

#[test]
fn an_edited_callee_compiles_its_inliners_and_nobody_else() {
    let edited = SMALL.replace("iconst.i64 1", "iconst.i64 2");
    let bnots = "v3 = bnot v2 v4 = bnot v3 v5 = bnot v4 v6 = bnot v5";
    let large = edited.replace("return v2", &format!("{bnots} return v6"));
    let larger = large.replace("v6 = bnot v5", "v6 = bnot v5 v7 = bnot v6");
    let never = edited.replace("function", "noinline function");
    let steps = [
        (SMALL.to_owned(), (5, 0, 0), "at first"),
        (SMALL.to_owned(), (0, 5, 4), "nothing is edited"),
        // Two users and the function itself. `unrelated` is taken from the last build.
        (edited.clone(), (3, 2, 1), "the body"),
        // It is too large now, so its users call it: they are others, too.
        (large, (3, 2, 1), "the size"),
        // It is not inlined, so nobody else is another one.
        (larger, (1, 4, 3), "a large function"),
        (edited.clone(), (0, 5, 4), "back"),
        // The hint is no part of the function, and its users call it as they did when it was large.
        (never, (0, 5, 4), "the hint"),
    ];
    let store = shared(MemoryStore::new());
    for (small, expected, what) in steps {
        let modules = program(&small);
        let compiled = kept(&store).compile(&modules).unwrap();
        assert_eq!(took(&compiled), expected, "{what}");
        assert!(compiled.artifacts == inlining().compile(&modules).unwrap().artifacts, "{what}");
        // Everything is verified: the keys leave nothing out.
        let verified = kept(&store).verify(Verify::All).compile(&modules).unwrap();
        assert_eq!(verified.stats.wrong_entries, 0, "{what}");
    }
    // Without inlining, keys are what they always were.
    let store = shared(MemoryStore::new());
    let plain = || Compiler::new(Target::host()).store(store.clone()).verify(Verify::Nothing);
    plain().compile(&program(SMALL)).unwrap();
    assert_eq!(took(&plain().compile(&program(&edited)).unwrap()), (1, 4, 3));
}

/// Lazy modules, and the number that was built.
fn lazily(compiler: &Compiler, modules: &[Module]) -> (Compiled, usize) {
    let built = AtomicUsize::new(0);
    let lazy = |module: &Module| {
        let (module, built) = (module.clone(), &built);
        // Hints are no part of a fingerprint, but of what a client's key covers.
        let hints: Vec<u8> = module.functions.iter().map(|function| function.inline as u8).collect();
        let key = LazyKey::new("test", [&module.fingerprint().as_bytes()[..], &hints].concat());
        Lazy::new(module.name.clone(), key, move || {
            built.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(module)
        })
    };
    let compiled = compiler.compile_lazy(modules.iter().map(lazy).collect()).unwrap();
    (compiled, built.into_inner())
}

#[test]
fn lazy_modules_are_built_all_or_not_at_all() {
    let store = shared(MemoryStore::new());
    let compiler = kept(&store);
    let edited = SMALL.replace("iconst.i64 1", "iconst.i64 2");
    let never = SMALL.replace("function", "noinline function");
    let steps = [
        (SMALL, (5, 0, 0), 4),
        (SMALL, (0, 5, 4), 0),
        (&edited, (3, 2, 1), 4),
        (&edited, (0, 5, 4), 0),
        (&never, (2, 3, 2), 4),
        (SMALL, (0, 5, 4), 0),
    ];
    for (small, expected, built) in steps {
        let modules = program(small);
        let (compiled, number) = lazily(&compiler, &modules);
        assert_eq!((took(&compiled), number), (expected, built), "{small}");
        assert!(compiled.artifacts == inlining().compile(&modules).unwrap().artifacts);
        // The order of modules is no part of the keys.
        let reversed: Vec<Module> = modules.iter().rev().cloned().collect();
        let (compiled, number) = lazily(&compiler, &reversed);
        assert_eq!((took(&compiled), number), ((0, 5, 4), 0));
    }
    // Other options, and none, have keys of their own.
    let (_, built) = lazily(&compiler.clone().inline(Inlining::of_size(7)), &program(SMALL));
    assert_eq!(built, 4);
    let plain = Compiler::new(Target::host()).store(store.clone()).verify(Verify::Nothing);
    let (compiled, built) = lazily(&plain, &program(SMALL));
    assert_eq!((built, compiled.stats.inlined_calls), (4, 0));
    // All hits are verified, so all is built.
    let verified = compiler.clone().verify(Verify::All);
    let (compiled, built) = lazily(&verified, &program(SMALL));
    assert_eq!((built, compiled.stats.wrong_entries, compiled.stats.wrong_keys), (4, 0, 0));
    // One module without a key: nothing is known about it, so all is built.
    let modules = program(SMALL);
    let lazy = |module: &Module| {
        let module = module.clone();
        Lazy::without_key(module.name.clone(), move || Ok::<_, Infallible>(module))
    };
    let compiled = compiler.compile_lazy(modules.iter().map(lazy).collect()).unwrap();
    assert_eq!((took(&compiled), compiled.stats.inlined_calls), ((0, 5, 4), 4));
}

#[test]
fn a_module_that_cannot_be_built_or_compiled_is_an_error_with_its_place() {
    let failing = Lazy::without_key("failing", || Err::<Module, _>("no"));
    let good = Lazy::without_key("good", || Ok(module("good", SMALL)));
    let errors = inlining().compile_lazy(vec![good, failing]).unwrap_err();
    assert!(matches!(&errors[..], [kiln::LazyError::Build { module: 1, error: "no", .. }]), "{errors:?}");
}

#[test]
fn a_key_that_leaves_something_out_is_told() {
    let store = shared(MemoryStore::new());
    // Every build is chosen to be verified.
    let compiler = inlining().store(store.clone()).verify(Verify::Sample(NonZeroU32::MIN));
    let build = |modules: &[Module]| {
        let lazy = modules.iter().zip(0_u8..).map(|(module, number)| {
            let module = module.clone();
            let key = LazyKey::new("test", [number]);
            Lazy::new(module.name.clone(), key, move || Ok::<_, Infallible>(module))
        });
        compiler.compile_lazy(lazy.collect()).unwrap()
    };
    assert_eq!(build(&program(SMALL)).stats.wrong_keys, 0);
    assert_eq!(build(&program(SMALL)).stats.wrong_keys, 0);
    let edited = program(&SMALL.replace("iconst.i64 1", "iconst.i64 2"));
    let compiled = build(&edited);
    // The function itself, and the two modules into which it is inlined.
    assert_eq!(compiled.stats.wrong_keys, 3);
    assert!(compiled.artifacts == inlining().compile(&edited).unwrap().artifacts);
}

#[test]
fn artifacts_do_not_depend_on_threads_or_order() {
    let mut inlined = 0;
    for seed in 0..20 {
        let options = ProgramOptions { functions: 12, statements: 20, ..ProgramOptions::default() };
        let modules = program_of(seed, &options).modules;
        let build = |threads: usize, modules: &[Module]| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let compiler = Compiler::new(Target::host()).inline(Inlining::of_size(300)).pool(pool.into());
            compiler.compile(modules).unwrap()
        };
        let one = build(1, &modules);
        inlined += one.stats.inlined_calls;
        for threads in [2, 5, 16] {
            assert!(build(threads, &modules).artifacts == one.artifacts, "{threads} threads, seed {seed}");
        }
        let mut turned = modules.clone();
        turned.rotate_left(seed as usize % modules.len());
        let mut other = build(3, &turned).artifacts;
        other.rotate_right(seed as usize % modules.len());
        assert!(other == one.artifacts, "order, seed {seed}");
    }
    assert!(inlined > 20, "{inlined}");
}
