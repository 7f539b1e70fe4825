//! The interpreter on programs written by hand: pointers and calls across modules, and errors.

use std::sync::Arc;

use cranelift_codegen::data_value::DataValue;
use kiln_ir::{Module, Source, Target, parse};
use kiln_oracle::interpret::{InterpretError, LinkedProgram, Process};

fn module(name: &str, text: &str) -> Module {
    parse(Arc::new(Source::new(name, text)), &Target::host())
        .unwrap_or_else(|faults| panic!("{}", faults.iter().map(ToString::to_string).collect::<String>()))
}

fn run(texts: &[&str], name: &str, arguments: &[i64]) -> Result<Vec<DataValue>, InterpretError> {
    let modules: Vec<Module> = texts.iter().map(|text| module("test", text)).collect();
    let program = LinkedProgram::new(&modules.iter().collect::<Vec<_>>());
    let arguments: Vec<DataValue> = arguments.iter().map(|&number| DataValue::I64(number)).collect();
    Process::new(&program, &mut |_| vec![0; 16]).with_fuel(10_000).call(name, &arguments)
}

const POINTERS: &str = "
    data %table align=8 { addr %add, addr %numbers+8 }
    data %numbers { i64 5, i64 7 }
    local function %add(i64) -> i64 system_v {
        fn0 = %other(i64) -> i64 system_v
    block0(v0: i64):
        v1 = call fn0(v0)
        return v1
    }
    function %f(i64) -> i64 system_v {
        sig0 = (i64) -> i64 system_v
        gv0 = symbol %table
    block0(v0: i64):
        v1 = symbol_value.i64 gv0
        v2 = load.i64 v1
        v3 = load.i64 v1+8
        v4 = load.i64 v3
        v5 = load.i64 v3-8
        v6 = iadd v4, v5
        v7 = call_indirect sig0, v2(v6)
        v8 = iadd v7, v0
        return v8
    }";

#[test]
fn calls_and_pointers_cross_modules() {
    let other = "local function %add(i64) -> i64 system_v { block0(v0: i64):  v1 = imul v0, v0\n return v1 }
        function %other(i64) -> i64 system_v {
            fn0 = %add(i64) -> i64 system_v
        block0(v0: i64):
            v1 = call fn0(v0)
            return v1
        }";
    assert_eq!(run(&[POINTERS, other], "f", &[1]), Ok(vec![DataValue::I64(145)]));
    assert!(
        matches!(run(&[POINTERS], "f", &[1]), Err(InterpretError::Unsupported(text)) if text.contains("`other`"))
    );
}

#[test]
fn a_process_ends_in_an_error() {
    let text = "
        global %object = \"object\"
        data %fixed { i64 1 }
        function %endless() -> i64 system_v {
        block0:
            jump block1
        block1:
            jump block1
        }
        function %deep(i64) -> i64 system_v {
            fn0 = %deep(i64) -> i64 system_v
        block0(v0: i64):
            v1 = call fn0(v0)
            return v1
        }
        function %beyond(i64) -> i64 system_v {
            gv0 = symbol %object
        block0(v0: i64):
            v1 = symbol_value.i64 gv0
            v2 = iadd v1, v0
            v3 = load.i64 v2
            return v3
        }
        function %write(i64) -> i64 system_v {
            gv0 = symbol %fixed
        block0(v0: i64):
            v1 = symbol_value.i64 gv0
            store v0, v1
            return v0
        }";
    assert_eq!(run(&[text], "endless", &[]), Err(InterpretError::Fuel));
    assert_eq!(run(&[text], "deep", &[1]), Err(InterpretError::Fuel));
    assert_eq!(run(&[text], "none", &[]), Err(InterpretError::NoFunction));
    assert_eq!(run(&[text], "beyond", &[8]), Ok(vec![DataValue::I64(0)]));
    for offset in [9, 16, -1, 1 << 40, i64::MIN] {
        assert!(matches!(run(&[text], "beyond", &[offset]), Err(InterpretError::Trapped(_))), "{offset}");
    }
    assert!(matches!(run(&[text], "write", &[1]), Err(InterpretError::Trapped(_))));
}
