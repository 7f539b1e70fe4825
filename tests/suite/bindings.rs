//! Resolvers and bindings of the host: what they are told, and what they refuse.

use std::sync::Mutex;

use kiln::globals::{Bindings, Resolve, SlotKey, Unresolved};
use kiln::image::{Image, bind_function};
use kiln::ir::Target;
use kiln::{Session, jit};

use crate::common::module;

const CALLER: &str = r#"
    function %half_sine(f32) -> f32 system_v {
        fn0 = %sin(f32) -> f32 system_v
        fn1 = %noted() system_v
    block0(v0: f32):
        call fn1()
        v1 = call fn0(v0)
        return v1
    }"#;

extern "C" fn sine(x: f64) -> f64 {
    x.sin()
}

extern "C" fn sine_of_f32(x: f32) -> f32 {
    x.sin()
}

extern "C" fn noted() {}

/// A resolver that notes what it is told.
struct Noting(Mutex<Vec<String>>);

impl Resolve for Noting {
    fn resolve(&self, key: &SlotKey, expected: Option<&str>) -> Result<usize, Unresolved> {
        self.0.lock().unwrap().push(format!("{key}: {}", expected.unwrap_or("none")));
        Ok(noted as *const () as usize)
    }
}

#[test]
fn a_function_of_another_type_is_refused_in_memory_and_in_an_image() {
    let session = Session::new(Target::host()).unwrap();
    session.bind_function("sin", sine as extern "C" fn(f64) -> f64).unwrap();
    session.bind_function("noted", noted as extern "C" fn()).unwrap();
    let error = session.add(&[module("caller", CALLER)]).unwrap_err();
    let message = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ");
    let expected = "symbol `sin` is called as (f32) -> f32 system_v, but is bound as (f64) -> f64 system_v";
    assert!(message.contains(expected), "{message}");

    // The same if the client has the type as data.
    let bind = |signature: &str| {
        let address = sine_of_f32 as *const () as usize;
        session.bind_function_at("sin", address, &signature.parse().unwrap()).unwrap();
    };
    bind("(f64) -> f64 system_v");
    let again = session.add(&[module("caller", CALLER)]).unwrap_err().to_string();
    assert!(again.contains(expected), "{again}");
    bind("(f32) -> f32 system_v");
    session.add(&[module("caller", CALLER)]).map(|unit| session.remove(&[unit])).unwrap().unwrap();

    session.bind_function("sin", sine_of_f32 as extern "C" fn(f32) -> f32).unwrap();
    session.add(&[module("caller", CALLER)]).unwrap();
    let bytes = session.image().unwrap();
    let mut bindings = Bindings::new();
    bind_function(&mut bindings, "sin", sine as extern "C" fn(f64) -> f64);
    let error = Image::from_bytes(&bytes).unwrap().bind(&bindings.or(&jit::libcalls::process)).unwrap_err();
    assert!(error.to_string().contains(expected), "{error}");
    bind_function(&mut bindings, "sin", sine_of_f32 as extern "C" fn(f32) -> f32);
    bind_function(&mut bindings, "noted", noted as extern "C" fn());
    Image::from_bytes(&bytes).unwrap().bind(&bindings).unwrap();
}

#[test]
fn a_function_is_not_bound_again_with_another_type_while_code_calls_it() {
    let session = Session::new(Target::host()).unwrap();
    session.bind_function("noted", noted as extern "C" fn()).unwrap();
    session.bind_function("sin", sine_of_f32 as extern "C" fn(f32) -> f32).unwrap();
    let unit = session.add(&[module("caller", CALLER)]).unwrap();
    let error = session.bind_function("sin", sine as extern "C" fn(f64) -> f64).unwrap_err().to_string();
    let expected = "symbol `sin` cannot be bound to a function of type (f64) -> f64 system_v: \
                    `half_sine` of module `caller` calls it as (f32) -> f32 system_v";
    assert_eq!(error, expected);
    let signature = "(f64) -> f64 system_v".parse().unwrap();
    let error = session.bind_function_at("sin", sine as *const () as usize, &signature).unwrap_err();
    assert_eq!(error.to_string(), expected);
    // The binding is as before, and code of this type may be bound again.
    session.bind_function("sin", sine_of_f32 as extern "C" fn(f32) -> f32).unwrap();
    let again = session.add(&[module("again", &CALLER.replace("half_sine", "again"))]).unwrap();
    // Nobody calls it any more.
    session.remove(&[unit, again]).unwrap();
    session.bind_function("sin", sine as extern "C" fn(f64) -> f64).unwrap();
}

