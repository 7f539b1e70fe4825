//! A session: batches that build on each other, run-time objects, and images that are saved on the
//! way.

use std::sync::atomic::{AtomicI64, Ordering};

use kiln::globals::{Bindings, GlobalTable, SlotKey};
use kiln::image::{Image, ImageOptions, write_image};
use kiln::ir::Target;
use kiln::jit::{JitOptions, Unit};
use kiln::{Compiler, Session, SessionError};

use crate::common::module;

type Get = extern "C" fn() -> i64;

const READER: &str = r#"
    global %first = "object:first"
    global %second = "object:second"
    function %sum() -> i64 system_v {
        gv0 = symbol %second
        gv1 = symbol %first
    block0:
        v0 = symbol_value.i64 gv0
        v1 = load.i64 v0
        v2 = symbol_value.i64 gv1
        v3 = load.i64 v2
        v4 = iconst.i64 100
        v5 = imul v1, v4
        v6 = iadd v3, v5
        return v6
    }"#;

/// Calls the function `name` of a session that holds code of these tests only.
fn call(session: &Session, name: &str) -> i64 {
    let function = session.function(name).unwrap();
    // SAFETY: the type is checked, and the tests' functions read only bound objects, which live on.
    let function = unsafe { function.typed::<Get>() }.unwrap();
    function()
}

#[test]
fn one_code_reads_the_objects_of_each_process() {
    static FIRST: AtomicI64 = AtomicI64::new(1);
    static SECOND: AtomicI64 = AtomicI64::new(2);
    let session = Session::new(Target::host()).unwrap();
    session.bind_global("object:unused", 0x1000).unwrap();
    session.bind_global("object:first", FIRST.as_ptr() as usize).unwrap();
    session.bind_global("object:second", SECOND.as_ptr() as usize).unwrap();
    session.add(&[module("reader", READER)]).unwrap();
    assert_eq!(call(&session, "sum"), 201);
    FIRST.store(5, Ordering::Relaxed);
    assert_eq!(call(&session, "sum"), 205);

    // Slot i is global i of the session, whether or not code uses it, and other objects may be
    // bound.
    let image = session.image().unwrap();
    let keys = ["object:unused", "object:first", "object:second"].map(|key| SlotKey::Global(key.into()));
    let others = [7i64, 8];
    let image_of = || Image::from_bytes(&image).unwrap();
    assert_eq!(image_of().slots(), keys);
    let mut bindings = Bindings::new();
    bindings.bind("object:unused", 0);
    bindings.bind("object:first", &raw const others[0] as usize);
    bindings.bind("object:second", &raw const others[1] as usize);
    let by_key = image_of().bind(&bindings).unwrap();
    let in_order =
        image_of().bind_array(&[0, &raw const others[0] as usize, &raw const others[1] as usize]).unwrap();
    for loaded in [by_key, in_order] {
        // SAFETY: as in `call`.
        let sum = unsafe { loaded.function("sum").unwrap().typed::<Get>() }.unwrap();
        assert_eq!(sum(), 807);
    }
    bindings.bind("object:second", 0);
    assert!(image_of().bind_array(&[0]).is_err(), "an array that is too short");
    assert!(image_of().bind(&Bindings::new()).is_err(), "objects without an address");
}

#[test]
fn a_batch_uses_functions_data_and_slots_of_batches_before_it() {
    static FIRST: AtomicI64 = AtomicI64::new(3);
    static SECOND: AtomicI64 = AtomicI64::new(4);
    let session = Session::new(Target::host()).unwrap();
    session.bind_global("object:first", FIRST.as_ptr() as usize).unwrap();
    session.bind_global("object:second", SECOND.as_ptr() as usize).unwrap();
    session.add(&[module("reader", READER)]).unwrap();
    let text = r#"
        global %again = "object:second"
        data %pointer { addr %sum, addr %again }
        function %twice() -> i64 system_v {
            sig0 = () -> i64 system_v
            fn0 = colocated %sum sig0
            gv0 = symbol %pointer
        block0:
            v0 = call fn0()
            v1 = symbol_value.i64 gv0
            v2 = load.i64 v1
            v3 = call_indirect sig0, v2()
            v4 = iadd v0, v3
            v5 = load.i64 v1+8
            v6 = load.i64 v5
            v7 = iadd v4, v6
            return v7
        }"#;
    session.add(&[module("user", text)]).unwrap();
    assert_eq!(call(&session, "twice"), 403 + 403 + 4);

    // The image of both batches is one program, and saving compiles nothing.
    let compiled = session.stats();
    let image = session.image().unwrap();
    assert_eq!(session.stats(), compiled);
    let mut bindings = Bindings::new();
    bindings.bind("object:first", FIRST.as_ptr() as usize).bind("object:second", SECOND.as_ptr() as usize);
    let loaded = Image::from_bytes(&image).unwrap().bind(&bindings).unwrap();
    // SAFETY: as in `call`.
    assert_eq!(unsafe { loaded.function("twice").unwrap().typed::<Get>() }.unwrap()(), 810);
}

