//! Code that contains addresses: a kind of code of its own, with the same results in memory and in
//! an image, and what may change while it is in use.

use kiln::artifact::{GlobalAccess, RelocKind};
use kiln::cache::MemoryStore;
use kiln::globals::Bindings;
use kiln::image::{Image, ImageInfo};
use kiln::ir::Target;
use kiln::{Compiler, Session};

use crate::common::{module, modules, shared};

fn target(access: GlobalAccess) -> Target {
    Target::host().globals(access)
}

const COUNTER: &str = r#"
    global %counter = "counter:main"
    function %next() -> i64 system_v {
        gv0 = symbol %counter
        fn0 = %step() -> i64 system_v
        fn1 = %twice(i64) -> i64 system_v
    block0:
        v0 = symbol_value.i64 gv0
        v1 = load.i64 v0
        v2 = call fn0()
        v3 = iadd v1, v2
        store v3, v0
        v4 = call fn1(v3)
        return v4
    }"#;

const TWICE: &str = "function %twice(i64) -> i64 system_v { block0(v0: i64): v1 = iadd v0, v0 return v1 }";
const THRICE: &str = "replaceable function %twice(i64) -> i64 system_v {
    block0(v0: i64): v1 = iadd v0, v0 v2 = iadd v1, v0 return v2 }";
const REPLACEABLE: &str = "replaceable function %twice(i64) -> i64 system_v {
    block0(v0: i64): v1 = iadd v0, v0 return v1 }";

extern "C" fn step() -> i64 {
    5
}

extern "C" fn other_step() -> i64 {
    7
}

/// Calls a function without parameters.
fn next(session: &Session) -> i64 {
    let function = session.function("next").unwrap();
    // SAFETY: the code is that of this test, and the session lives.
    unsafe { function.typed::<extern "C" fn() -> i64>() }.unwrap()()
}

fn session_with(counter: &i64, twice: &str) -> Session {
    let session = Session::new(target(GlobalAccess::Direct)).unwrap();
    session.bind_global("counter:main", std::ptr::from_ref(counter) as usize).unwrap();
    session.bind_function("step", step as extern "C" fn() -> i64).unwrap();
    session.add(&[module("counter", COUNTER), module("twice", twice)]).unwrap();
    session
}

#[test]
fn the_kinds_never_mix_in_a_cache() {
    let modules = modules();
    let store = shared(MemoryStore::new());
    let compile =
        |access| Compiler::new(target(access)).store(store.clone()).program("p").compile(&modules).unwrap();
    let slots = compile(GlobalAccess::Slots);
    let direct = compile(GlobalAccess::Direct);
    assert_eq!((direct.stats.reused_modules, direct.stats.reused_functions), (0, 0));
    assert_eq!(compile(GlobalAccess::Slots).stats.reused_modules, modules.len());
    let again = compile(GlobalAccess::Direct);
    assert_eq!(again.stats.reused_modules, modules.len());
    assert!(again.artifacts == direct.artifacts);
    let without = Compiler::new(target(GlobalAccess::Direct)).compile(&modules).unwrap().artifacts;
    assert!(without == direct.artifacts, "a cache decides nothing");
    let addresses = |artifact: &kiln::artifact::Artifact| {
        artifact.text_relocs().iter().filter(|reloc| reloc.kind() == RelocKind::Abs64).count()
    };
    let mut found = 0;
    for (module, (slots, direct)) in modules.iter().zip(slots.artifacts.iter().zip(&direct.artifacts)) {
        let both = [slots, direct].map(|artifact| artifact.global_access());
        assert_eq!(both, GlobalAccess::ALL);
        assert_eq!(addresses(slots), 0);
        found += addresses(direct);
        // Machine code of the client is taken as it is.
        let is_slot = direct.text_relocs().iter().any(|reloc| reloc.kind().uses_slot());
        assert!(!is_slot || module.name.contains("machine_code"), "{}", module.name);
    }
    assert!(found > 20, "{found} addresses in code");
}