#[test]
fn addresses_of_the_process_in_constants_are_found() {
    static OBJECT: i64 = 7;
    let local = 1;
    let on_heap = Box::new(1);
    let text = |value: u64, word: u64| {
        format!(
            "data %words {{ i64 1, i64 {word} }}
            function %f() -> i64 system_v {{
            block0:
                v0 = iconst.i64 {value}
                v1 = iconst.i64 4096
                v2 = iadd v0, v1
                return v2
            }}"
        )
    };
    let found = |value: u64, word: u64| {
        let found = kiln::find_addresses(&[module("m", &text(value, word))]).unwrap();
        found.iter().map(|found| (found.name.to_string(), found.value)).collect::<Vec<_>>()
    };
    for address in [&raw const OBJECT, &raw const local, &raw const *on_heap, noted as *const i64] {
        let address = address as u64;
        assert_eq!(found(address, 3), [("f".to_owned(), address)]);
        assert_eq!(found(3, address), [("words".to_owned(), address)]);
    }
    assert_eq!(found(0, u64::MAX), []);
    let address = &raw const OBJECT as u64;
    let found = kiln::find_addresses(&[module("m", &text(address, 0))]).unwrap();
    let shown = found[0].to_string();
    assert!(shown.starts_with("module m, `f`: `v0 = iconst.i64 0x"), "{shown}");
    assert!(shown.contains("so the code is wrong in any other, and is never found in a cache"), "{shown}");
}

#[test]
fn a_resolver_learns_the_types_of_functions() {
    let session = Session::new(Target::host()).unwrap();
    session.bind_symbol("sin", 1).unwrap();
    session.bind_symbol("noted", 1).unwrap();
    session.add(&[module("caller", CALLER)]).unwrap();
    let expected = ["symbol `noted`: () system_v", "symbol `sin`: (f32) -> f32 system_v"];
    let noting = Noting(Mutex::default());
    Image::from_bytes(&session.image().unwrap()).unwrap().bind(&noting).unwrap();
    assert_eq!(*noting.0.lock().unwrap(), expected);

    let noting = Noting(Mutex::default());
    let jit = jit::Jit::new(jit::JitOptions::default()).unwrap();
    jit.link(&session.artifacts(), &noting).unwrap();
    assert_eq!(*noting.0.lock().unwrap(), expected);
}

#[cfg(target_arch = "x86_64")]
/// Calls the symbol `fma`, and multiplies and adds, for which this code calls the routine `fma`.
const BOTH: &str = r#"
    function %both(f64, f64, f64) -> f64, f64 system_v {
        fn0 = %fma(f64, f64, f64) -> f64 system_v
    block0(v0: f64, v1: f64, v2: f64):
        v3 = call fn0(v0, v1, v2)
        v4 = fma v0, v1, v2
        return v3, v4
    }
    function %sum(f64, f64, f64) -> f64 system_v {
        fn0 = colocated %both(f64, f64, f64) -> f64, f64 system_v
    block0(v0: f64, v1: f64, v2: f64):
        v3, v4 = call fn0(v0, v1, v2)
        v5 = fadd v3, v4
        return v5
    }"#;

#[cfg(target_arch = "x86_64")]
/// Calls only the routine.
const ROUTINE: &str = r#"
    function %fused(f64, f64, f64) -> f64 system_v {
    block0(v0: f64, v1: f64, v2: f64):
        v3 = fma v0, v1, v2
        return v3
    }"#;

#[cfg(target_arch = "x86_64")]
/// The definition of `fma` that a client may have.
const OWN_FMA: &str = r#"
    function %fma(f64, f64, f64) -> f64 system_v {
    block0(v0: f64, v1: f64, v2: f64):
        v3 = f64const 0x1.8p6
        return v3
    }"#;

#[cfg(target_arch = "x86_64")]
#[test]
fn a_routine_of_the_c_library_is_not_the_symbol_of_its_name() {
    type Sum = extern "C" fn(f64, f64, f64) -> f64;
    extern "C" fn own_fma(_: f64, _: f64, _: f64) -> f64 {
        1000.0
    }
    let session = Session::new(Target::host()).unwrap();
    session.bind_function("fma", own_fma as Sum).unwrap();
    session.add(&[module("both", BOTH)]).unwrap();
    let sum = session.function("sum").unwrap();
    // SAFETY: the code calls only `fma` and this test's function.
    assert_eq!(unsafe { sum.typed::<Sum>() }.unwrap()(2.0, 3.0, 4.0), 1010.0);

    // Each has a slot of its own, with a key of its own.
    let bytes = session.image().unwrap();
    let image = Image::from_bytes(&bytes).unwrap();
    let slots: Vec<String> = image.slots().iter().map(ToString::to_string).collect();
    assert_eq!(slots, ["symbol `fma`", "routine `fma`"]);
    let mut bindings = Bindings::new();
    bind_function(&mut bindings, "fma", own_fma as Sum);
    let error = image.bind(&bindings).unwrap_err();
    assert!(error.to_string().starts_with("1 slot(s) without an address: routine `fma`"), "{error}");

    // A program that has called the routine may define the symbol.
    let session = Session::new(Target::host()).unwrap();
    session.add(&[module("routine", ROUTINE)]).unwrap();
    session.add(&[module("own", OWN_FMA), module("both", BOTH)]).unwrap();
    let sum = session.function("sum").unwrap();
    // SAFETY: as above.
    assert_eq!(unsafe { sum.typed::<Sum>() }.unwrap()(2.0, 3.0, 4.0), 106.0);
    let image = Image::from_bytes(&session.image().unwrap()).unwrap();
    let loaded = image.bind(&jit::libcalls::process).unwrap();
    let sum = loaded.function("sum").unwrap();
    // SAFETY: as above.
    assert_eq!(unsafe { sum.typed::<Sum>() }.unwrap()(2.0, 3.0, 4.0), 106.0);
}