#[test]
fn errors_leave_the_session_as_it_was() {
    let one = "function %one() -> i64 system_v { block0: v0 = iconst.i64 1 return v0 }";
    let session = Session::new(Target::host()).unwrap();
    session.add(&[module("one", one)]).unwrap();

    let error = session.add(&[module("again", one)]).unwrap_err();
    assert!(error.to_string().contains("`one`"), "{error}");
    let error = session.add(&[
        module("a", "function %two() { block0: return }"),
        module("b", "function %two() { block0: return }"),
    ]);
    assert!(matches!(error, Err(SessionError::Check(_))), "{error:?}");
    let caller = "function %three() -> i64 system_v { fn0 = %nowhere_at_all() -> i64 system_v block0: v0 = call fn0() return v0 }";
    let error = session.add(&[module("three", caller)]).unwrap_err();
    assert!(error.to_string().contains("symbol `nowhere_at_all`"), "{error}");
    let caller =
        "function %four() -> i32 system_v { fn0 = %one() -> i32 system_v block0: v0 = call fn0() return v0 }";
    let error = session.add(&[module("four", caller)]).unwrap_err();
    assert!(error.to_string().contains("() -> i64 system_v"), "{error}");

    assert_eq!(session.artifacts().len(), 1);
    for name in ["two", "three", "four"] {
        assert!(session.function(name).is_none());
    }
    assert_eq!(call(&session, "one"), 1);
}

/// A session to which each text was added as a batch of one module.
fn batches(texts: &[&str]) -> (Session, Result<Unit, SessionError>) {
    let session = Session::new(Target::host()).unwrap();
    let (last, first) = texts.split_last().unwrap();
    for text in first {
        session.add(&[module("first", text)]).unwrap();
    }
    let result = session.add(&[module("last", last)]);
    (session, result)
}

const CALLER: &str =
    "function %g() -> i64 system_v { fn0 = %f() -> i64 system_v block0: v0 = call fn0() return v0 }";

#[test]
fn an_overridden_definition_is_so_in_memory_and_in_the_image() {
    let strong = "function %f() -> i64 system_v { block0: v0 = iconst.i64 1 return v0 }";
    let weak = format!("preemptible {} {CALLER}", strong.replace("64 1", "64 2"));
    let (session, result) = batches(&[strong, &weak]);
    result.unwrap();
    assert_eq!(call(&session, "g"), 1);
    let loaded = Image::from_bytes(&session.image().unwrap()).unwrap().bind(&Bindings::new()).unwrap();
    // SAFETY: as in `call`.
    assert_eq!(unsafe { loaded.function("g").unwrap().typed::<Get>() }.unwrap()(), 1);

    let (_, result) = batches(&[&weak, strong]);
    assert!(result.unwrap_err().to_string().contains("`f`"), "code that uses the weak definition is running");
}

#[test]
fn an_overridden_definition_has_the_kind_and_type_of_the_one_that_overrides_it() {
    let data = "data %f align=8 { i64 7 }";
    let strong = "function %f() -> i64 system_v { block0: v0 = iconst.i64 1 return v0 }";
    let weak = format!("preemptible {strong}\n{CALLER}");
    let weak_data = format!("preemptible {data}");
    let narrow = strong.replace("i64", "i32");
    let used_as_function =
        "`g` of module `last` uses `f` as a function, but module `first` linked before defines it as data";
    let two_types = "`g` of module `last` uses `f` as () -> i64 system_v, but module `first` linked before defines it as () -> i32 system_v";
    let data_of_function =
        "module `last` defines `f` as data, but module `first` linked before defines it as a function";
    let cases = [
        (data, &*weak, used_as_function),
        (&weak_data, &weak, used_as_function),
        (&narrow, &weak, two_types),
        (&format!("hidden {narrow}"), &weak, two_types),
        (&format!("preemptible {narrow}"), &weak, two_types),
        (strong, &weak_data, data_of_function),
        (&weak, &weak_data, data_of_function),
        (&weak, data, "`f` is defined by module `last` of this link and by module `first` linked before"),
    ];
    for (first, second, expected) in cases {
        let (session, result) = batches(&[first, second]);
        assert_eq!(result.unwrap_err().to_string(), expected, "{first} and {second}");
        // One batch of the two, and their image, are refused too.
        let modules = [module("first", first), module("second", second)];
        assert!(Session::new(Target::host()).unwrap().add(&modules).is_err(), "{first} and {second}");
        let added = Compiler::new(Target::host()).compile(&modules[1..]).unwrap().artifacts;
        let both = [session.artifacts(), added].concat();
        let image = write_image(&both, &GlobalTable::new(), &ImageOptions::default());
        assert!(image.is_err(), "{first} and {second}");
    }
}

