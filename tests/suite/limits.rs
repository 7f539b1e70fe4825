//! Input that needs too much memory gets an error, quickly and without taking the memory.

use kiln::ir::Target;
use kiln::{Compiler, Session};

use crate::common::module;

fn error(text: &str) -> String {
    let module = module("large", text);
    match Compiler::new(Target::host()).compile(&[module]) {
        Ok(_) => panic!("compiled"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn data_of_more_than_two_gigabytes() {
    for attributes in ["", "writable"] {
        let error = error(&format!("data %d {attributes} {{ zeros 4_000_000_000 }}"));
        assert!(error.contains("has 4000000000 bytes, limit 2147483648"), "{error}");
    }
}

#[test]
fn functions_aligned_to_more_than_a_page() {
    let text = "set log2_min_function_alignment=20
        function %f() { block0: return }
        function %g() { fn0 = %f() block0: call fn0() return }";
    let error = error(text);
    assert!(error.contains("at most 4096"), "{error}");
}

#[test]
fn a_reservation_that_is_too_small() {
    let options = kiln::jit::JitOptions { reserve: 1 << 16, ..Default::default() };
    let mut session = Session::with_compiler(Compiler::new(Target::host()), options).unwrap();
    let error = session.add(&[module("d", "data %d writable { zeros 100_000 }")]).unwrap_err().to_string();
    assert!(error.contains("no room"), "{error}");
}
