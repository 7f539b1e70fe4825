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
    let mut session = Session::new(Target::host()).unwrap();
    session.bind_function("sin", sine as extern "C" fn(f64) -> f64);
    session.bind_function("noted", noted as extern "C" fn());
    let error = session.add(&[module("caller", CALLER)]).unwrap_err();
    let message = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ");
    let expected = "symbol `sin` is called as (f32) -> f32 system_v, but is bound as (f64) -> f64 system_v";
    assert!(message.contains(expected), "{message}");

    session.bind_function("sin", sine_of_f32 as extern "C" fn(f32) -> f32);
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
fn a_resolver_learns_the_types_of_functions() {
    let mut session = Session::new(Target::host()).unwrap();
    session.bind_symbol("sin", 1);
    session.bind_symbol("noted", 1);
    session.add(&[module("caller", CALLER)]).unwrap();
    let expected = ["symbol `noted`: () system_v", "symbol `sin`: (f32) -> f32 system_v"];
    let noting = Noting(Mutex::default());
    Image::from_bytes(&session.image().unwrap()).unwrap().bind(&noting).unwrap();
    assert_eq!(*noting.0.lock().unwrap(), expected);

    let noting = Noting(Mutex::default());
    let mut jit = jit::Jit::new(jit::JitOptions::default()).unwrap();
    jit.link(session.artifacts(), &noting).unwrap();
    assert_eq!(*noting.0.lock().unwrap(), expected);
}