#[test]
fn batches_are_for_one_target() {
    let session = Session::new(Target::host()).unwrap();
    session.add(&[module("one", "function %one() { block0: return }")]).unwrap();
    let musl = Target::parse(&format!("{}-unknown-linux-musl", std::env::consts::ARCH)).unwrap();
    let two = module("two", "function %two() { block0: return }");
    let added = Compiler::new(musl.clone()).compile(&[two]).unwrap().artifacts;
    let error = session.add_artifacts(&added).unwrap_err().to_string();
    let expected = format!(
        "module 0 was compiled for {}, but module `one` linked before for {}",
        musl.triple(),
        Target::host().triple()
    );
    assert_eq!(error, expected);
}

#[test]
fn what_the_host_gave_cannot_be_defined_later() {
    extern "C" fn host() -> i64 {
        100
    }
    let session = Session::new(Target::host()).unwrap();
    session.bind_symbol("f", host as *const () as usize).unwrap();
    session.add(&[module("caller", CALLER)]).unwrap();
    assert_eq!(call(&session, "g"), 100);
    let late = module("late", "function %f() -> i64 system_v { block0: v0 = iconst.i64 1 return v0 }");
    let error = session.add(&[late]).unwrap_err().to_string();
    let expected = "`f` is defined by module `late` of this link, but `g` of module `caller` linked before uses the host's";
    assert_eq!(error, expected);
}

#[test]
fn data_of_an_earlier_batch_cannot_be_called() {
    let (_, result) = batches(&["data %f { i64 5 }", CALLER]);
    let error = result.unwrap_err().to_string();
    assert!(error.contains("defines it as data"), "{error}");
}

#[test]
fn globals_of_a_batch_that_failed_are_forgotten() {
    let (session, result) = batches(&["data %d { i64 1 }", READER]);
    assert!(result.is_err(), "nothing is bound");
    assert!(session.globals().is_empty());
}

#[test]
fn a_session_reuses_what_a_store_holds() {
    let store = std::sync::Arc::new(kiln::cache::MemoryStore::new());
    let text = "function %f() -> i64 system_v { block0: v0 = iconst.i64 1 return v0 }";
    for (compiled, reused) in [(1, 0), (0, 1)] {
        let compiler = Compiler::new(Target::host()).store(store.clone());
        let session = Session::with_compiler(compiler, JitOptions::default()).unwrap();
        session.add(&[module("f", text)]).unwrap();
        assert_eq!(
            (session.stats().compiled_functions, session.stats().reused_functions),
            (compiled, reused)
        );
        assert_eq!(call(&session, "f"), 1);
    }
}

#[test]
fn struct_arguments_are_part_of_a_type() {
    let definition =
        "function %f(i64 sarg(16)) -> i64 system_v { block0(v0: i64): v1 = load.i64 v0 return v1 }";
    let caller = "function %g(i64) -> i64 system_v { fn0 = %f(i64) -> i64 system_v block0(v0: i64): v1 = call fn0(v0) return v1 }";
    let (_, result) = batches(&[definition, caller]);
    assert!(result.unwrap_err().to_string().contains("sarg(16)"));
}

#[test]
fn only_linux_has_code() {
    for triple in ["x86_64-pc-windows-msvc", "x86_64-apple-darwin", "x86_64-unknown-freebsd"] {
        let error = Target::parse(triple).unwrap_err();
        assert!(error.to_string().contains("Linux"), "{triple}");
    }
}

#[test]
fn a_function_of_another_type_is_not_handed_out() {
    let session = Session::new(Target::host()).unwrap();
    session
        .add(&[module(
            "f",
            "function %f(i32) -> i64 system_v { block0(v0: i32): v1 = uextend.i64 v0 return v1 }",
        )])
        .unwrap();
    let function = session.function("f").unwrap();
    // SAFETY: never called.
    let wrong = unsafe { function.typed::<extern "C" fn(i64) -> i64>() };
    let text = wrong.unwrap_err().to_string();
    assert!(text.contains("(i32) -> i64 system_v") && text.contains("(i64) -> i64 system_v"), "{text}");
    // SAFETY: the type is right, and the function touches no memory.
    let right = unsafe { function.typed::<extern "C" fn(u32) -> u64>() }.unwrap();
    assert_eq!(right(u32::MAX), u64::from(u32::MAX));
}

#[test]
fn panics_unwind_through_compiled_code() {
    extern "C-unwind" fn thrower() {
        panic!("through compiled code");
    }
    let session = Session::new(Target::host()).unwrap();
    session.bind_symbol("thrower", thrower as *const () as usize).unwrap();
    let text = "function %caller() system_v { fn0 = %thrower() system_v block0: call fn0() return }";
    session.add(&[module("caller", text)]).unwrap();
    let address = session.function("caller").unwrap().address();
    // SAFETY: the function takes and returns nothing, and the session lives on.
    let caller = unsafe { std::mem::transmute::<*const u8, extern "C-unwind" fn()>(address) };
    let payload = std::panic::catch_unwind(|| caller()).unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"through compiled code"));
}