#[test]
fn a_session_and_its_image_do_the_same() {
    let counter = 0_i64;
    let session = session_with(&counter, TWICE);
    assert_eq!([next(&session), next(&session)], [10, 20]);
    let bytes = session.image().unwrap();
    let info = ImageInfo::parse(&bytes).unwrap();
    assert_eq!((info.globals, info.text_patches, info.slots.len()), (GlobalAccess::Direct, 2, 2));
    let mut bindings = Bindings::new();
    bindings.bind("counter:main", &raw const counter as usize);
    bindings.bind_symbol("step", step as *const () as usize);
    let loaded = Image::from_bytes(&bytes).unwrap().bind(&bindings).unwrap();
    let function = loaded.function("next").unwrap();
    // SAFETY: the code is that of this test, and the image lives.
    let function = unsafe { function.typed::<extern "C" fn() -> i64>() }.unwrap();
    assert_eq!([function(), next(&session), function()], [30, 40, 50]);
}

/// The error names the function whose code holds the address. Who wants to bind again uses slots.
#[test]
fn what_code_contains_cannot_be_bound_again() {
    let (counter, other) = (0_i64, 100_i64);
    let session = session_with(&counter, TWICE);
    let other = &raw const other as usize;
    let error = session.bind_global("counter:main", other).unwrap_err();
    let expected =
        "global \"counter:main\" cannot be bound again: `next` of module `counter` holds its address";
    assert_eq!(error.to_string(), expected);
    let error = session.bind_function("step", other_step as extern "C" fn() -> i64).unwrap_err();
    assert!(error.to_string().contains("`next` of module `counter`"), "{error}");
    assert_eq!(next(&session), 10, "nothing has changed");
    // When nobody holds it any more, it can.
    session.remove(&session.jit().units()).unwrap();
    session.bind_global("counter:main", other).unwrap();
    session.bind_function("step", other_step as extern "C" fn() -> i64).unwrap();
    session.add(&[module("counter", COUNTER), module("twice", TWICE)]).unwrap();
    assert_eq!(next(&session), 214);
}

/// A replaceable function is called through its slot, from memory and from an image.
#[test]
fn replaceable_functions_stay_behind_their_slots() {
    let counter = 0_i64;
    let session = session_with(&counter, REPLACEABLE);
    assert_eq!(next(&session), 10);
    session.replace(&[module("thrice", THRICE)]).unwrap();
    assert_eq!(next(&session), 30);
    let bytes = session.image().unwrap();
    assert_eq!(ImageInfo::parse(&bytes).unwrap().text_patches, 2);
}

/// A module of each kind in one session.
#[test]
fn a_session_takes_artifacts_of_both_kinds() {
    let counter = 0_i64;
    let compile = |access, name, text| {
        let compiled = Compiler::new(target(access)).compile(&[module(name, text)]).unwrap();
        compiled.artifacts.into_iter().next().unwrap()
    };
    for (first, second) in
        [(GlobalAccess::Slots, GlobalAccess::Direct), (GlobalAccess::Direct, GlobalAccess::Slots)]
    {
        let session = Session::new(Target::host()).unwrap();
        session.bind_global("counter:main", &raw const counter as usize).unwrap();
        session.bind_function("step", step as extern "C" fn() -> i64).unwrap();
        let before = counter_value(&counter);
        session.jit().link(&[compile(second, "twice", TWICE)], &|_: &_| None::<usize>).unwrap();
        let bound = |key: &kiln::globals::SlotKey| match key.text() {
            "step" => Some(step as *const () as usize),
            _ => Some(&raw const counter as usize),
        };
        session.jit().link(&[compile(first, "counter", COUNTER)], &bound).unwrap();
        assert_eq!(next(&session), 2 * (before + 5));
    }
}

/// Reads what compiled code has written.
fn counter_value(counter: &i64) -> i64 {
    // SAFETY: a number that lives, and that no other thread uses.
    unsafe { std::ptr::from_ref(counter).read_volatile() }
}
